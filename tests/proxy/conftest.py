"""Every test of the proxy row runs once with each relay: the native one's clients come through its doorway."""

from __future__ import annotations

import pytest

from tests.proxy import rig
from tests.relay.implementations import IMPLEMENTATIONS


@pytest.fixture(params=sorted(IMPLEMENTATIONS), autouse=True)
def relay_kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(rig, "relay_kind", request.param)
    kind: str = request.param
    return kind
