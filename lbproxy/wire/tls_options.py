"""How a TLS connection of ours is made, as configured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """`ca` None: the system's authorities. `certificate` and `key` (PEM; the key may stand in the certificate's file) prove who we
    are. `server_name` stands for the host of the URL, in SNI and in the check of the name."""

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    verify: bool = True
