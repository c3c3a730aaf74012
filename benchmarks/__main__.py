"""`python -m benchmarks [NAME]`: all measurements or one, in the order of their rows; what `make bench` runs."""

from __future__ import annotations

import sys
from pathlib import Path

from . import browser, catalogue, desktop, launcher, start, thousand
from .runner import run

MEASUREMENTS = {
    "launcher": launcher.measure,
    "start": start.measure,
    "browser": browser.measure,
    "thousand": thousand.measure,
    "catalogue": catalogue.measure,
    "desktop": desktop.measure,
}

if __name__ == "__main__":
    sys.exit(run(MEASUREMENTS, sys.argv[1:], Path(__file__).parents[1] / "build"))
