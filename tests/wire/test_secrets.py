"""Secrets: read again when their file changes, and never in what is printed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from lbproxy.wire.secrets import Secret, SecretError

HIDDEN = "correct horse battery staple"


def test_a_value_is_revealed_and_never_printed() -> None:
    secret = Secret(value=f"{HIDDEN}\n")  # as a variable that was filled from a file
    assert secret.reveal() == HIDDEN
    assert HIDDEN not in f"{secret!r} {secret!s} {[secret]}"


def test_a_file_is_revealed_without_white_space_around_it_and_never_printed(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(f"  {HIDDEN}\r\n\n")
    secret = Secret(path=path)
    assert secret.reveal() == HIDDEN
    assert HIDDEN not in f"{secret!r} {secret!s}"


def test_a_file_written_anew_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    secret = Secret(path=path)
    assert secret.reveal() == "first"
    path.write_text("a longer second")
    assert secret.reveal() == "a longer second"


def test_a_file_replaced_by_another_of_its_size_and_time_is_read_again(tmp_path: Path) -> None:
    path, other = tmp_path / "token", tmp_path / "new"
    path.write_text("aaaa")
    secret = Secret(path=path)
    assert secret.reveal() == "aaaa"
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    other.write_text("bbbb")
    os.utime(other, ns=times)
    other.replace(path)
    assert secret.reveal() == "bbbb"


def test_a_link_that_is_turned_is_followed(tmp_path: Path) -> None:
    """As mounted secrets change: a link to the folder of the current version."""
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "token").write_text(f"version {version}")
    current = tmp_path / "current"
    current.symlink_to("1")
    secret = Secret(path=current / "token")
    assert secret.reveal() == "version 1"
    (tmp_path / "turned").symlink_to("2")
    (tmp_path / "turned").replace(current)
    assert secret.reveal() == "version 2"


def test_a_file_that_is_unchanged_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text(HIDDEN)
    secret = Secret(path=path)
    assert secret.reveal() == HIDDEN

    def refuse(*_args: object, **_named: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert secret.reveal() == HIDDEN


@pytest.mark.parametrize("content", [b"", b" \n\t", b"\xff\xfe secret"])
def test_a_file_without_a_secret_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    secret = Secret(path=path)
    for _ in range(2):  # the second time, too: nothing may be remembered of a failure
        with pytest.raises(SecretError, match=str(path)) as caught:
            secret.reveal()
        assert "secret'" not in str(caught.value)


def test_a_file_that_vanished_is_an_error_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first")
    secret = Secret(path=path)
    secret.reveal()
    path.unlink()
    with pytest.raises(SecretError, match=str(path)):
        secret.reveal()
    path.write_text("again!")
    assert secret.reveal() == "again!"


def test_secrets_are_equal_by_origin_whatever_was_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(HIDDEN)
    one, two = Secret(path=path), Secret(path=path)
    one.reveal()
    assert one == two
    assert one != dataclasses.replace(one, path=tmp_path / "other")
    assert Secret(value="a") != Secret(value="b")
