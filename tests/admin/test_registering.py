"""Instances register over the admin interface: what they may say, and what they hear."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from lbproxy.admin.contract import Registration
from lbproxy.admin.server import AdminServer
from tests.admin.fake import FakeOperations, serving
from tests.admin.test_paths import ask

PATH = "/api/v1/upstreams/web/endpoints"
NEW = f"{PATH}/10.0.0.5%3A80"


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
async def server(operations: FakeOperations) -> AsyncIterator[AdminServer]:
    async with serving(operations) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(
    ("body", "registration"),
    [
        (None, Registration(30.0)),
        ({}, Registration(30.0)),
        ({"lease_s": 5}, Registration(5.0)),
        ({"lease_s": 1, "weight": 3.0, "zone": "z"}, Registration(1.0, 3, "z")),
        ({"zone": None, "max_connections": None, "metadata": None}, Registration(30.0)),
        (
            {"lease_s": 3600, "priority": 1, "max_connections": 5, "metadata": {"a": "b"}},
            Registration(3600.0, priority=1, max_connections=5, metadata={"a": "b"}),
        ),
    ],
)
async def test_an_instance_says_what_it_is(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    body: Any,
    registration: Registration,
) -> None:
    status, lease = await ask(http, server, "PUT", NEW, body)
    assert status == 201
    assert operations.told == [("register", "web", "10.0.0.5:80", registration)]
    assert lease == {
        "address": "10.0.0.5:80",
        "lease_s": registration.lease_s,
        "weight": registration.weight,
        "zone": registration.zone,
        "priority": registration.priority,
        "max_connections": registration.max_connections,
        "metadata": dict(registration.metadata),
    }


async def test_it_is_201_once_200_as_often_as_it_renews_and_gone_when_it_leaves(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "lbproxy.admin")
    for method, path, expected in (
        ("PUT", NEW, 201),
        ("PUT", NEW, 200),
        ("PUT", f"{PATH}/%5B::1%5D:80", 201),
        ("PUT", f"{PATH}/10.0.0.6:80", 409),
        ("DELETE", NEW, 200),
        ("DELETE", NEW, 404),
        ("PUT", f"{PATH}/10.0.0.6:80", 201),
    ):
        assert (await ask(http, server, method, path))[0] == expected
    assert operations.registered == {"[::1]:80", "10.0.0.6:80"}
    levels = [(each.levelname, each.getMessage().rpartition(" ")[2]) for each in caplog.records]
    assert levels[:3] == [("INFO", "201"), ("DEBUG", "200"), ("INFO", "201")]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/api/v1/upstreams/none/endpoints/10.0.0.5%3A80", {}, 404),
        ("DELETE", "/api/v1/upstreams/none/endpoints/10.0.0.5%3A80", None, 404),
        ("PUT", f"{PATH}/10.0.0.5", {}, 400),
        ("PUT", f"{PATH}/%20", {}, 400),
        ("DELETE", f"{PATH}/10.0.0.5", None, 400),
        ("PUT", f"{PATH}/169.254.169.254%3A80", {}, 422),
        ("PUT", NEW, {"lease_s": 0.5}, 400),
        ("PUT", NEW, {"lease_s": 3601}, 400),
        ("PUT", NEW, {"lease_s": "30s"}, 400),
        ("PUT", NEW, {"lease_s": True}, 400),
        ("PUT", NEW, b'{"lease_s": NaN}', 400),
        ("PUT", NEW, b'{"lease_s": 1e999}', 400),
        ("PUT", NEW, {"weight": "3"}, 400),
        ("PUT", NEW, {"weight": 1.5}, 400),
        ("PUT", NEW, {"weight": None}, 400),
        ("PUT", NEW, {"priority": False}, 400),
        ("PUT", NEW, {"max_connections": []}, 400),
        ("PUT", NEW, {"zone": 5}, 400),
        ("PUT", NEW, {"metadata": ["a"]}, 400),
        ("PUT", NEW, {"metadata": {"a": 1}}, 400),
        ("PUT", NEW, {"ttl": 5}, 400),
        ("DELETE", NEW, {"now": True}, 400),
        ("GET", NEW, None, 405),
        ("POST", NEW, None, 405),
    ],
)
async def test_misuse_is_a_problem_and_registers_nobody(
    operations: FakeOperations,
    server: AdminServer,
    http: aiohttp.ClientSession,
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    assert (await ask(http, server, method, path, body))[0] == status
    assert operations.told == []
