"""The files in config/: they load, they fit the schema, and the reference holds every key with its default."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from lbproxy.cli.schema import schema as print_schema
from lbproxy.config.load import load, load_text
from lbproxy.config.schema import schema
from lbproxy.wire.yaml import ListNode, MapNode, Node, parse
from tests.config.schema_subset import mismatches

FOLDER = Path(__file__).resolve().parents[2] / "config"
FILES = sorted(FOLDER.glob("*.yaml"))


def plain(node: Node | None) -> Any:
    if isinstance(node, MapNode):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value if node is not None else None


def written(path: Path) -> Any:
    return plain(parse(path.read_bytes(), path.name).root)


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf by its dotted path; an empty mapping is a leaf."""
    if isinstance(tree, dict) and tree:
        return {
            at: value for key, below in tree.items() for at, value in leaves(below, f"{path}.{key}").items()
        }
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return leaves(tree[0], f"{path}[]")
    return {path.lstrip("."): tree}


def keys(below: dict[str, Any], root: dict[str, Any], path: str = "") -> set[str]:
    """Every key that the schema allows, dotted; free names are `web`, as the reference calls them."""
    found: set[str] = set()
    for each in [below, *below.get("anyOf", []), *below.get("oneOf", [])]:
        if "$ref" in each:
            found |= keys(root["$defs"][each["$ref"].rpartition("/")[2]], root, path)
        if "items" in each:
            found |= keys(each["items"], root, f"{path}[]")
        for name, field in each.get("properties", {}).items():
            found |= {f"{path}.{name}".lstrip(".")} | keys(field, root, f"{path}.{name}")
        for free in [each.get("additionalProperties"), *each.get("patternProperties", {}).values()]:
            if isinstance(free, dict) and "$ref" in free:
                found |= keys(free, root, f"{path}.web")
    return found


def every_key(tree: Any, path: str = "") -> set[str]:
    if isinstance(tree, dict):
        return {
            each
            for key, below in tree.items()
            for each in {f"{path}.{key}".lstrip("."), *every_key(below, f"{path}.{key}")}
        }
    return (
        {each for item in tree for each in every_key(item, f"{path}[]")} if isinstance(tree, list) else set()
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_loads_without_a_warning(path: Path) -> None:
    assert load([path], {}).warnings == ()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_an_example_fits_the_schema_and_names_it(path: Path) -> None:
    assert mismatches(written(path), schema(), schema()) == []
    first = path.read_text(encoding="utf-8").splitlines()[0]
    assert first == "# yaml-language-server: $schema=./lbproxy.schema.json"


@pytest.mark.parametrize(
    "more",
    [
        {"listners": {}},
        {"runtime": {"offload": "auto"}},
        {"runtime": {"drain_delay": 5}},
        {"metrics": {"endpoints": 0}},
        {"listeners": {"web": {"bind": "127.0.0.1:80"}}},
        {"upstreams": {"web": {"endpoints": [{"address": "a:1", "weight": 65536}]}}},
    ],
)
def test_the_schema_refuses_what_loading_refuses(more: dict[str, Any]) -> None:
    assert mismatches({**written(FOLDER / "minimal.yaml"), **more}, schema(), schema())


def test_the_committed_schema_is_current() -> None:
    out = io.StringIO()
    assert print_schema(out) == 0
    assert out.getvalue() == (FOLDER / "lbproxy.schema.json").read_text(encoding="utf-8"), (
        "run `lbproxy schema`"
    )
    assert json.loads(out.getvalue())["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_reference_holds_every_key_of_the_schema() -> None:
    allowed = {key for key in keys(schema(), schema()) if not key.startswith("admin.token.")}
    of_registration = {
        key
        for key in allowed
        if key.startswith("registration.") and not key.startswith("registration.token.")
    }
    assert len(of_registration) > 20
    assert every_key(written(FOLDER / "registered.yaml")) >= of_registration
    assert len(allowed) > 50
    of_sources = {
        key
        for key in allowed
        if key.startswith("upstreams.web.discovery[]") and not key.endswith(("token.file", "password.file"))
    }
    assert len(of_sources) > 5
    assert every_key(written(FOLDER / "discovery.yaml")) >= of_sources
    assert every_key(written(FOLDER / "reference.yaml")) >= {
        key for key in allowed if not key.startswith(("upstreams.web.discovery[]", "registration."))
    }
    assert {"listeners.web.tcp.notsent_lowat", "upstreams.web.endpoints[].metadata"} <= allowed


def test_the_reference_holds_the_defaults() -> None:
    minimal = (
        "listeners: {web: {bind: '0.0.0.0:8080', upstream: web}}\n"
        "upstreams: {web: {endpoints: ['10.0.0.11:80']}}\n"
    )
    defaults = load_text(minimal, "f", {}).document
    assert load([FOLDER / "reference.yaml"], {}).document == defaults
    assert leaves(written(FOLDER / "reference.yaml")) == leaves(defaults)


@pytest.mark.parametrize("name", ["reference.yaml", "discovery.yaml", "registered.yaml"])
def test_every_key_of_the_reference_is_explained(name: str) -> None:
    lines = (FOLDER / name).read_text(encoding="utf-8").splitlines()
    bare = [line for line in lines if ":" in line and "#" not in line and not line.endswith(":")]
    assert [line.strip() for line in bare] == (["enabled: true"] if name == "reference.yaml" else [])
