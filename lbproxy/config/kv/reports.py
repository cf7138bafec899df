"""What an instance writes beside a configuration in Consul: what became of it. No I/O.

Who may read the report need not be who may read our environment, and who may write the configuration could ask for any variable in
it: so a line about a value that comes from one tells where it is wrong and not what it was. The log has the whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from lbproxy.config.kv.documents import Documents
from lbproxy.wire import yaml

MAX_ERRORS: Final = 20
"""Lines of a report: a value in Consul has at most 512 KiB, and people read the first ones."""

NOT_SHOWN: Final = "a value from the environment is wrong here; the instance's log has the whole line"


ELSEWHERE: Final = "wrong in a file beside it; the instance's log has the whole line"

_PLACE: Final = re.compile(r"(.+?):([0-9]+):([0-9]+): ")


def report(
    version: Documents,
    texts: Iterable[Documents],
    result: str,
    instance: str,
    at: str,
    errors: Sequence[str] = (),
    restart_needed: Sequence[str] = (),
) -> dict[str, Any]:
    """The report about one key as plain JSON; `texts` are those of every key. `at` is an ISO time."""
    known = list(texts)
    return {
        "result": result,
        "version": version.version,
        "errors": [shareable(line, known) for line in errors[:MAX_ERRORS]],
        "more_errors": max(0, len(errors) - MAX_ERRORS),
        "restart_needed": list(restart_needed),
        "instance": instance,
        "at": at,
    }


def shareable(line: str, texts: Iterable[Documents]) -> str:
    """An error's line as others may read it: without what it says where a variable was replaced, or about files of this machine."""
    found = _PLACE.match(line)
    if found is None:
        return line
    name, row, column = found[1], int(found[2]), int(found[3])
    for text in (text for each in texts for known, text in each.parts if known == name):
        rows = text.decode("utf-8", "replace").splitlines()
        here = rows[row - 1] if 0 < row <= len(rows) else ""
        if "${" in here or any("${" in each for each in _scalars(text, yaml.Mark(name, row, column))):
            return f"{found[0]}{NOT_SHOWN}"
        return line
    return f"{found[0]}{ELSEWHERE}"


def _scalars(text: bytes, mark: yaml.Mark) -> Iterator[str]:
    """What is written at the mark: a block of many lines begins there."""
    todo = [yaml.parse(text, mark.file).root]
    while todo:
        node = todo.pop()
        if isinstance(node, yaml.ScalarNode):
            if node.mark == mark:
                yield node.text
        elif isinstance(node, yaml.ListNode):
            todo += node.items
        elif isinstance(node, yaml.MapNode):
            todo += node.entries.values()
