"""Runs all measurements, or the one named, prints a table and writes build/bench.json."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from . import launcher
from .figure import Figure

MEASUREMENTS = {"launcher": launcher.measure}


def main(only: str | None) -> int:
    if only is not None and only not in MEASUREMENTS:
        print(f"There is no measurement {only!r}. Known are {', '.join(MEASUREMENTS)}.", file=sys.stderr)
        return 2
    figures: list[Figure] = []
    for name, measure in MEASUREMENTS.items():
        if only in {None, name}:
            try:
                figures += measure()
            except OSError as error:
                figures.append(Figure.missing(name, f"could not run: {error}"))
    folder = Path(__file__).parents[1] / "build"
    folder.mkdir(exist_ok=True)
    (folder / "bench.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    print(f"{'figure':<34}{'ours':>9}{'reference':>11} {'unit':<6}{'ratio':>7}{'goal':>7}  runs  reference is")
    for one in figures:
        mark = "met" if one.met else "NOT MET"
        print(
            f"{one.name:<34}{one.ours:>9.3f}{one.reference:>11.3f} {one.unit:<6}{one.ratio:>7.2f}{one.goal:>7.2f}  "
            f"{one.runs:<5} {one.reference_is} ({mark})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))
