"""`lbproxy schema` as an editor uses it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lbproxy.cli.main import main
from tests.config.schema_subset import mismatches

COMMITTED = Path(__file__).resolve().parents[2] / "config" / "lbproxy.schema.json"


def test_the_command_prints_the_schema_that_stands_beside_the_examples(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert printed == COMMITTED.read_text(encoding="utf-8")
    assert json.loads(printed)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize(
    ("upstream", "fits"),
    [
        ({"endpoints": ["10.0.0.1:80"]}, True),
        ({"endpoints": [{"address": "10.0.0.1:80", "weight": 2}], "strategy": "random"}, True),
        ({"strategy": {"type": "least_connection", "choices": 2}}, True),
        ({"strategy": "${STRATEGY:-random}", "connect": {"attempts": "${ATTEMPTS}"}}, True),
        ({"connect": {"timeout": "${SECONDS}s"}}, True),
        ({"endpoints": [80]}, False),
        ({"strategy": "rand"}, False),
        ({"connect": {"attempts": "many"}}, False),
        ({"connect": {"timeout": "5"}}, False),
    ],
)
def test_an_editor_accepts_short_forms_and_variables_and_still_sees_mistakes(
    upstream: dict[str, Any], fits: bool
) -> None:
    schema = json.loads(COMMITTED.read_text(encoding="utf-8"))
    file = {"listeners": {"web": {"bind": "127.0.0.1:80", "upstream": "web"}}, "upstreams": {"web": upstream}}
    assert (mismatches(file, schema, schema) == []) is fits
