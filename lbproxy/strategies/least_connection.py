"""Weighted least connection: the endpoint for which (sessions + 1) / weight is smallest.

`LeastConnection` looks at all endpoints through a heap that the pool's notices keep in order; `LeastOfDraws` looks at a few
drawn ones. Floats compare exactly here: division rounds equal fractions equally, and fractions of such small numbers that
differ do so by more than a rounding.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush, heapreplace

from lbproxy.domain.endpoint import Endpoint
from lbproxy.domain.strategy import Context, Snapshot
from lbproxy.strategies.draws import NOTHING, ROUNDS, Draws


class _Node:
    __slots__ = ("chosen", "endpoint", "item", "weight")

    def __init__(self, endpoint: Endpoint, weight: int, chosen: int) -> None:
        self.endpoint = endpoint
        self.weight = weight
        self.chosen = chosen  # when it was chosen last, counted in choices: a number no other node has
        self.item: _Item | None = None


# Load and `chosen` as they were when queued. Only the item its node names counts, and is never above the node's present
# (load, chosen); all others are left behind and dropped when they come up.
_Item = tuple[float, int, _Node]


class LeastConnection:
    """Equal loads rotate: who was chosen longest ago comes first. An endpoint found full leaves the heap until one of its
    sessions ends. Every notice and pick costs O(log n) amortised."""

    __slots__ = ("_choices", "_heap", "_newest", "_nodes")

    def __init__(self) -> None:
        self._choices = 0
        self._newest = 0  # below every number of a choice, and falling: who comes late comes first
        self._heap: list[_Item] = []
        self._nodes: dict[Endpoint, _Node] = {}

    def rebuild(self, snapshot: Snapshot) -> None:
        """O(n log n). Newcomers come first among equals, in configured order."""
        known = self._nodes
        nodes = [
            _Node(endpoint, weight, known[endpoint].chosen if endpoint in known else 0)
            for endpoint, weight in zip(snapshot.endpoints, snapshot.weights, strict=True)
        ]
        self._nodes = {node.endpoint: node for node in nodes}
        nodes.sort(key=lambda node: node.chosen)
        for rank, node in enumerate(nodes, 1):
            node.chosen = rank
            if not node.endpoint.full:
                node.item = ((node.endpoint.active + 1) / node.weight, rank, node)
        self._choices = len(nodes)
        self._newest = 0
        self._compact()

    def update(self, snapshot: Snapshot, gone: Collection[Endpoint], came: Collection[Endpoint]) -> None:  # noqa: ARG002
        """O((gone + came) log n)."""
        for endpoint in gone:
            self._nodes.pop(endpoint).item = None
        self._newest -= len(came)
        for rank, endpoint in enumerate(came, self._newest):
            node = self._nodes.get(endpoint)
            if node is None:
                node = self._nodes[endpoint] = _Node(endpoint, endpoint.weight, rank)
            node.weight = endpoint.weight
            if not endpoint.full:
                node.item = ((endpoint.active + 1) / node.weight, node.chosen, node)
                heappush(self._heap, node.item)
        if len(self._heap) > 2 * len(self._nodes) + 16:
            self._compact()

    def pick(self, snapshot: Snapshot, context: Context) -> Endpoint | None:  # noqa: ARG002 - the heap holds it
        heap = self._heap
        tried = context.tried
        aside: list[_Item] = []
        found: Endpoint | None = None
        while heap:
            item = heap[0]
            node = item[2]
            endpoint = node.endpoint
            if node.item is not item:
                heappop(heap)
            elif endpoint.full:
                heappop(heap)
                node.item = None
            elif item[0] != (load := (endpoint.active + 1) / node.weight) or item[1] != node.chosen:
                node.item = (load, node.chosen, node)
                heapreplace(heap, node.item)
            elif tried and endpoint in tried:
                aside.append(heappop(heap))
            else:
                found = endpoint
                break
        for item in aside:
            heappush(heap, item)
        return found

    def acquired(self, endpoint: Endpoint) -> None:
        node = self._nodes.get(endpoint)
        if node is None:
            return
        self._choices += 1
        node.chosen = self._choices
        heap = self._heap
        # Elsewhere in the heap its item is now too low, and is put right when it comes up.
        if heap and heap[0] is node.item:
            if endpoint.full:
                heappop(heap)
                node.item = None
            else:
                node.item = ((endpoint.active + 1) / node.weight, node.chosen, node)
                heapreplace(heap, node.item)

    def released(self, endpoint: Endpoint) -> None:
        node = self._nodes.get(endpoint)
        if node is None or endpoint.full:
            return
        load = (endpoint.active + 1) / node.weight
        if node.item is None or node.item[0] > load:
            node.item = (load, node.chosen, node)
            heappush(self._heap, node.item)
            if len(self._heap) > 2 * len(self._nodes) + 16:
                self._compact()

    def _compact(self) -> None:
        """Drop the items left behind. Comes once in n notices at most, so it costs each of them O(1)."""
        self._heap = [node.item for node in self._nodes.values() if node.item is not None]
        heapify(self._heap)


class LeastOfDraws:
    """The least loaded of `choices` weighted draws; a repeated draw counts as one of them. Ties go to the first drawn."""

    __slots__ = ("_draws", "choices")

    def __init__(self, choices: int) -> None:
        self.choices = choices
        self._draws = NOTHING

    def rebuild(self, snapshot: Snapshot) -> None:
        """O(n)."""
        self._draws = Draws(snapshot.endpoints, snapshot.weights)

    def update(self, snapshot: Snapshot, gone: Collection[Endpoint], came: Collection[Endpoint]) -> None:  # noqa: ARG002
        """O(n), of which each step is a machine instruction or two."""
        self.rebuild(snapshot)

    def pick(self, snapshot: Snapshot, context: Context) -> Endpoint | None:  # noqa: ARG002 - the table holds it
        draws = self._draws
        if not draws.endpoints:
            return None
        for _ in range(ROUNDS):
            endpoint = self._least(draws, [draws.one(context.rng) for _ in range(self.choices)], context)
            if endpoint is not None:
                return endpoint
        first = draws.from_place(draws.one(context.rng), context)
        if first is None:
            return None
        others = [draws.from_place(draws.one(context.rng), context) for _ in range(self.choices - 1)]
        return self._least(draws, [first, *(place for place in others if place is not None)], context)

    def acquired(self, endpoint: Endpoint) -> None:
        pass  # sessions are read from the endpoints at the draw

    def released(self, endpoint: Endpoint) -> None:
        pass  # sessions are read from the endpoints at the draw

    def _least(self, draws: Draws, places: list[int], context: Context) -> Endpoint | None:
        tried = context.tried
        least: Endpoint | None = None
        least_load = 0.0
        for place in places:
            endpoint = draws.endpoints[place]
            if endpoint.full or (tried and endpoint in tried):
                continue
            load = (endpoint.active + 1) / draws.weights[place]
            if least is None or load < least_load:
                least = endpoint
                least_load = load
        return least
