"""One key's life on virtual time: what is tried, what is not, and how often it is asked."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lbproxy.config.kv.documents import Documents, Key
from lbproxy.config.kv.following import CONFIRM_S, LONGEST_WAIT_S, PACE_S, SETTLE_S, Following, Next

ONE = Key.of("consul:edge")
ALL = Key.of("consul:edge/")


def one(text: str, version: int = 1) -> Documents:
    return Documents(ONE, (("consul:edge", text.encode()),), version)


def many(*names: str, text: str = "x") -> Documents:
    return Documents(ALL, tuple((f"consul:edge/{name}", text.encode()) for name in names), 1)


def of_one() -> Following:
    return Following(ONE, one("a"), random.Random(0))


def of_many(*names: str) -> Following:
    return Following(ALL, many(*names), random.Random(0))


def test_a_change_is_tried_at_once_and_once() -> None:
    it = of_one()
    assert it.answered(one("a"), 10, 0.0) == Next(10, PACE_S)
    assert it.answered(one("b", 11), 11, 1.0) == Next(11, PACE_S, one("b"))
    # Whether or not it was taken: it is not tried again.
    assert it.answered(one("b", 12), 12, 2.0) == Next(12, PACE_S)
    assert it.answered(one("a", 13), 13, 3.0).version == one("a")


def test_a_key_that_is_gone_is_told_once_and_changes_nothing() -> None:
    it = of_one()
    gone = it.answered(None, 20, 0.0)
    assert (gone.version, gone.bad, gone.index) == (None, True, 20)
    assert gone.news == "is gone from Consul; what is in force stays"
    assert it.warning == "is gone from Consul"
    assert it.answered(None, 21, 1.0).news == ""
    back = it.answered(one("a"), 22, 2.0)
    assert (back.version, back.news, back.bad) == (None, "can be read again", False)
    assert it.warning == ""


def test_a_key_that_is_gone_may_come_back_as_another() -> None:
    it = of_one()
    it.answered(None, 20, 0.0)
    assert it.answered(one("b"), 21, 1.0).version == one("b")
    assert it.warning == ""


def test_after_an_error_it_asks_from_nothing_later_and_later_and_tells_once() -> None:
    it = of_one()
    it.answered(one("a"), 50, 0.0)
    first = it.failed("refused")
    assert first.index == 0
    assert first.news == "cannot be read: refused; what is in force stays"
    waits = [first.wait_s]
    for _ in range(200):
        step = it.failed("refused")
        assert step.news == ""
        assert step.index == 0
        waits.append(step.wait_s)
    assert waits[0] <= 0.1
    assert 15.0 < max(waits) <= 30.0
    assert min(waits) >= 0.05
    assert it.answered(one("a"), 51, 1.0).news == "can be read again"
    assert it.failed("refused").wait_s <= 0.1


def test_an_agent_that_asks_to_be_left_alone_is_within_reason() -> None:
    it = of_one()
    assert it.failed("429", 7.0).wait_s == 7.0
    assert it.failed("429", 3600.0).wait_s == LONGEST_WAIT_S


def test_an_index_that_went_backwards_is_not_waited_with() -> None:
    it = of_one()
    it.answered(one("a"), 50, 0.0)
    assert it.answered(one("a"), 7, 1.0).index == 0
    assert it.answered(one("a"), 8, 2.0).index == 8
    assert it.answered(one("a"), None, 3.0).index == 0


def test_a_prefix_is_tried_when_its_keys_have_settled() -> None:
    it = of_many("a")
    assert it.answered(many("a", "b"), 10, 0.0) == Next(0, SETTLE_S)
    assert it.answered(many("a", "b", "c"), 11, 0.3) == Next(0, SETTLE_S)
    assert it.answered(many("a", "b", "c"), 11, 0.6) == Next(11, PACE_S, many("a", "b", "c"))


def test_a_prefix_that_was_put_back_while_it_settled_is_not_tried() -> None:
    it = of_many("a")
    it.answered(many("a", "b"), 10, 0.0)
    assert it.answered(many("a"), 11, 0.3) == Next(11, PACE_S)


def test_a_prefix_that_lost_keys_is_believed_ten_seconds_later() -> None:
    it = of_many("a", "b")
    it.answered(many("a"), 10, 0.0)
    held = it.answered(many("a"), 10, 0.3)
    assert (held.version, held.index, held.wait_s) == (None, 0, CONFIRM_S)
    assert "has lost consul:edge/b" in held.news
    assert "has lost consul:edge/b" in it.warning
    assert it.answered(many("a"), 11, 0.3 + CONFIRM_S) == Next(11, PACE_S, many("a"))
    assert it.warning == ""


def test_a_prefix_that_got_its_keys_back_meanwhile_is_as_it_was() -> None:
    it = of_many("a", "b")
    it.answered(many("a"), 10, 0.0)
    it.answered(many("a"), 10, 0.3)
    back = it.answered(many("a", "b"), 12, 5.0)
    assert (back.version, back.news) == (None, "can be read again")


def test_a_loss_is_not_believed_across_an_error() -> None:
    it = of_many("a", "b")
    it.answered(many("a"), 10, 0.0)
    it.answered(many("a"), 10, 0.3)
    it.failed("refused")
    it.answered(many("a"), 3, 20.0)
    held = it.answered(many("a"), 3, 20.3)
    assert held.version is None
    assert held.wait_s == CONFIRM_S


_ANSWERS = st.one_of(
    st.none(),
    st.builds(lambda names: many(*sorted(names)), st.sets(st.sampled_from("abc"), min_size=1)),
    st.just("error"),
)


@given(st.lists(st.tuples(_ANSWERS, st.integers(0, 40), st.floats(0, 20)), max_size=60))
def test_whatever_comes_a_version_was_answered_and_nothing_is_asked_in_a_loop(
    story: list[tuple[Documents | str | None, int, float]],
) -> None:
    it = of_many("a", "b")
    now, last = 0.0, many("a", "b")
    for answer, index, waited_s in story:
        now += waited_s
        step = it.failed(answer) if isinstance(answer, str) else it.answered(answer, index, now)
        assert step.wait_s >= 0.05
        if step.version is not None:
            assert step.version == answer
            assert step.version != last
            last = step.version
        now += step.wait_s
