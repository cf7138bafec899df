"""The metrics page: its names, values and formats, whole and in slices."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lbproxy.domain.session import EndReason, Rejection
from lbproxy.metrics import render as module
from lbproxy.metrics.collector import families
from lbproxy.metrics.contract import EndpointReading, Reading
from lbproxy.metrics.options import MetricsOptions
from lbproxy.metrics.render import SLICE_ENDPOINTS, SLICE_SAMPLES, render, slices
from tests.metrics.reading import endpoint, reading
from tests.patience import WITHIN_S
from tests.servers.programs import require

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
ACCEPTS = ["", OPENMETRICS]
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


async def page(of: Reading, accept: str = "", options: MetricsOptions | None = None) -> str:
    pieces, _ = await render(lambda: of, accept, options or MetricsOptions())
    return b"".join(pieces).decode()


def samples(text: str, accept: str = "") -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    parse = parse_openmetrics if accept else parse_text
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in parse(text)
        for one in family.samples
    }


WEB = (("listener", "web"), ("upstream", "web"))
FIRST = (("endpoint", "10.0.0.0:80"), ("upstream", "web"))


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_every_number_of_the_reading_is_on_the_page(accept: str) -> None:
    found = samples(await page(reading(), accept), accept)
    expected = {
        ("lbproxy_listener_connections_total", (("listener", "web"),)): 10,
        ("lbproxy_listener_connections_active", (("listener", "web"),)): 4,
        ("lbproxy_listener_connections_rejected_total", (("listener", "web"), ("reason", "acl"))): 3,
        ("lbproxy_accept_pauses_total", (("listener", "web"),)): 1,
        ("lbproxy_connections_ended_total", (*WEB[:1], ("reason", "client_eof"), *WEB[1:])): 5,
        ("lbproxy_connection_duration_seconds_count", WEB): 3,
        ("lbproxy_connection_duration_seconds_sum", WEB): 1000003.02,
        ("lbproxy_connection_duration_seconds_bucket", (("le", "0.05"), *WEB)): 1,
        ("lbproxy_connection_duration_seconds_bucket", (("le", "86400.0"), *WEB)): 2,
        ("lbproxy_connection_duration_seconds_bucket", (("le", "+Inf"), *WEB)): 3,
        ("lbproxy_upstream_endpoints_eligible", (("upstream", "web"),)): 2,
        ("lbproxy_upstream_connect_duration_seconds_bucket", (("le", "0.0005"), ("upstream", "web"))): 1,
        ("lbproxy_upstream_connect_duration_seconds_count", (("upstream", "web"),)): 2,
        ("lbproxy_session_connect_attempts_total", (("upstream", "web"),)): 12,
        ("lbproxy_sessions_waiting", (("upstream", "web"),)): 0,
        ("lbproxy_endpoint_connections_total", FIRST): 2,
        ("lbproxy_endpoint_connections_active", FIRST): 3,
        ("lbproxy_endpoint_connect_failures_total", (FIRST[0], ("reason", "refused"), FIRST[1])): 2,
        ("lbproxy_endpoint_sent_bytes_total", FIRST): 1000,
        ("lbproxy_endpoint_received_bytes_total", FIRST): 2000,
        ("lbproxy_endpoint_eligible", FIRST): 1,
        ("lbproxy_endpoint_weight", FIRST): 5,
        ("lbproxy_config_reloads_total", (("result", "applied"),)): 2,
        ("lbproxy_config_reloads_total", (("result", "invalid"),)): 0,
        ("lbproxy_config_last_reload_successful", ()): 0,
        ("lbproxy_access_log_dropped_total", ()): 9,
        ("lbproxy_registration_registered", (("id", "web-8080"), ("service", "web"))): 1,
        ("lbproxy_registration_failures_total", (("id", "web-8080"), ("service", "web"))): 3,
        ("lbproxy_relay_turns_total", ()): 4,
        ("lbproxy_relay_pending_bytes", ()): 77,
    }
    assert {key: found.get(key) for key in expected} == expected
    build = (("event_loop", "uvloop"), ("python", "3.11"), ("relay", "asyncio"), ("version", "1.2.3"))
    assert found["lbproxy_build_info", build] == 1
    assert ("process_max_fds", ()) in found


async def test_closed_sets_are_there_before_their_first_event() -> None:
    found = samples(await page(reading()))
    reasons = {dict(labels)["reason"] for name, labels in found if name == "lbproxy_connections_ended_total"}
    assert reasons == set(EndReason)
    rejections = {dict(labels)["reason"] for name, labels in found if name.endswith("_rejected_total")}
    assert rejections == set(Rejection)


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_every_family_has_a_help_and_a_type_once(accept: str) -> None:
    text = await page(reading(endpoints=SLICE_SAMPLES * 3), accept)
    for word in ("HELP", "TYPE"):
        names = re.findall(rf"^# {word} (\S+)", text, re.MULTILINE)
        assert len(names) == len(set(names))
        assert {family.name for family in parse_text(text)} >= {
            "lbproxy_endpoint_weight",
            "lbproxy_build_info",
        }
    assert text.count("# EOF") == bool(accept)


async def test_nothing_running_is_a_valid_page() -> None:
    empty = Reading({"version": "1"}, [], [], [], {}, True, 0)
    assert ("lbproxy_config_last_reload_successful", ()) in samples(
        await page(empty, OPENMETRICS), OPENMETRICS
    )


class Whole:
    """A registry of every family at once: what the library would have rendered in one go."""

    def __init__(self, of: Reading) -> None:
        self._of = of

    def collect(self) -> list[Metric]:
        return [family.metric(family.samples) for family in families(self._of, MetricsOptions())]


@pytest.mark.parametrize("accept", ACCEPTS)
@pytest.mark.parametrize(
    "endpoints", [0, 1, SLICE_SAMPLES - 1, SLICE_SAMPLES, SLICE_SAMPLES + 1, 2 * SLICE_SAMPLES, 1000]
)
def test_slices_together_are_the_unsliced_page(accept: str, endpoints: int) -> None:
    encoder, _ = choose_encoder(accept)
    of = reading(endpoints)
    pieces = list(slices(families(of, MetricsOptions()), encoder))
    assert b"".join(pieces) == encoder(Whole(of)).removesuffix(b"# EOF\n")


@given(sizes=st.lists(st.integers(0, 12), max_size=12), room=st.integers(1, 9))
def test_slices_are_bounded_and_lose_nothing(sizes: list[int], room: int) -> None:
    taken: list[int] = []

    def encoder(registry: Any) -> bytes:
        (metric,) = registry.collect()
        taken.append(len(metric.samples))
        return f"# {metric.name}\n".encode() + b"s\n" * len(metric.samples)

    pages = [_Many(index, size) for index, size in enumerate(sizes)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "SLICE_SAMPLES", room)
        pieces = list(slices(pages, encoder))  # type: ignore[arg-type]
    whole = b"".join(f"# family_{index}\n".encode() + b"s\n" * size for index, size in enumerate(sizes))
    assert b"".join(pieces) == whole
    assert all(piece.count(b"s\n") <= room for piece in pieces)
    assert max(taken, default=0) <= room


class _Many:
    def __init__(self, index: int, size: int) -> None:
        self.name = f"family_{index}"
        self.samples = [index] * size

    def metric(self, samples: Any) -> Any:
        made = Metric(self.name, "", "gauge")
        made.samples = list(samples)
        return made


async def test_the_loop_gets_a_turn_after_every_slice() -> None:
    turns = 0
    going = True
    loop = asyncio.get_running_loop()

    def tick() -> None:
        nonlocal turns
        turns += 1
        if going:
            loop.call_soon(tick)

    loop.call_soon(tick)
    pieces, _ = await render(lambda: reading(1000), "", MetricsOptions())
    going = False
    sliced = [piece for piece in pieces if b"lbproxy_" in piece]
    assert len(sliced) > 8 * 1000 / SLICE_SAMPLES
    assert turns >= len(sliced)
    assert (
        max(piece.count(b"\n") for piece in sliced) < SLICE_SAMPLES + 80
    )  # and the HELP and TYPE of small families


async def test_endpoints_are_read_once_and_in_slices() -> None:
    of = reading(0)
    made = 0

    def lazy() -> Iterator[EndpointReading]:
        nonlocal made
        for number in range(2 * SLICE_ENDPOINTS):
            made += 1
            yield endpoint(f"10.0.0.{number}:80")

    of.upstreams[0].endpoints = lazy()
    seen: list[int] = []
    going = True

    def look() -> None:
        seen.append(made)
        if going:
            asyncio.get_running_loop().call_soon(look)

    asyncio.get_running_loop().call_soon(look)
    text = await page(of)
    going = False
    assert SLICE_ENDPOINTS in seen  # the loop had a turn half-way
    assert text.count("lbproxy_endpoint_weight{") == made == 2 * SLICE_ENDPOINTS


@pytest.mark.parametrize(
    ("shown", "labels"),
    [
        ("all", ["10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80"]),
        ("none", []),
        (2, ["10.0.0.0:80", "10.0.0.1:80"]),
        (0, []),
        (9, ["10.0.0.0:80", "10.0.0.1:80", "10.0.0.2:80"]),
    ],
)
async def test_endpoint_series_are_limited_as_configured(shown: Any, labels: list[str]) -> None:
    text = await page(reading(3), options=MetricsOptions(endpoints=shown))
    assert re.findall(r'^lbproxy_endpoint_weight{endpoint="([^"]+)"', text, re.MULTILINE) == labels
    assert "lbproxy_upstream_connect_duration_seconds_count" in text


@pytest.mark.parametrize("accept", ACCEPTS)
@given(name=st.text(max_size=40))
def test_a_label_comes_back_as_it_was(accept: str, name: str) -> None:
    # A lone surrogate is no text that could be sent; configuration is read as UTF-8.
    name = name.encode("utf-8", "replace").decode()
    of = reading(0)
    of.upstreams[0].endpoints = [endpoint(name)]
    encoder, _ = choose_encoder(accept)
    text = b"".join(slices(families(of, MetricsOptions()), encoder)).decode() + ("# EOF\n" if accept else "")
    assert samples(text, accept)["lbproxy_endpoint_weight", (("endpoint", name), ("upstream", "web"))] == 5


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.5", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.3", "application/openmetrics-text"),
        ("\x00;;,=", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
async def test_the_format_is_negotiated(accept: str, content_type: str) -> None:
    _, given_type = await render(reading, accept, MetricsOptions())
    assert given_type.startswith(content_type)


@pytest.mark.foreign
async def test_promtool_has_nothing_to_say() -> None:
    text = await page(reading())
    done = await asyncio.to_thread(
        subprocess.run,
        [str(require("promtool")), "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.foreign
def test_the_documented_alerts_are_rules(tmp_path: Path) -> None:
    (rules,) = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "rules.yaml").write_text(rules)
    done = subprocess.run(
        [str(require("promtool")), "check", "rules", str(tmp_path / "rules.yaml")],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout + done.stderr
    assert set(re.findall(r"lbproxy_[a-z_]+", rules)) <= set(
        re.findall(r"`(lbproxy_[a-z_]+)`", DOCUMENT.read_text())
    )


async def test_the_document_names_what_the_page_holds() -> None:
    text = await page(reading())
    described = set(re.findall(r"`(lbproxy_[a-z_]+)`", DOCUMENT.read_text(encoding="utf-8")))
    on_page = {
        name for name in re.findall(r"^# HELP (\S+)", text, re.MULTILINE) if not name.startswith("process_")
    }
    assert on_page <= described
    documented_relay = {name for name in described if name.startswith("lbproxy_relay_")}
    assert described - documented_relay <= on_page
