"""Runs measurements, prints their table and writes `bench.json`; one that cannot run says why, and the others go on."""

from __future__ import annotations

import json
import math
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .figure import Figure

Measurement = Callable[[], Sequence[Figure]]
_LONGEST_REASON = 500


def run(measurements: Mapping[str, Measurement], names: Sequence[str], folder: Path) -> int:
    """Runs the named measurements, all of them without a name; gives 2 for a name that does not exist, else 0.

    A figure that is not met does not fail the run: figures are read, not gates.
    """
    unknown = [name for name in names if name not in measurements]
    if unknown:
        print(f"There is no measurement {unknown[0]!r}. Known are {', '.join(measurements)}.", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name in names or measurements:
        figures += _measured(name, measurements[name])
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{key: _plain(value) for key, value in asdict(figure).items()} for figure in figures]
    (folder / "bench.json").write_text(json.dumps(rows, indent=1, allow_nan=False) + "\n")
    print("\n".join(table(figures)))
    return 0


def _measured(name: str, measure: Measurement) -> list[Figure]:
    say(f"{name}: begins")
    began = time.monotonic()
    try:
        figures = list(measure())
    # SystemExit and pytest's Skipped are no Exception; only whoever presses Ctrl-C means all of it.
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exc()
        said = " ".join(str(error).split())[:_LONGEST_REASON]
        figures = [Figure.missing(name, f"could not run: {type(error).__name__}: {said}")]
    say(f"{name}: {len(figures)} figures in {time.monotonic() - began:.0f} s")
    return figures


def say(text: str) -> None:
    """Tells the progress to whoever waits; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def _plain(value: object) -> object:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def table(figures: Sequence[Figure]) -> list[str]:
    """Gives the lines of the table."""
    width = max([6, *(len(one.name) for one in figures)])
    lines = [f"{'figure':<{width}}  {'ours':>9} {'reference':>10} {'unit':<6} {'ratio':>6} {'goal':>6}  runs spread  "]
    lines[0] += "reference is"
    for one in figures:
        numbers = f"{_number(one.ours):>9} {_number(one.reference):>10} {one.unit:<6} {_number(one.ratio, 2):>6} "
        spread = "-" if one.spread is None else f"{one.spread:.0%}"
        lines.append(
            f"{one.name:<{width}}  {numbers}{_number(one.goal, 2):>6}  {one.runs:>4} {spread:>6}  "
            f"{one.reference_is} ({_mark(one)})"
        )
    return lines


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _mark(figure: Figure) -> str:
    if not figure.met:
        return "NOT MET"
    return "told" if figure.goal is None else "met"
