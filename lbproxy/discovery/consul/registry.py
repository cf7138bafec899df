"""One service in Consul, followed by blocking queries; or a prepared query, asked again and again.

The rules of a blocking query are those of Consul's own documentation (api-docs/features/blocking), and what was seen of Consul 1.8:

- an error, and an answer with a smaller index than was asked with, are followed by a question without an index: after a restart the old
  index lies in the future, and a question with it would hang for its whole wait, whatever happens;
- an index below 1 counts as 1, and indexes say when to look, never what changed;
- a question ends by itself 1/16 after its wait, at the latest: so the client's own time-out is a little longer.

All instances are asked for, not only the passing ones: what is drained, and why, should be seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final
from urllib.parse import quote

from lbproxy.discovery.consul.instances import Instances, Known
from lbproxy.discovery.consul.options import Consistency, ConsulOptions
from lbproxy.discovery.contract import Answer, Candidate
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.consul import ConsulClient, ConsulRefused, ConsulReply, Params
from lbproxy.wire.json_items import json_items

_JITTER: Final = 0.1  # of the interval between two questions for a prepared query
_ACLS_OFF: Final = 401
_NO_SUCH_PATH: Final = frozenset({404, 405})


class ConsulRegistry:
    """A `Registry`. Owns its client."""

    def __init__(
        self,
        options: ConsulOptions,
        client: ConsulClient,
        sleep: Callable[[float], Awaitable[None]],
        rng: Random,
    ) -> None:
        self._options = options
        self._client = client
        self._sleep = sleep
        self._rng = rng
        self._path, self._params = _question(options)
        self._index = 0  # to ask with; 0 does not wait
        self._seen = 0  # of the last good answer: a smaller one shows that Consul has lost its memory
        self._asked = False
        self._digest = b""
        self._candidates: tuple[Candidate, ...] = ()
        self._known: Known = {}

    async def next(self) -> Answer:
        if self._options.query:
            return await self._poll()
        asked, self._index = self._index, 0  # whatever goes wrong now: the next question starts from nothing
        try:
            reply = await self._read(asked)
            candidates = await self._understand(reply)
        except RegistryError as error:
            error.listed = asked > 0
            raise
        index = _index(reply)
        regressed, self._seen = index < self._seen, index
        self._index = 0 if index < asked else index
        return Answer(candidates, self._consistent and not reply.streamed, regressed)

    async def confirm(self) -> Answer:
        reply = await self._ask("consistent", 0)
        # What `next` has made of the same text is not used here: an empty answer is to be looked into again.
        candidates = (await self._instances(reply)).candidates()
        return Answer(candidates, regressed=not self._options.query and _index(reply) < self._seen)

    async def close(self) -> None:
        await self._client.close()

    async def _poll(self) -> Answer:
        """A prepared query cannot be waited for."""
        if self._asked:
            await self._sleep(self._options.interval_s * (1 - _JITTER + 2 * _JITTER * self._rng.random()))
        self._asked = False  # after an error the follower waits
        reply = await self._read(0)
        candidates = await self._understand(reply)
        self._asked = True
        return Answer(candidates, self._consistent)

    @property
    def _consistent(self) -> bool:
        """A default read may be of a leader that has just lost its office, or has just come to it with nothing read yet."""
        return self._options.consistency == "consistent"

    async def _read(self, index: int) -> ConsulReply:
        """An answer that is fresh enough. A stale one that is too old is asked for again, of the leader."""
        mode = self._options.consistency
        reply = await self._ask(mode, index)
        if mode == "stale" and (not reply.known_leader or reply.last_contact_s > self._options.max_stale_s):
            reply = await self._ask("default", 0)
        return reply

    async def _ask(self, mode: Consistency, index: int) -> ConsulReply:
        params = self._params if mode == "default" else {**self._params, mode: ""}
        reply = await self._client.get(self._path, params, index=index, wait_s=self._options.wait_s)
        if not self._options.query:
            _index(reply)
        if reply.filtered_by_acls:
            raise RegistryError("consul: the token may not see all of the answer (ACLs)")
        if mode != "stale" and not reply.known_leader:
            raise RegistryError("consul: the servers have no leader")
        return reply

    async def _understand(self, reply: ConsulReply) -> tuple[Candidate, ...]:
        """The candidates; of the same text as last time the same ones, without another look."""
        if reply.digest != self._digest:
            self._digest = b""
            found = await self._instances(reply)
            self._candidates, self._known = found.candidates(), found.known
            self._digest = reply.digest
            await asyncio.sleep(0)  # and so is forgetting
        return self._candidates

    async def _instances(self, reply: ConsulReply) -> Instances:
        found = Instances(self._options, self._known)
        count = 0
        if self._options.query:
            for entry in _nodes(reply.json()):
                count += 1
                found.add(entry)
        else:
            async for entry in json_items(reply.text):
                count += 1
                found.add(entry)
        if count == 0:
            await self._vouch_for_nothing()
        await asyncio.sleep(0)  # what is made of ten thousand of them is a step of its own
        return found

    async def _vouch_for_nothing(self) -> None:
        """Raise unless an empty answer can be believed. Consul answers 200 and an empty list to a token that may see nothing; since 1.11
        it says so, but not to the anonymous token. So Consul is asked what the token may do; where it does not know that question,
        whether it sees any node: there is always one."""
        access = self._options.access
        if access.namespace is not None or access.partition is not None:
            return  # Enterprise: newer than that
        needed = [{"Resource": "node", "Access": "read"}]
        if self._options.service:
            needed.append({"Resource": "service", "Access": "read", "Segment": self._options.service})
        try:
            allowed = (await self._client.post("/v1/internal/acl/authorize", body=needed)).json()
        except ConsulRefused as refused:
            if refused.status == _ACLS_OFF:
                return
            if refused.status not in _NO_SUCH_PATH:
                raise
            sees = (await self._client.get("/v1/catalog/nodes")).text.strip() not in {"[]", "null"}
        else:
            sees = isinstance(allowed, list) and all(
                isinstance(each, dict) and each.get("Allow") is True for each in allowed
            )
        if not sees:
            raise RegistryError(
                "consul: an empty answer to a token that may not read the service and all nodes (ACLs)"
            )


def _question(options: ConsulOptions) -> tuple[str, Params]:
    """Path and parameters, without what differs between two questions."""
    near = {"near": options.near} if options.near else {}
    if options.query:
        return f"/v1/query/{quote(options.query, safe='')}/execute", near
    chosen = [f"{_quoted(tag)} in Service.Tags" for tag in options.tags]
    if options.filter:
        chosen.append(f"({options.filter})" if chosen else options.filter)
    params: Params = {**near, **({"filter": " and ".join(chosen)} if chosen else {})}
    return f"/v1/health/service/{quote(options.service, safe='')}", params


def _index(reply: ConsulReply) -> int:
    if reply.index is None:
        raise RegistryError("consul: an answer without X-Consul-Index")
    return reply.index


def _quoted(text: str) -> str:
    """As Consul's filter expressions write text: raw between backquotes; between double quotes none of them can stand, however
    escaped, so that a text with both cannot be written (the configuration refuses it)."""
    if "`" in text:
        escaped = text.replace("\\", "\\\\")
        return f'"{escaped}"'
    return f"`{text}`"


def _nodes(said: Any) -> list[Any]:
    found = said.get("Nodes", "") if isinstance(said, dict) else ""
    if found is None:
        return []
    if not isinstance(found, list):
        raise RegistryError("consul: the answer to a prepared query has no list of nodes")
    return found
