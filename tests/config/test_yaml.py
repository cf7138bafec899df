"""The strict YAML reader: which scalars mean what, where things stand, and what is refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.yaml import MAX_BYTES, ListNode, MapNode, Mark, ScalarNode, parse, resolve


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"),
        ("yes", "yes"),
        ("off", "off"),
        ("22:22", "22:22"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("2001-01-01", "2001-01-01"),
        ("<<", "<<"),
        ("=", "="),
        ("1.2.3", "1.2.3"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("Null", None),
        ("", None),
        ("0", 0),
        ("-17", -17),
        ("+17", 17),
        ("0o17", 15),
        ("0xff", 255),
        ("1e3", 1000.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-.inf", -math.inf),
        ("9" * 41, "9" * 41),
    ],
)
def test_plain_scalars_follow_the_core_schema_of_1_2(text: str, value: object) -> None:
    found = resolve(text)
    assert found == value
    assert type(found) is type(value)


def test_quoted_scalars_are_text() -> None:
    root = parse("a: '1'\nb: \"true\"\n", "f").root
    assert isinstance(root, MapNode)
    values = [node.value for node in root.entries.values() if isinstance(node, ScalarNode)]
    assert values == ["1", "true"]


def test_every_key_and_value_knows_its_place() -> None:
    root = parse("# c\nä:\n  - x\n  - {key: 7}\n", "f").root
    assert isinstance(root, MapNode)
    assert root.keys == {"ä": Mark("f", 2, 1)}
    items = root.entries["ä"]
    assert isinstance(items, ListNode)
    assert [item.mark for item in items.items] == [Mark("f", 3, 5), Mark("f", 4, 5)]
    inner = items.items[1]
    assert isinstance(inner, MapNode)
    assert (inner.keys["key"], inner.entries["key"].mark) == (Mark("f", 4, 6), Mark("f", 4, 11))


@pytest.mark.parametrize(
    ("data", "mark", "what"),
    [
        (b"a: \xff", Mark("f", 1, 4), "byte 0xff is not UTF-8 text"),
        ("a: 1\n".encode("utf-16"), Mark("f", 1, 1), "byte 0xff is not UTF-8 text"),
        ("ab: \ud800", Mark("f", 1, 5), "character U+D800 is not allowed"),
        (b"x\ny\0", Mark("f", 2, 2), "character U+0000 is not allowed"),
        (b"#" * (MAX_BYTES + 1), Mark("f", 1, 1), "larger than 1 MiB"),
        ("é" * (MAX_BYTES // 2 + 1), Mark("f", 1, 1), "larger than 1 MiB"),
        ("a: 1\n--- \nb: 1", Mark("f", 2, 1), "a second document: only one is allowed"),
        ("[" * 33, Mark("f", 1, 33), "nested more than 32 levels deep"),
        ("[" * 500_000, Mark("f", 1, 33), "nested more than 32 levels deep"),
    ],
)
def test_no_tree_is_made_of(data: bytes | str, mark: Mark, what: str) -> None:
    parsed = parse(data, "f")
    assert parsed.root is None
    assert not parsed.complete
    assert [(problem.mark, problem.what) for problem in parsed.problems] == [(mark, what)]


def test_a_tree_of_the_greatest_depth_is_made() -> None:
    assert parse("[" * 32 + "]" * 32, "f").problems == ()


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    root = parse("\ufeffa: 1".encode(), "f").root
    assert isinstance(root, MapNode)
    assert root.keys == {"a": Mark("f", 1, 1)}


def test_what_is_refused_is_left_out_and_the_rest_is_kept() -> None:
    parsed = parse("{[a]: 1, {b: c}: 2, 3: 4, d: !x 5, e: &f 6, g: *f, d: 7, h: 8}", "f")
    assert isinstance(parsed.root, MapNode)
    assert list(parsed.root.entries) == ["d", "e", "g", "h"]
    assert [problem.mark.column for problem in parsed.problems] == [2, 10, 21, 30, 39, 48, 52]
    assert parsed.spoiled == {("d",), ("g",)}


def test_a_reference_inside_braces_is_explained() -> None:
    (problem,) = parse("a: {b: ${C}}", "f").problems
    assert "a ${...} inside braces or brackets needs quotes" in problem.what


@given(st.one_of(st.text(), st.binary(), st.text(alphabet="{}[]:,-&*!|>'\"%@# \n\ta1?")))
def test_any_text_gives_a_tree_or_a_problem(data: bytes | str) -> None:
    parsed = parse(data, "f")
    assert parsed.root is not None or parsed.problems
    assert all(problem.mark.line >= 1 and problem.mark.column >= 1 for problem in parsed.problems)
