"""The registry against agents of Consul 1.10 and later, whose streaming backend answers what waits."""

from __future__ import annotations

from typing import Any

import pytest

from tests.discovery.consul.made import Make, ports
from tests.servers.consul_imitation import ConsulImitation, instance


@pytest.mark.parametrize("consistency", ["default", "stale", "consistent"])
async def test_an_agent_that_streams_is_no_agent_without_a_leader(
    imitation: ConsulImitation, make: Make, consistency: str
) -> None:
    """Their answers say that no leader is known, all of them: Consul issue 9776."""

    async def streaming(of: ConsulImitation, request: Any) -> Any:
        if "index" not in request.query:
            return of.reply(of.instances)
        return of.reply(of.instances, X_Consul_KnownLeader="false", X_Consul_Query_Backend="streaming")

    imitation.trouble(streaming)
    imitation.change(instance(1))
    registry = make(imitation, consistency=consistency)
    assert ports(await registry.next()) == [1]
    for port in (2, 3):
        imitation.change(instance(port))
        found = await registry.next()
        assert (ports(found), found.regressed, found.consistent) == ([port], False, False)
    assert len(imitation.asked) == 3
