"""From a file's bytes to candidates: every shape that is read, and the place of everything that is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.file.document import LIMIT_BYTES, parse
from lbproxy.domain.errors import RegistryError

GOOD = {
    "texts": (b"- 10.0.0.1:80\n- '[2001:db8::1]:81'\n- db.test:82\n", [
        Candidate("10.0.0.1", 80), Candidate("2001:db8::1", 81), Candidate("db.test", 82)]),
    "under a key": (b"endpoints:\n  - 10.0.0.1:80\n", [Candidate("10.0.0.1", 80)]),
    "with everything": (
        b"- {address: '10.0.0.1:80', weight: 3, zone: eu-1a, priority: 1, max_connections: 9, metadata: {v: 2}}\n",
        [Candidate("10.0.0.1", 80, 3, 1, "eu-1a", 9, {"v": "2"})]),
    "a null is the default": (b"- {address: '10.0.0.1:80', zone: , max_connections: null}\n",
                              [Candidate("10.0.0.1", 80)]),
    "none": (b"[]\n", []),
    "none under a key": (b"endpoints: []\n", []),
    "JSON": (b'{"endpoints": [{"address": "10.0.0.1:80", "weight": 2}, "10.0.0.2:80"]}',
             [Candidate("10.0.0.1", 80, 2), Candidate("10.0.0.2", 80)]),
    "file_sd": (b'[{"targets": ["10.0.0.1:80", "10.0.0.2:80"], "labels": {"job": "web"}}]', [
        Candidate("10.0.0.1", 80, metadata={"job": "web"}), Candidate("10.0.0.2", 80, metadata={"job": "web"})]),
    "Windows": (b"\xef\xbb\xbf- 10.0.0.1:80\r\n- 10.0.0.2:80\r\n",
                [Candidate("10.0.0.1", 80), Candidate("10.0.0.2", 80)]),
}  # fmt: skip


@pytest.mark.parametrize(("data", "expected"), GOOD.values(), ids=GOOD)
def test_a_file_is_read(data: bytes, expected: list[Candidate]) -> None:
    assert list(parse(data, "f")) == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f:1:1: the file is empty; write [] for no endpoints"),
        (b" \n\n", "f:1:1: the file is empty; write [] for no endpoints"),
        (b"# nothing\n", "f:1:1: expected a list of endpoints, or a mapping with the key endpoints"),
        (b"endpoints:\n", "f:1:11: expected a list of endpoints"),
        (b"endpoints: 3\n", "f:1:12: expected a list of endpoints"),
        (b"servers: []\n", "f:1:1: unknown key 'servers'; known here: endpoints"),
        (b"10.0.0.1:80\n", "f:1:1: expected a list of endpoints"),
        (b"- 10.0.0.1:80\n- {address: '10.0.0.2:80', wieght: 3}\n", "f:2:28: unknown key 'wieght'"),
        (b"- 10.0.0.1:80\n- {weight: 3}\n", "f:2:3: an entry without an address"),
        (b"- [10.0.0.1:80]\n", "f:1:3: expected host:port or a mapping, got a list"),
        (b"- {address: [a]}\n", "f:1:13: address: expected one value"),
        (b"- {address: 'a:1', metadata: {v: {w: 1}}}\n", "f:1:34: metadata: expected text"),
        (b"- {address: 'a:1', metadata: 3}\n", "f:1:30: metadata: expected a mapping"),
        (b'[{"targets": "10.0.0.1:80"}]', "f:1:14: targets: expected a list"),
        (b'[{"targets": [], "lables": {}}]', "f:1:18: unknown key 'lables'; known here: targets, labels"),
        (b'["10.0.0.1:80", "10.0.', "f:1:23: "),
        (b"- 10.0.0.1:80\n- {address: '10.0.0.2:80', wei", "f:3:1: "),
        (b"- a:1\n- &x b:1\n", "f:2:3: anchors are not allowed (&x)"),
        (b"- a:1\n---\n- b:1\n", "f:2:1: a second document: only one is allowed"),
        (b"- \xff\n", "f:1:3: byte 0xff is not UTF-8 text"),
        (b"- a:1\n- \x00\n", "f:2:3: character U+0000 is not allowed"),
        (b"<html>502 Bad Gateway</html>", "f:1:1: expected a list of endpoints"),
        (b"#" * (LIMIT_BYTES + 1), "f:1:1: larger than 8 MiB"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(data: bytes, message: str) -> None:
    with pytest.raises(RegistryError) as caught:
        parse(data, "f")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "entry",
    ["10.0.0.1", "10.0.0.1:http", "{address: '10.0.0.1:80', weight: heavy}", "{address: 10}", "12", "null",
     "{address: '10.0.0.1:80', max_connections: -1}", "unix:/run/web.sock"],
)  # fmt: skip
def test_a_value_that_makes_no_sense_spoils_its_entry_alone(entry: str) -> None:
    good, bad = parse(f"- 10.0.0.9:80\n- {entry}\n".encode(), "f")
    assert good == Candidate("10.0.0.9", 80)
    assert -1 in {bad.port, bad.weight, bad.max_connections}


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes_are_a_list_or_an_error_with_a_place(data: bytes) -> None:
    try:
        found = parse(data, "f")
    except RegistryError as error:
        place = str(error).split(":")
        assert place[0] == "f"
        assert int(place[1]) >= 1
        assert int(place[2]) >= 1
        return
    assert all(isinstance(each, Candidate) for each in found)


ENDPOINTS = st.lists(
    st.fixed_dictionaries(
        {"address": st.from_regex(r"\A10\.0\.[0-9]\.[0-9]:[1-9][0-9]{0,3}\Z")},
        optional={
            "weight": st.integers(0, 65535),
            "priority": st.integers(0, 9),
            "zone": st.text("abc-", min_size=1),
        },
    )
)


@given(ENDPOINTS, st.integers(0, 3000))
def test_a_file_that_was_cut_off_is_never_a_part(endpoints: list[dict[str, object]], at: int) -> None:
    whole = json.dumps(endpoints).encode()
    found = parse(whole, "f")
    assert [f"{each.host}:{each.port}" for each in found] == [each["address"] for each in endpoints]
    if at < len(whole):
        with pytest.raises(RegistryError):
            parse(whole[:at], "f")


TEXT = st.text(st.characters(categories=("L", "N", "P", "Zs")), max_size=8)  # JSON may hold more than YAML
VALUES = st.none() | st.booleans() | st.integers(-5, 99999) | st.floats() | TEXT
ENTRY = st.dictionaries(
    st.sampled_from(["address", "port", "weight", "zone", "metadata", "targets", "labels", "wieght", ""]),
    VALUES | st.lists(VALUES | st.lists(VALUES, max_size=1), max_size=3) | st.dictionaries(TEXT, VALUES),
    max_size=4,
)
DOCUMENT = st.lists(ENTRY | VALUES | st.lists(VALUES, max_size=2), max_size=5) | VALUES


@given(DOCUMENT, st.sampled_from([None, 1]), st.sampled_from(["", "endpoints", "other"]))
def test_json_says_the_same_to_both_readers(document: object, indent: int | None, key: str) -> None:
    text = json.dumps({key: document} if key else document, indent=indent, ensure_ascii=False).encode(
        "utf-8", "replace"
    )
    assert outcome(text) == outcome(b" " + text)  # by the space, the quick reader is not asked


def outcome(data: bytes) -> object:
    try:
        return parse(data, "f")
    except RegistryError:
        return "an error"


@pytest.mark.parametrize(
    "text",
    [
        '["a:1", "b:2"] x', '["a:1" "b:2"]', '["a:1",]', '["a:1"', '{"endpoints": ["a:1"]', '{"endpoints": ["a:1"]}]',
        '{"endpoints": ["a:1"], "endpoints": []}', '[{"address": "a:1", "address": "b:1"}]', '[{"address": "a:1", "x": 1}]',
        '[{"targets": null}]', '[{"address": "a:1", "metadata": {"a": ["b"]}}]', "[[]]", '[{"weight": 1}]',
    ],
)  # fmt: skip
def test_json_that_is_not_well_is_told_with_its_place(text: str) -> None:
    assert outcome(text.encode()) == outcome(b" " + text.encode())


def test_json_knows_characters_of_two_escapes() -> None:
    (found,) = parse(rb'[{"address": "a.test:1", "metadata": {"mood": "\ud83d\ude00"}}]', "f")
    assert found.metadata == {"mood": "\U0001f600"}
