"""The guard: one rule for removals, on virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbproxy.discovery.guard import CONFIRM_AFTER_S, Guard
from lbproxy.discovery.options import GuardOptions
from lbproxy.domain.address import Address
from lbproxy.domain.membership import Membership
from tests.discovery.members import address, members, numbers

HOLD_S = GuardOptions().hold_s
TEN = tuple(range(10))


class Case:
    """A guard, a clock, and who is known to be down."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.down: set[Address] = set()
        self.guard = Guard(GuardOptions(**options), self.down.__contains__)

    def says(self, *those: int, after: float = 0.0, consistent: bool = True, regressed: bool = False) -> str:
        self.now += after
        return self.guard.answered(members(*those), self.now, consistent=consistent, regressed=regressed).kind

    def passes(self, seconds: float) -> str | None:
        self.now += seconds
        verdict = self.guard.advance(self.now)
        return None if verdict is None else verdict.kind

    @property
    def in_force(self) -> list[int]:
        return numbers(self.guard.in_force)


def test_the_first_answer_holds_even_when_it_is_empty() -> None:
    case = Case()
    assert case.says() == "applied"
    assert case.in_force == []
    assert case.says(1, 2) == "applied"
    assert case.in_force == [1, 2]


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        (TEN, TEN[:5], "applied"),  # half of them is not more than half
        (TEN, TEN[:4], "held"),
        ((1, 2), (1,), "applied"),
        ((1, 2), (), "held"),
        ((1,), (), "held"),
        ((1,), (1, 2, 3), "applied"),
        ((1, 2, 3), (3, 4, 5, 6), "held"),  # a swap of most of them removes them all the same
        ((), (), "unchanged"),
        ((1, 2), (1, 2), "unchanged"),
    ],
)
def test_more_than_half_at_once_or_none_left_is_held(
    before: tuple[int, ...], after: tuple[int, ...], kind: str
) -> None:
    case = Case()
    case.says(*before)
    assert case.says(*after, after=60) == kind
    assert set(case.in_force) == (set(after) | set(before) if kind == "held" else set(after))


def test_additions_and_changes_of_a_held_answer_hold_at_once() -> None:
    case = Case()
    case.says(1, 2, 3)
    case.guard.answered(members(3, 4, weight=7), case.now, consistent=True, regressed=False)
    assert case.in_force == [3, 4, 1, 2]
    assert [member.weight for member in case.guard.in_force.members] == [7, 7, 1, 1]  # type: ignore[union-attr]


def test_a_second_consistent_answer_ten_seconds_later_is_obeyed() -> None:
    case = Case()
    case.says(*TEN)
    assert case.says() == "held"
    assert case.guard.confirm_at == case.now + CONFIRM_AFTER_S
    assert case.says(after=CONFIRM_AFTER_S - 0.1) == "held"
    assert case.says(after=0.2, consistent=False) == "held"
    assert case.says() == "confirmed"
    assert case.in_force == []
    assert case.guard.confirm_at is None


def test_a_second_answer_that_has_them_again_ends_the_matter() -> None:
    case = Case()
    case.says(*TEN)
    assert case.says() == "held"
    assert case.says(*TEN, after=12) in {"applied", "unchanged"}
    assert (case.in_force, case.guard.held, case.guard.why) == (list(TEN), 0, "")


def test_each_missing_one_has_its_own_ten_seconds() -> None:
    case = Case()
    case.says(*TEN)
    assert case.says(*TEN[:4]) == "held"
    assert case.says(*TEN[:2], after=CONFIRM_AFTER_S) == "confirmed"
    assert sorted(case.in_force) == [0, 1, 2, 3]
    assert case.guard.held == 2
    assert case.says(*TEN[:2], after=CONFIRM_AFTER_S) in {"confirmed", "applied"}
    assert case.in_force == [0, 1]


@pytest.mark.parametrize("trouble", ["error", "regression"])
def test_after_trouble_they_are_held_for_as_long_as_configured(trouble: str) -> None:
    case = Case()
    case.says(*TEN)
    if trouble == "error":
        case.guard.failed()
    assert case.says(regressed=trouble == "regression") == "held"
    assert case.guard.confirm_at is None
    assert case.says(after=CONFIRM_AFTER_S * 2) == "held"
    assert case.passes(HOLD_S - CONFIRM_AFTER_S * 2 - 1) is None
    assert case.in_force == list(TEN)
    assert case.passes(1) == "expired"
    assert case.in_force == []


