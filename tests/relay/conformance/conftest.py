"""The relay under test: every case runs once for each implementation and each event loop."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.relay.implementations import IMPLEMENTATIONS
from tests.relay.rig import Rig, rig_for
from tests.relay.scale import FULL

FULL_SIZE_WITHIN_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Full sizes take their time, and thousands of descriptors."""
    if not FULL:
        return
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(FULL_SIZE_WITHIN_S))


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_for(IMPLEMENTATIONS[request.param], tmp_path) as rig:
        yield rig
