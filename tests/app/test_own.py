"""Which addresses are our own, of all that a registry may name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lbproxy.app.own import OwnAddresses
from lbproxy.domain.address import ip_address
from lbproxy.wire import local


@pytest.mark.parametrize(
    ("bound", "named", "is_ours"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.2", False),
        ("0.0.0.0", "127.0.0.2", True),
        ("0.0.0.0", "192.0.2.1", False),
        ("0.0.0.0", "::1", False),  # a server of somebody else's, beside our listener
        ("::", "127.0.0.1", True),
        ("::", "::1", True),
        ("::", "2001:db8::1", False),
    ],
)
def test_a_wildcard_listener_is_at_every_address_of_the_machine_that_it_serves(
    bound: str, named: str, is_ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "is_local", {"127.0.0.1", "127.0.0.2", "::1"}.__contains__)
    listener = SimpleNamespace(addresses=(ip_address(bound, 80),))
    running: Any = SimpleNamespace(listeners={"web": listener})
    own = OwnAddresses(running, tuple, lambda: 0.0)
    assert own.is_listener(ip_address(named, 80)) is is_ours
    assert not own.is_listener(ip_address(named, 81))
