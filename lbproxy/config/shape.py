"""What every part of the configuration's shape has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Shape(BaseModel):
    """Unknown keys are errors; text is not read as a number, nor a number as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, validate_default=False)
