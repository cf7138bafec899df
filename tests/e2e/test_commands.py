"""An operator's evening: the commands of the program against a running instance, and a configuration in several files."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.conftest import Start
from tests.e2e.peers import accept, connect, hold, hold_one, listen, read_to_end, upstreams
from tests.e2e.program import config, lbproxy
from tests.servers.ports import ReservedPort


def test_operator_looks_drains_weighs_and_kills(start: Start) -> None:
    first, one = listen()
    second, two = listen()
    with first, second:
        lb = start(config([one, two]))

        def say(*words: str) -> str:
            done = lbproxy(*words, LBPROXY_ADMIN=lb.admin)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        status = say("status", "up")
        assert f"127.0.0.1:{one}" in status
        assert f"127.0.0.1:{two}" in status
        say("drain", "up", f"127.0.0.1:{one}")
        assert lb.endpoints()[one]["ineligible"] == ["drained"]
        say("undrain", "up", f"127.0.0.1:{one}")
        say("weight", "up", f"127.0.0.1:{two}", "5")
        assert (lb.endpoints()[one]["eligible"], lb.endpoints()[two]["weight"]) == (True, 5)
        say("weight", "up", f"127.0.0.1:{two}", "auto")
        say("reload")
        with connect(lb.address()) as client, accept(first) as upstream:
            (session,) = json.loads(say("sessions", "--json"))["items"]
            assert session["client_port"] == client.getsockname()[1]
            say("kill", str(session["id"]))
            assert read_to_end(client) == (0, "RST")
            assert read_to_end(upstream) == (0, "RST")
        say("drain", "--process")
        assert lb.wait() == 0


def test_command_without_an_instance_says_so() -> None:
    with ReservedPort() as reserved:
        port = reserved.number
        done = lbproxy("status", "--admin", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(port) in done.stderr


async def test_configuration_may_stand_in_a_folder_of_files(start: Start, tmp_path: Path) -> None:
    async with upstreams(hold) as (up,):
        folder = tmp_path / "conf.d"
        folder.mkdir()
        (folder / "10-listeners.yaml").write_text("listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n")
        (folder / "20-upstreams.yaml").write_text(
            f"upstreams: {{up: {{endpoints: ['127.0.0.1:{up.port}']}}}}\n"
        )
        assert lbproxy("check", "-c", str(folder)).returncode == 0
        lb = start("admin: {bind: '127.0.0.1:0'}\n", further=[folder])
        (await hold_one(lb.address())).close()
        (folder / "30-again.yaml").write_text("listeners: {in: {bind: '127.0.0.1:0', upstream: up}}\n")
        done = lbproxy("check", "-c", str(folder))
        assert (done.returncode, "30-again.yaml" in done.stdout + done.stderr) == (2, True)
        status, answer = lb.ask("POST", "/api/v1/reload")
        assert (status in range(400, 500), b"30-again.yaml" in answer) == (True, True)
