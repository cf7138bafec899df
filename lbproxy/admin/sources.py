"""How a source of endpoints fares, in words: the same ones on the status page and in `lbproxy status`."""

from __future__ import annotations

from typing import Literal

from lbproxy.admin.shapes import SourceStatus

State = Literal["current", "stale", "held", "unverified", "waiting"]


def state(source: SourceStatus) -> State:
    """One word for it: the first of these that holds. `waiting`: nobody has said anything; `unverified`: only the disk, or the
    source's predecessor, has; `stale`: the last try failed, and what was known before stands; `held`: the last answer leaves out
    what is in force."""
    if source["unverified"]:
        return "unverified"
    if source["age_s"] is None:
        return "waiting"
    if source["error"]:
        return "stale"
    return "held" if source["held"] else "current"


def says(source: SourceStatus) -> list[str]:
    """A line on how it fares, and one each for what an operator should know. They hold what others wrote: never markup."""
    if source["kind"] == "static" and not source["error"]:
        return ["endpoints of the configuration"]
    answered = "no answer yet" if source["age_s"] is None else f"last answer {age(source['age_s'])} ago"
    lines = [f"{source['state']}: {answered}, {_errors(source['results'].get('error', 0))}"]
    if source["error"]:
        lines.append(f"now: {source['error']}{retry(source['retry_in_s'])}")
    if source["age_s"] is not None and source["endpoints"] == 0:
        lines.append(f"names no endpoint{_asked(source['asks_for'])}")
    if source["held"]:
        lines.append(f"{source['held']} endpoints held {source['held_why']}")
    if source["unverified"]:
        lines.append(_unverified(source["snapshot_age_s"]))
    refused = {reason: count for reason, count in source["refused"].items() if count}
    if refused:
        lines.append(
            "refused: " + ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items()))
        )
    return lines


def _errors(number: int) -> str:
    return f"{number} error{'' if number == 1 else 's'}"


def retry(retry_in_s: float | None) -> str:
    """When it is asked again, to stand behind an error; "" where that is not known, or it is being asked."""
    return "" if retry_in_s is None else f"; next try in {age(retry_in_s)}"


def _asked(asks_for: str) -> str:
    return f": {asks_for} is empty, or misspelt in the configuration" if asks_for else ""


def _unverified(snapshot_age_s: float | None) -> str:
    if snapshot_age_s is None:
        return "endpoints of the source that it takes the place of"
    return f"endpoints as they were {age(snapshot_age_s)} ago, from the disk"


def age(seconds: float) -> str:
    """A time span with its largest two units."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 48 else f"{hours // 24}d{hours % 24:02d}h"
