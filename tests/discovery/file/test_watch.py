"""Which names are watched for a path, and what is told of their changes."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest

from lbproxy.discovery.file.watch import MAX_LINKS, FolderWatch, trail

TOLD_WITHIN_MS = 2000


@pytest.fixture
def watch() -> Iterator[FolderWatch]:
    made = FolderWatch()
    assert made.fd >= 0
    yield made
    made.close()


def told(watch: FolderWatch) -> bool:
    """Whether a change is told of. What is not told must be nothing: the kernel queues events before a call returns."""
    poll = select.poll()
    poll.register(watch.fd, select.POLLIN)
    return bool(poll.poll(0)) and watch.read()


def names(path: Path) -> list[str]:
    return [os.path.join(folder, name) for folder, name in trail(path)]


def test_a_plain_file_is_watched_in_its_folder(tmp_path: Path) -> None:
    assert trail(tmp_path / "f") == ((str(tmp_path), "f"),)


def test_every_link_on_the_way_is_watched(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "f").write_text("")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "f").symlink_to("..data/f")
    (tmp_path / "far").symlink_to(tmp_path / "f")
    assert names(tmp_path / "far") == [str(tmp_path / each) for each in ("far", "f", "..data", "v1/f")]


def test_a_missing_folder_is_waited_for_where_it_would_be(tmp_path: Path) -> None:
    assert names(tmp_path / "a" / "b" / "f") == [str(tmp_path / "a")]
    assert names(tmp_path / "." / "x" / ".." / "f") == [str(tmp_path / "x")]


def test_links_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert len(trail(tmp_path / "a")) <= MAX_LINKS + 1


def test_changes_of_the_name_are_told_and_of_others_not(tmp_path: Path, watch: FolderWatch) -> None:
    path = tmp_path / "f"
    watch.cover(trail(path))
    (tmp_path / "other").write_text("x")
    assert not told(watch)
    path.write_text("x")
    assert told(watch)
    (tmp_path / "new").write_text("y")
    assert not told(watch)
    (tmp_path / "new").rename(path)
    assert told(watch)
    path.chmod(0o600)
    assert told(watch)
    path.unlink()
    assert told(watch)
    assert not told(watch)


def test_a_writer_is_known_until_it_closes(tmp_path: Path, watch: FolderWatch) -> None:
    path = tmp_path / "f"
    watch.cover(trail(path))
    with path.open("w") as file:
        file.write("half")
        file.flush()
        assert told(watch)
        assert watch.is_being_written
        file.write("whole")
    assert told(watch)
    assert not watch.is_being_written


def test_a_folder_that_was_replaced_is_told_and_found_again(tmp_path: Path, watch: FolderWatch) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    watch.cover(trail(folder / "f"))
    folder.rename(tmp_path / "old")
    assert told(watch)
    watch.cover(trail(folder / "f"))
    folder.mkdir()
    assert told(watch)
    watch.cover(trail(folder / "f"))
    (folder / "f").write_text("x")
    assert told(watch)
    (tmp_path / "old" / "f").write_text("x")
    assert not told(watch)


def test_a_closed_watch_does_nothing_more(tmp_path: Path) -> None:
    watch = FolderWatch()
    watch.close()
    watch.cover(trail(tmp_path / "f"))
    watch.close()
    assert not watch.read()
