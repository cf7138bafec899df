"""The commands that ask or tell a running instance something."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from lbproxy.cli import registering, tables
from lbproxy.cli.client import (
    OBEY_TIMEOUT_S,
    RELOAD_TIMEOUT_S,
    AdminClient,
    ClientError,
    UsageError,
    obey_path,
    upstream_path,
)

FINE: Final = 0
FAILED: Final = 1
USAGE: Final = 2


def run(name: str, args: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Carry out the command and return its exit code; errors are lines on stderr."""
    try:
        client = AdminClient.chosen(args.admin, args.token_file, environ)
        return _COMMANDS[name](client, args)
    except UsageError as error:
        _complain([str(error)])
        return USAGE
    except ClientError as error:
        _complain(error.lines)
        return FAILED
    except (KeyError, TypeError) as error:
        _complain(
            [f"{client.address} answered in another shape ({error!r}): no lbproxy, or another version?"]
        )
        return FAILED


def _complain(lines: Iterable[str]) -> None:
    for number, line in enumerate(lines):
        print(tables.printable(line if number else f"lbproxy: {line}"), file=sys.stderr)


def _show(args: argparse.Namespace, data: object, lines: Iterable[str]) -> int:
    if args.json:
        print(json.dumps(data, indent=2))
    else:
        for line in lines:
            print(line)
    return FINE


def _status(client: AdminClient, args: argparse.Namespace) -> int:
    if args.health:
        client.get("/healthz")
        return FINE
    ready = client.get("/readyz", also=frozenset({503}))
    listeners = _all(client, "/api/v1/listeners")
    if args.upstream is None:
        names = [one["name"] for one in _all(client, "/api/v1/upstreams")]
    else:
        names = [args.upstream]
        listeners = [one for one in listeners if one["upstream"] == args.upstream]
    upstreams = [_upstream(client, name) for name in names]
    registrations = [] if args.upstream is not None else _all(client, "/api/v1/registrations")
    return _show(
        args,
        {**ready, "listeners": listeners, "registrations": registrations, "upstreams": upstreams},
        _status_lines(ready, listeners, registrations, upstreams),
    )


def _status_lines(
    ready: dict[str, Any],
    listeners: list[dict[str, Any]],
    registrations: list[dict[str, Any]],
    upstreams: list[dict[str, Any]],
) -> Iterable[str]:
    yield "ready" if ready["ready"] else "not ready"
    for reason in ready["reasons"]:
        yield tables.printable(f"  {reason}")
    for warning in ready["warnings"]:
        yield tables.printable(f"  warning: {warning}")
    yield ""
    yield from tables.listeners(listeners)
    if registrations:
        yield ""
        yield from tables.registrations(registrations)
    for upstream in upstreams:
        yield ""
        yield from tables.upstream(upstream)


def _all(client: AdminClient, path: str) -> list[dict[str, Any]]:
    return [item for page in client.pages(path) for item in page["items"]]


def _upstream(client: AdminClient, name: str) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for page in client.pages(upstream_path(name), key="endpoints"):
        endpoints = [*whole.get("endpoints", ()), *page["endpoints"]]
        whole = {**page, "endpoints": endpoints}
    whole.pop("next", None)
    return whole


def _drain(client: AdminClient, args: argparse.Namespace) -> int:
    if args.process:
        if args.upstream is not None or args.deadline is not None:
            raise UsageError(
                "--process drains everything, within runtime.drain_timeout: it takes no other argument"
            )
        done = client.post("/api/v1/drain")
        return _show(args, done, ["draining; the process ends when its sessions have ended"])
    if args.upstream is None:
        raise UsageError("drain what? UPSTREAM, UPSTREAM ENDPOINT, or --process for everything")
    body = {"deadline_s": args.deadline}
    done = client.post(f"{upstream_path(args.upstream, args.endpoint)}/drain", body)
    return _show(args, done, [_what(args, done, "drained")])


def _undrain(client: AdminClient, args: argparse.Namespace) -> int:
    done = client.post(f"{upstream_path(args.upstream, args.endpoint)}/undrain")
    return _show(args, done, [_what(args, done, "takes sessions again")])


