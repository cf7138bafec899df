"""Reading keys from Consul. Importing this module costs what the client costs: import it where a `consul:KEY` is named."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote

from lbproxy.config.kv.documents import Documents, Key, documents
from lbproxy.domain.backoff import Backoff
from lbproxy.domain.errors import RegistryError
from lbproxy.domain.strategy import Random
from lbproxy.wire.consul import ConsulClient
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.http import HttpClient
from lbproxy.wire.resolver import Resolver

logger = logging.getLogger("lbproxy.config")

WAIT_S: Final = 55.0
START_BACKOFF: Final = Backoff(base_s=0.1, cap_s=1.0, floor_s=0.05)
ABSENT: Final = "there is no such key in Consul"


async def read(client: ConsulClient, key: Key, index: int = 0) -> tuple[Documents | None, int | None]:
    """What the key holds, None when there is no such key, and the index to wait with for another version. With an index it waits
    up to `WAIT_S`. Raises RegistryError."""
    params: dict[str, str | list[str]] = {}
    if key.is_prefix:
        params["recurse"] = ""
    if not index:
        params["consistent"] = ""
    path = f"/v1/kv/{quote(key.text, safe='/')}"
    reply = await client.get(path, params, index=index, wait_s=WAIT_S, allow_404=True)
    if reply.filtered_by_acls:
        raise RegistryError(f"{key.source}: the token may not read all of it")
    if reply.status == 404:
        return None, reply.index
    return documents(key, reply.json()), reply.index


async def write(client: ConsulClient, name: str, text: bytes) -> None:
    """Put a value. Raises RegistryError."""
    await client.put(f"/v1/kv/{quote(name, safe='/')}", body=text)


async def read_all(
    keys: Iterable[Key], access: ConsulAccess, patience_s: float, rng: Random
) -> dict[str, Documents | None]:
    """Every key, tried again for `patience_s`. Raises RegistryError with the last reason."""
    http = HttpClient(Resolver().resolve)
    client = ConsulClient(access, http)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    found: dict[str, Documents | None] = {}
    try:
        for key in keys:
            attempt = 0
            while key.source not in found:
                try:
                    found[key.source], _ = await read(client, key)
                except RegistryError as error:
                    left_s = deadline - loop.time()
                    if left_s <= 0:
                        raise
                    if not attempt:
                        logger.warning("%s: %s; trying again for %.0f s", key.source, error, left_s)
                    await asyncio.sleep(min(START_BACKOFF.wait_s(attempt, rng), left_s))
                    attempt += 1
    finally:
        await client.close()
        await http.close()
    return found


def texts(found: Mapping[str, Documents | None]) -> dict[str, Documents | str]:
    """As `config.load` takes them: what is absent is a reason."""
    return {source: each if each is not None else ABSENT for source, each in found.items()}
