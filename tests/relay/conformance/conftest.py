"""The relay under test: every case runs once for each implementation and each event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.relay.implementations import IMPLEMENTATIONS
from tests.relay.rig import Rig, rig_for


@pytest.fixture(params=sorted(IMPLEMENTATIONS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    async with rig_for(IMPLEMENTATIONS[request.param], tmp_path) as rig:
        yield rig
