"""The state on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from lbproxy.discovery.snapshots import Saved, Snapshots
from lbproxy.domain.address import parse_address
from lbproxy.domain.membership import Member, Membership
from lbproxy.wire.state import StateError
from tests.discovery.members import members

MEMBERSHIP = Membership(
    (
        Member(parse_address("10.0.0.1:80"), 3, 1, "eu", 7, {"version": "v2"}),
        Member(parse_address("[2001:db8::1]:80"), weight=0),
    )
)


def unverified(membership: Membership) -> Membership:
    """As remembered, and by nobody confirmed."""
    return Membership(tuple(replace(member, unverified=True) for member in membership.members))


REMEMBERED = unverified(MEMBERSHIP)


def test_what_is_saved_is_loaded_again(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "state" / "discovery")
    snapshots.save("web/../x", "consul", Saved(MEMBERSHIP, 1234.5))
    assert snapshots.load("web/../x", "consul") == Saved(REMEMBERED, 1234.5)
    assert snapshots.load("web", "consul") is None
    assert [path.parent for path in tmp_path.rglob("*.json")] == [tmp_path / "state" / "discovery"]


def test_a_new_one_takes_the_place_of_the_old_one_as_a_whole(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save("web", "consul", Saved(MEMBERSHIP, 1.0))
    snapshots.save("web", "consul", Saved(members(1, 2), 2.0))
    assert snapshots.load("web", "consul") == Saved(unverified(members(1, 2)), 2.0)
    assert len(os.listdir(tmp_path)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 2, "saved_at": 1, "members": []}',
        '{"version": 1, "saved_at": "x", "members": []}',
        '{"version": 1, "saved_at": 1, "members": [{}]}',
        '{"version": 1, "saved_at": 1, "members": [{"address": "nowhere"}]}',
        '{"version": 1, "saved_at": 1, "members": 5}',
    ],
)
def test_a_damaged_file_is_named_and_not_used(tmp_path: Path, text: str) -> None:
    (tmp_path / "web.consul.json").write_text(text)
    with pytest.raises(StateError, match=r"web\.consul\.json"):
        Snapshots(tmp_path).load("web", "consul")


def test_a_save_that_fails_leaves_the_old_one_and_no_litter(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save("web", "consul", Saved(MEMBERSHIP, 1.0))
    broken = Membership((Member(parse_address("10.0.0.1:80"), zone=object()),))  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        snapshots.save("web", "consul", Saved(broken, 2.0))
    assert snapshots.load("web", "consul") == Saved(REMEMBERED, 1.0)
    assert len(os.listdir(tmp_path)) == 1


def test_what_is_remembered_is_marked_so(tmp_path: Path) -> None:
    Snapshots(tmp_path).save("web", "consul", Saved(REMEMBERED, 1.0))
    assert "unverified" not in json.loads((tmp_path / "web.consul.json").read_text())["members"][0]


def test_what_was_followed_and_its_names_are_kept(tmp_path: Path) -> None:
    saved = Saved(MEMBERSHIP, 1.0, "web", {"db.test": ("10.0.0.1", "2001:db8::1")})
    Snapshots(tmp_path).save("web", "consul", saved)
    assert Snapshots(tmp_path).load("web", "consul") == replace(saved, membership=REMEMBERED)


def test_two_processes_of_one_number_do_not_write_into_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two containers with one volume each is process 1: the second begins while the first is writing."""
    snapshots, flush = Snapshots(tmp_path), os.fsync

    def begun_by_another(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", flush)
        snapshots.save("web", "consul", Saved(members(1), 2.0))
        flush(descriptor)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "fsync", begun_by_another)
    snapshots.save("web", "consul", Saved(MEMBERSHIP, 1.0))
    assert snapshots.load("web", "consul") == Saved(REMEMBERED, 1.0)
    assert len(os.listdir(tmp_path)) == 1


def test_what_was_read_ahead_stands_for_the_files_until_the_end_of_the_block(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.save("web", "consul", Saved(MEMBERSHIP, 1.0))
    (tmp_path / "web.dns.json").write_text("{")
    known = snapshots.recall([("web", "consul"), ("web", "dns"), ("web", "etcd")])
    snapshots.save("web", "consul", Saved(members(1), 2.0))
    snapshots.save("web", "dns", Saved(members(2), 2.0))
    with snapshots.recalled(known):
        assert snapshots.load("web", "consul") == Saved(REMEMBERED, 1.0)
        assert snapshots.load("web", "etcd") is None
        with pytest.raises(StateError, match=r"web\.dns\.json"):
            snapshots.load("web", "dns")
    for source, number in (("consul", 1), ("dns", 2)):
        assert snapshots.load("web", source) == Saved(unverified(members(number)), 2.0)
