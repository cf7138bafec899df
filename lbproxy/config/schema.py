"""The JSON Schema of the configuration, for editors."""

from __future__ import annotations

import warnings
from typing import Any, Final

from pydantic.json_schema import GenerateJsonSchema, PydanticJsonSchemaWarning

from lbproxy.config.model import File
from lbproxy.config.values import Bytes, Part, Seconds
from lbproxy.domain.address import Address

_VARIABLE: Final = {"type": "string", "pattern": r"\$\{", "description": "${NAME} or ${NAME:-default}"}
_NOTES: Final = ("title", "description", "default", "examples")


class _Schema(GenerateJsonSchema):
    """Shows defaults as people write them."""

    def encode_default(self, dft: Any) -> Any:
        if isinstance(dft, Seconds | Bytes | Part | Address):
            return str(dft)
        return super().encode_default(dft)


def schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PydanticJsonSchemaWarning)
        made = File.model_json_schema(schema_generator=_Schema)
    made["$defs"] = {**_or_variable(made["$defs"]), "Variable": _VARIABLE}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **made,
        "title": "lbproxy configuration",
    }


def _or_variable(node: Any) -> Any:
    """Lets `${NAME}` stand wherever a scalar may not be any text, as the reader does."""
    if isinstance(node, list):
        return [_or_variable(each) for each in node]
    if not isinstance(node, dict):
        return node
    narrow = (
        node.get("type") in ("integer", "boolean", "number")
        or isinstance(node.get("pattern"), str)
        or isinstance(node.get("enum"), list)
        or isinstance(node.get("const"), str)
    )
    if not narrow:
        return {
            key: each if key in {"default", "propertyNames", "patternProperties"} else _or_variable(each)
            for key, each in node.items()
        }
    notes = {key: node[key] for key in _NOTES if key in node}
    rule = {key: each for key, each in node.items() if key not in _NOTES}
    return {**notes, "anyOf": [rule, {"$ref": "#/$defs/Variable"}]}
