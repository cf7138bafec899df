"""The file registry on a real file system: every way in which files are replaced, spoilt, lost and mended."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lbproxy.discovery.contract import Answer, Registry
from lbproxy.discovery.file import reading
from lbproxy.discovery.file import registry as module
from lbproxy.discovery.file.options import FileOptions
from lbproxy.discovery.file.registry import FileRegistry
from lbproxy.discovery.file.watch import FolderWatch
from lbproxy.domain.errors import RegistryError
from tests.patience import WITHIN_S

pytestmark = pytest.mark.both_loops
NEVER_S = 300.0  # longer than any test: what is seen was told by the kernel


class Following:
    """A registry that is asked on and on; `heard` are its answers (as host texts) and errors, without repeats."""

    def __init__(self, registry: FileRegistry) -> None:
        self.registry = registry
        self.heard: list[list[str] | str] = []
        self._news = asyncio.Event()

    async def run(self) -> None:
        while True:
            try:
                said: list[str] | str = hosts(await self.registry.next())
            except RegistryError as error:
                said = str(error)
            if not self.heard or self.heard[-1] != said:
                self.heard.append(said)
                self._news.set()

    async def until(self, *wanted: str) -> None:
        """Until these are the hosts."""
        await self._until(lambda said: said == list(wanted))

    async def until_error(self, words: str) -> None:
        await self._until(lambda said: isinstance(said, str) and words in said)

    async def _until(self, is_wanted: Callable[[list[str] | str], bool]) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not self.heard or not is_wanted(self.heard[-1]):
                self._news.clear()
                await self._news.wait()


def hosts(answer: Answer) -> list[str]:
    return [each.host for each in answer.candidates]


def text(*hosts: str) -> str:
    return "".join(f"- {host}:80\n" for host in hosts) or "[]\n"


def replace(path: Path, content: str) -> None:
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(content)
    beside.replace(path)


@asynccontextmanager
async def following(path: Path, interval_s: float = NEVER_S) -> AsyncIterator[Following]:
    registry = FileRegistry(FileOptions(path, interval_s), time.monotonic)
    found = Following(registry)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.run(), name="follow")
        try:
            yield found
        finally:
            task.cancel()
    await registry.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "conf"
    folder.mkdir()
    (folder / "endpoints.yaml").write_text(text("10.0.0.1"))
    return folder / "endpoints.yaml"


async def test_it_is_a_registry_and_can_be_asked_again_after_its_close(path: Path) -> None:
    registry: Registry = FileRegistry(FileOptions(path), time.monotonic)
    for _ in range(2):
        assert hosts(await registry.next()) == ["10.0.0.1"]
        assert hosts(await registry.confirm()) == ["10.0.0.1"]
        await registry.close()


async def test_atomic_renames_are_seen_one_after_the_other(path: Path) -> None:
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        took = []
        for number in range(2, 12):
            replace(path, text(f"10.0.0.{number}"))
            started = time.monotonic()
            await follow.until(f"10.0.0.{number}")
            took.append(time.monotonic() - started)
        assert sorted(took)[5] < 1.0, took
        assert follow.heard == [[f"10.0.0.{number}"] for number in range(1, 12)]


async def test_a_config_map_is_seen_when_it_is_swapped(tmp_path: Path) -> None:
    def publish(version: str, content: str) -> None:
        """As the kubelet does: a new folder, and one rename of a link to it (its AtomicWriter)."""
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "f").write_text(content)
        (tmp_path / "..data_tmp").symlink_to(f"..{version}")
        before = os.readlink(tmp_path / "..data") if (tmp_path / "..data").is_symlink() else ""
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if before:
            shutil.rmtree(tmp_path / before)

    publish("v1", text("10.0.0.1"))
    (tmp_path / "f").symlink_to("..data/f")
    async with following(tmp_path / "f") as follow:
        await follow.until("10.0.0.1")
        for number in range(2, 6):
            publish(f"v{number}", text(f"10.0.0.{number}"))
            await follow.until(f"10.0.0.{number}")
        assert follow.heard == [[f"10.0.0.{number}"] for number in range(1, 6)]


async def test_a_file_that_is_written_in_place_is_not_read_by_halves(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", WITHIN_S)
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        seen = asyncio.Event()
        with path.open("w") as file:
            file.write(text("10.0.0.2"))
            file.flush()
            asyncio.get_running_loop().call_later(0.3, seen.set)
            await seen.wait()
            file.write(text("10.0.0.3"))
        await follow.until("10.0.0.2", "10.0.0.3")
        assert follow.heard == [["10.0.0.1"], ["10.0.0.2", "10.0.0.3"]]


async def test_a_writer_that_never_closes_is_not_waited_for_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        with path.open("a") as file:
            file.write(text("10.0.0.2"))
            file.flush()
            await follow.until("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("- {address: ", "endpoints.yaml:3:1: "),
        ("", "endpoints.yaml:1:1: the file is empty"),
        ("<html>\n", ":1:1: "),
    ],
)
async def test_what_cannot_be_read_raises_once_and_is_seen_when_it_is_mended(
    path: Path, content: str, words: str
) -> None:
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        replace(path, content and f"- 10.0.0.1:80\n{content}" if content.startswith("-") else content)
        await follow.until_error(words)
        assert str(path) in str(follow.heard[-1])
        replace(path, text("10.0.0.2"))
        await follow.until("10.0.0.2")
        assert len(follow.heard) == 3


async def test_a_file_that_is_missing_raises_and_is_seen_when_it_comes(path: Path) -> None:
    path.unlink()
    async with following(path) as follow:
        await follow.until_error("endpoints.yaml: No such file or directory")
        path.write_text(text("10.0.0.2"))
        await follow.until("10.0.0.2")
        path.unlink()
        await follow.until_error("No such file or directory")
        replace(path, text("10.0.0.2"))
        await follow.until("10.0.0.2")


async def test_deleted_and_made_again_at_once_is_no_error(path: Path) -> None:
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        path.unlink()
        path.write_text(text("10.0.0.2"))
        await follow.until("10.0.0.2")
        assert follow.heard == [["10.0.0.1"], ["10.0.0.2"]]


async def test_a_folder_that_is_replaced_is_followed(path: Path) -> None:
    async with following(path) as follow:
        await follow.until("10.0.0.1")
        folder = path.parent
        folder.rename(folder.with_name("old"))
        folder.mkdir()
        replace(path, text("10.0.0.2"))
        await follow.until("10.0.0.2")
        shutil.rmtree(folder)
        await follow.until_error("No such file or directory")
        folder.mkdir()
        path.write_text(text("10.0.0.3"))
        await follow.until("10.0.0.3")


@pytest.mark.parametrize("kind", ["folder", "fifo", "large"])
async def test_what_is_no_file_of_endpoints_raises(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        with path.open("w") as file:
            file.truncate(100 << 20)
    words = {"folder": "Is a directory", "fifo": "not a file", "large": "larger than 8 MiB"}[kind]
    async with following(path) as follow:
        await follow.until_error(words)


async def test_what_may_not_be_read_raises_until_it_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root reads everything: the refusal comes from a link instead
        path.unlink()
        path.symlink_to(path)
        words = "Too many levels of symbolic links"
    else:
        path.chmod(0)
        words = "Permission denied"
    async with following(path) as follow:
        await follow.until_error(words)
        replace(path, text("10.0.0.2"))
        await follow.until("10.0.0.2")


async def test_without_the_kernels_word_the_file_is_looked_at(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FolderWatch, "cover", lambda self, names: None)
    async with following(path, interval_s=0.02) as follow:
        await follow.until("10.0.0.1")
        for number in range(2, 6):
            replace(path, text(f"10.0.0.{number}"))
            await follow.until(f"10.0.0.{number}")
        path.unlink()
        await follow.until_error("No such file")
        path.write_text(text("10.0.0.9"))
        await follow.until("10.0.0.9")


async def test_a_change_that_no_stamp_shows_is_seen_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One tick of the file system's clock may hold two writes of the same size.
    monkeypatch.setattr(FolderWatch, "cover", lambda self, names: None)
    monkeypatch.setattr("lbproxy.discovery.file.reading._stamp", lambda status: (0, 0, 0, 0, 0))
    async with following(path, interval_s=0.02) as follow:
        await follow.until("10.0.0.1")
        path.write_text(text("10.0.0.2"))
        await follow.until("10.0.0.2")


async def test_an_unchanged_file_is_well_and_costs_no_reading(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.utime(path, (1_700_000_000, 1_700_000_000))
    registry = FileRegistry(FileOptions(path, 0.01), time.monotonic)
    first = await registry.next()
    monkeypatch.setattr(module, "WELL_EVERY_S", 0.0)
    monkeypatch.setattr("lbproxy.discovery.file.reading._read", None)
    for _ in range(5):
        assert await registry.next() is first
    monkeypatch.setattr(module, "WELL_EVERY_S", 30.0)
    with pytest.raises(TimeoutError):  # it is looked at meanwhile, and there is nothing to say
        async with asyncio.timeout(0.3):
            await registry.next()
    await registry.close()


async def test_a_wrong_file_that_stays_is_told_of_again_after_a_while(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("")
    now = 0.0
    registry = FileRegistry(FileOptions(path, 0.01), lambda: now)
    with pytest.raises(RegistryError):
        await registry.next()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await registry.next()
    monkeypatch.setattr(module, "SAY_AGAIN_S", 0.0)
    with pytest.raises(RegistryError, match="the file is empty"):
        await registry.next()
    await registry.close()


async def test_a_file_system_that_does_not_answer_holds_one_thread(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = threading.Event()
    looks = []
    real = reading.look

    def hanging(*args: object, **more: object) -> object:
        looks.append(args)
        goes_on.wait(WITHIN_S)
        return real(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(reading, "look", hanging)
    monkeypatch.setattr(module, "READ_WITHIN_S", 0.05)
    registry = FileRegistry(FileOptions(path), time.monotonic)
    for _ in range(3):
        with pytest.raises(RegistryError, match="the file system does not answer"):
            await registry.next()
    assert len(looks) == 1
    async with asyncio.timeout(WITHIN_S / 2):
        await asyncio.get_running_loop().shutdown_default_executor()  # as at the end of the process
    goes_on.set()
    monkeypatch.setattr(module, "READ_WITHIN_S", WITHIN_S)
    assert hosts(await registry.next()) == ["10.0.0.1"]
    await registry.close()


async def test_a_change_while_somebody_else_looks_is_seen_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, goes_on = threading.Event(), threading.Event()
    real = reading.look

    def slow(*args: object, **more: object) -> reading.Look:
        found = real(*args, **more)  # type: ignore[arg-type]
        read.set()
        assert goes_on.wait(WITHIN_S)
        return found

    registry = FileRegistry(FileOptions(path, NEVER_S), time.monotonic)
    assert hosts(await registry.next()) == ["10.0.0.1"]
    monkeypatch.setattr(reading, "look", slow)
    async with asyncio.timeout(WITHIN_S), asyncio.TaskGroup() as group:
        opinion = group.create_task(registry.confirm(), name="second opinion")
        await asyncio.to_thread(read.wait, WITHIN_S)
        told = group.create_task(registry.next(), name="next")
        replace(path, text("10.0.0.2"))
        asyncio.get_running_loop().call_later(0.1, goes_on.set)  # by then the kernel's word has come
        assert hosts(await told) == ["10.0.0.2"]
    assert hosts(opinion.result()) == ["10.0.0.1"]
    await registry.close()


async def test_an_idle_registry_with_news_does_not_spin(path: Path) -> None:
    registry = FileRegistry(FileOptions(path), time.monotonic)
    await registry.next()
    replace(path, text("10.0.0.2"))
    # Nobody asks now; the descriptor must not stay readable, or every turn of the loop would be about it.
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, done.set)
    cpu = time.process_time()
    await done.wait()
    assert time.process_time() - cpu < 0.05
    assert hosts(await registry.next()) == ["10.0.0.2"]
    await registry.close()
