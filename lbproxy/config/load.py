"""Loading: files to options, or every reason why not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lbproxy.config import files, model, references
from lbproxy.config.build import build
from lbproxy.config.errors import ConfigError, from_validation
from lbproxy.config.expand import Expanded
from lbproxy.config.options import Configuration
from lbproxy.config.references import IsLocal
from lbproxy.wire import yaml
from lbproxy.wire.local import is_local as asks_the_kernel

__all__ = ["ConfigError", "Loaded", "load", "load_text"]


@dataclass(frozen=True, slots=True)
class Loaded:
    """`document` is the configuration with every default as plain JSON, secrets redacted; `warnings` are lines for the log."""

    configuration: Configuration
    warnings: tuple[str, ...]
    document: dict[str, Any]


def load(
    paths: Sequence[str | Path],
    environ: Mapping[str, str],
    *,
    is_local: IsLocal = asks_the_kernel,
    remote: files.Remote = files.NOTHING,
) -> Loaded:
    """Read files and folders as one configuration; `remote` are the texts that each `consul:KEY` among `paths` stands for. Raises
    ConfigError with every problem in them."""
    return _load(files.read(paths, remote), environ, is_local)


def load_text(
    text: str, name: str, environ: Mapping[str, str], *, is_local: IsLocal = asks_the_kernel
) -> Loaded:
    """As `load`, for text that came from elsewhere; `name` stands where the file's name would."""
    return _load(files.merge([yaml.parse(text, name)], []), environ, is_local)


def _load(parsed: yaml.Parsed, environ: Mapping[str, str], is_local: IsLocal) -> Loaded:
    if parsed.root is None:
        raise ConfigError(parsed.problems)
    expanded = Expanded(parsed.root, environ)
    expanded.spoiled |= parsed.spoiled
    problems = [*parsed.problems, *expanded.problems]
    file: model.File | None = None
    try:
        file = model.File.model_validate(expanded.data)
    except ValidationError as error:
        problems += from_validation(error, expanded, complete=parsed.complete)
    found, warnings = references.check(expanded, is_local, complete=parsed.complete)
    told = {problem.mark for problem in problems}
    problems += [problem for problem in found if problem.mark not in told]
    if problems or file is None:
        raise ConfigError(problems)
    return Loaded(build(file, environ), tuple(warnings), model.dump(file))
