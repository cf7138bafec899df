"""From the configuration in force to another one, as a diff: what is the same is not touched."""

from __future__ import annotations

import _socket
import dataclasses
import logging
import socket

from lbproxy.app.binds import Inherited, Place, close_all, open_new, place
from lbproxy.app.following import Sources
from lbproxy.app.running import Running
from lbproxy.app.upstreams import Upstream, source_names
from lbproxy.config.load import Loaded
from lbproxy.config.options import Configuration, UpstreamOptions
from lbproxy.proxy.listener import Listener
from lbproxy.proxy.options import ListenerOptions
from lbproxy.proxy.routing import Route

logger = logging.getLogger("lbproxy.app")


def restart_needed(before: Configuration, after: Configuration) -> list[str]:
    """Keys that differ and cannot change in a running process."""
    keys = [
        f"runtime.{field.name.removesuffix('_s')}"
        for field in dataclasses.fields(before.runtime)
        if getattr(before.runtime, field.name) != getattr(after.runtime, field.name)
    ]
    keys += [
        f"admin.{key}"
        for key in ("bind", "metrics_bind")
        if getattr(before.admin, key) != getattr(after.admin, key)
    ]
    return keys


def with_what_stays(before: Loaded, after: Loaded) -> Loaded:
    """`after`, but for the keys that only a restart changes: what this holds is what is in force."""
    old, new = before.configuration, after.configuration
    admin = dataclasses.replace(new.admin, bind=old.admin.bind, metrics_bind=old.admin.metrics_bind)
    document = {**after.document, "runtime": before.document["runtime"]}
    document["admin"] = {
        **after.document["admin"],
        **{key: before.document["admin"][key] for key in ("bind", "metrics_bind")},
    }
    configuration = dataclasses.replace(new, runtime=old.runtime, admin=admin)
    return Loaded(configuration, after.warnings, document)


def differences(before: Configuration, after: Configuration) -> list[str]:
    """A line for each listener, upstream or section that differs."""
    lines = [
        f"{section}: changed"
        for section in ("log", "metrics", "registration")
        if getattr(before, section) != getattr(after, section)
    ]
    if before.admin.token != after.admin.token:
        lines.append("admin.token: changed")
    for kind, old, new in (
        ("listener", before.listeners, after.listeners),
        ("upstream", before.upstreams, after.upstreams),
    ):
        lines += [f"{kind} {name}: removed" for name in old if name not in new]
        for name, options in new.items():
            if name not in old:
                lines.append(f"{kind} {name}: added")
            elif options != old[name]:
                lines += [f"{kind} {name}: {line}" for line in _changed(old[name], options)]
    return lines


def _changed(old: ListenerOptions | UpstreamOptions, new: ListenerOptions | UpstreamOptions) -> list[str]:
    lines = []
    if (
        isinstance(old, UpstreamOptions)
        and isinstance(new, UpstreamOptions)
        and old.endpoints != new.endpoints
    ):
        before, after = {str(e.target) for e in old.endpoints}, {str(e.target) for e in new.endpoints}
        lines += [f"endpoint {target} removed" for target in sorted(before - after)]
        lines += [f"endpoint {target} added" for target in sorted(after - before)]
        if not lines:
            lines.append("endpoints changed")
    for field in dataclasses.fields(old):
        if field.name != "endpoints" and getattr(old, field.name) != getattr(new, field.name):
            lines.append(f"{'strategy' if field.name == 'pool' else field.name} changed")
    return lines


def to_recall(running: Running, configuration: Configuration) -> list[tuple[str, str]]:
    """(upstream, source) of all that would begin with its state on disk, if `apply` came now: nothing of it is in force here."""
    wanted = []
    for name, options in configuration.upstreams.items():
        known = running.upstreams.get(name)
        if known is not None and known.pool.options.kind != options.pool.kind:
            known = None
        wanted += [
            (name, source) for source in source_names(options) if known is None or not known.knows(source)
        ]
    return wanted


def apply(running: Running, loaded: Loaded, sources: Sources, inherited: Inherited) -> None:
    """Make `loaded` the configuration in force. All new addresses are bound before anything else changes.

    Raises BindError with nothing changed.
    """
    configuration = loaded.configuration
    bound = {
        place(listener.name, address): listener
        for listener in running.listeners.values()
        for address in listener.sockets
    }
    opened = open_new(configuration.listeners, bound, inherited)
    try:
        _apply(running, loaded, sources, bound, opened)
    finally:
        # What a defect has left over: nobody serves it.
        served = {id(each) for listener in running.listeners.values() for each in listener.sockets.values()}
        close_all({key: each for key, each in opened.items() if id(each) not in served})


def served_by_half(running: Running) -> list[str]:
    """A line for each `[::]` that was bound beside `0.0.0.0` and lost it: a bound socket cannot begin to take IPv4."""
    ipv4 = {
        address.port
        for listener in running.listeners.values()
        for address in listener.sockets
        if address.family == "inet" and address.is_wildcard
    }
    return [
        f"listener {listener.name}: {address} takes IPv6 alone until a restart"
        for listener in running.listeners.values()
        for address, listening in listener.sockets.items()
        if address.family == "inet6"
        and address.is_wildcard
        and address.port not in ipv4 | {0}
        and listening.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
    ]


def _apply(
    running: Running,
    loaded: Loaded,
    sources: Sources,
    bound: dict[Place, Listener],
    opened: dict[Place, _socket.socket],
) -> None:
    configuration = loaded.configuration
    running.loaded = with_what_stays(running.loaded, loaded)
    _apply_upstreams(running, configuration, sources)
    for name, options in configuration.listeners.items():
        listener = running.listeners.get(name)
        if listener is None:
            listener = Listener(running.loop, running.capacity, running.dialer, name)
            running.listeners[name] = listener
        _apply_listener(running, listener, options, bound, opened)
    for name, listener in running.listeners.items():
        wanted = configuration.listeners[name].binds if name in configuration.listeners else ()
        for address in [each for each in listener.sockets if each not in wanted]:
            listener.remove(address)
        if name not in configuration.listeners:
            listener.close()
    # Which addresses are our own, and so loops as endpoints, is known only now.
    for upstream in running.upstreams.values():
        upstream.judge_again()
    running.forget_departed()


def _apply_upstreams(running: Running, configuration: Configuration, sources: Sources) -> None:
    for name, options in configuration.upstreams.items():
        upstream = running.upstreams.get(name)
        if upstream is not None and upstream.pool.options.kind != options.pool.kind:
            upstream.remove()
            running.departed.append(upstream)
            for key in [key for key in running.routes if key[1] == name]:
                del running.routes[key]
            upstream = None
        if upstream is None:
            upstream = running.upstreams[name] = Upstream(options, sources)
        upstream.configure(options)
    for name, upstream in running.upstreams.items():
        if name not in configuration.upstreams:
            upstream.remove()


def _apply_listener(
    running: Running,
    listener: Listener,
    options: ListenerOptions,
    bound: dict[Place, Listener],
    opened: dict[Place, _socket.socket],
) -> None:
    upstream = running.upstreams[options.upstream]
    route = running.routes.get((listener.name, upstream.name))
    if route is None:
        route = running.routes[listener.name, upstream.name] = Route(listener.name, upstream.pool)
    route.configure(options.timeouts, options.tcp, upstream.options.connect)
    listener.configure(options, route)
    for address in options.binds:
        if address in listener.sockets:
            continue
        # An address that another listener had moves over with its socket and its accept queue.
        key = place(listener.name, address)
        listening = bound[key].hand_over(address) if key in bound else opened[key]
        listener.add(address, listening)
