"""What an operator decided about endpoints, by label: it outlives reloads, membership changes and a disappearance."""

from __future__ import annotations

from typing import Final

# A registry that loses an endpoint for a deployment or a network fault brings it back well within this time; later it is
# more likely another program on the same address.
KEEP_AFTER_S: Final = 3600.0


class Override:
    """`drain_due` is when the sessions left are closed; `absent_since` is when the endpoint disappeared."""

    __slots__ = ("absent_since", "drain_due", "drained", "weight")

    def __init__(self) -> None:
        self.drained = False
        self.drain_due: float | None = None
        self.weight: int | None = None
        self.absent_since: float | None = None

    @property
    def empty(self) -> bool:
        return not self.drained and self.weight is None


NONE: Final = Override()


class Overrides:
    """The overrides in force. Only labels with something to say are kept."""

    __slots__ = ("_by_label",)

    def __init__(self) -> None:
        self._by_label: dict[str, Override] = {}

    def __contains__(self, label: str) -> bool:
        return label in self._by_label

    def get(self, label: str) -> Override:
        """What holds for `label`; to read only."""
        return self._by_label.get(label, NONE)

    def drain(self, label: str, due: float | None) -> None:
        override = self._by_label.setdefault(label, Override())
        override.drained = True
        override.drain_due = due

    def undrain(self, label: str) -> None:
        override = self._by_label.get(label)
        if override is not None:
            override.drained = False
            override.drain_due = None
            self._drop_if_empty(label, override)

    def undrain_rest(self) -> None:
        """Lift the drains of labels that belong to no endpoint at present."""
        for label in [label for label, override in self._by_label.items() if override.drained]:
            self.undrain(label)

    def set_weight(self, label: str, weight: int | None) -> None:
        override = self._by_label.setdefault(label, Override())
        override.weight = weight
        self._drop_if_empty(label, override)

    def disappeared(self, label: str, now: float) -> None:
        """Also called for a label that is gone already: the first time counts."""
        override = self._by_label.get(label)
        if override is not None and override.absent_since is None:
            override.absent_since = now

    def appeared(self, label: str) -> None:
        override = self._by_label.get(label)
        if override is not None:
            override.absent_since = None

    def take_due_drains(self, now: float) -> list[str]:
        """Labels whose drain deadline has passed, each named once."""
        due = [label for label, o in self._by_label.items() if o.drain_due is not None and o.drain_due <= now]
        for label in due:
            self._by_label[label].drain_due = None
        return due

    def purge(self, now: float) -> list[str]:
        """Forget what was decided about endpoints that are long gone; their labels."""
        gone = [
            label
            for label, override in self._by_label.items()
            if override.absent_since is not None and override.absent_since + KEEP_AFTER_S <= now
        ]
        for label in gone:
            del self._by_label[label]
        return gone

    def next_due(self) -> float | None:
        """When something here changes by time alone."""
        times = [o.drain_due for o in self._by_label.values() if o.drain_due is not None]
        times += [
            o.absent_since + KEEP_AFTER_S for o in self._by_label.values() if o.absent_since is not None
        ]
        return min(times, default=None)

    def _drop_if_empty(self, label: str, override: Override) -> None:
        if override.empty:
            del self._by_label[label]
