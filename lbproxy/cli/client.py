"""Speaks to a running instance's admin address, with the standard library alone."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from lbproxy.domain.address import Address, AddressError, HostName, parse_target, sockaddr

DEFAULT_ADMIN: Final = "127.0.0.1:9900"
TIMEOUT_S: Final = 10.0
RELOAD_TIMEOUT_S: Final = 120.0
OBEY_TIMEOUT_S: Final = 30.0
"""An answer that is on its way in, with host names to resolve, comes first."""
PAGE: Final = 500
Query = Mapping[str, str | int]


class UsageError(Exception):
    """The user asked for something that cannot be meant."""


class ClientError(Exception):
    """The instance did not answer, or said no. `lines` are for the user; `status` is 0 without an answer."""

    def __init__(self, *lines: str, status: int = 0) -> None:
        super().__init__(lines[0])
        self.lines = lines
        self.status = status


class AdminClient:
    """One connection a request. Owns nothing between them."""

    def __init__(self, address: str, token: str | None) -> None:
        try:
            self._target = parse_target(address)
        except AddressError as error:
            raise UsageError(f"--admin: {error}") from error
        self._token = token
        self.address = address

    @classmethod
    def chosen(cls, admin: str | None, token_file: Path | None, environ: Mapping[str, str]) -> Self:
        """By option, else by environment, else the default. Raises UsageError."""
        token = environ.get("LBPROXY_ADMIN_TOKEN", "").strip() or None
        if token_file is not None:
            try:
                token = token_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"--token-file: {error}") from error
        return cls(admin or environ.get("LBPROXY_ADMIN") or DEFAULT_ADMIN, token)

    def get(self, path: str, query: Query | None = None, *, also: frozenset[int] = frozenset()) -> Any:
        """The answer's JSON. Raises ClientError for no answer and for a status of 400 and above that is not in `also`."""
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path, also=also)

    def post(
        self, path: str, body: Mapping[str, object] | None = None, *, timeout_s: float = TIMEOUT_S
    ) -> Any:
        """As `get`."""
        return self._ask("POST", path, body or {}, timeout_s=timeout_s)

    def put(self, path: str, body: Mapping[str, object]) -> Any:
        """As `get`."""
        return self._ask("PUT", path, body)

    def delete(self, path: str) -> Any:
        """As `get`."""
        return self._ask("DELETE", path)

    def pages(self, path: str, query: Query | None = None, *, key: str = "items") -> Iterator[dict[str, Any]]:
        """Every page of a long list, as the answers stand; `key` holds the items, `next` says how to go on."""
        asked: dict[str, str | int] = {"limit": PAGE, **(query or {})}
        while True:
            page = self.get(path, asked)
            yield page
            if page["next"] is None or not page[key]:
                return
            asked["after"] = page["next"]

    def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None = None,
        *,
        also: frozenset[int] = frozenset(),
        timeout_s: float = TIMEOUT_S,
    ) -> Any:
        headers = {"Accept": "application/json", "Connection": "close"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection = self._connection(timeout_s)
            try:
                connection.request(method, path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                status, reason, raw = response.status, response.reason, response.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"no instance answers on {self.address}: {_plain(error)}") from error
        except ValueError as error:  # a token that cannot stand in a header
            raise UsageError(f"the token cannot be sent: {error}") from error
        try:
            found = json.loads(raw)
        except ValueError as error:
            raise ClientError(
                f"{self.address} answered {status} {reason}, not in JSON: no lbproxy?"
            ) from error
        if status >= 400 and status not in also:
            raise ClientError(*_problem(status, reason, found), status=status)
        return found

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        target = self._target
        if isinstance(target, HostName):
            return http.client.HTTPConnection(target.name, target.port, timeout=timeout_s)
        if target.family == "unix":
            return _UnixConnection(target, timeout_s)
        return http.client.HTTPConnection(target.host, target.port, timeout=timeout_s)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, address: Address, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._address = address
        self._timeout_s = timeout_s

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self._timeout_s)
            self.sock.connect(sockaddr(self._address))
        except BaseException:
            self.sock.close()
            raise


def upstream_path(upstream: str, endpoint: str | None = None) -> str:
    """The API's path of an upstream or of one of its endpoints."""
    path = f"/api/v1/upstreams/{quote(upstream, safe='')}"
    return path if endpoint is None else f"{path}/endpoints/{quote(endpoint, safe='')}"


def obey_path(upstream: str, source: str) -> str:
    """The API's path to have a source's last answer obeyed."""
    return f"{upstream_path(upstream)}/sources/{quote(source, safe='')}/obey"


def _plain(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower() if error.errno > 0 else str(error.strerror)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _problem(status: int, reason: str, body: object) -> list[str]:
    line = f"{status} {reason}"
    if not isinstance(body, dict):
        return [line]
    if body.get("detail"):
        line = f"{line}: {body['detail']}"
    return [line, *(str(each) for each in body.get("errors", ()))]
