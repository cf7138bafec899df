"""Loading: variables, secrets, several files, what comes out; and that nothing but ConfigError comes out of garbage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbproxy.config.load import ConfigError, load, load_text
from lbproxy.config.options import Configuration, Share

GOOD = "listeners: {w: {bind: '127.0.0.1:8080', upstream: u}}\nupstreams: {u: {endpoints: ['10.0.0.1:80']}}\n"
LISTENERS = "listeners: {w: {bind: '127.0.0.1:8080', upstream: u}}\n"


def failing(text: str, environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f", environ)
    return "\n".join(caught.value.errors)


def metadata(value: str, environ: dict[str, str]) -> str:
    text = GOOD.replace("'10.0.0.1:80'", f'{{address: "a:1", metadata: {{k: "{value}"}}}}')
    return load_text(text, "f", environ).configuration.upstreams["u"].endpoints[0].metadata["k"]


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("${A}", {"A": "x"}, "x"),
        ("a${A}b${A}", {"A": "x"}, "axbx"),
        ("${A:-y}", {}, "y"),
        ("${A:-y}", {"A": ""}, "y"),
        ("${A:-}", {}, ""),
        ("$${A}", {"A": "x"}, "${A}"),
        ("$A $", {"A": "x"}, "$A $"),
        ("${A}", {"A": "${B}", "B": "x"}, "${B}"),
        ("${A}", {"A": "'}: [\\n"}, "'}: [\\n"),
        ("${A}", {"A": "7"}, "7"),
    ],
)
def test_variables_are_replaced_in_scalars_and_nowhere_else(
    written: str, environ: dict[str, str], value: str
) -> None:
    assert metadata(written, environ) == value


def test_a_plain_scalar_is_typed_after_replacement() -> None:
    text = (
        GOOD + "runtime:\n  max_connections: ${N}\n  drain_timeout: ${D:-1m}\n  allow_literal_secrets: ${B}\n"
    )
    runtime = load_text(text, "f", {"N": "77", "B": "true"}).configuration.runtime
    assert (runtime.max_connections, runtime.drain_timeout_s, runtime.allow_literal_secrets) == (
        77,
        60.0,
        True,
    )


def test_a_quoted_scalar_stays_text() -> None:
    told = failing(GOOD + 'metrics:\n  endpoints: "${N}"\n', {"N": "5"})
    assert told == "f:4:14: metrics.endpoints: expected all, none or a number of at least 1, got '5'"


def test_a_missing_variable_is_told_once_with_its_place() -> None:
    told = failing(GOOD + "runtime:\n  drain_delay: ${NOPE}\n", {})
    assert told == "f:4:16: runtime.drain_delay: environment variable NOPE is not set"


@pytest.mark.parametrize("text", ["${T}", "'${T}'"])
@pytest.mark.parametrize("value", ["hunter2", "12345", "true", "~"])
def test_a_secret_is_text_whatever_it_looks_like(text: str, value: str) -> None:
    loaded = load_text(f"{GOOD}admin:\n  token: {text}\n", "f", {"T": value})
    token = loaded.configuration.admin.token
    assert token is not None
    assert token.reveal() == value
    assert loaded.document["admin"]["token"] == "***"
    assert value not in repr(token)
    assert repr(value) not in repr(loaded)


@pytest.mark.parametrize(
    "written",
    ["hunter2", "'hunter2'", '"${T:-hunter2}"', '"hunter2${T:-}"', '"${T:-}hunter2"', "[hunter2]", "{a: hunter2}"],
)  # fmt: skip
@pytest.mark.parametrize("environ", [{}, {"T": "x"}])
def test_a_literal_secret_is_refused_and_not_repeated(written: str, environ: dict[str, str]) -> None:
    told = failing(f"{GOOD}admin: {{token: {written}}}\n", environ)
    assert told.startswith("f:3:16: admin.token: ")
    assert "hunter2" not in told


def test_a_literal_secret_may_be_allowed() -> None:
    text = GOOD + "admin: {token: hunter2}\nruntime: {allow_literal_secrets: true}\n"
    token = load_text(text, "f", {}).configuration.admin.token
    assert token is not None
    assert token.reveal() == "hunter2"


def test_an_empty_secret_is_refused() -> None:
    assert failing(GOOD + "admin:\n  token: ${T}\n", {"T": ""}) == "f:4:10: admin.token: the secret is empty"
    assert (
        failing(GOOD + "admin:\n  token: ${T}\n", {"T": "\n"}) == "f:4:10: admin.token: the secret is empty"
    )


def test_a_secret_file_is_relative_to_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    (tmp_path / "a.yaml").write_text(GOOD + "admin: {token: {file: token}}\n")
    token = load([tmp_path / "a.yaml"], {}).configuration.admin.token
    assert token is not None
    assert token.reveal() == "hunter2"


def test_a_nul_in_a_file_name_is_an_error() -> None:
    assert "admin.token" in failing(GOOD + 'admin: {token: {file: "a\\0b"}}\n', {})
    assert "runtime.state_dir" in failing(GOOD + 'runtime: {state_dir: "a\\0b"}\n', {})


@pytest.mark.parametrize(
    ("written", "environ", "value"),
    [
        ("auto", {}, None),
        ("auto", {"STATE_DIRECTORY": "/a:/b"}, Path("/a")),
        ("~", {"STATE_DIRECTORY": "/a"}, None),
        ("/c", {"STATE_DIRECTORY": "/a"}, Path("/c")),
    ],
)
def test_the_state_directory(written: str, environ: dict[str, str], value: Path | None) -> None:
    loaded = load_text(f"{GOOD}runtime: {{state_dir: {written}}}\n", "f", environ)
    assert loaded.configuration.runtime.state_dir == value


def test_what_is_left_out_has_the_defaults_of_the_options() -> None:
    configuration = load_text(GOOD, "f", {}).configuration
    plain = Configuration()
    assert configuration.runtime == plain.runtime
    assert (configuration.admin, configuration.log, configuration.metrics) == (
        plain.admin,
        plain.log,
        plain.metrics,
    )
    assert configuration.upstreams["u"].connect.attempts == 3


def test_a_share_of_connections_and_one_attempt_for_original_dst() -> None:
    text = LISTENERS + "upstreams: {u: {type: original_dst}}\nruntime: {max_connections: 50%}\n"
    configuration = load_text(text, "f", {}).configuration
    assert configuration.runtime.max_connections == Share(0.5)
    assert configuration.upstreams["u"].connect.attempts == 1
    assert configuration.upstreams["u"].pool.kind == "original_dst"


def test_the_document_is_plain_json_and_loads_again() -> None:
    document = load_text(GOOD, "f", {}).document
    text = json.dumps(document)
    assert load_text(text, "f", {}).document == document


def test_a_folder_and_a_file_become_one(tmp_path: Path) -> None:
    folder = tmp_path / "d"
    folder.mkdir()
    (folder / "b.yml").write_text("upstreams: {u: {endpoints: ['a:1']}}\nlog: {level: debug}\n")
    (folder / "a.yaml").write_text(LISTENERS + "log: {format: json}\n")
    (folder / "ignored.txt").write_text("[")
    (tmp_path / "c.yaml").write_text("upstreams: {v: {endpoints: ['a:2']}}\n")
    configuration = load([folder, tmp_path / "c.yaml"], {}).configuration
    assert list(configuration.upstreams) == ["u", "v"]
    assert (configuration.log.level, configuration.log.format) == ("debug", "json")


def test_what_is_given_twice_names_both_places(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(GOOD + "log: {level: info}\n")
    b.write_text(LISTENERS + "log: {level: info}\n")
    with pytest.raises(ConfigError) as caught:
        load([a, b], {})
    assert caught.value.errors == (
        f"{b}:1:13: listeners.w: given twice (first at {a}:1:13)",
        f"{b}:2:7: log.level: given twice (first at {a}:3:7)",
    )


def test_a_broken_file_does_not_blame_names_that_may_stand_in_it(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text(LISTENERS.replace("8080'", "x'"))
    b.write_text("upstreams: [\n")
    with pytest.raises(ConfigError) as caught:
        load([a, b], {})
    assert [line.split(": ", 2)[0] for line in caught.value.errors] == [f"{a}:1:23", f"{b}:2:1"]


def test_every_unreadable_file_is_told(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError) as caught:
        load([tmp_path / "none.yaml", empty, "consul:lbproxy"], {})
    assert caught.value.errors == (
        f"{empty}:1:1: the folder holds no *.yaml file",
        f"{tmp_path}/none.yaml:1:1: No such file or directory",
        "consul:lbproxy:1:1: it was not read from Consul",
    )


def test_no_file_at_all_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no configuration file"):
        load([], {})


def test_loading_imports_nothing_that_serves() -> None:
    program = "import sys, lbproxy.config.load; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"aiohttp", "consul", "kazoo", "uvloop", "dns", "asyncio", "asyncio.events"} & set(
        done.stdout.split()
    )


_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["${A}", "${A:-5s}", "${", "auto", "5s", "64KiB", "50%", "a:1", "0.0.0.0:80", "unix:/x", "u", "${B}"]),
)  # fmt: skip
_KEYS = st.sampled_from(
    [
        "runtime",
        "admin",
        "log",
        "metrics",
        "listeners",
        "upstreams",
        "w",
        "u",
        "bind",
        "upstream",
        "endpoints",
        "address",
        "weight",
        "metadata",
        "type",
        "strategy",
        "connect",
        "attempts",
        "token",
        "file",
        "timeouts",
        "idle",
        "tcp",
        "keepalive",
        "allow",
        "max_connections",
        "state_dir",
        "access",
        "events",
        "routes",
        "x",
    ]
)
_TREES: Any = st.recursive(
    _LEAVES, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(_KEYS, inner, max_size=4)), max_leaves=25
)  # fmt: skip


_SECTION = st.dictionaries(_KEYS, _TREES, max_size=4)
_FILES = st.fixed_dictionaries(
    {"listeners": st.dictionaries(_KEYS, _SECTION), "upstreams": st.dictionaries(_KEYS, _SECTION)},
    optional={"runtime": _SECTION, "admin": _SECTION, "log": _SECTION, "metrics": _SECTION, "x": _TREES},
)


def loads_or_says_why(text: str, environ: dict[str, str]) -> None:
    """Nothing but a ConfigError may come out, and that has a place for each of its lines."""
    try:
        loaded = load_text(text, "f", environ, is_local=lambda ip: True)
    except ConfigError as error:
        assert error.errors  # noqa: PT017 - whether it is raised is chance's choice
        assert all(line.startswith("f:") for line in error.errors)  # noqa: PT017
    else:
        assert loaded.configuration.listeners


@settings(max_examples=40)
@given(st.one_of(_FILES, st.dictionaries(_KEYS, _TREES, max_size=6)))
def test_any_tree_loads_or_says_why(tree: dict[str, Any]) -> None:
    text = json.dumps(tree).replace("NaN", ".nan").replace("Infinity", ".inf")
    loads_or_says_why(text, {"A": "hunter2", "B": "\udcff"})


@given(st.text())
def test_any_text_loads_or_says_why_on_whole_lines(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(text, "f", {})
    assert caught.value.errors
    assert all(line.startswith("f:") and len(line.splitlines()) == 1 for line in caught.value.errors)


@given(st.integers(0, len(GOOD)), st.text(max_size=4), st.integers(0, 5))
def test_a_damaged_file_loads_or_says_why(place: int, insert: str, cut: int) -> None:
    loads_or_says_why(GOOD[:place] + insert + GOOD[place + cut :], {})
