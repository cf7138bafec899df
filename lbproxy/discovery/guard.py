"""The guard against removals: whether a registry's answer that takes endpoints away is obeyed, and when. Pure: the time comes in.

One rule. An answer is *suspicious* when it would remove more than `share` of what is in force, or leave fewer than `minimum`.
Additions and changes of any answer hold at once; what a suspicious one leaves out is held in force:

- after trouble (an error, a registry that lost its memory, a start from the state on disk) until `hold` has passed, unless it is known
  to be down. Nothing but time tells an empty registry from a registry that was emptied;
- otherwise until a second, consistent answer, at least `CONFIRM_AFTER_S` later, leaves it out, too.

An endpoint that comes back is not held any more; an answer that is not suspicious is obeyed, but for what a hold after trouble still
holds: instances that register again one by one after a restart of their registry are not lost half way. `empty: allow` obeys an
empty answer at once, unless after trouble. An operator may end a hold: what is held at that moment goes, and the next answer is judged
as any.

Why: Consul answers `200 []` for a moment after an election or a restart, and for ever after a wrong ACL change; fabio (issues 837, 861)
lost 400 routes to it. Envoy's health panic (50 %) is the model of `share`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

from lbproxy.discovery.options import GuardOptions
from lbproxy.domain.address import Address
from lbproxy.domain.membership import Member, Membership

CONFIRM_AFTER_S: Final = 10.0

Kind = Literal["applied", "unchanged", "held", "confirmed", "expired"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an answer (or of the time): `message` says in words what an operator should know, "" for nothing special."""

    kind: Kind
    message: str = ""


