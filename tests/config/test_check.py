"""`lbproxy check`: its lines, its exit codes, and that it is safe beside a running instance."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from lbproxy.cli.check import check

CONFIG = """
admin: {{bind: "127.0.0.1:0"}}
listeners: {{w: {{bind: "{bind}", upstream: u}}}}
upstreams: {{u: {{endpoints: ["10.0.0.1:80"]}}}}
"""


def run(path: Path, *, bind: bool = False) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return check([path], bind=bind, environ={}, out=out, err=err), out.getvalue(), err.getvalue()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "lbproxy.yaml"


def test_a_good_file_is_fine(config: Path) -> None:
    config.write_text(CONFIG.format(bind="127.0.0.1:8080"))
    assert run(config) == (0, "fine: 1 listener, 1 upstream, 1 endpoint\n", "")


def test_each_problem_is_a_line_and_the_status_is_2(config: Path) -> None:
    config.write_text(CONFIG.format(bind="x") + "log: {lvl: 1}\n")
    status, out, err = run(config)
    assert (status, out) == (2, "")
    assert err.splitlines() == [
        f"{config}:3:23: listeners.w.bind: 'x' is not host:port",
        f"{config}:5:7: log.lvl: unknown key (did you mean 'level'?)",
    ]


def test_a_warning_does_not_change_the_status(config: Path) -> None:
    config.write_text(CONFIG.format(bind="127.0.0.1:1").replace("{u: {", "{v: {endpoints: ['a:1']}, u: {"))
    status, _, err = run(config)
    assert status == 0
    assert err == f"warning: {config}:4:16: upstreams.v: no listener uses it\n"


@pytest.mark.parametrize("content", [None, b"", b"\xff"])
def test_a_token_that_cannot_be_read_is_told_without_its_content(config: Path, content: bytes | None) -> None:
    config.write_text(
        CONFIG.format(bind="127.0.0.1:1").replace(
            ":0", ':0", token: {file: token}, metrics_bind: "127.0.0.1:0'
        )
    )
    if content is not None:
        config.with_name("token").write_bytes(content)
    status, out, err = run(config)
    assert (status, out.startswith("fine: ")) == (0, True)
    assert err.startswith(f"warning: admin.token: {config.with_name('token')}: ")
    assert len(err.splitlines()) == 1
    assert run(config, bind=True)[0] == 1


def test_a_taken_port_is_told_with_its_holder_and_left_alone(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        config.write_text(CONFIG.format(bind=f"127.0.0.1:{port}"))
        assert run(config)[0] == 0
        status, out, err = run(config, bind=True)
        assert (status, out) == (1, "")
        assert err.startswith(f"listener w: cannot bind 127.0.0.1:{port}: Address already in use (held by ")
        assert f"(pid {os.getpid()})" in err
        with socket.create_connection(("127.0.0.1", port)):
            server.accept()[0].close()


def test_a_port_that_only_the_other_family_holds_is_taken_for_a_bind_of_both(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        config.write_text(CONFIG.format(bind=f"[::]:{server.getsockname()[1]}"))
        assert run(config, bind=True)[0] == 1


def test_a_free_port_is_given_back(config: Path) -> None:
    config.write_text(CONFIG.format(bind="127.0.0.1:0"))
    assert run(config, bind=True)[0] == 0


def test_a_running_instances_unix_socket_is_left_alone(config: Path) -> None:
    path = config.with_name("s")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        config.write_text(CONFIG.format(bind=f"unix:{path}"))
        assert run(config, bind=True)[0] == 0
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_token_to_register_with_that_cannot_be_read_is_told(config: Path) -> None:
    config.write_text(
        CONFIG.format(bind="127.0.0.1:0")
        + "registration: {token: {file: absent}, services: [{name: w, listener: w, address: 10.0.0.1}]}\n"
    )
    line = f"registration.token: {config.parent / 'absent'}: No such file or directory\n"
    assert run(config)[0::2] == (0, f"warning: {line}")
    assert run(config, bind=True) == (1, "", line)


@pytest.mark.parametrize(
    ("sources", "told"),
    [
        (
            "{type: consul, service: w, token: {file: absent}}",
            ["discovery.token: {}/absent: No such file or directory"],
        ),
        (
            (
                "[{type: etcd, prefix: /a/, username: u, password: {file: absent}}, {type: consul, service: w},"
                " {type: http, url: 'https://x', token: {file: absent}, tls: {ca: no.pem}}]"
            ),
            [
                "discovery[0].password: {}/absent: No such file or directory",
                "discovery[2].token: {}/absent: No such file or directory",
                "discovery[2].tls: {}/no.pem: No such file or directory",
            ],
        ),
        ("{type: consul, service: w, address: 'https://x', tls: {server_name: y, verify: false}}", []),
    ],
)
def test_what_a_source_cannot_read_is_told(config: Path, sources: str, told: list[str]) -> None:
    config.write_text(
        "listeners: {w: {bind: '127.0.0.1:0', upstream: u}}\nadmin: {bind: '127.0.0.1:0'}\n"
        f"upstreams: {{u: {{discovery: {sources}}}}}\n"
    )
    lines = [f"upstreams.u.{line.format(config.parent)}" for line in told]
    status, out, err = run(config)
    assert (status, err.splitlines()) == (0, [f"warning: {line}" for line in lines])
    assert out.startswith("fine: 1 listener, 1 upstream, ")
    assert "discovery source" in out
    status, _, err = run(config, bind=True)
    assert (status, err.splitlines()) == (1 if told else 0, lines)


def test_a_certificate_that_is_none_is_told(config: Path) -> None:
    config.with_name("ca.pem").write_text("no certificate")
    config.write_text(
        "listeners: {w: {bind: '127.0.0.1:0', upstream: u}}\n"
        "upstreams: {u: {discovery: {type: consul, service: w, address: 'https://x', tls: {ca: ca.pem}}}}\n"
    )
    status, _, err = run(config)
    assert status == 0
    assert err.startswith("warning: upstreams.u.discovery.tls: ")
