"""What of a URL is shown."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.wire.urls import redacted, redacted_url, without_credentials


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://h:80/list", "http://h:80/list"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("http://h/list?token=S", "http://h/list?token=***"),
        ("http://h/?env=prod&token=S&flag&=S&", "http://h/?env=***&token=***&***&=***&"),
        ("http://h/?S", "http://h/?***"),
        ("http://h/#S", "http://h/#***"),
        ("http://h?token=S/x?y#S", "http://h?token=***#***"),
        ("http://u:S@h:80/list", "http://***@h:80/list"),
        ("http://S@h", "http://***@h"),
        ("http://u:S@S@h/", "http://***@h/"),
        ("http://u:S/S@h/", "http://***@h/"),
        ("http://u:S?S@h/", "http://***@h/"),
        ("u:S@h/list?token=S", "***@h/list?token=***"),
        ("h/list?token=S", "h/list?token=***"),
        ("https://h/?to=http://x/?S", "https://h/?to=***"),
        ("unix:/run/consul.sock", "unix:/run/consul.sock"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert redacted_url(url) == shown
    assert redacted_url(shown) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cannot connect", "cannot connect"),
        ("http://h/?t=S: answered 500", "http://h/?t=***: answered 500"),
        ("ask 'http://h/?t=S', or http://u:S@h.", "ask 'http://h/?t=***', or http://***@h."),
        ("http://h/?t=S\nhttp://h/?S", "http://h/?t=***\nhttp://h/?***"),
    ],
)
def test_within_a_text_nothing_else_is_touched(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'u:S@h:2181' is not host:port", "'***@h:2181' is not host:port"),
        ("got 'http//u:S@h'", "got 'http//***@h'"),
        ("f:3:4: 'a@b' and http://h/?t=S", "f:3:4: 'a@b' and http://h/?t=***"),
    ],
)
def test_credentials_are_found_before_any_host(text: str, shown: str) -> None:
    assert without_credentials(text) == shown


@pytest.mark.parametrize(
    "text", ["a" * 200_000, ":" * 200_000, "a:" * 100_000, "http://" * 30_000, "@" + "a:" * 100_000]
)
def test_nobodys_words_take_long(text: str) -> None:
    began = time.process_time()
    redacted(f"{text} http://h/?{text}")
    assert time.process_time() - began < 1.0  # a search that is quadratic takes minutes


@given(
    st.text(st.characters(codec="ascii", categories=("L", "N"))).map(lambda text: f"S{text}S"),
    st.sampled_from(["http://h/?a={}", "http://h/?{}", "http://u:{}@h/", "http://{}@h/p?q", "http://h/p#{}"]),
    st.sampled_from(["{}", "see {}", "{}: no", "'{}'", "<{}>", "({}),"]),
)
def test_no_secret_comes_through(secret: str, url: str, text: str) -> None:
    assert secret not in redacted(text.format(url.format(secret)))