class Guard:
    """One source's answers, in order. `in_force` is what its upstream should have: None before anything is known.

    `is_down` tells whether an address is known, by other evidence than the registry, not to work.
    """

    def __init__(self, options: GuardOptions, is_down: Callable[[Address], bool]) -> None:
        self._options = options
        self._is_down = is_down
        self._trouble = False
        self._failed = False  # since the last answer
        self._answer: Membership | None = None
        self._held: dict[Address, tuple[Member, float]] = {}  # and since when
        self.in_force: Membership | None = None
        # What is in force is another subject's, or old, until this one has named somebody.
        self.standing_in = False

    def begin(self, membership: Membership, *, trusted: bool) -> None:
        """What was in force before: a predecessor's, or (not `trusted`) what the disk remembers."""
        self.in_force = self._answer = membership
        self._trouble = not trusted

    def stand_in(self, membership: Membership, *, trusted: bool) -> None:
        """What was in force of another subject (an operator has named another service), or long ago: better than nothing, but the first
        answer that names anybody takes its place as a whole. An empty one is judged as any: it may be a typing error."""
        self.begin(membership, trusted=trusted)
        self.standing_in = bool(membership.members)

    @property
    def trouble(self) -> bool:
        """Whether the last word that could be trusted lies before an error, or on the disk."""
        return self._trouble

    @property
    def held(self) -> int:
        """How many endpoints are in force against the last answer."""
        return len(self._held)

    @property
    def held_addresses(self) -> tuple[Address, ...]:
        """Those endpoints."""
        return tuple(self._held)

    @property
    def why(self) -> str:
        """What is waited for while something is held, in words."""
        if not self._held:
            return ""
        if self._trouble:
            return f"after trouble, for up to {self._options.hold_s:g} s or until they are known to be down"
        return f"until a second answer, {CONFIRM_AFTER_S:g} s later, leaves them out, too"

    @property
    def confirm_at(self) -> float | None:
        """When to ask for a consistent answer; None when none is needed."""
        if not self._held or self._trouble:
            return None
        return min(since for _, since in self._held.values()) + CONFIRM_AFTER_S

    def failed(self) -> None:
        """The registry gave no answer: what it says next may be the words of one that has forgotten."""
        self._failed = True
        if self.in_force is not None:
            self._trouble = True

    def answered(self, answer: Membership, now: float, *, consistent: bool, regressed: bool) -> Verdict:
        if regressed:
            self.failed()
        self._failed = False
        before = self.in_force
        if before is None:
            self._accept(answer, {})
            return Verdict("applied")
        if self.standing_in and answer.members:
            self._trouble = False
            return self._settle(
                answer, {}, "applied", "its first answer takes the place of what was followed before"
            )
        named = {member.address for member in answer.members}
        missing = [member for member in before.members if member.address not in named]
        # Held until now and still missing; what came back is forgotten.
        kept = {
            member.address: self._held[member.address] for member in missing if member.address in self._held
        }
        if not missing:
            self._trouble = False
            return self._settle(answer, {}, "applied")
        if not answer.members and self._options.empty == "allow" and not self._trouble:
            return self._settle(answer, {}, "applied", "an empty answer is obeyed (guard.empty: allow)")
        if self._suspicious(len(missing), len(before.members), len(answer.members)):
            for member in missing:
                kept.setdefault(member.address, (member, now))
            if self._trouble:
                return self._after_trouble(answer, kept, now)
            return self._in_peace(answer, kept, now, consistent=consistent)
        if self._trouble and kept:
            return self._after_trouble(answer, kept, now)
        self._trouble = False
        return self._settle(answer, {}, "applied")

    def renamed(self, answer: Membership, now: float) -> Verdict:
        """As `answered`, for the same answer whose host names have other addresses by now."""
        trouble, failed = self._trouble, self._failed
        verdict = self.answered(answer, now, consistent=False, regressed=False)
        self._trouble, self._failed = self._trouble or trouble, failed
        return verdict

    def advance(self, now: float) -> Verdict | None:
        """Let go of what was held for long enough, or is known to be down by now. None if nothing changed."""
        if not self._held or not self._trouble:
            return None
        assert self._answer is not None
        kept = self._still_held(self._held, now)
        if len(kept) == len(self._held):
            return None
        return self._after_trouble(self._answer, self._held, now)

    def obey(self, these: Collection[Address]) -> tuple[Verdict, tuple[Address, ...]] | None:
        """An operator says that the answer is right: let go of what is held among `these`, whatever is waited for. The verdict, and who
        has gone; None if none of them is held. It is no licence for later answers; but that the registry is well the operator has
        said, too, unless it has failed since that answer."""
        gone = tuple(address for address in self._held if address in these)
        if not gone:
            return None
        assert self._answer is not None
        kept = {address: each for address, each in self._held.items() if address not in these}
        self._trouble = self._trouble and (self._failed or bool(kept))
        message = f"{len(gone)} endpoints are let go: an operator has the last answer obeyed"
        return self._settle(self._answer, kept, "confirmed", message), gone

    def _suspicious(self, missing: int, before: int, left: int) -> bool:
        return missing > self._options.share * before or left < self._options.minimum

    def _still_held(
        self, held: dict[Address, tuple[Member, float]], now: float
    ) -> dict[Address, tuple[Member, float]]:
        return {
            address: (member, since)
            for address, (member, since) in held.items()
            if now < since + self._options.hold_s and not self._is_down(address)
        }

    def _after_trouble(
        self, answer: Membership, held: dict[Address, tuple[Member, float]], now: float
    ) -> Verdict:
        kept = self._still_held(held, now)
        gone = len(held) - len(kept)
        let_go = f"{gone} endpoints are let go: they were held for long enough, or are down" if gone else ""
        if kept:
            new = len(kept) - sum(address in self._held for address in kept)
            holding = (
                f"{len(kept)} endpoints that the answer leaves out are held: {self._words(kept)}"
                if new
                else ""
            )
            return self._settle(answer, kept, "held", "; ".join(filter(None, (holding, let_go))))
        self._trouble = False
        return self._settle(answer, {}, "expired", let_go)

    def _in_peace(
        self, answer: Membership, held: dict[Address, tuple[Member, float]], now: float, *, consistent: bool
    ) -> Verdict:
        due = {a: each for a, each in held.items() if consistent and now >= each[1] + CONFIRM_AFTER_S}
        kept = {address: each for address, each in held.items() if address not in due}
        if due:
            message = f"{len(due)} endpoints are removed: a second answer leaves them out, too"
            return self._settle(answer, kept, "confirmed", message)
        new = len(kept) - sum(address in self._held for address in kept)
        message = (
            f"{len(kept)} endpoints that the answer leaves out are held: {self._words(kept)}" if new else ""
        )
        return self._settle(answer, kept, "held", message)

    def _words(self, kept: dict[Address, tuple[Member, float]]) -> str:
        shown = ", ".join(str(address) for address in list(kept)[:3])
        more = f" and {len(kept) - 3} more" if len(kept) > 3 else ""
        waited = "after trouble" if self._trouble else f"a second answer is wanted in {CONFIRM_AFTER_S:g} s"
        return f"{shown}{more} ({waited})"

    def _settle(
        self, answer: Membership, held: dict[Address, tuple[Member, float]], kind: Kind, message: str = ""
    ) -> Verdict:
        before = self.in_force
        self._accept(answer, held)
        if kind == "applied" and before == self.in_force:
            kind = "unchanged"
        return Verdict(kind, message)

    def _accept(self, answer: Membership, held: dict[Address, tuple[Member, float]]) -> None:
        self.standing_in = self.standing_in and bool(held)
        self._answer = answer
        self._held = held
        members = (*answer.members, *(member for member, _ in held.values()))
        if self.in_force is None or members != self.in_force.members:
            self.in_force = Membership(members)
