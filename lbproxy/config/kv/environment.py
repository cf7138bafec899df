"""How Consul is reached for a configuration that stands in it: by the variables that Consul's own tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from lbproxy.config import values
from lbproxy.wire.consul_options import ConsulAccess
from lbproxy.wire.secrets import Secret
from lbproxy.wire.tls_options import TlsOptions

_DEFAULT: Final = "127.0.0.1:8500"
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE: Final = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_NOT_HERE: Final = {
    "CONSUL_HTTP_AUTH": "basic authentication is not supported: use CONSUL_HTTP_TOKEN",
    "CONSUL_CAPATH": "a folder of authorities is not supported: name a file in CONSUL_CACERT",
}


def access(environ: Mapping[str, str]) -> ConsulAccess:
    """Raises ValueError with a line that names the variable. An empty variable is none."""
    given = {name: text for name, text in environ.items() if name.startswith("CONSUL_") and text}
    for name, why in _NOT_HERE.items():
        if name in given:
            raise ValueError(f"{name}: {why}")
    return ConsulAccess(
        address=_address(given),
        token=_token(given),
        tls=TlsOptions(
            ca=_path(given, "CONSUL_CACERT"),
            certificate=_path(given, "CONSUL_CLIENT_CERT"),
            key=_path(given, "CONSUL_CLIENT_KEY"),
            server_name=given.get("CONSUL_TLS_SERVER_NAME"),
            verify=_flag(given, "CONSUL_HTTP_SSL_VERIFY", default=True),
        ),
        namespace=given.get("CONSUL_NAMESPACE"),
        partition=given.get("CONSUL_PARTITION"),
    )


def _address(given: Mapping[str, str]) -> str:
    """As Consul's client library takes it: https where either the address or CONSUL_HTTP_SSL says so."""
    secure = _flag(given, "CONSUL_HTTP_SSL", default=False)
    text = given.get("CONSUL_HTTP_ADDR", _DEFAULT)
    scheme, separator, rest = text.partition("://")
    if scheme == "unix" and separator:
        return f"unix:{rest}"
    if not separator:
        scheme, rest = "http", text
    if scheme == "http" and secure:
        scheme = "https"
    try:
        return values.url(f"{scheme}://{rest}")
    except ValueError as error:
        raise ValueError(f"CONSUL_HTTP_ADDR: {error}") from error


def _token(given: Mapping[str, str]) -> Secret | None:
    # The file goes first, as with Consul's own tools: it is what can be renewed while we run.
    path = _path(given, "CONSUL_HTTP_TOKEN_FILE")
    if path is not None:
        return Secret(path=path)
    return Secret(value=given["CONSUL_HTTP_TOKEN"]) if "CONSUL_HTTP_TOKEN" in given else None


def _path(given: Mapping[str, str], name: str) -> Path | None:
    return Path(given[name]) if name in given else None


def _flag(given: Mapping[str, str], name: str, *, default: bool) -> bool:
    text = given.get(name)
    if text is None:
        return default
    if text not in _TRUE | _FALSE:
        raise ValueError(f"{name}: {text!r} is neither true nor false")
    return text in _TRUE
