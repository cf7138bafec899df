"""Event logging: the standard library's, on one stream, a line a record, JSON or text, control characters escaped, and of URLs
without what is not to be shown, whoever logs them."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final, Literal, TextIO

from lbproxy.app.stream import handler_for
from lbproxy.wire.urls import redacted

LineFormat = Literal["auto", "json", "text"]

_LIMIT: Final = 8192  # characters of one message; a traceback may need as much

# Everything that moves a cursor, ends a line or starts an escape sequence: C0, DEL, C1, the Unicode line ends, lone surrogates.
_ESCAPES: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0xD800, 0xE000))
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}


def one_line(text: str) -> str:
    """The text without a character that could break out of its line, cut at a fixed length."""
    if len(text) > _LIMIT:
        text = f"{text[: _LIMIT - 3]}..."
    return text if text.isprintable() else text.translate(_ESCAPES)


def _stamp(created: float) -> str:
    second, milliseconds = divmod(round(created * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}.{milliseconds:03d}Z"


class TextLine(logging.Formatter):
    """`2026-01-02T03:04:05.678Z INFO lbproxy.app: message`; a traceback follows on the same line, its line ends escaped."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_stamp(record.created)} {record.levelname} {record.name}: {record.getMessage()}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return one_line(redacted(line))


class JsonLine(logging.Formatter):
    """One object a line: `ts`, `level`, `logger`, `message` and, with an exception, `exception`."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": _stamp(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage())[:_LIMIT],
        }
        if record.exc_info:
            fields["exception"] = redacted(self.formatException(record.exc_info))[-_LIMIT:]
        return json.dumps(fields).replace("\x7f", "\\u007f")


def chosen(line_format: LineFormat, stream: TextIO) -> Literal["json", "text"]:
    """The format in force: `auto` is JSON unless the stream is a terminal."""
    if line_format == "auto":
        return "text" if stream.isatty() else "json"
    return line_format


def configure(level: str, line_format: LineFormat, stream: TextIO | None = None) -> None:
    """Send everything from `level` up to `stream` (stderr) through the root logger. Replaces what an earlier call set."""
    stream = sys.stderr if stream is None else stream
    handler = handler_for(stream)
    handler.setFormatter(JsonLine() if chosen(line_format, stream) == "json" else TextLine())
    root = logging.getLogger()
    for other in [each for each in root.handlers if each is not handler]:
        root.removeHandler(other)
        other.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    # A log line that cannot be written (a full disk, a closed pipe) must not print a traceback to the same place.
    logging.raiseExceptions = False
    # What is never shown need not be looked up for each record.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
