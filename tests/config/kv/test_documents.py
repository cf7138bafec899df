"""What stands behind a `consul:KEY`, from what Consul's KV store says."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.kv.documents import Documents, Key, documents, keys
from lbproxy.domain.errors import RegistryError

ONE = Key.of("consul:lbproxy/edge")
ALL = Key.of("consul:lbproxy/edge/")


def entry(name: str, text: str | None = "x", version: int = 7) -> dict[str, Any]:
    packed = None if text is None else base64.b64encode(text.encode()).decode()
    return {"Key": name, "Value": packed, "ModifyIndex": version, "Flags": 0, "LockIndex": 0}


@pytest.mark.parametrize(
    ("key", "entries", "expected"),
    [
        (ONE, [entry("lbproxy/edge", "a")], [("consul:lbproxy/edge", b"a")]),
        (ONE, [entry("lbproxy/edge", None)], [("consul:lbproxy/edge", b"")]),
        (
            ALL,
            [entry("lbproxy/edge/b", "2"), entry("lbproxy/edge/a", "1")],
            [("consul:lbproxy/edge/a", b"1"), ("consul:lbproxy/edge/b", b"2")],
        ),
        (
            ALL,
            [
                entry("lbproxy/edge/", None),  # a folder of the web interface
                entry("lbproxy/edge/.hidden"),
                entry("lbproxy/edge/deeper/a"),
                entry("lbproxy/edge/a.status/host:9900"),  # a report
                entry("lbproxy/edge/web.yaml", "1"),
            ],
            [("consul:lbproxy/edge/web.yaml", b"1")],
        ),
        (ALL, [entry("lbproxy/edge/", None)], None),
        (ALL, [entry("lbproxy/edge/deeper/a")], None),
        (ALL, [], None),
        (ONE, [], None),
    ],
)
def test_the_texts_are_the_key_or_the_keys_right_below_the_prefix(
    key: Key, entries: list[Any], expected: list[tuple[str, bytes]] | None
) -> None:
    found = documents(key, entries)
    assert (None if found is None else list(found.parts)) == expected


def test_the_version_is_the_newest_and_no_part_of_equality() -> None:
    one = documents(ALL, [entry("lbproxy/edge/a", version=3), entry("lbproxy/edge/b", version=9)])
    other = documents(ALL, [entry("lbproxy/edge/a", version=30), entry("lbproxy/edge/b", version=9)])
    assert one is not None
    assert other is not None
    assert (one.version, other.version) == (9, 30)
    assert one == other


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        "x",
        [None],
        [{}],
        [{"Key": "lbproxy/edge", "Value": 1, "ModifyIndex": 1}],
        [{"Key": "lbproxy/edge", "Value": "!", "ModifyIndex": 1}],
        [{"Key": "lbproxy/edge", "Value": "eA==", "ModifyIndex": "1"}],
        [{"Key": 1, "Value": "eA==", "ModifyIndex": 1}],
        [entry("lbproxy/other")],
    ],
)
def test_what_is_no_answer_is_an_error_and_never_an_absence(answer: object) -> None:
    with pytest.raises(RegistryError):
        documents(ONE, answer)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["Key", "Value", "ModifyIndex", "x"]), inner)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_garbage_raises_nothing_else(answer: Any) -> None:
    for key in (ONE, ALL):
        try:
            found = documents(key, answer)
        except RegistryError:
            continue
        assert found is None or isinstance(found, Documents)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ("consul:", "names no key"),
        ("consul:/", "names no key"),
        ("consul:///", "names no key"),
        ("consul:/a", "does not begin with '/'"),
        ("consul:a?b", "names no key"),
        ("consul:a\nb", "names no key"),
    ],
)
def test_what_is_no_key_is_refused(given: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        list(keys(["x.yaml", given]))
    assert str(caught.value).startswith(given)


def test_keys_are_taken_out_of_the_arguments_each_once() -> None:
    found = list(keys(["a.yaml", "consul:a", "consul:b/", "consul:a"]))
    assert [key.source for key in found] == ["consul:a", "consul:b/"]
    assert [key.is_prefix for key in found] == [False, True]


@given(st.text("ab/.", min_size=1, max_size=12), st.text("ab/.:", min_size=1, max_size=8))
def test_a_report_is_never_taken_for_a_part_of_any_configuration(prefix: str, instance: str) -> None:
    if not prefix.strip("/") or prefix.startswith("/"):
        return
    key = Key.of(f"consul:{prefix}")
    report = key.status(instance)
    assert report != key.text
    # Nor of any prefix that holds the key.
    parts = report.split("/")
    for depth in range(1, len(parts)):
        above = Key("/".join(parts[:depth]) + "/")
        found = documents(above, [entry(report)])
        assert found is None or ".status/" in above.text
