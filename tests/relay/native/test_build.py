"""The extension's build: an ordinary install has it, and one without a compiler works and says so."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = ("lbproxy", "setup.py", "pyproject.toml", "MANIFEST.in", "LICENSE", "README.md")
SAY = "from lbproxy.relay.native.relay import available; print(available())"

COMPILERS = [
    name for name in ("cc", "gcc", "clang", "clang-19", "clang-16", "clang-14") if shutil.which(name)
]

pytestmark = pytest.mark.slow


def source_tree(folder: Path) -> Path:
    tree = folder / "source"
    tree.mkdir()
    for name in SOURCES:
        found = ROOT / name
        if found.is_dir():
            shutil.copytree(found, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        elif found.exists():
            shutil.copy(found, tree)
    return tree


def pip(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | environ,
    )


def wheel(folder: Path, **environ: str) -> Path:
    built = pip(
        "wheel", "--no-build-isolation", "--no-deps", "-w", folder / "out", source_tree(folder), **environ
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (found,) = (folder / "out").glob("*.whl")
    return found


def what_it_says(folder: Path, built: Path) -> str:
    """Installed by unpacking, beside this environment's dependencies."""
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "installed")
    return subprocess.run(
        [sys.executable, "-c", SAY],
        check=True,
        capture_output=True,
        text=True,
        cwd=folder / "installed",
        env=os.environ | {"PYTHONPATH": str(folder / "installed")},
    ).stdout.strip()


def test_wheel_has_the_extension_for_every_supported_python(tmp_path: Path) -> None:
    built = wheel(tmp_path, LBPROXY_EXT="1", LBPROXY_WERROR="1")
    assert "-cp311-abi3-linux" in built.name
    assert what_it_says(tmp_path, built) == "None"


@pytest.mark.parametrize("compiler", COMPILERS)
def test_every_compiler_here_finds_nothing_to_warn_of(compiler: str) -> None:
    native = ROOT / "lbproxy" / "relay" / "native"
    include = sysconfig.get_path("include")
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-I", include]
    command: list[str | Path] = [compiler, *flags, "-DPy_LIMITED_API=0x030B0000", *sorted(native.glob("*.c"))]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr


def test_wheel_without_the_extension_is_pure(tmp_path: Path) -> None:
    built = wheel(tmp_path, LBPROXY_EXT="0")
    assert built.name.endswith("-py3-none-any.whl")
    assert "cannot be loaded" in what_it_says(tmp_path, built)


def test_install_without_a_compiler_works(tmp_path: Path) -> None:
    built = wheel(tmp_path, CC="/bin/false")
    assert "cannot be loaded" in what_it_says(tmp_path, built)


def test_extension_that_was_asked_for_and_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    refused = pip(
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "-w",
        tmp_path,
        source_tree(tmp_path),
        CC="/bin/false",
        LBPROXY_EXT="1",
    )
    assert refused.returncode != 0


def test_source_distribution_builds(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    subprocess.run(
        [sys.executable, "setup.py", "-q", "sdist", "-d", tmp_path / "dist"],
        check=True,
        capture_output=True,
        cwd=tree,
        timeout=280,
    )
    (archive,) = (tmp_path / "dist").glob("*.tar.gz")
    built = pip("wheel", "--no-build-isolation", "--no-deps", "-w", tmp_path, archive, LBPROXY_EXT="1")
    assert built.returncode == 0, built.stdout + built.stderr
