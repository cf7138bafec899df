"""Certificates of a test's own: an authority, and what it signs, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.servers.programs import require

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority whose files stand in `folder`."""

    def __init__(self, folder: Path, name: str = "lbproxy test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._openssl = str(require("openssl"))
        self.ca = folder / "ca.crt"
        self._key = folder / "ca.key"
        self._run("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.ca, "-subj", f"/CN={name}")

    def sign(self, name: str, *, address: str = "127.0.0.1") -> Certificate:
        """A certificate for the host `name` at `address`, good for a server and for a client."""
        key, certificate = self._folder / f"{name}.key", self._folder / f"{name}.crt"
        self._run(
            *(
                "req",
                "-x509",
                *_KEY,
                "-CA",
                self.ca,
                "-CAkey",
                self._key,
                "-keyout",
                key,
                "-out",
                certificate,
            ),
            *("-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},IP:{address}"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth"),
        )
        return Certificate(certificate, key)

    def _run(self, *words: object) -> None:
        subprocess.run([self._openssl, *map(str, words)], check=True, capture_output=True)
