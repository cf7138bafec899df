"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import warnings
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, PydanticJsonSchemaWarning

from lbproxy.config.model import File
from lbproxy.config.values import Bytes, Seconds
from lbproxy.domain.address import Address


class _Schema(GenerateJsonSchema):
    """Shows defaults as people write them."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Seconds | Bytes | Address):
            return str(dft)
        return super().encode_default(dft)


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PydanticJsonSchemaWarning)
        made = File.model_json_schema(schema_generator=_Schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "lbproxy configuration",
    }
