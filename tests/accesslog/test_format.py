"""A record is one line, whatever stands in it."""

from __future__ import annotations

import json
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.accesslog.format import TEXT_LIMIT, Format, formatter
from lbproxy.accesslog.record import Record

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "access-log.md"

WEB = Record(
    ended_at=1767323045.6784,
    session=17,
    listener="web",
    client="2001:db8::1",
    client_port=51000,
    upstream="web",
    endpoint="10.0.0.11:80",
    attempts=2,
    sent_bytes=100,
    received_bytes=20000,
    connect_s=0.0012345,
    first_byte_s=0.25,
    duration_s=3.5,
    reason="upstream_reset",
    phase="relay",
    errno=104,
)
BARE = WEB._replace(upstream="", endpoint="", connect_s=None, first_byte_s=None, errno=0)


def line(kind: Format, record: Record) -> str:
    made = formatter(kind)(record)
    assert made.endswith(b"\n")
    return made[:-1].decode("ascii")


def test_json_holds_every_field_under_its_name() -> None:
    assert json.loads(line("json", WEB)) == {
        "ts": "2026-01-02T03:04:05.678Z",
        "event": "end",
        "session": 17,
        "listener": "web",
        "client": "2001:db8::1",
        "client_port": 51000,
        "upstream": "web",
        "endpoint": "10.0.0.11:80",
        "attempts": 2,
        "sent_bytes": 100,
        "received_bytes": 20000,
        "connect_ms": 1.234,
        "first_byte_ms": 250,
        "duration_ms": 3500,
        "reason": "upstream_reset",
        "phase": "relay",
        "errno": "ECONNRESET",
    }


def test_text_holds_the_same_fields_in_the_same_order() -> None:
    assert line("text", WEB) == (
        "ts=2026-01-02T03:04:05.678Z event=end session=17 listener=web client=2001:db8::1 client_port=51000 "
        "upstream=web endpoint=10.0.0.11:80 attempts=2 sent_bytes=100 received_bytes=20000 connect_ms=1.234 "
        "first_byte_ms=250.000 duration_ms=3500.000 reason=upstream_reset phase=relay errno=ECONNRESET"
    )
    keys = [word.partition("=")[0] for word in line("text", WEB).split()]
    assert keys == list(json.loads(line("json", WEB)))


def test_the_document_names_every_field() -> None:
    described = re.findall(r"^\| `([a-z_]+)` \|", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert described == list(json.loads(line("json", WEB)))


def test_what_is_not_known_is_null_or_a_dash() -> None:
    found = json.loads(line("json", BARE))
    absent = ("upstream", "endpoint", "connect_ms", "first_byte_ms", "errno")
    assert [found[key] for key in absent] == [None] * 5
    for key in absent:
        assert f" {key}=-" in line("text", BARE)


@pytest.mark.parametrize(
    ("at", "stamp"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9994, "1970-01-01T00:00:01.999Z"),
        (1.9996, "1970-01-01T00:00:02.000Z"),
        (4102444800.5, "2100-01-01T00:00:00.500Z"),
    ],
)
def test_the_time_is_rounded_to_milliseconds(at: float, stamp: str) -> None:
    assert json.loads(line("json", WEB._replace(ended_at=at)))["ts"] == stamp


def test_one_formatter_moves_on_with_the_seconds() -> None:
    make = formatter("json")
    stamps = [json.loads(make(WEB._replace(ended_at=at)))["ts"][-9:] for at in (1.5, 1.6, 2.0, 1.0)]
    assert stamps == ["00:01.500Z"[1:], "0:01.600Z", "0:02.000Z", "0:01.000Z"]


@pytest.mark.parametrize(
    "name",
    [
        "a\r\nb",
        "\x1b[2J",
        "\x7f",
        "\x85",
        "\x9b31m",
        "\u2028",
        "\u2029",
        "\u202e",
        'q"q',
        "back\\slash",
        "a b",
        "a=b",
        "-",
    ],
)
def test_a_hostile_name_is_escaped_and_comes_back(name: str) -> None:
    """N3."""
    for_json, for_text = (line(kind, WEB._replace(listener=name)) for kind in ("json", "text"))
    assert json.loads(for_json)["listener"] == name
    value = re.search(r'listener=("(?:[^"\\]|\\.)*") client=', for_text)
    assert value is not None
    assert json.loads(value[1]) == name


def test_a_long_name_is_cut() -> None:
    found = json.loads(line("json", WEB._replace(endpoint="x" * 10_000)))["endpoint"]
    assert len(found) == TEXT_LIMIT
    assert found.endswith("x...")
    assert len(line("text", WEB._replace(endpoint="x" * 10_000))) < 700


# Everything a string can hold, lone surrogates too: paths and names are decoded from bytes elsewhere.
TEXTS = st.text(alphabet=st.characters(codec=None, exclude_categories=()), max_size=300)
COUNTS = st.integers(0, 2**63)
SECONDS = st.floats(0, 1e9, allow_nan=False)
RECORDS = st.builds(
    Record,
    ended_at=st.floats(0, 4e9),
    session=COUNTS,
    listener=TEXTS,
    client=TEXTS,
    client_port=st.integers(0, 65535),
    upstream=TEXTS,
    endpoint=TEXTS,
    attempts=COUNTS,
    sent_bytes=COUNTS,
    received_bytes=COUNTS,
    connect_s=st.none() | SECONDS,
    first_byte_s=st.none() | SECONDS,
    duration_s=SECONDS,
    reason=TEXTS,
    phase=TEXTS,
    errno=st.integers(0, 200),
)


def cut(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else f"{text[: TEXT_LIMIT - 3]}..."


@given(RECORDS)
def test_any_record_is_one_printable_line_that_parses_back(record: Record) -> None:
    for kind in ("json", "text"):
        text = line(kind, record)
        assert text.splitlines() == [text]
        assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    found: dict[str, Any] = json.loads(line("json", record))
    assert found["session"] == record.session
    assert found["listener"] == cut(record.listener)
    assert found["upstream"] == (cut(record.upstream) or None)
    assert found["connect_ms"] == (
        None if record.connect_s is None else pytest.approx(record.connect_s * 1000, abs=1e-3)
    )
    words = re.findall(r'(?:^| )([a-z_]+)=("(?:[^"\\]|\\.)*"|[^ "]+)', line("text", record))
    assert [key for key, _ in words] == list(found)


def test_text_can_be_split_by_a_shell() -> None:
    words = shlex.split(line("text", WEB._replace(listener="two words")))
    assert "listener=two words" in words
