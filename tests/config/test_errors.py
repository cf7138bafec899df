"""What is wrong with a configuration, and the exact lines that say so."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lbproxy.config.load import ConfigError, load_text

GOOD = "listeners: {w: {bind: '127.0.0.1:8080', upstream: u}}\nupstreams: {u: {endpoints: ['10.0.0.1:80']}}\n"


def errors(text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f", environ or {}, is_local=lambda ip: ip in {"127.0.0.1", "::1", "10.1.1.1"})
    return list(caught.value.errors)


def listener(more: str) -> str:
    """GOOD with more keys for its listener; they begin at line 1, column 54."""
    return GOOD.replace("upstream: u}", f"upstream: u, {more}}}")


def endpoints(more: str) -> str:
    """GOOD with other endpoints; they begin at line 2, column 29."""
    return GOOD.replace("'10.0.0.1:80'", more)


def upstream(more: str) -> str:
    """GOOD with more keys for its upstream; they begin at line 2, column 17."""
    return GOOD.replace("endpoints:", f"{more}, endpoints:")


def binds(first: str, second: str = "'127.0.0.1:1'", endpoint: str = "10.0.0.1:80") -> str:
    """Two listeners, on lines 2 and 3, and one endpoint on line 4."""
    return (
        f"listeners:\n  a: {{bind: {first}, upstream: u}}\n  b: {{bind: {second}, upstream: u}}\n"
        f"upstreams: {{u: {{endpoints: ['{endpoint}']}}}}\n"
    )


def test_the_good_one_has_no_error() -> None:
    assert load_text(GOOD, "f", {}).warnings == ()


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["f:1:1: 'listeners' is missing"]),
        ("5", ["f:1:1: expected a mapping at the top of the file"]),
        ("listeners: {}\n", ["f:1:12: listeners: no listener: there is nothing to serve"]),
        (GOOD + "listners: {}\n", ["f:3:1: listners: unknown key (did you mean 'listeners'?)"]),
        (GOOD + "admin:\n", ["f:3:7: admin: expected a mapping, got null"]),
        (
            GOOD + "upstreams: {}\n",
            ["f:3:1: upstreams: key given twice (first at line 2, column 1)"],
        ),
        (GOOD + "log: &l {}\n", ["f:3:6: log: anchors are not allowed (&l)"]),
        (GOOD + "log: *l\n", ["f:3:6: log: aliases are not allowed (*l)"]),
        (GOOD + "log: !!map {}\n", ["f:3:6: log: tags are not allowed (tag:yaml.org,2002:map)"]),
        (GOOD + "---\n", ["f:3:1: a second document: only one is allowed"]),
        (GOOD + "1: x\n", ["f:3:1: a key must be text: write '1' in quotes"]),
        ("a: [1, 2", ["f:2:1: did not find expected ',' or ']' (while parsing a flow sequence)"]),
        ("[" * 40, ["f:1:33: nested more than 32 levels deep"]),
        ("a: \x07", ["f:1:4: character U+0007 is not allowed"]),
        ('"a\\nb": 1\n' + GOOD, ["f:1:1: a\\nb: unknown key"]),
        (
            GOOD.replace("w:", "'w w':"),
            [
                "f:1:13: listeners.w w: 'w w' is no name: letters, digits, '_', '-' and '.', not first '-' or '.', at most 63"
            ],
        ),
    ],
)
def test_shape(text: str, lines: list[str]) -> None:
    assert errors(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            listener("timeouts: {idle: 5}"),
            ["f:1:71: listeners.w.timeouts.idle: a duration needs a unit: write 5s or 5ms"],
        ),
        (
            listener("timeouts: {idle: 0s}"),
            ["f:1:71: listeners.w.timeouts.idle: '0s' is too short: at least 1ms"],
        ),
        (
            listener("timeouts: {idle: 1s1m}"),
            [
                "f:1:71: listeners.w.timeouts.idle: '1s1m': write each unit once, from large to small, as in 1m30s"
            ],
        ),
        (
            listener("tcp: {keepalive: 100ms}"),
            [
                "f:1:71: listeners.w.tcp.keepalive: '100ms' is out of range: whole seconds from 1s to 32767s",
            ],
        ),
        (
            listener("tcp: {send_buffer: 64}"),
            ["f:1:73: listeners.w.tcp.send_buffer: a size needs a unit: write 64B or 1KiB"],
        ),
        (
            listener("max_connections: '5'"),
            ["f:1:71: listeners.w.max_connections: expected a whole number (without quotes), got '5'"],
        ),
        (
            listener("max_connections: 0"),
            ["f:1:71: listeners.w.max_connections: 0 is out of range: at least 1"],
        ),
        (
            listener("on_failure: rset"),
            [
                "f:1:66: listeners.w.on_failure: 'rset' is not one of 'reset', 'close' (did you mean 'reset'?)",
            ],
        ),
        (
            listener("allow: [10.0.0.1/8]"),
            [
                "f:1:62: listeners.w.allow[0]: '10.0.0.1/8' has bits set after its prefix (did you mean '10.0.0.0/8'?)"
            ],
        ),
        (
            endpoints("{address: 'a:1', weight: 65536}"),
            ["f:2:54: upstreams.u.endpoints[0].weight: 65536 is out of range: at most 65535"],
        ),
        (
            endpoints("{address: 'a:1', metadata: {v: 1.10}}"),
            ["f:2:60: upstreams.u.endpoints[0].metadata.v: expected text (in quotes), got 1.1"],
        ),
        (
            endpoints("{addres: 'a:1'}"),
            [
                "f:2:29: upstreams.u.endpoints[0]: 'address' is missing",
                "f:2:30: upstreams.u.endpoints[0].addres: unknown key (did you mean 'address'?)",
            ],
        ),
        (endpoints("'a:0'"), ["f:2:29: upstreams.u.endpoints[0]: port 0 cannot be dialled"]),
        (
            endpoints("'a:1', 'A.:1'"),
            ["f:2:36: upstreams.u.endpoints[1]: a:1 is listed twice (first at f:2:29)"],
        ),
        (
            endpoints(""),
            ["f:2:16: upstreams.u: no endpoints: name at least one, or a `discovery` that knows them"],
        ),
        (
            upstream("connect: {attempts: 101}"),
            ["f:2:37: upstreams.u.connect.attempts: 101 is out of range: at most 100"],
        ),
        (
            upstream("strategy: {type: random, choices: 3}"),
            ["f:2:27: upstreams.u.strategy: choices belongs to least_connection"],
        ),
        (
            GOOD + "log: {access: {enabled: on}}\n",
            ["f:3:25: log.access.enabled: expected true or false, got 'on'"],
        ),
        (
            GOOD + "metrics: {endpoints: []}\n",
            ["f:3:22: metrics.endpoints: expected all, none or a number of at least 1, got a list"],
        ),
        (
            GOOD + "runtime: {max_connections: 101%}\n",
            ["f:3:28: runtime.max_connections: 101% is out of range: above 0% and at most 100%"],
        ),
    ],
)
def test_values(text: str, lines: list[str]) -> None:
    assert errors(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            upstream("strategy: peak_ewma, health: {}"),
            [
                (
                    "f:2:27: upstreams.u.strategy: this version has no 'peak_ewma' yet: one of 'round_robin', "
                    "'least_connection', 'random'"
                ),
                "f:2:38: upstreams.u.health: this version has no 'health' yet",
            ],
        ),
        (
            "listeners: {w: {bind: '127.0.0.1:1', routes: []}}\n",
            ["f:1:38: listeners.w.routes: this version has no 'routes' yet"],
        ),
        (
            GOOD + "log: {access: {events: [start, end]}}\n",
            ["f:3:25: log.access.events[0]: this version has no 'start' yet: one of 'end'"],
        ),
        (
            GOOD + "runtime: {offload: auto}\n",
            ["f:3:20: runtime.offload: this version has no 'auto' yet: one of 'off'"],
        ),
        (
            GOOD + "runtime: {offload: require}\n",
            ["f:3:20: runtime.offload: this version has no 'require' yet: one of 'off'"],
        ),
    ],
)
def test_what_later_versions_have_is_named_as_such(text: str, lines: list[str]) -> None:
    assert errors(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            GOOD.replace("upstream: u", "upstream: webb").replace("u: {", "web: {"),
            ["f:1:51: listeners.w.upstream: there is no upstream 'webb' (did you mean 'web'?)"],
        ),
        (
            binds("'0.0.0.0:80'", "'127.0.0.1:80'"),
            [
                "f:3:13: listeners.b.bind: 127.0.0.1:80 overlaps 0.0.0.0:80 (also by listener a at f:2:13)",
            ],
        ),
        (
            binds("'127.0.0.1:80'", "'[::ffff:127.0.0.1]:80'"),
            ["f:3:13: listeners.b.bind: 127.0.0.1:80 is bound twice (also by listener a at f:2:13)"],
        ),
        (
            binds("'[::]:80'", "'127.0.0.1:80'"),
            ["f:3:13: listeners.b.bind: 127.0.0.1:80 overlaps [::]:80 (also by listener a at f:2:13)"],
        ),
        (
            binds("'unix:/x'", "['unix:/y', 'unix:/x']"),
            ["f:3:25: listeners.b.bind[1]: unix:/x is bound twice (also by listener a at f:2:13)"],
        ),
        (
            GOOD.replace("8080", "9900") + "admin: {bind: '127.0.0.1:9900'}\n",
            [
                "f:3:15: admin.bind: 127.0.0.1:9900 is bound twice (also by listener w at f:1:23)",
            ],
        ),
        (
            binds("'0.0.0.0:80'", endpoint="10.1.1.1:80"),
            ["f:4:29: upstreams.u.endpoints[0]: 10.1.1.1:80 is our own listener a: a loop"],
        ),
        (
            binds("'[::]:80'", endpoint="127.0.0.1:80"),
            ["f:4:29: upstreams.u.endpoints[0]: 127.0.0.1:80 is our own listener a: a loop"],
        ),
        (
            binds("'127.0.0.1:80'", endpoint="localhost:80"),
            ["f:4:29: upstreams.u.endpoints[0]: localhost:80 is our own listener a: a loop"],
        ),
        (
            GOOD + "admin: {bind: '0.0.0.0:9900'}\n",
            [
                (
                    "f:3:15: admin.bind: 0.0.0.0:9900 can be reached by other machines: set admin.token, or bind to "
                    "loopback or unix:/path"
                )
            ],
        ),
        (
            (
                "listeners: {w: {bind: '127.0.0.1:1', upstream: u}}\n"
                "upstreams: {u: {type: original_dst, endpoints: [], connect: {attempts: 2}}}\n"
            ),
            [
                "f:2:37: upstreams.u.endpoints: an original_dst upstream dials where its client meant to go",
                (
                    "f:2:72: upstreams.u.connect.attempts: an original_dst upstream makes one attempt: there is nowhere "
                    "else to go"
                ),
            ],
        ),
    ],
)
def test_references(text: str, lines: list[str]) -> None:
    assert errors(text) == lines


@pytest.mark.parametrize(
    "text",
    [
        binds("['0.0.0.0:80', '[::]:80']"),
        binds("'127.0.0.1:0'", "'127.0.0.1:0'"),
        binds("'127.0.0.1:80'", "'127.0.0.2:80'"),
        binds("'0.0.0.0:80'", endpoint="10.2.2.2:80"),
        binds("['0.0.0.0:80', '[::]:80']", endpoint="10.2.2.2:80"),
        binds("'0.0.0.0:80'", endpoint="10.1.1.1:81"),
    ],
)
def test_binds_and_endpoints_that_get_along(text: str) -> None:
    load_text(text, "f", {}, is_local=lambda ip: ip in {"127.0.0.1", "::1", "10.1.1.1"})


def test_all_errors_come_at_once_in_the_order_of_the_file() -> None:
    text = (
        "admin: {bnd: x}\n"
        "listeners:\n  w: {bind: 'x', upstream: v}\n"
        "upstreams: {u: {endpoints: [a]}}\n"
        "upstreams: {}\n"
    )
    assert errors(text) == [
        "f:1:9: admin.bnd: unknown key (did you mean 'bind'?)",
        "f:3:13: listeners.w.bind: 'x' is not host:port",
        "f:3:28: listeners.w.upstream: there is no upstream 'v'",
        "f:4:29: upstreams.u.endpoints[0]: 'a' is not host:port",
        "f:5:1: upstreams: key given twice (first at line 4, column 1)",
    ]


def test_an_unused_upstream_is_a_warning() -> None:
    loaded = load_text(GOOD.replace("{u: {", "{v: {endpoints: ['a:1']}, u: {"), "f", {})
    assert loaded.warnings == ("f:2:16: upstreams.v: no listener uses it",)
