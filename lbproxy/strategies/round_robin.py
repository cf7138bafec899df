"""Smooth weighted round robin: nginx's sequence exactly, without visiting every endpoint for every pick.

nginx adds its weight w to every endpoint's credit, picks the highest (the first configured among equals) and takes the sum
of all weights W from it. So after t picks a credit is `base + w * t`, where only a pick changes `base`. Endpoints of one
weight rise together: their order is that of their bases, and the one just picked falls behind all of them. They form a
queue, only its head can win, and a pick costs O(number of different weights), whatever the number of endpoints.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from operator import attrgetter

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Snapshot


class _Turn:
    __slots__ = ("base", "endpoint", "index")

    def __init__(self, base: int, index: int, endpoint: Endpoint) -> None:
        self.base = base
        self.index = index
        self.endpoint = endpoint


_base = attrgetter("base")
_index = attrgetter("index")
_Queue = deque[_Turn]  # highest base first, among equals the first configured


class RoundRobin:
    """A full endpoint that comes up forfeits its turn: it moves on as if picked, so that it has no turns saved up when it
    has room again. One that is only tried keeps its turn for the next session."""

    __slots__ = ("_classes", "_newest", "_picks", "_total")

    def __init__(self) -> None:
        self._classes: list[tuple[int, _Queue]] = []  # weight and queue
        self._picks = 0
        self._total = 0
        self._newest = 0  # the highest index there is

    def rebuild(self, snapshot: Snapshot) -> None:
        """O(n log n). Credits stay with those that stay, within what the new sum of weights allows; newcomers have none."""
        total = sum(snapshot.weights)
        carried = self._carried(snapshot, total)
        classes: dict[int, list[_Turn]] = {}
        for index, endpoint in enumerate(snapshot.endpoints):
            turn = _Turn(carried[index], index, endpoint)
            classes.setdefault(snapshot.weights[index], []).append(turn)
        for turns in classes.values():
            _settle(turns, total)
        self._classes = [(weight, deque(turns)) for weight, turns in classes.items()]
        self._picks = 0
        self._total = total
        self._newest = len(snapshot.endpoints)

    def update(self, snapshot: Snapshot, gone: Collection[Endpoint], came: Collection[Endpoint]) -> None:
        """O(n) in steps of the machine's; only what differs is looked at one by one. Newcomers have the mean of all credits, and among
        equals come last."""
        leaving = {*gone, *came}
        known: dict[Endpoint, int] = {}
        credit = 0
        classes: dict[int, list[_Turn]] = {}
        for weight, queue in self._classes:
            rise = weight * self._picks
            credit += sum(map(_base, queue)) + rise * len(queue)
            for turn in queue:
                if turn.endpoint in leaving:
                    known[turn.endpoint] = turn.base + rise
            classes[weight] = [turn for turn in queue if turn.endpoint not in leaving]
        number = sum(len(queue) for _, queue in self._classes)
        mean = credit // number if number else 0
        self._total = sum(snapshot.weights)
        for endpoint in came:
            self._newest += 1
            base = known.get(endpoint, mean) - endpoint.weight * self._picks
            classes.setdefault(endpoint.weight, []).append(_Turn(base, self._newest, endpoint))
        for turns in classes.values():
            if turns:
                _settle(turns, self._total)
        self._classes = [(weight, deque(turns)) for weight, turns in classes.items() if turns]

    def pick(self, snapshot: Snapshot, context: Context) -> Endpoint | None:  # noqa: ARG002 - the queues hold it
        classes = self._classes
        if len(classes) == 1:
            queue = classes[0][1]
        elif classes:
            queue = self._leading()
        else:
            return None
        turn = queue[0]
        endpoint = turn.endpoint
        limit = endpoint.max_connections
        tried = context.tried
        if (limit is not None and endpoint.active >= limit) or (tried and endpoint in tried):
            return self._search(context)
        self._picks += 1
        base = turn.base - self._total
        last = queue[-1]
        if last is turn or last.base > base or (last.base == base and last.index < turn.index):
            turn.base = base
            queue.rotate(-1)  # as `_requeue` nearly always does it
        else:
            queue.popleft()
            self._requeue(queue, turn)
        return endpoint

    def acquired(self, endpoint: Endpoint) -> None:
        pass  # turns do not depend on sessions

    def released(self, endpoint: Endpoint) -> None:
        pass  # turns do not depend on sessions

    def _leading(self) -> _Queue:
        """The queue whose head has the highest credit; an empty one when all are empty."""
        rises = self._picks + 1  # credits rise before the choice
        best_queue = self._classes[0][1]
        best_credit = best_index = 0
        found = False
        for weight, queue in self._classes:
            if queue:
                head = queue[0]
                credit = head.base + weight * rises
                if not found or credit > best_credit or (credit == best_credit and head.index < best_index):
                    found = True
                    best_credit = credit
                    best_index = head.index
                    best_queue = queue
        return best_queue

    def _search(self, context: Context) -> Endpoint | None:
        """Past what cannot be picked. Visits every endpoint at most once; when none is left, nothing has changed."""
        passed: list[tuple[_Queue, _Turn]] = []
        forfeited: list[tuple[_Queue, _Turn]] = []
        skipped: list[tuple[_Queue, _Turn]] = []
        while queue := self._leading():
            turn = queue.popleft()
            endpoint = turn.endpoint
            if endpoint in context.tried:
                skipped.append((queue, turn))
            elif endpoint.full:
                forfeited.append((queue, turn))
            else:
                for held, waiting in reversed(skipped):
                    held.appendleft(waiting)
                for left, late in forfeited:
                    self._requeue(left, late)
                self._requeue(queue, turn)
                self._picks += 1
                return endpoint
            passed.append((queue, turn))
        for held, waiting in reversed(passed):
            held.appendleft(waiting)
        return None

    def _requeue(self, queue: _Queue, turn: _Turn) -> None:
        """Take a turn's price and put it back in order: at the end, unless a session that skipped what it had tried made
        others go ahead of their time."""
        base = turn.base = turn.base - self._total
        ahead: list[_Turn] = []
        while queue:
            last = queue[-1]
            if last.base > base or (last.base == base and last.index < turn.index):
                break
            ahead.append(queue.pop())
        queue.append(turn)
        if ahead:
            queue.extend(reversed(ahead))

    def _carried(self, snapshot: Snapshot, total: int) -> list[int]:
        """The credits to start from, in the snapshot's order. Those of nginx add up to 0; here forfeited turns and removed
        endpoints took some away, which would leave a newcomer's 0 far above all others: so they are centred first."""
        known = {turn.endpoint: turn.base + w * self._picks for w, queue in self._classes for turn in queue}
        staying = [known[endpoint] for endpoint in snapshot.endpoints if endpoint in known]
        centre = sum(staying) // len(staying) if staying else 0
        return [
            max(-total, min(total, known[endpoint] - centre)) if endpoint in known else 0
            for endpoint in snapshot.endpoints
        ]


def _settle(turns: list[_Turn], total: int) -> None:
    """Sort one class (given in configured order) and keep its bases within one turn's price of each other: then whoever is
    picked belongs behind all others for good, and no pick has to look for its place."""
    turns.sort(key=_base, reverse=True)  # stable in reverse, too: equals stay in configured order
    first, last = turns[0], turns[-1]
    floor = first.base - total
    # Exactly at the floor is right as long as those there were configured before those at the top.
    if last.base < floor or (last.base == floor and last.index > first.index):
        for turn in turns:
            turn.base = max(turn.base, floor + 1)
        turns.sort(key=_index)
        turns.sort(key=_base, reverse=True)
