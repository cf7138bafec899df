"""Files of the state folder, read as they were written, however they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbproxy.wire import state

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(['":[', "]}", '"', "\\", ""])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["a", "names", "members"]), VALUES))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_again(tmp_path: Path, document: dict[str, Any]) -> None:
    state.write(tmp_path / "x", 3, document)
    assert state.read(tmp_path / "x", 3) == {"version": 3, **document}


def test_the_last_list_is_read_item_by_item(tmp_path: Path) -> None:
    document = {"names": {"members": ["x"]}, "members": [{"n": n, "text": '":[{]}'} for n in range(50)]}
    state.write(tmp_path / "x", 3, document)
    pauses: list[int] = []
    assert state.read(tmp_path / "x", 3, lambda: pauses.append(1)) == {"version": 3, **document}
    assert len(pauses) == 50


@pytest.mark.parametrize(
    "text",
    [
        '{"version":3,"a":[1 2]}',
        '{"version":3,"a":[1,]}',
        '{"version":3,"a":[1]]}',
        '{"version":3,"a":[1]}]}',
        '{"version":3,"a":[1',
        '{"version":3,"a":[',
        '"\\":[]}',
    ],
)
def test_what_is_no_json_is_told(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json.loads(text)
    (tmp_path / "x").write_text(text)
    with pytest.raises(state.StateError, match="not what was written there"):
        state.read(tmp_path / "x", 3)
