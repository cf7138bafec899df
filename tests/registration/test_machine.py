"""A registration's whole life on virtual time, against an agent that loses its memory, its mind and its network."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lbproxy.registration.definition import Definition, Verdict
from lbproxy.registration.machine import (
    BACKOFF_CAP_S,
    GAP_S,
    RENEWALS,
    Deregister,
    Failure,
    Register,
    Registration,
    State,
    Step,
    Update,
)

TTL_S = 15.0
WEB = Definition("web-1", "web", "10.0.0.5", 8080, ttl_s=TTL_S)
WELL = Verdict("passing", "ready")
ILL = Verdict("critical", "upstream up has no usable endpoint")


@dataclass
class FakeAgent:
    """What an agent knows: services with their check's status. `down`: nothing arrives; `deaf`: it acts, and its answers are lost."""

    services: dict[str, Definition] = field(default_factory=dict)
    said: dict[str, Verdict] = field(default_factory=dict)
    heard_at: dict[str, float] = field(default_factory=dict)
    down: bool = False
    deaf: bool = False
    calls: list[tuple[float, Step]] = field(default_factory=list)

    def take(self, step: Step, now: float) -> Failure | None:
        self.calls.append((now, step))
        if self.down:
            return Failure.ERROR
        failure = self._carry_out(step, now)
        return Failure.ERROR if self.deaf else failure

    def _carry_out(self, step: Step, now: float) -> Failure | None:
        match step:
            case Register(definition, verdict):
                self.services[definition.id] = definition
                self.said[definition.check_id] = verdict
                self.heard_at[definition.check_id] = now
            case Update(check_id, verdict):
                if check_id not in self.said:
                    return Failure.FORGOTTEN
                self.said[check_id] = verdict
                self.heard_at[check_id] = now
            case Deregister(service_id):
                if self.services.pop(service_id, None) is None:
                    return Failure.FORGOTTEN
                self.said.clear()
        return None

    def forget(self) -> None:
        self.services.clear()
        self.said.clear()


class Life:
    """A registration and its agent, from one due time to the next."""

    def __init__(self, verdict: Verdict = WELL, seed: int = 0) -> None:
        self.now = 100.0
        self.agent = FakeAgent()
        self.it = Registration(WEB, verdict, random.Random(seed))

    def passes(self, seconds: float) -> None:
        end = self.now + seconds
        steps = 0
        while True:
            step, due = self.it.next(self.now)
            if step is None:
                if due > end:
                    break
                assert due >= self.now
                self.now = due
                continue
            steps += 1
            assert steps < 50 + 50 * seconds, "it spins"
            failure = self.agent.take(step, self.now)
            if failure is None:
                self.it.done(step, self.now)
            else:
                self.it.failed(step, failure, self.now)
        self.now = end

    @property
    def kinds(self) -> list[type[Step]]:
        return [type(step) for _, step in self.agent.calls]


def test_it_registers_with_its_verdict_and_says_why_at_once() -> None:
    life = Life(ILL)
    life.passes(0.0)
    assert life.agent.calls == [(100.0, Register(WEB, ILL)), (100.0, Update("service:web-1", ILL))]
    assert life.it.state is State.REGISTERED
    assert life.it.told == ILL


def test_it_renews_three_times_within_the_ttl_and_not_much_more_often() -> None:
    life = Life()
    life.passes(600.0)
    times = [when for when, step in life.agent.calls if isinstance(step, Update)]
    gaps = [after - before for before, after in pairwise(times)]
    assert max(gaps) <= TTL_S / RENEWALS
    assert min(gaps) >= 0.9 * TTL_S / RENEWALS


def test_a_fleet_does_not_renew_at_once() -> None:
    fleet = [Life(seed=seed) for seed in range(100)]
    for life in fleet:
        life.passes(600.0)
    last = sorted(life.agent.calls[-1][0] for life in fleet)
    assert last[-1] - last[0] > 2.0


def test_a_change_of_status_is_told_at_once_and_fluttering_once_a_second() -> None:
    life = Life()
    life.passes(5.0)
    before = len(life.agent.calls)
    life.it.judge(ILL)
    life.passes(0.0)
    assert life.agent.said == {"service:web-1": ILL}
    for turn in range(100):
        life.it.judge(WELL if turn % 2 else ILL)
        life.passes(0.1)
    assert len(life.agent.calls) - before <= 1 + 10 / GAP_S + 3


def test_a_change_of_words_waits_for_the_next_renewal() -> None:
    life = Life()
    life.passes(0.0)
    life.it.judge(Verdict("passing", "ready; upstream b has no usable endpoint"))
    life.passes(1.0)
    assert life.agent.said["service:web-1"] == WELL
    life.passes(TTL_S / RENEWALS)
    assert life.agent.said["service:web-1"].output.endswith("no usable endpoint")


def test_an_agent_that_restarted_empty_has_it_back_within_a_ttl() -> None:
    life = Life()
    life.passes(60.0)
    life.agent.forget()
    life.passes(TTL_S / RENEWALS)
    assert life.agent.services == {"web-1": WEB}
    assert life.kinds[-3:] == [Update, Register, Update]


@pytest.mark.parametrize("outage_s", [1.0, 60.0, 3600.0])
@pytest.mark.parametrize("seed", range(20))
def test_after_an_outage_it_is_back_within_a_ttl(outage_s: float, seed: int) -> None:
    life = Life(seed=seed)
    life.passes(10.0)
    life.agent.down = True
    life.passes(outage_s)
    life.agent.forget()
    life.agent.down = False
    life.passes(TTL_S)
    assert life.agent.services == {"web-1": WEB}
    assert life.it.told == WELL


