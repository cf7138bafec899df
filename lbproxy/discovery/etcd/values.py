"""From the value of one key to the endpoint it stands for. No I/O.

Three forms are understood:

- text, `host:port`;
- a JSON object with `address`, as an entry of the kinds `file` and `http` is written (`lbproxy.discovery.documents`);
- what gRPC's naming for etcd writes (go.etcd.io/etcd/client/v3/naming, and its predecessor clientv3/naming):
  `{"Op": 0, "Addr": "host:port", "Metadata": ...}`. Of its metadata, an object's scalars are taken, and `weight`, `zone`, `priority`
  and `max_connections` in it say what they say in an entry. `Op` 1 means that the endpoint is gone.

Any other value is a candidate that will be refused by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.documents import BAD, read_entry, split_target, text_metadata, with_attributes

KEY: Final = "etcd-key"  # the metadata that tells which key an endpoint came from
# An endpoint's value is a few hundred bytes; parsing a large one would hold up the loop.
MOST_BYTES: Final = 64 << 10
_GONE: Final = 1


def read_value(key: bytes, value: bytes) -> Candidate | None:
    """The endpoint behind a key; None for one that says of itself that it is gone. Never raises."""
    name = key.decode("utf-8", "replace")
    candidate = _read(name, value)
    if candidate is None:
        return None
    return replace(candidate, metadata=MappingProxyType({**candidate.metadata, KEY: name}))


def _read(name: str, value: bytes) -> Candidate | None:
    if len(value) > MOST_BYTES:
        return Candidate(name, BAD)
    try:
        text = value.decode().strip()
        if not text.startswith("{"):
            return read_entry(text)
        entry: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        return Candidate(name, BAD)
    if "Addr" in entry and "address" not in entry:
        return _naming(name, entry)
    return read_entry(entry)


def _naming(name: str, update: Mapping[str, Any]) -> Candidate | None:
    if update.get("Op") == _GONE:
        return None
    address, given = update["Addr"], update.get("Metadata")
    if not isinstance(address, str):
        return Candidate(name, BAD)
    host, port = split_target(address)
    attributes = given if isinstance(given, Mapping) else {}
    return with_attributes(host, port, attributes, text_metadata(attributes))