def test_instances_that_register_again_one_by_one_are_not_lost_half_way() -> None:
    case = Case()
    case.says(*TEN)
    case.guard.failed()
    case.says()
    for back in TEN:
        assert case.says(*TEN[: back + 1], after=1) in {"held", "applied", "unchanged"}
        assert sorted(case.in_force) == list(TEN)
    assert case.guard.held == 0
    # All is well again: the ordinary rule holds.
    assert case.says(*TEN[:4]) == "held"
    assert case.guard.confirm_at is not None


def test_after_trouble_those_known_to_be_down_are_let_go_at_once() -> None:
    case = Case()
    case.says(*TEN)
    case.guard.failed()
    case.down |= {address(1), address(2)}
    assert case.says() == "held"
    assert sorted(case.in_force) == [0, 3, 4, 5, 6, 7, 8, 9]
    case.down |= {address(number) for number in TEN}
    assert case.passes(1) == "expired"
    assert case.in_force == []


def test_an_error_between_the_two_answers_makes_it_a_hold() -> None:
    case = Case()
    case.says(*TEN)
    case.says()
    case.guard.failed()
    assert case.says(after=CONFIRM_AFTER_S + 1) == "held"
    assert case.passes(HOLD_S - CONFIRM_AFTER_S - 2) is None
    assert case.passes(1.5) == "expired"


def test_an_error_before_anything_is_known_makes_no_trouble() -> None:
    case = Case()
    case.guard.failed()
    assert case.says(1) == "applied"
    assert case.says() == "held"
    assert case.guard.confirm_at is not None


def test_an_allowed_empty_answer_is_obeyed_at_once_unless_after_trouble() -> None:
    case = Case(empty="allow")
    case.says(*TEN)
    assert case.says() == "applied"
    assert case.in_force == []
    case.says(*TEN)
    case.guard.failed()
    assert case.says() == "held"
    case = Case(empty="allow")
    case.says(*TEN)
    assert case.says(1) == "held", "it is not empty"


def test_what_the_disk_remembers_is_held_until_the_source_has_had_its_time() -> None:
    case = Case()
    case.guard.begin(members(*TEN), trusted=False)
    assert case.says() == "held"
    assert case.guard.confirm_at is None
    case = Case()
    case.guard.begin(members(*TEN), trusted=False)
    assert case.says(*TEN[2:]) == "applied"
    assert case.in_force == list(TEN[2:])


def test_another_address_of_a_name_ends_no_trouble() -> None:
    case = Case()
    case.says(*TEN)
    case.guard.failed()
    assert case.guard.renamed(members(*TEN[:9], 11), case.now).kind == "applied"
    assert case.says(11) == "held"
    assert case.guard.confirm_at is None


@pytest.mark.parametrize(
    ("options", "before", "after", "kind"),
    [
        ({"share": 0.1}, TEN, TEN[:9], "applied"),
        ({"share": 0.1}, TEN, TEN[:8], "held"),
        ({"share": 1.0, "minimum": 3}, TEN, TEN[:3], "applied"),
        ({"share": 1.0, "minimum": 3}, TEN, TEN[:2], "held"),
        ({"share": 1.0, "minimum": 0}, TEN, (), "applied"),
    ],
)
def test_share_and_minimum_are_configured(
    options: dict[str, Any], before: tuple[int, ...], after: tuple[int, ...], kind: str
) -> None:
    case = Case(**options)
    case.says(*before)
    assert case.says(*after) == kind


Step = st.one_of(
    st.tuples(st.just("says"), st.sets(st.integers(0, 9)), st.booleans(), st.booleans()),
    st.tuples(st.just("fails")),
    st.tuples(st.just("waits"), st.floats(0, 400)),
    st.tuples(st.just("obeyed"), st.sets(st.integers(0, 9))),
)


@given(st.lists(Step, max_size=30))
def test_whatever_happens_the_last_answer_is_in_force_and_the_rest_of_it_is_held(steps: list[Any]) -> None:
    case = Case()
    last: set[int] | None = None
    for step in steps:
        if step[0] == "says":
            last = step[1]
            case.says(*sorted(step[1]), consistent=step[2], regressed=step[3])
        elif step[0] == "fails":
            case.guard.failed()
        elif step[0] == "obeyed":
            before = set(case.in_force) if last is not None else set()
            gone = obeyed(case, *step[1])
            if last is not None:
                assert gone == len(before - set(case.in_force))
        else:
            case.passes(step[1])
        if last is not None:
            assert last <= set(case.in_force)
            assert len(case.in_force) == len(set(case.in_force))
            assert case.guard.held == len(set(case.in_force) - last)


