"""One figure: ours against a reference measured in turn with it, in the same run."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figure:
    """Medians of interleaved runs; `ratio` is ours / reference, `spread` is (max - min) / median of ours."""

    name: str
    unit: str
    ours: float
    reference: float
    reference_is: str
    ratio: float
    goal: float
    met: bool
    runs: int
    spread: float

    @classmethod
    def of(
        cls, name: str, unit: str, ours: list[float], reference: list[float], *, reference_is: str, goal: float
    ) -> Figure:
        """Makes the figure from equally many runs of both; the goal is the highest ratio that is good enough."""
        mine, theirs = median(ours), median(reference)
        spread = (max(ours) - min(ours)) / mine
        return cls(
            name, unit, mine, theirs, reference_is, mine / theirs, goal, mine / theirs <= goal, len(ours), spread
        )

    @classmethod
    def missing(cls, name: str, why: str) -> Figure:
        """A measurement that could not run counts as not met."""
        return cls(name, "-", float("nan"), float("nan"), why, float("nan"), float("nan"), False, 0, 0.0)
