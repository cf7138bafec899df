"""TLS contexts for connections that we open, made anew when one of their files has changed (certificates rotate)."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from lbproxy.wire.tls_options import TlsOptions

_Stamp = tuple[tuple[int, int, int], ...]


class ClientTls:
    """One `TlsOptions` with its context."""

    def __init__(self, options: TlsOptions) -> None:
        self._options = options
        self._stamp: _Stamp | None = None
        self._context: ssl.SSLContext | None = None

    @property
    def server_name(self) -> str | None:
        return self._options.server_name

    def context(self) -> ssl.SSLContext:
        """Blocks for the time of reading three small files, and only when they have changed. Raises OSError (ssl.SSLError is one)
        for a file that cannot be read or holds nothing of use; then the next call tries again."""
        stamp = self._look()
        if self._context is None or stamp != self._stamp:
            self._context = _context(self._options)
            self._stamp = stamp
        return self._context

    async def context_at_hand(self) -> ssl.SSLContext:
        """As `context`, for the event loop: files that have changed are read in a thread, since a system's authorities take tens of
        milliseconds."""
        if self._context is not None and self._look() == self._stamp:
            return self._context
        return await asyncio.to_thread(self.context)

    def _look(self) -> _Stamp:
        return tuple(
            _stamp(path)
            for path in (self._options.ca, self._options.certificate, self._options.key)
            if path is not None
        )


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _context(options: TlsOptions) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=options.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.ca is not None:
        # Python 3.13 has begun to refuse authorities for missing extensions, such as key identifiers; private ones of old, many a
        # Kubernetes cluster's among them, lack those. Who signed what is checked as before.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if options.certificate is not None:
        context.load_cert_chain(options.certificate, options.key)
    if not options.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
