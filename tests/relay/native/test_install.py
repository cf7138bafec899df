"""What is distributed, in a clean environment: the source distribution with and without a compiler, and the wheel.

Each is installed beside nothing but the pinned requirements, and then used: it says which relay it has, checks a configuration,
and relays a connection.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.peers import accept, connect, listen, read_to_end
from tests.e2e.program import config, program
from tests.relay.native.test_build import ROOT, source_tree

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.alone("installed")]

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
PINNED = [
    word for name in ("run", "build") for word in ("--requirement", ROOT / "requirements" / f"{name}.txt")
]


class Environment:
    """A virtual environment of this interpreter with lbproxy's requirements and no lbproxy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=240)
        self.pip("--require-hashes", *PINNED)

    def pip(self, *words: str | Path, **environ: str) -> None:
        command: list[str | Path] = [*PIP, "--python", self.folder, "install", "--no-compile", *words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=240, env={**os.environ, **environ}
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def install(self, archive: Path, **environ: str) -> None:
        """Instead of what was installed before."""
        self.pip(
            "--no-deps", "--no-build-isolation", "--no-cache-dir", "--force-reinstall", archive, **environ
        )

    def command(self, *words: str, folder: Path) -> str:
        done = subprocess.run(
            [self.folder / "bin" / words[0], *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    build: list[str | Path] = [sys.executable, "setup.py", "-q", "sdist", "-d", folder]
    subprocess.run(build, check=True, capture_output=True, cwd=source_tree(folder), timeout=240)
    (source,) = folder.glob("*.tar.gz")
    pip: list[str | Path] = [*PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, source]
    subprocess.run(pip, check=True, capture_output=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    return {"sdist": source, "wheel": wheel}


NO_COMPILER = {"PATH": "/nonexistent", "CC": "", "LBPROXY_EXT": "auto"}

CASES: dict[str, tuple[str, dict[str, str], str]] = {
    "sdist": ("sdist", {}, "native"),
    "sdist without a compiler": ("sdist", NO_COMPILER, "asyncio"),
    "wheel": ("wheel", NO_COMPILER, "native"),
}


@pytest.mark.parametrize(("kind", "environ", "relay"), CASES.values(), ids=CASES)
def test_installed_program_works(
    environment: Environment,
    archives: dict[str, Path],
    tmp_path: Path,
    kind: str,
    environ: dict[str, str],
    relay: str,
) -> None:
    environment.install(archives[kind], **environ)
    # The whole program is imported once, so that nothing is left to compile when time counts.
    say = "import lbproxy.app.application; print(lbproxy.__path__[0])"
    where = environment.command("python", "-c", say, folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment.folder)

    said: dict[str, Any] = json.loads(environment.command("lbproxy", "version", "--json", folder=tmp_path))
    assert said["relay"].split()[0] == relay
    assert ("cannot be loaded" in said["relay"]) is (relay == "asyncio")

    listening, port = listen()
    with listening:
        file = tmp_path / "checked.yaml"
        file.write_text(config([port]))
        environment.command("lbproxy", "check", "-c", str(file), folder=tmp_path)
        run = [str(environment.folder / "bin" / "lbproxy"), "run"]
        with program(tmp_path / "run", config([port]), run=run) as lb:
            assert lb.total("lbproxy_build_info", relay=relay) == 1
            with connect(lb.address()) as client, accept(listening) as upstream:
                client.sendall(b"request")
                assert upstream.recv(100) == b"request"
                upstream.sendall(b"answer")
                assert client.recv(100) == b"answer"
                upstream.close()
                assert read_to_end(client) == (0, "FIN")
