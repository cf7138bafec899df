"""A configuration in Consul's KV store as the texts it is made of. No I/O."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from lbproxy.domain.errors import RegistryError

SCHEME: Final = "consul:"
STATUS: Final = ".status"


def is_remote(given: object) -> bool:
    """Whether a `-c` names a key instead of a file."""
    return str(given).startswith(SCHEME)


@dataclass(frozen=True, slots=True)
class Key:
    """What a `consul:KEY` names: a key, or with a slash at its end a prefix, whose keys are read as a folder's files are."""

    text: str

    @classmethod
    def of(cls, given: str) -> Key:
        """Raises ValueError."""
        text = given.removeprefix(SCHEME)
        if not text.strip("/"):
            raise ValueError("names no key: expected consul:KEY, or consul:PREFIX/")
        if text.startswith("/"):
            raise ValueError("a key in Consul does not begin with '/'")
        if not text.isprintable() or "?" in text or "#" in text:
            raise ValueError("names no key: control characters, '?' and '#' do not stand in one")
        return cls(text)

    @property
    def source(self) -> str:
        """As it is written after `-c`, and stands before the line and column of an error."""
        return f"{SCHEME}{self.text}"

    @property
    def is_prefix(self) -> bool:
        return self.text.endswith("/")

    def status(self, instance: str) -> str:
        """The key that an instance reports to: never one that `documents` would take for a part of the configuration, so that no
        report can be the reason of another."""
        return f"{self.text.rstrip('/')}{STATUS}/{instance.replace('/', '_')}"


@dataclass(frozen=True, slots=True)
class Documents:
    """The texts behind one key, by the name that errors call them by, in order. `version` is the newest ModifyIndex among them:
    for people; equality is by content."""

    key: Key
    parts: tuple[tuple[str, bytes], ...]
    version: int = field(default=0, compare=False)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(name for name, _ in self.parts)


def documents(key: Key, entries: object) -> Documents | None:
    """From the JSON of `GET /v1/kv/KEY` (with `recurse` for a prefix). None when nothing is there. Raises RegistryError for what
    is no such answer.

    Of a prefix, as of a folder, what lies deeper is not read, nor what begins with a dot; and no empty `PREFIX/` key, which the
    web interface makes as a folder.
    """
    if not isinstance(entries, list):
        raise RegistryError(f"{key.source}: the answer is no list")
    found = [_entry(key, entry) for entry in entries]
    if key.is_prefix:
        chosen = sorted((each for each in found if _is_part(key, each[0])), key=lambda each: each[0])
    else:
        chosen = [each for each in found if each[0] == key.text]
        if found and not chosen:
            raise RegistryError(f"{key.source}: the answer is about another key")
    if not chosen:
        return None
    return Documents(
        key,
        tuple((f"{SCHEME}{name}", text) for name, text, _ in chosen),
        max(version for _, _, version in chosen),
    )


def _is_part(key: Key, name: str) -> bool:
    last = name.removeprefix(key.text)
    return name.startswith(key.text) and bool(last) and "/" not in last and not last.startswith(".")


def _entry(key: Key, entry: Any) -> tuple[str, bytes, int]:
    """Name, text, ModifyIndex."""
    try:
        name, packed, version = entry["Key"], entry["Value"], entry["ModifyIndex"]
        text = base64.b64decode(packed, validate=True) if packed is not None else b""
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise RegistryError(f"{key.source}: an entry of the answer cannot be read: {error!r}") from error
    if not isinstance(name, str) or not isinstance(version, int):
        raise RegistryError(f"{key.source}: an entry of the answer cannot be read")
    return name, text, version


def keys(given: Iterable[object]) -> Iterator[Key]:
    """The keys among the arguments of `-c`, each once. Raises ValueError."""
    seen: set[str] = set()
    for each in map(str, given):
        if is_remote(each) and each not in seen:
            seen.add(each)
            try:
                yield Key.of(each)
            except ValueError as error:
                raise ValueError(f"{each}: {error}") from error
