"""The rows hold: no module imports what stands above or beside it, and the lowest rows are pure."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.architecture.imports import ROWS, import_problems

PACKAGE = Path(__file__).resolve().parents[2] / "lbproxy"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_what_its_row_may_not() -> None:
    problems = [
        problem
        for path in MODULES
        for problem in import_problems(dotted(path), path.read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(["", *problems])


def test_every_package_stands_in_a_row_and_has_an_init() -> None:
    folders = {path.parent for path in MODULES if path.parent != PACKAGE}
    assert {folder.relative_to(PACKAGE).parts[0] for folder in folders} <= ROWS.keys()
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


@pytest.mark.parametrize(
    ("module", "source", "problem"),
    [
        ("lbproxy.pool.lease", "import lbproxy.proxy.listener", "row 1 imports row 4"),
        ("lbproxy.config.load", "from lbproxy.app import run", "row 5 imports row 6"),
        ("lbproxy.wire.dns", "from lbproxy.relay.contract import Relay", "row 2 imports row 3"),
        ("lbproxy.strategies.first", "from lbproxy.pool.lease import Lease", "siblings never"),
        ("lbproxy.admin.http", "from lbproxy.proxy import listener", "siblings never"),
        ("lbproxy.health.tcp", "import lbproxy.metrics.render", "siblings never"),
        ("lbproxy.demo.run", "from lbproxy.cli import main", "siblings never"),
        ("lbproxy.discovery.dns", "from lbproxy.pool.pool import Pool", "discovery never imports pool"),
        (
            "lbproxy.proxy.listener",
            "from lbproxy.relay.loop import Relay",
            "only through lbproxy.relay.contract",
        ),
        (
            "lbproxy.proxy.listener",
            "from lbproxy.relay import contracts",
            "only through lbproxy.relay.contract",
        ),
        ("lbproxy.admin.http", "import lbproxy.relay", "only through lbproxy.relay.contract"),
        (
            "lbproxy.proxy.listener",
            "from lbproxy.health.options import Options",
            "proxy never imports health",
        ),
        ("lbproxy.admin.http", "import lbproxy.discovery.contract", "admin never imports discovery"),
        ("lbproxy.domain.session", "import asyncio", "domain is pure"),
        ("lbproxy.domain.session", "from random import Random", "domain is pure"),
        ("lbproxy.domain.session", "import os.path", "domain is pure"),
        ("lbproxy.pool.lease", "def f():\n    from time import monotonic", "pool is pure"),
        ("lbproxy.strategies.first", "if TYPE_CHECKING:\n    import logging", "strategies is pure"),
        ("lbproxy.pool.lease", "import pydantic", "nothing but the standard library"),
        ("lbproxy.pool.lease", "from ..proxy import listener", "relative imports"),
        ("lbproxy.pool.lease", "importlib.import_module('lbproxy.proxy.listener')", "row 1 imports row 4"),
        ("lbproxy.pool.lease", "import lbproxy", "stands in no row"),
        ("lbproxy.new.thing", "", "new stands in no row"),
    ],
)
def test_forbidden_import_is_found(module: str, source: str, problem: str) -> None:
    (found,) = import_problems(module, source)
    assert problem in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lbproxy.__main__", "from lbproxy.cli.main import main"),
        ("lbproxy.cli.main", "from lbproxy.demo.run import demo"),
        ("lbproxy.cli.check", "from lbproxy.config.load import load"),
        ("lbproxy.app.build", "from lbproxy.relay.loop import Relay"),
        ("lbproxy.proxy.listener", "from lbproxy.relay.contract import Relay"),
        ("lbproxy.proxy.listener", "from lbproxy.relay import contract"),
        ("lbproxy.proxy.listener", "import lbproxy.relay.contract"),
        ("lbproxy.proxy.listener", "from lbproxy.pool.pool import Pool"),
        ("lbproxy.relay.loop", "import asyncio, _socket\nfrom lbproxy.relay.contract import Relay"),
        ("lbproxy.pool.lease", "import heapq\nfrom lbproxy.domain.endpoint import Endpoint"),
    ],
)
def test_allowed_import_passes(module: str, source: str) -> None:
    assert import_problems(module, source) == []
