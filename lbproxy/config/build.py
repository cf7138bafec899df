"""From the validated shape to the options that the parts are made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from lbproxy.accesslog.options import AccessLogOptions
from lbproxy.admin.options import AdminOptions
from lbproxy.config import model
from lbproxy.config.options import Configuration, LogOptions, RuntimeOptions, UpstreamOptions
from lbproxy.config.sources.source import Source
from lbproxy.discovery.options import DiscoveryOptions, StaticEndpoint
from lbproxy.metrics.options import MetricsOptions
from lbproxy.pool.options import PoolOptions, StrategyOptions
from lbproxy.proxy.options import ConnectOptions, ListenerOptions, TcpOptions, Timeouts
from lbproxy.relay.options import RelayChoice


def build(file: model.File, environ: Mapping[str, str]) -> Configuration:
    """Every default filled in; `auto` resolved where the environment decides it."""
    return Configuration(
        runtime=_runtime(file.runtime, environ),
        admin=AdminOptions(file.admin.bind, file.admin.token, file.admin.metrics_bind),
        log=LogOptions(
            file.log.level,
            file.log.format,
            AccessLogOptions(
                file.log.access.enabled, tuple(file.log.access.events), file.log.access.skip_empty
            ),
        ),
        metrics=MetricsOptions(file.metrics.endpoints),
        registration=None if file.registration is None else file.registration.options(),
        listeners=MappingProxyType({name: _listener(name, each) for name, each in file.listeners.items()}),
        upstreams=MappingProxyType({name: _upstream(name, each) for name, each in file.upstreams.items()}),
    )


def _runtime(runtime: model.Runtime, environ: Mapping[str, str]) -> RuntimeOptions:
    state_dir = runtime.state_dir
    if state_dir == "auto":
        # systemd gives a list when the unit names several; the first one is ours.
        named = environ.get("STATE_DIRECTORY", "").partition(":")[0]
        state_dir = Path(named) if named else None
    assert state_dir is None or isinstance(state_dir, Path)
    return RuntimeOptions(
        event_loop=runtime.event_loop,
        relay=RelayChoice(runtime.relay, runtime.relay_threads),
        offload=runtime.offload,
        max_connections=runtime.max_connections,
        drain_delay_s=float(runtime.drain_delay),
        drain_timeout_s=float(runtime.drain_timeout),
        state_dir=state_dir,
        allow_literal_secrets=runtime.allow_literal_secrets,
    )


def _listener(name: str, listener: model.Listener) -> ListenerOptions:
    timeouts, tcp = listener.timeouts, listener.tcp
    return ListenerOptions(
        name=name,
        binds=tuple(dict.fromkeys(listener.bind)),
        upstream=listener.upstream,
        max_connections=listener.max_connections,
        backlog=listener.backlog,
        allow=tuple(listener.allow),
        deny=tuple(listener.deny),
        on_failure=listener.on_failure,
        timeouts=Timeouts(
            _seconds(timeouts.idle),
            _seconds(timeouts.half_close),
            _seconds(timeouts.max_duration),
            _seconds(timeouts.handshake),
        ),
        tcp=TcpOptions(
            _seconds(tcp.keepalive),
            _seconds(tcp.user_timeout),
            tcp.receive_buffer,
            tcp.send_buffer,
            tcp.notsent_lowat,
        ),
    )


def _seconds(value: float | None) -> float | None:
    return None if value is None else float(value)


def _upstream(name: str, upstream: model.Upstream) -> UpstreamOptions:
    strategy, connect = upstream.strategy, upstream.connect
    choices = None if strategy.choices == "all" else strategy.choices
    transparent = upstream.type == "original_dst"
    return UpstreamOptions(
        pool=PoolOptions(
            name, upstream.type, StrategyOptions(strategy.type, choices), _seconds(upstream.removal_deadline)
        ),
        connect=ConnectOptions(
            float(connect.timeout),
            1 if transparent else connect.attempts,
            float(connect.budget),
            connect.source,
            connect.mark,
        ),
        endpoints=tuple(_endpoint(each) for each in upstream.endpoints),
        discovery=_discovery(upstream.discovery or ()),
    )


def _discovery(sources: Iterable[Source]) -> tuple[DiscoveryOptions, ...]:
    """Each under its kind's name; the second of a kind is `KIND_2`."""
    seen: Counter[str] = Counter()
    found = []
    for source in sources:
        seen[source.type] += 1
        number = seen[source.type]
        found.append(source.options(source.type if number == 1 else f"{source.type}_{number}"))
    return tuple(found)


def _endpoint(endpoint: model.Endpoint) -> StaticEndpoint:
    return StaticEndpoint(
        endpoint.address,
        endpoint.weight,
        endpoint.zone,
        endpoint.priority,
        endpoint.max_connections,
        MappingProxyType(dict(endpoint.metadata)),
    )
