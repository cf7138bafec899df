"""One access log record as one line, JSON or text. Whatever a name holds, the line stays one line of printable ASCII.

Fields, in both formats and in this order: docs/access-log.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from errno import errorcode
from json.encoder import encode_basestring_ascii
from typing import Final, Literal

from lbproxy.accesslog.record import Record

Format = Literal["json", "text"]

TEXT_LIMIT: Final = 256
"""Characters of one field; what is longer is cut and ends in `...`."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.:/@\[\]%+-]+").fullmatch


def formatter(kind: Format) -> Callable[[Record], bytes]:
    """Makes the lines of one log. It remembers the second it wrote last, so one thread uses it."""
    stamp = _Stamp()
    if kind == "json":
        return lambda record: _json(stamp(record.ended_at), record).encode("ascii")
    return lambda record: _text(stamp(record.ended_at), record).encode("ascii")


class _Stamp:
    """ISO 8601 in UTC with milliseconds; the date is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, at: float) -> str:
        second, milliseconds = divmod(round(at * 1000), 1000)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{milliseconds:03d}Z"


def _json(stamp: str, record: Record) -> str:
    return (
        f'{{"ts": "{stamp}", "event": "end", "session": {record.session}, '
        f'"listener": {quoted(record.listener)}, '
        f'"client": {quoted(record.client)}, "client_port": {record.client_port}, '
        f'"upstream": {_or_null(record.upstream)}, "endpoint": {_or_null(record.endpoint)}, '
        f'"attempts": {record.attempts}, '
        f'"sent_bytes": {record.sent_bytes}, "received_bytes": {record.received_bytes}, '
        f'"connect_ms": {_ms(record.connect_s, "null")}, '
        f'"first_byte_ms": {_ms(record.first_byte_s, "null")}, '
        f'"duration_ms": {record.duration_s * 1000:.3f}, '
        f'"reason": {quoted(record.reason)}, "phase": {quoted(record.phase)}, '
        f'"errno": {quoted(_errno(record.errno)) if record.errno else "null"}}}\n'
    )


def _text(stamp: str, record: Record) -> str:
    return (
        f"ts={stamp} event=end session={record.session} listener={_word(record.listener)} "
        f"client={_word(record.client)} client_port={record.client_port} "
        f"upstream={_word(record.upstream)} endpoint={_word(record.endpoint)} attempts={record.attempts} "
        f"sent_bytes={record.sent_bytes} received_bytes={record.received_bytes} "
        f"connect_ms={_ms(record.connect_s, '-')} first_byte_ms={_ms(record.first_byte_s, '-')} "
        f"duration_ms={record.duration_s * 1000:.3f} "
        f"reason={_word(record.reason)} phase={_word(record.phase)} "
        f"errno={_errno(record.errno) if record.errno else '-'}\n"
    )


def quoted(text: str) -> str:
    """A JSON string of printable ASCII: every control, every character beyond ASCII and every lone surrogate is escaped."""
    if len(text) > TEXT_LIMIT:
        text = f"{text[: TEXT_LIMIT - 3]}..."
    # The one control character that JSON leaves as it is.
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")


def _word(text: str) -> str:
    if not text:
        return "-"
    if len(text) <= TEXT_LIMIT and text != "-" and _PLAIN(text):
        return text
    return quoted(text)


def _or_null(text: str) -> str:
    return quoted(text) if text else "null"


def _ms(seconds: float | None, absent: str) -> str:
    return absent if seconds is None else f"{seconds * 1000:.3f}"


def _errno(number: int) -> str:
    return errorcode.get(number, str(number))
