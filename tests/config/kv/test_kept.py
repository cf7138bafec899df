"""The configuration from Consul on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lbproxy.config.kv.documents import Documents, Key
from lbproxy.config.kv.kept import FILE, Kept, load, save, state_folder
from lbproxy.wire.state import StateError

ONE = Key.of("consul:edge")
ALL = Key.of("consul:more/")
DOCUMENTS = {
    "consul:edge": Documents(ONE, (("consul:edge", "listeners: {} # ä".encode()),), 7),
    "consul:more/": Documents(ALL, (("consul:more/a", b"1"), ("consul:more/b", b"2")), 9),
}


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "when needed"
    assert load(folder, [ONE]) is None
    save(folder, Kept(DOCUMENTS, 1234.5))
    found = load(folder, [ONE, ALL])
    assert found == Kept(DOCUMENTS, 1234.5)
    assert found is not None
    assert found.documents["consul:more/"].version == 9
    assert (folder / FILE).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir()] == [FILE]


def test_keys_that_were_never_read_are_not_made_up(tmp_path: Path) -> None:
    save(tmp_path, Kept(DOCUMENTS, 1.0))
    assert load(tmp_path, [ONE, Key.of("consul:other")]) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"version": 2}',
        '{"version": 1, "keys": [], "saved_at": 1}',
        '{"version": 1, "keys": {"consul:edge": {"parts": 5}}, "saved_at": 1}',
    ],
)
def test_a_file_that_is_of_no_use_says_so(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(StateError, match=FILE):
        load(tmp_path, [ONE])


def test_a_save_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    save(tmp_path, Kept(DOCUMENTS, 1.0))
    bad = {"consul:edge": Documents(ONE, (("consul:edge", b"\xff"),))}
    with pytest.raises(UnicodeDecodeError):
        save(tmp_path, Kept(bad, 2.0))
    assert json.loads((tmp_path / FILE).read_text())["saved_at"] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("local", "environ", "expected"),
    [
        ("", {}, None),
        ("", {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ("runtime: {state_dir: /srv}", {"STATE_DIRECTORY": "/var/lib/a"}, "/srv"),
        ("runtime: {state_dir: auto}", {"STATE_DIRECTORY": "/var/lib/a"}, "/var/lib/a"),
        ("runtime: {state_dir: null}", {"STATE_DIRECTORY": "/var/lib/a"}, None),
        ("runtime: {state_dir: '${HERE}'}", {"HERE": "/here"}, "/here"),
        ("runtime: 5", {}, None),
        ("{", {"STATE_DIRECTORY": "/var/lib/a"}, "/var/lib/a"),
    ],
)
def test_the_folder_is_known_before_consul_is_asked(
    tmp_path: Path, local: str, environ: dict[str, str], expected: str | None
) -> None:
    file = tmp_path / "local.yaml"
    file.write_text(local)
    found = state_folder([file, "consul:edge"], environ)
    assert found == (None if expected is None else Path(expected))
