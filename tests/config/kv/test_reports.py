"""What is written beside a configuration, and what is not."""

from __future__ import annotations

import pytest

from lbproxy.config.kv.documents import Documents, Key
from lbproxy.config.kv.reports import ELSEWHERE, MAX_ERRORS, NOT_SHOWN, report, shareable
from lbproxy.config.load import ConfigError, load

KEY = Key.of("consul:edge")
SECRET = "hunter2-and-more"


def texts(text: str) -> Documents:
    return Documents(KEY, (("consul:edge", text.encode()),), 9)


GOOD = "listeners: {web: {bind: 127.0.0.1:80, upstream: web}}\nupstreams: {web: {endpoints: [10.0.0.1:80]}}\n"


@pytest.mark.parametrize(
    "text",
    [
        f"{GOOD}log: {{level: '${{SECRET}}'}}",
        f"{GOOD}log:\n  level: ${{SECRET}}",
        f"{GOOD}log:\n  level: x${{SECRET}}y",
        f"{GOOD}log:\n  level: |\n    first\n    ${{SECRET}}",
        f"{GOOD}log:\n  level: >-\n    ${{SECRET}}",
        GOOD.replace("upstream: web", "upstream: '${SECRET}'"),
        GOOD.replace("10.0.0.1:80", "'${SECRET}'"),
        GOOD.replace("10.0.0.1:80", "'${SECRET}:80', '${SECRET}:80'"),
        f"{GOOD}runtime:\n  drain_delay: ${{SECRET}}",
    ],
)
def test_no_report_holds_the_value_of_a_variable(text: str) -> None:
    version = texts(text)
    with pytest.raises(ConfigError) as caught:
        load(["consul:edge"], {"SECRET": SECRET}, remote={"consul:edge": version})
    assert "hunter2" in str(caught.value)
    made = report(version, [version], "refused", "host:9900", "now", caught.value.errors)
    assert made["errors"]
    assert "hunter2" not in str(made)
    assert all(NOT_SHOWN in line for line in made["errors"])


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("consul:edge:1:1: listeners: what", "consul:edge:1:1: listeners: what"),
        ("consul:edge:2:9: a: what", f"consul:edge:2:9: {NOT_SHOWN}"),
        ("consul:edge:99:9: a: what", "consul:edge:99:9: a: what"),
        ("/etc/lbproxy.yaml:3:4: admin.bind: '1.2.3.4' is", f"/etc/lbproxy.yaml:3:4: {ELSEWHERE}"),
        ("listener web: cannot bind 0.0.0.0:80: Address already in use", None),
    ],
)
def test_a_line_tells_what_is_the_writer_s_own_business(line: str, expected: str | None) -> None:
    version = texts("listeners: 1\nadmin: ${X}\n")
    assert shareable(line, [version]) == (line if expected is None else expected)


def test_a_report_is_short_and_says_how_much_it_leaves_out() -> None:
    version = texts("a: 1")
    lines = [f"consul:edge:1:1: line {number}" for number in range(50)]
    made = report(version, [version], "refused", "host:9900", "now", lines, ["runtime.relay"])
    assert made == {
        "result": "refused",
        "version": 9,
        "errors": lines[:MAX_ERRORS],
        "more_errors": 30,
        "restart_needed": ["runtime.relay"],
        "instance": "host:9900",
        "at": "now",
    }
