"""`lbproxy check` looks at a configuration and nothing else: it loads no HTTP stack, no registry client, no event loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.patience import WITHIN_S

# What the packages that serve load, and a check in an editor or a pipeline must not pay for.
HEAVY = ["aiohttp", "consul", "dns", "kazoo", "prometheus_client", "requests", "uvloop"]

PROGRAM = """
import json, sys
from lbproxy.cli.main import main
sys.argv = ["lbproxy", "check", "-c", sys.argv[1]]
try:
    status = main()
except SystemExit as end:
    status = end.code
print(json.dumps([status, sorted(sys.modules)]))
"""

CONFIG = """
listeners:
  web: {bind: "127.0.0.1:8080", upstream: web}
upstreams:
  web: {endpoints: ["127.0.0.1:8081"]}
"""


def test_check_loads_nothing_that_serves(tmp_path: Path) -> None:
    config = tmp_path / "lbproxy.yaml"
    config.write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(config)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WITHIN_S,
    )
    assert done.returncode == 0, done.stderr
    status, modules = json.loads(done.stdout.splitlines()[-1])
    assert not status, done.stdout + done.stderr
    assert "lbproxy.config" in modules
    assert not [name for name in HEAVY if name in modules]
