"""What stands under a prefix: the keys by name, built from a list and kept up by a watch's events. No I/O.

etcd's own rules (its API reference, "KV guarantees" and "Watch streams"): a list shows one revision; a message of a watch holds whole
revisions; so what stands here after a list or a message is what stood in etcd at some moment.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.etcd.values import read_value
from lbproxy.domain.errors import RegistryError


def prefix_end(prefix: bytes) -> bytes:
    """The first key after all that begin with `prefix` (not empty): its last byte that can be counted up, counted up."""
    head = prefix.rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"


def encode(data: bytes) -> str:
    """Bytes as the gateway takes them."""
    return base64.b64encode(data).decode()


def decode(text: object) -> bytes:
    """Bytes as the gateway gives them; what is left out is empty. Raises RegistryError."""
    if text is None:
        return b""
    try:
        if isinstance(text, str):
            return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RegistryError(f"a key or value that is no base64: {error}") from error
    raise RegistryError("a key or value that is no text")


def number(owner: Mapping[str, Any], name: str) -> int:
    """A 64-bit number, which the gateway writes as text; what is left out is 0. Raises RegistryError."""
    given = owner.get(name, 0)
    if isinstance(given, int) and not isinstance(given, bool):
        return given
    if isinstance(given, str) and given.isascii() and given.isdigit() and len(given) <= 20:
        return int(given)
    raise RegistryError(f"{name} is no number")


class Keys:
    """Every key under the prefix with its endpoint; None for a key that names none."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix
        self._candidates: dict[bytes, Candidate | None] = {}
        self._sorted: tuple[Candidate, ...] | None = None

    def __len__(self) -> int:
        return len(self._candidates)

    def put(self, pair: Any) -> bytes:
        """One key of a list or an event. Returns the key. Raises RegistryError for what is no pair."""
        if not isinstance(pair, Mapping):
            raise RegistryError("a key that is no object")
        key = self._key(pair)
        self._candidates[key] = read_value(key, decode(pair.get("value")))
        self._sorted = None
        return key

    def apply(self, events: Iterable[Any]) -> None:
        """A message's events, in their order. Raises RegistryError; then what stands here is worth nothing."""
        for event in events:
            if not isinstance(event, Mapping):
                raise RegistryError("an event that is no object")
            pair = event.get("kv")
            match event.get("type", "PUT"):
                case "PUT":
                    self.put(pair)
                case "DELETE" if isinstance(pair, Mapping):
                    self._candidates.pop(self._key(pair), None)
                    self._sorted = None
                case kind:
                    raise RegistryError(f"an event of the kind {kind!r}")

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """In the order of the keys."""
        if self._sorted is None:
            self._sorted = tuple(
                candidate for _, candidate in sorted(self._candidates.items()) if candidate is not None
            )
        return self._sorted

    def _key(self, pair: Mapping[str, Any]) -> bytes:
        key = decode(pair.get("key"))
        if not key.startswith(self._prefix):
            raise RegistryError("a key that was not asked for")
        return key
