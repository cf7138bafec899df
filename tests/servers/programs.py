"""Where the programs of others are, and what happens to a test whose program is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Programs taken out of a package without installing it; tests/servers/install.sh puts them there.
EXTRACTED = REPOSITORY / ".cache" / "servers" / "usr" / "bin"
NGINX_STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def in_ci() -> bool:
    """Whether a missing program is a failure instead of a skip."""
    return os.environ.get("CI", "").lower() == "true"


def find(name: str) -> Path | None:
    """The program's path, or None; system folders count even where the user's path leaves them out."""
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin", str(EXTRACTED)]
    found = shutil.which(name, path=os.pathsep.join(folders))
    return Path(found) if found else None


def require(name: str) -> Path:
    """The program's path. Without it the test is skipped; with CI=true it fails."""
    found = find(name)
    if found is None:
        missing(f"{name} is not installed (tests/servers/install.sh installs it)")
    return found


def require_root() -> None:
    """Skip (with CI=true: fail) where the test's user is not root."""
    if os.geteuid() != 0:
        missing("needs root")


def missing(what: str) -> NoReturn:
    """End the test that cannot run here: a skip with the reason, and with CI=true a failure."""
    if in_ci():
        pytest.fail(f"{what}; with CI=true that is a failure", pytrace=False)
    pytest.skip(what)
