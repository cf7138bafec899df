"""The Kubernetes API server: where it is, who we are to it, pages of a list, and the stream of a watch."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from lbproxy.discovery.kubernetes.options import KubernetesOptions
from lbproxy.domain.errors import RegistryError
from lbproxy.wire.http import RETRY_AFTER_MOST_S, HttpClient, read_json, retry_after_s, went_wrong
from lbproxy.wire.json_lines import CutOff, JsonLines
from lbproxy.wire.secrets import Secret, SecretError
from lbproxy.wire.tls import ClientTls

# What a pod is given (Kubernetes' documentation, "Accessing the API from a Pod").
POD_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HOST: Final = "KUBERNETES_SERVICE_HOST"
_PORT: Final = "KUBERNETES_SERVICE_PORT"
COMPLAINT_BYTES: Final = 64 << 10


class Gone(RegistryError):
    """The version asked for is no longer kept (410): everything is to be listed again."""


class ApiServer:
    """Requests for the slices of one service. Credentials are looked at for each request: a pod's token is replaced about every hour."""

    def __init__(
        self, options: KubernetesOptions, http: HttpClient, environ: Mapping[str, str], pod: Path = POD_FOLDER
    ) -> None:
        self._options = options
        self._http = http
        self._environ = environ
        self._pod = pod
        inside = options.address is None
        self._token = Secret(path=pod / "token") if inside and options.token is None else options.token
        with_ca = (
            replace(options.tls, ca=pod / "ca.crt") if inside and options.tls.ca is None else options.tls
        )
        self._tls = ClientTls(with_ca)

    @property
    def address(self) -> str:
        """Raises RegistryError when nobody says where the API server is."""
        if self._options.address is not None:
            return self._options.address.rstrip("/")
        host, port = self._environ.get(_HOST), self._environ.get(_PORT, "443")
        if not host:
            raise RegistryError(f"not within a cluster: {_HOST} is not set; give the API server's `address`")
        return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"

    async def page(self, limit: int, following: str) -> Mapping[str, Any]:
        """Up to `limit` slices, from `following` (a page's `continue`) on. Without that it is the newest that the cluster's majority
        knows. Raises Gone."""
        query = {"limit": str(limit), **({"continue": following} if following else {})}
        try:
            async with asyncio.timeout(self._options.timeout_s), await self._get(query) as response:
                if response.status != 200:
                    raise await _complaint(response)
                answer = await read_json(response)
        except TimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from error
        if not isinstance(answer, Mapping):
            raise RegistryError("the answer is no object")
        return answer

    async def watch(self, version: str, lasts_s: int) -> Watch:
        """Everything that happens after `version`, for `lasts_s`. The caller closes it. Raises Gone."""
        query = {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(lasts_s),
        }
        try:
            async with asyncio.timeout(self._options.timeout_s):
                response = await self._get(query)
                try:
                    if response.status != 200:
                        raise await _complaint(response)
                except BaseException:
                    response.close()
                    raise
        except TimeoutError as error:
            raise self._silent() from error
        except (aiohttp.ClientError, OSError) as error:
            raise _unreachable(error) from error
        return Watch(response)

    async def _get(self, query: Mapping[str, str]) -> aiohttp.ClientResponse:
        address = self.address
        secure = address.startswith("https:")
        context: ssl.SSLContext | bool = await self._tls.context_at_hand() if secure else True
        headers = {"Accept": "application/json", **self._authorization()}
        return await self._http.session.get(
            f"{address}/apis/discovery.k8s.io/v1/namespaces/{quote(self._namespace(), safe='')}/endpointslices",
            params={"labelSelector": f"kubernetes.io/service-name={self._options.service}", **query},
            headers=headers,
            allow_redirects=False,
            ssl=context,
            server_hostname=self._tls.server_name if secure else None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._options.timeout_s),
        )

    def _authorization(self) -> dict[str, str]:
        if self._token is None:
            return {}
        try:
            token = self._token.reveal()
        except SecretError as error:
            raise RegistryError(str(error)) from error
        if not token.isascii() or not token.isprintable():
            raise RegistryError("the token holds what no header can")
        return {"Authorization": f"Bearer {token}"}

    def _namespace(self) -> str:
        if self._options.namespace is not None:
            return self._options.namespace
        if self._options.address is not None:
            return "default"
        path = self._pod / "namespace"
        try:
            return path.read_text(encoding="utf-8").strip() or "default"
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"{path}: {error}; give the `namespace`") from error

    def _silent(self) -> RegistryError:
        return RegistryError(f"no full answer within {self._options.timeout_s:g} s")


class Watch:
    """The stream of one watch; owns its connection until `close`."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._lines = JsonLines(response.content)

    @property
    def ready(self) -> bool:
        """Whether `next` need not wait."""
        return self._lines.ready

    async def next(self) -> tuple[str, Mapping[str, Any]]:
        """The next event's type and object; may be cancelled, and called again. Raises EOFError at the end of the stream, wherever it
        ends: a version stands for whole events only, so nothing is lost by that. Raises Gone, and RegistryError for what is no event."""
        try:
            line = await self._lines.next()
        except (CutOff, aiohttp.ClientError, OSError) as error:
            raise EOFError(str(error) or type(error).__name__) from error
        if isinstance(line, Mapping):
            kind, told = line.get("type"), line.get("object")
            if isinstance(kind, str) and isinstance(told, Mapping):
                if kind == "ERROR":
                    raise _judged(told, "the watch")
                return kind, told
        raise RegistryError("the watch: what is no event")

    def close(self) -> None:
        self._response.close()


async def _complaint(response: aiohttp.ClientResponse) -> RegistryError:
    """What is wrong, from an answer that is not 200."""
    what = f"answered {response.status} {response.reason or ''}".rstrip()
    try:
        said = await read_json(response, COMPLAINT_BYTES)
    except RegistryError:
        said = None  # the status says enough
    status = {"code": response.status, **(said if isinstance(said, Mapping) else {})}
    return _judged(status, what, retry_after_s(response.headers))


def _judged(status: Mapping[str, Any], what: str, wait_s: float | None = None) -> RegistryError:
    """A `Status` object as an error."""
    message, details = status.get("message"), status.get("details")
    told_s = details.get("retryAfterSeconds") if isinstance(details, Mapping) else None
    if wait_s is None and isinstance(told_s, int) and told_s > 0:
        wait_s = float(min(told_s, RETRY_AFTER_MOST_S))
    if isinstance(message, str) and message:
        what = f"{what}: {' '.join(message[:500].split())}"
    gone = status.get("code") == 410 or status.get("reason") in {"Expired", "Gone"}
    return (Gone if gone else RegistryError)(what, retry_after_s=wait_s)


def _unreachable(error: BaseException) -> RegistryError:
    return RegistryError(went_wrong(error))
