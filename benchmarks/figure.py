"""One figure: ours against a reference measured in turn with it, in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """Medians of interleaved runs; `ratio` is ours / reference, `spread` is (max - min) / median of ours.

    Without a reference or a goal the figure is only told: those fields are None, and nothing of it can be missed.
    """

    name: str
    unit: str
    ours: float | None
    reference: float | None
    reference_is: str
    ratio: float | None
    goal: float | None
    met: bool
    runs: int
    spread: float | None

    @classmethod
    def of(
        cls,
        name: str,
        unit: str,
        ours: Sequence[float],
        reference: Sequence[float],
        *,
        reference_is: str,
        goal: float | None,
        is_less_better: bool = True,
    ) -> Figure:
        """Makes the figure from the runs of both; the goal is the worst ratio that is good enough, None for no goal."""
        mine, theirs = median(ours), median(reference)
        ratio = mine / theirs
        met = goal is None or (ratio <= goal if is_less_better else ratio >= goal)
        return cls(name, unit, mine, theirs, reference_is, ratio, goal, met, len(ours), _spread(ours))

    @classmethod
    def told(cls, name: str, unit: str, ours: Sequence[float], *, what: str) -> Figure:
        """Makes a figure that has no reference: it only says what something costs."""
        return cls(name, unit, median(ours), None, what, None, None, True, len(ours), _spread(ours))

    @classmethod
    def missing(cls, name: str, why: str) -> Figure:
        """A measurement that could not run counts as not met."""
        return cls(name, "-", None, None, why, None, None, False, 0, None)


def _spread(runs: Sequence[float]) -> float | None:
    middle = median(runs)
    return (max(runs) - min(runs)) / middle if middle else None
