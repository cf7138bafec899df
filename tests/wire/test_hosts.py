"""The hosts file's grammar."""

from __future__ import annotations

import pytest

from lbproxy.wire.hosts import parse_hosts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("# all remark\n\n", {}),
        ("10.0.0.1", {}),
        ("10.0.0.1 a", {"a": ("10.0.0.1",)}),
        ("  10.0.0.1\tA  b.\n", {"a": ("10.0.0.1",), "b": ("10.0.0.1",)}),
        ("10.0.0.1 a#b c", {"a": ("10.0.0.1",)}),
        ("10.0.0.2 a\n10.0.0.1 a\n10.0.0.2 a", {"a": ("10.0.0.2", "10.0.0.1")}),
        ("::FFFF:10.0.0.1 a\n2001:DB8::1 a", {"a": ("10.0.0.1", "2001:db8::1")}),
        ("10.0.0.256 a\n10.0.0 b\nname c\n10.0.0.1 d", {"d": ("10.0.0.1",)}),
        ("\0\x7f �\r\n10.0.0.1 a\r\n", {"a": ("10.0.0.1",)}),
    ],
)
def test_hosts_file_grammar(text: str, expected: dict[str, tuple[str, ...]]) -> None:
    assert parse_hosts(text) == expected