def test_an_agent_that_is_down_is_not_hammered() -> None:
    life = Life()
    life.agent.down = True
    life.passes(600.0)
    assert life.it.state is State.ABSENT
    assert len(life.agent.calls) < 2 * 2 * 600 / (TTL_S / RENEWALS)


def test_an_agent_that_asks_to_be_left_alone_is_within_reason() -> None:
    life = Life()
    for asked_s, waited_s in ((7.0, 7.0), (3600.0, BACKOFF_CAP_S)):
        step, _ = life.it.next(life.now)
        assert step is not None
        life.it.failed(step, Failure.ERROR, life.now, asked_s)
        assert life.it.next(life.now) == (None, life.now + waited_s)
        life.now += waited_s


def test_an_agent_that_forgets_what_it_was_just_told_is_not_asked_in_a_loop() -> None:
    life = Life()
    life.passes(1.0)
    for _ in range(600):
        step, _ = life.it.next(life.now)
        if step is not None:
            life.agent.calls.append((life.now, step))
            if isinstance(step, Register):
                life.it.done(step, life.now)
            else:
                life.it.failed(step, Failure.FORGOTTEN, life.now)
        life.now += 0.1
    assert len(life.agent.calls) < 100


def test_another_definition_of_the_same_id_is_registered_again() -> None:
    life = Life()
    life.passes(1.0)
    other = Definition("web-1", "web", "10.0.0.5", 8080, ("new",), ttl_s=TTL_S)
    life.it.redefine(other)
    life.passes(0.0)
    assert life.agent.services == {"web-1": other}
    life.it.redefine(other)
    before = len(life.agent.calls)
    life.passes(0.0)
    assert len(life.agent.calls) == before
    with pytest.raises(ValueError, match="is not"):
        life.it.redefine(Definition("web-2", "web", "", 1))


def test_leaving_takes_one_step_and_nothing_follows() -> None:
    life = Life()
    life.passes(1.0)
    life.it.leave()
    life.passes(0.0)
    assert life.kinds[-1] is Deregister
    assert life.it.state is State.GONE
    before = len(life.agent.calls)
    life.passes(3600.0)
    assert len(life.agent.calls) == before


def test_leaving_before_anything_was_sent_sends_nothing() -> None:
    life = Life()
    life.it.leave()
    life.passes(10.0)
    assert life.agent.calls == []
    assert life.it.state is State.GONE


def test_a_registration_whose_answer_was_lost_is_deregistered_too() -> None:
    life = Life()
    life.agent.deaf = True
    life.passes(0.0)
    assert life.agent.services
    life.it.leave()
    life.agent.deaf = False
    life.passes(0.0)
    assert life.agent.services == {}
    assert life.it.state is State.GONE


def test_a_step_on_its_way_while_it_leaves_delays_nothing() -> None:
    life = Life()
    step, _ = life.it.next(life.now)
    assert isinstance(step, Register)
    life.it.leave()
    life.it.failed(step, Failure.ERROR, life.now)
    assert life.it.next(life.now)[0] == Deregister("web-1")


def test_leaving_goes_on_while_the_agent_is_away_and_ends_when_it_knows_nothing() -> None:
    life = Life()
    life.passes(1.0)
    life.it.leave()
    life.agent.down = True
    life.passes(60.0)
    assert str(life.it.state) == "leaving"
    life.agent.down = False
    life.agent.forget()
    life.passes(BACKOFF_CAP_S)
    assert life.it.state is State.GONE


class AnyLife(RuleBasedStateMachine):
    """Whatever happens in whatever order: it never spins, and once all is well it is as it should be within a TTL."""

    def __init__(self) -> None:
        super().__init__()
        self.life = Life()
        self.left = False
        self.number = 0

    @rule(seconds=st.floats(0.0, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.life.passes(seconds)

    @rule(verdict=st.sampled_from([WELL, ILL, Verdict("warning", "w")]))
    def verdict_changes(self, verdict: Verdict) -> None:
        self.life.it.judge(verdict)

    @rule()
    def definition_changes(self) -> None:
        self.number += 1
        self.life.it.redefine(Definition("web-1", "web", "10.0.0.5", 8080, (str(self.number),), ttl_s=TTL_S))

    @rule(down=st.booleans(), deaf=st.booleans())
    def agent_changes(self, down: bool, deaf: bool) -> None:
        self.life.agent.down = down
        self.life.agent.deaf = deaf

    @rule()
    def agent_forgets(self) -> None:
        self.life.agent.forget()

    @rule()
    def it_leaves(self) -> None:
        self.left = True
        self.life.it.leave()

    @invariant()
    def gone_is_gone(self) -> None:
        if self.life.it.state is State.GONE:
            assert self.life.agent.services == {}

    def teardown(self) -> None:
        self.life.agent.down = self.life.agent.deaf = False
        self.life.passes(TTL_S)
        if self.left:
            assert self.life.agent.services == {}
            assert self.life.it.state is State.GONE
        else:
            assert self.life.agent.services == {"web-1": self.life.it.definition}
            assert self.life.it.told is not None
            assert self.life.agent.said["service:web-1"].status == self.life.it.verdict.status


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
