"""Lists of endpoints as people and programs write them, in YAML or JSON: from plain data to candidates. No I/O.

What is understood, for the whole document:

- a list of entries, or a mapping that holds one under `endpoints` (further keys beside it are the writer's own);
- an entry is text, `host:port`, or a mapping: `address` (`host:port`, or a host with `port` beside it), `weight`, `zone`, `priority`,
  `max_connections`, `metadata`; further keys are the writer's own;
- a list may also hold groups as Prometheus' http_sd and file_sd know them: `targets`, a list of `host:port`, and `labels`, which
  become metadata; the labels `weight`, `zone`, `priority` and `max_connections` say what they say in an entry.

Numbers may be written as text. A document that is none of these raises RegistryError: how many endpoints are hidden in it, nobody
knows. A single entry that makes no sense becomes a candidate that is refused by itself: its number is -1, or, where it is no
number, its port.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from lbproxy.discovery.contract import Candidate
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.membership import NO_METADATA

BAD: Final = -1  # in a number's place: this entry will be refused
_DIGITS_MOST: Final = 18  # longer is no number of ours, and costs time to convert
_SHOWN: Final = 200


class _Bad(Exception):
    """The entry as a whole makes no sense."""


def read_document(document: object) -> tuple[Candidate, ...]:
    """Every endpoint of a whole document, in its order. Raises RegistryError."""
    if isinstance(document, Mapping):
        if "endpoints" not in document:
            raise RegistryError("a mapping without `endpoints`; a list of endpoints is needed")
        document = document["endpoints"]
    if not isinstance(document, list):
        raise RegistryError(f"{_kind(document)} where a list of endpoints is needed")
    return tuple(candidate for entry in document for candidate in read_any(entry))


def read_entry(entry: object) -> Candidate:
    """One endpoint: text, or a mapping with `address`. Never raises."""
    try:
        if isinstance(entry, str):
            return Candidate(*split_target(entry))
        if not isinstance(entry, Mapping):
            return Candidate(_short(entry), BAD)
        return with_attributes(*_target(entry), entry, _metadata(entry.get("metadata")))
    except _Bad as error:
        return Candidate(str(error), BAD)


def with_attributes(
    host: str, port: int, attributes: Mapping[str, Any], metadata: Mapping[str, str] = NO_METADATA
) -> Candidate:
    """A candidate whose `weight`, `zone`, `priority` and `max_connections` are read out of a mapping, if they are there."""
    zone = attributes.get("zone")
    if isinstance(zone, Mapping | list):
        port = BAD
        zone = None
    limit = attributes.get("max_connections")
    return Candidate(
        host,
        port,
        weight=whole(attributes.get("weight"), 1),
        priority=whole(attributes.get("priority"), 0),
        zone=None if zone is None or zone == "" else _text(zone),
        max_connections=None if limit is None else whole(limit, BAD),
        metadata=metadata,
    )


def split_target(text: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in two; the port is -1 where there is none to be seen. The host is looked at by `vetting`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not host:
        return text[:_SHOWN], BAD
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], whole(port, BAD)
    if ":" in host:  # an IPv6 address without brackets: where its port starts is a guess
        return text[:_SHOWN], BAD
    return host, whole(port, BAD)


def whole(value: object, default: int) -> int:
    """A whole number, also from text in decimal digits; nothing is the default, and what is no such number is -1."""
    if value is None:
        return default
    if isinstance(value, bool):
        return BAD
    if isinstance(value, int):
        return value
    if isinstance(value, float):  # JSON does not tell 3 from 3.0; infinity and NaN are no integers
        return int(value) if value.is_integer() else BAD
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _DIGITS_MOST:
        return int(value)
    return BAD


def text_metadata(given: Mapping[Any, Any]) -> Mapping[str, str]:
    """Metadata with every scalar as text; what is nested in it is left out."""
    return MappingProxyType(
        {
            _text(key): _text(value)
            for key, value in given.items()
            if value is not None and not isinstance(value, Mapping | list)
        }
    )


def read_any(entry: object) -> Iterator[Candidate]:
    """What an item of the list stands for: one endpoint, or those of a group of targets. Raises RegistryError for a group that is
    none."""
    if not isinstance(entry, Mapping) or "targets" not in entry or "address" in entry:
        yield read_entry(entry)
        return
    targets, labels = entry["targets"], entry.get("labels")
    if not isinstance(targets, list):
        raise RegistryError(f"`targets` is {_kind(targets)} where a list is needed")
    if labels is None:
        labels = {}
    if not isinstance(labels, Mapping):
        raise RegistryError(f"`labels` is {_kind(labels)} where a mapping is needed")
    metadata = text_metadata(labels)
    for target in targets:
        host, port = split_target(target) if isinstance(target, str) else (_short(target), BAD)
        yield with_attributes(host, port, labels, metadata)


def _target(entry: Mapping[Any, Any]) -> tuple[str, int]:
    address = entry.get("address")
    if not isinstance(address, str):
        raise _Bad(f"an entry whose address is {_kind(address)}")
    if "port" not in entry:
        return split_target(address)
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    return address, whole(entry["port"], BAD)


def _metadata(given: object) -> Mapping[str, str]:
    if given is None:
        return NO_METADATA
    if not isinstance(given, Mapping):
        raise _Bad(f"an entry whose metadata is {_kind(given)}")
    return text_metadata(given)


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _short(value: object) -> str:
    return f"an entry that is {_kind(value)}"


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool | int | float):
        return "a number" if not isinstance(value, bool) else "true or false"
    return "text" if isinstance(value, str) else "something else"