@given(st.sets(st.integers(0, 9), min_size=1), st.lists(st.sets(st.integers(0, 9)), max_size=20))
def test_within_ten_seconds_no_answer_takes_more_than_half(first: set[int], answers: list[set[int]]) -> None:
    case = Case()
    case.says(*first)
    for those in answers:
        before = set(case.in_force)
        case.says(*those, after=0.4)
        assert 2 * len(before - set(case.in_force)) <= len(before)
        assert case.in_force


def test_each_answer_is_judged_for_itself() -> None:
    """One after the other is how instances are taken away on purpose; the last one is held all the same."""
    case = Case()
    case.says(*TEN)
    for left in range(9, 0, -1):
        assert case.says(*TEN[:left], after=0.1) == "applied"
    assert case.says(after=0.1) == "held"
    assert case.in_force == [0]


def test_an_unchanged_answer_leaves_the_very_object_in_force() -> None:
    case = Case()
    case.says(*TEN)
    before = case.guard.in_force
    case.says(*TEN)
    assert case.guard.in_force is before
    assert isinstance(before, Membership)


def test_those_let_go_while_others_are_held_on_are_told_of() -> None:
    case = Case()
    case.says(*TEN)
    case.guard.failed()
    case.says(1)
    case.down |= {address(number) for number in (2, 3)}
    verdict = case.guard.advance(case.now)
    assert verdict is not None
    assert (verdict.kind, case.guard.held) == ("held", 7)
    assert verdict.message.startswith("2 endpoints are let go")


def obeyed(case: Case, *those: int) -> int:
    """How many an operator's word has let go; all that are held unless `those` are named."""
    these = {address(number) for number in those} or set(case.guard.held_addresses)
    found = case.guard.obey(these)
    if found is None:
        return 0
    verdict, gone = found
    assert verdict.kind == "confirmed"
    assert verdict.message.startswith(f"{len(gone)} endpoints are let go")
    assert set(gone) <= these
    return len(gone)


@pytest.mark.parametrize("trouble", [False, True])
def test_an_operator_has_what_is_held_let_go_this_once(trouble: bool) -> None:
    case = Case()
    case.says(*TEN)
    assert obeyed(case) == 0
    if trouble:
        case.guard.failed()
    case.says(1, 2)
    assert obeyed(case) == 8
    assert (case.in_force, case.guard.held, case.guard.confirm_at) == ([1, 2], 0, None)
    assert obeyed(case) == 0
    assert case.says(1, 2) == "unchanged"
    assert case.says() == "held"  # the next removal is judged as any
    assert "second answer" in case.guard.why
    assert case.in_force == [1, 2]


def test_before_any_answer_and_of_others_there_is_nothing_to_obey() -> None:
    case = Case()
    assert obeyed(case, 1) == 0
    case.says(*TEN)
    case.says(1)
    assert obeyed(case, 1, 77) == 0
    assert case.guard.held == 9


def test_an_operators_word_ends_no_trouble_that_came_after_the_answer() -> None:
    case = Case()
    case.says(*TEN)
    case.says(1, 2, 3, 4)
    case.guard.failed()
    assert obeyed(case) == 6
    assert case.says() == "held"
    assert "after trouble" in case.guard.why


def test_those_that_came_to_be_held_meanwhile_are_not_meant() -> None:
    case = Case()
    case.says(*TEN)
    case.guard.failed()
    case.says(1, 2, 3)
    these = set(case.guard.held_addresses)
    case.says(1)
    found = case.guard.obey(these)
    assert found is not None
    assert len(found[1]) == 7
    assert sorted(case.in_force) == [1, 2, 3]
    assert "after trouble" in case.guard.why


def test_an_operator_has_another_subject_that_names_nobody_obeyed() -> None:
    case = Case()
    case.guard.stand_in(members(1, 2), trusted=True)
    assert case.says() == "held"
    assert case.guard.standing_in
    assert obeyed(case) == 2
    assert (case.in_force, case.guard.standing_in) == ([], False)
