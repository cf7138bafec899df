"""What the client commands show to people: aligned columns, sizes and times in short, nothing that moves a cursor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lbproxy.admin.sources import age

Cell = str | int


def printable(text: str) -> str:
    """Without control characters: names may come from a registry, and this goes to a terminal."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text
    )


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> list[str]:
    """Aligned lines, numbers to the right."""
    cells = [list(head), *([printable(str(cell)) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [bool(rows) and all(isinstance(row[column], int) for row in rows) for column in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]


def size(number: int) -> str:
    """Bytes with a binary unit, three digits or so."""
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{number} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def round_trip(seconds: float | None) -> str:
    """A round-trip time in milliseconds, - where there is none."""
    return "-" if seconds is None else f"{seconds * 1000:.3g}ms"


def resent(segments: int | None) -> str:
    """Segments sent again, - where there is no TCP."""
    return "-" if segments is None else str(segments)


def listeners(items: Sequence[dict[str, Any]]) -> list[str]:
    """One line a listener."""
    return table(
        ("LISTENER", "ADDRESSES", "UPSTREAM", "STATE", "ACTIVE", "ACCEPTED", "REJECTED"),
        [
            (
                one["name"],
                " ".join(one["binds"]),
                one["upstream"],
                one["state"],
                one["active"],
                one["accepted"],
                sum(one["rejected"].values()),
            )
            for one in items
        ],
    )


def registrations(items: Sequence[dict[str, Any]]) -> list[str]:
    """One line a service."""
    return table(
        ("SERVICE", "ID", "STATE", "CHECK", "SAYS"),
        [
            (
                one["service"],
                one["name"],
                one["state"],
                one["status"] or "-",
                one["error"] or one["output"] or "-",
            )
            for one in items
        ],
    )


def upstream(one: dict[str, Any]) -> list[str]:
    """A heading, and one line an endpoint."""
    drained = ", drained" if one["drained"] else ""
    kind = one["strategy"] or one["kind"]
    return [
        printable(
            f"upstream {one['name']} ({kind}{drained}): {one['endpoints_eligible']} of {one['endpoints_total']} "
            f"eligible, {one['active']} active, {one['waiting']} waiting"
        ),
        *(printable(line) for each in one.get("sources", []) for line in source(each)),
        *table(
            ("ENDPOINT", "STATE", "WEIGHT", "ACTIVE", "TOTAL", "FAILURES", "SENT", "RECEIVED"),
            [endpoint(each) for each in one["endpoints"]],
        ),
        *(printable(line) for each in one["endpoints"] if each["ineligible"] for line in standing(each)),
    ]


def standing(one: dict[str, Any]) -> list[str]:
    """What the registry said of an endpoint that takes no sessions: metadata such as `consul-status`."""
    said = {key: text for key, text in one["metadata"].items() if key.endswith("-status")}
    return [f"  {one['address']}: {key}: {text}" for key, text in said.items()]


def source(one: dict[str, Any]) -> list[str]:
    """A line on how a source fares, and one each for what an operator should know. Nothing for endpoints of the configuration, unless
    one of their names does not resolve."""
    if one["kind"] == "static" and not one["error"]:
        return []
    first, *more = one["says"]
    return [f"  source {one['name']}: {first}", *(f"    {line}" for line in more)]


def endpoint(one: dict[str, Any]) -> tuple[Cell, ...]:
    """One endpoint's cells."""
    state = ",".join(one["ineligible"]) or ("full" if one["full"] else "eligible")
    override = one["weight_override"] is not None
    return (
        one["address"],
        state,
        f"{one['weight']}{' (set)' if override else ''}",
        one["active"],
        one["total"],
        sum(one["connect_failures"].values()),
        size(one["sent_bytes"]),
        size(one["received_bytes"]),
    )


def sessions(items: Sequence[dict[str, Any]]) -> list[str]:
    """One line a session. Round-trip times and segments sent again: the client's, then the upstream's."""
    return table(
        (
            "ID",
            "LISTENER",
            "CLIENT",
            "UPSTREAM",
            "ENDPOINT",
            "PHASE",
            "AGE",
            "IDLE",
            "SENT",
            "RECEIVED",
            "RTT",
            "RESENT",
        ),
        [
            (
                one["id"],
                one["listener"],
                _client(one["client"], one["client_port"]),
                one["upstream"],
                one["endpoint"] or "-",
                one["phase"],
                age(one["age_s"]),
                age(one["idle_s"]),
                size(one["sent_bytes"]),
                size(one["received_bytes"]),
                f"{round_trip(one['client_rtt_s'])} / {round_trip(one['upstream_rtt_s'])}",
                f"{resent(one['client_retransmits'])} / {resent(one['upstream_retransmits'])}",
            )
            for one in items
        ],
    )


def _client(host: str, port: int) -> str:
    if not port:
        return host or "-"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
