"""The status page at `/`: one static document that reads the API with the visitor's own browser."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from aiohttp import web

_DOCUMENT = Path(__file__).with_name("page.html")


@cache
def _document() -> tuple[str, str]:
    """The page, and a content security policy under which nothing but its own script and style runs, and no text can become markup."""
    text = _DOCUMENT.read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; script-src {_hash(text, 'script')}; style-src {_hash(text, 'style')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    return text, policy


def _hash(text: str, element: str) -> str:
    found = re.search(rf"<{element}>(.*?)</{element}>", text, re.DOTALL)
    assert found is not None
    digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
    return f"'sha256-{digest}'"


def page_response() -> web.Response:
    """The page as an answer."""
    text, policy = _document()
    return web.Response(
        text=text,
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
    )
