"""`type: file`."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, field_validator

from lbproxy.config import fields, values
from lbproxy.config.sources.source import Source
from lbproxy.discovery.file.options import FileOptions

_FILE: Final = FileOptions(Path())


class FileSource(Source):
    """Endpoints in a file of their own."""

    SUBJECT = ("path",)

    type: Literal["file"]
    path: fields.FileName = Field(description="YAML or JSON")

    interval: fields.Duration = Field(
        default=values.Seconds(_FILE.interval_s),
        description="Looked at this often even where the kernel tells of no change",
    )

    @field_validator("interval")
    @classmethod
    def _often_enough(cls, interval: float) -> float:
        if not 0.1 <= interval <= 300:
            raise ValueError("expected 100ms to 5m")
        return interval

    def registry(self) -> FileOptions:
        return FileOptions(Path(self.path), float(self.interval))
