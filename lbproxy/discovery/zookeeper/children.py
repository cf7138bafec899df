"""From what stands in a node to a candidate. No I/O.

Understood, in this order: nothing (the node's name is `host:port`); `host:port` as text; our own JSON, as in every document
(`lbproxy.discovery.documents`); Curator's `ServiceInstance` (also as Spring Cloud writes it); the members of Finagle's server sets
(`serviceEndpoint`, `status`); and any object with `host` and `port`, such as Kafka's brokers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from lbproxy.discovery.contract import Candidate
from lbproxy.discovery.documents import BAD, read_entry, split_target, text_metadata, whole, with_attributes

_CURATORS: Final = frozenset({"sslPort", "serviceType", "registrationTimeUTC", "uriSpec", "payload"})


def read_child(name: str, data: bytes) -> Candidate:
    """Never raises: what makes no sense is a candidate that is refused."""
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        return Candidate(name, BAD)
    if not text:
        return Candidate(*split_target(name))
    if text[0] not in '{["':
        return Candidate(*split_target(text))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Candidate(name, BAD)
    if not isinstance(value, Mapping):
        return read_entry(value) if isinstance(value, str) else Candidate(name, BAD)
    if "serviceEndpoint" in value:
        return _server_set_member(name, value)
    if not _CURATORS.isdisjoint(value):
        return _curators_instance(name, value)
    if "address" not in value and "host" in value:
        value = {**value, "address": value["host"]}
    return read_entry(value)


def _curators_instance(name: str, value: Mapping[str, Any]) -> Candidate:
    """`port`, else `sslPort`. Attributes and metadata stand in the payload, whose form is its writer's own: an object is read, and in
    it `metadata`, where Spring Cloud keeps it. A disabled instance keeps its sessions and gets no new ones."""
    address, payload = value.get("address"), value.get("payload")
    port = value.get("sslPort") if value.get("port") is None else value.get("port")
    if not isinstance(address, str):
        return Candidate(name, BAD)
    attributes: dict[str, Any] = {}
    if isinstance(payload, Mapping):
        attributes.update(payload)
        if isinstance(payload.get("metadata"), Mapping):
            attributes.update(payload["metadata"])
    metadata = {key: text for key, text in text_metadata(attributes).items() if not key.startswith("@")}
    if isinstance(value.get("id"), str):
        metadata.setdefault("id", value["id"])
    if value.get("enabled") is False:
        attributes["weight"] = 0
    return with_attributes(address, whole(port, BAD), attributes, MappingProxyType(metadata))


def _server_set_member(name: str, value: Mapping[str, Any]) -> Candidate:
    endpoint = value["serviceEndpoint"]
    if not isinstance(endpoint, Mapping) or not isinstance(endpoint.get("host"), str):
        return Candidate(name, BAD)
    attributes: dict[str, Any] = {}
    if value.get("status", "ALIVE") != "ALIVE":
        attributes["weight"] = 0
    found = value.get("metadata")
    metadata = text_metadata(found) if isinstance(found, Mapping) else MappingProxyType({})
    return with_attributes(endpoint["host"], whole(endpoint.get("port"), BAD), attributes, metadata)