def _what(args: argparse.Namespace, done: dict[str, Any], change: str) -> str:
    what = f"{args.upstream} {done['address']}" if args.endpoint else str(args.upstream)
    if args.endpoint and change != "drained" and not done["eligible"]:
        change = f"is no longer drained, but {', '.join(done['ineligible'])}"
    return tables.printable(f"{what}: {change}; {done['active']} active")


def _weight(client: AdminClient, args: argparse.Namespace) -> int:
    done = client.post(f"{upstream_path(args.upstream, args.endpoint)}/weight", {"weight": args.weight})
    how = "as configured" if done["weight_override"] is None else "set"
    return _show(
        args, done, [tables.printable(f"{args.upstream} {done['address']}: weight {done['weight']} ({how})")]
    )


def _obey(client: AdminClient, args: argparse.Namespace) -> int:
    names = [args.source]
    if args.source is None:
        names = [each["name"] for each in _upstream(client, args.upstream)["sources"] if each["held"]]
        if not names:
            raise ClientError(f"upstream {args.upstream}: nothing is held")
    done = []
    code = FINE
    for name in names:
        try:
            done.append(client.post(obey_path(args.upstream, name), timeout_s=OBEY_TIMEOUT_S))
        except ClientError as error:
            if error.status != 409:
                raise
            _complain(error.lines)
            code = FAILED
    lines = [f"{one['upstream']} {one['source']}: {one['let_go']} endpoints are let go" for one in done]
    _show(args, {"items": done}, map(tables.printable, lines))
    return code


def _register(client: AdminClient, args: argparse.Namespace) -> int:
    if args.keep:
        return registering.keep(client, args, lambda text: print(text, file=sys.stderr, flush=True))
    lease = registering.register(client, args)
    line = f"{args.upstream} {lease['address']}: registered for {lease['lease_s']:g} s"
    return _show(args, lease, [tables.printable(line)])


def _deregister(client: AdminClient, args: argparse.Namespace) -> int:
    done = registering.deregister(client, args)
    return _show(args, done, [tables.printable(f"{args.upstream} {args.endpoint}: deregistered")])


def _reload(client: AdminClient, args: argparse.Namespace) -> int:
    done = client.post("/api/v1/reload", timeout_s=RELOAD_TIMEOUT_S)
    lines = [
        str(done["result"]),
        *(f"  {change}" for change in done["changes"]),
        *(f"  {key}: left as it was, needs a restart" for key in done["restart_needed"]),
    ]
    return _show(args, done, map(tables.printable, lines))


def _sessions(client: AdminClient, args: argparse.Namespace) -> int:
    query: dict[str, str | int] = {"limit": min(args.limit, 500)}
    if args.upstream is not None:
        query["upstream"] = args.upstream
    items: list[dict[str, Any]] = []
    more = False
    for page in client.pages("/api/v1/sessions", query):
        items += page["items"]
        more = len(items) > args.limit or page["next"] is not None
        if len(items) >= args.limit:
            break
    items = items[: args.limit]
    code = _show(args, {"items": items, "more": more}, tables.sessions(items))
    if more and not args.json:
        print(f"the first {len(items)} are shown (--limit)", file=sys.stderr)
    return code


def _kill(client: AdminClient, args: argparse.Namespace) -> int:
    killed = []
    code = FINE
    for session in args.ids:
        try:
            client.delete(f"/api/v1/sessions/{session}")
            killed.append(session)
        except ClientError as error:
            if error.status != 404:
                raise
            _complain(error.lines)
            code = FAILED
    _show(args, {"killed": killed}, (f"{session}: killed" for session in killed))
    return code


_COMMANDS: dict[str, Callable[[AdminClient, argparse.Namespace], int]] = {
    "status": _status,
    "drain": _drain,
    "undrain": _undrain,
    "weight": _weight,
    "register": _register,
    "deregister": _deregister,
    "obey": _obey,
    "reload": _reload,
    "sessions": _sessions,
    "kill": _kill,
}
