"""`lbproxy schema`: the JSON Schema of the configuration, for editors."""

from __future__ import annotations

import json
from typing import TextIO

from lbproxy.config import schema as configuration


def schema(out: TextIO) -> int:
    """Print it; always 0."""
    out.write(text())
    return 0


def text() -> str:
    """As `config/lbproxy.schema.json` holds it."""
    return json.dumps(configuration.schema(), indent=2, ensure_ascii=False) + "\n"
