"""`type: file`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from lbproxy.config import fields
from lbproxy.config.sources.source import Source
from lbproxy.discovery.file.options import FileOptions


class FileSource(Source):
    """Endpoints in a file of their own."""

    type: Literal["file"]
    path: fields.FileName = Field(description="YAML or JSON")

    def registry(self) -> FileOptions:
        return FileOptions(Path(self.path))
