"""Writes small NeXus files for the sample experiments: `python make_data.py FOLDER`. A second run changes nothing.

Invented numbers that look like the real thing: a stack of diffraction patterns, a spectrum, a slice with its sinogram.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

EXPERIMENTS = Path(__file__).with_name("experiments.json")


@dataclass(frozen=True)
class Plot:
    """One NXdata group: a signal and its axes, each with values and a unit."""

    name: str
    signal: str
    values: NDArray[Any]
    unit: str
    axes: dict[str, tuple[NDArray[Any], str]] = field(default_factory=dict)


def diffraction(random: np.random.Generator) -> list[Plot]:
    """Makes a stack of 12 detector images: a halo and rings with spots that change with the delay."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    delays = np.linspace(-1, 10, 12)
    images = []
    for progress in np.linspace(0, 1, len(delays)):
        expected = 40 * np.exp(-((radius / 0.5) ** 2))
        for number, ring in enumerate((0.28, 0.45, 0.62, 0.8)):
            spots = 0.4 + 0.6 * np.cos((3 + number) * angle + 2 * progress) ** 8
            expected += 60 * (1 + progress) / (1 + number) * spots * np.exp(-(((radius - ring) / 0.015) ** 2))
        images.append(random.poisson(expected * (radius > 0.06)))
    return [Plot("data", "counts", np.array(images, dtype="u2"), "counts", {"delay": (delays, "ps")})]


def spectrum(random: np.random.Generator) -> list[Plot]:
    """Makes an absorption spectrum around the iron K edge."""
    energy = np.linspace(7.0, 7.4, 600)
    edge = 1 / (1 + np.exp(-(energy - 7.112) / 0.0015))
    white_line = 0.6 * np.exp(-(((energy - 7.125) / 0.006) ** 2))
    wiggles = 0.12 * np.sin(90 * np.sqrt(np.clip(energy - 7.112, 0, None))) * edge
    values = edge + white_line + wiggles + random.normal(0, 0.008, energy.size)
    return [Plot("data", "absorption", values, "1", {"energy": (energy, "keV")})]


def tomogram(random: np.random.Generator) -> list[Plot]:
    """Makes a slice through a seed and its sinogram, 120 projections over half a turn."""
    size = 192
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    shell = np.hypot(x / 0.9, y / 0.7)
    seed = 0.8 * ((shell < 1) & (shell > 0.9)) + 0.35 * (shell <= 0.9)
    for _ in range(14):
        centre_x, centre_y, radius = random.uniform(-0.5, 0.5), random.uniform(-0.4, 0.4), random.uniform(0.03, 0.12)
        seed[np.hypot(x - centre_x, y - centre_y) < radius] = random.uniform(0.1, 1.0)
    angles = np.linspace(0, 180, 120, endpoint=False)
    rows = []
    for angle in np.radians(angles):
        place = ((x * np.cos(angle) + y * np.sin(angle)) / 1.5 + 1) * (size - 1) / 2
        inside = np.rint(place).clip(0, size - 1).astype(int)
        rows.append(np.bincount(inside.ravel(), weights=seed.ravel(), minlength=size) * 2 / size)
    position = np.linspace(-1.5, 1.5, size)
    noisy = (seed + random.normal(0, 0.03, seed.shape)).astype("f4")
    return [
        Plot("data", "attenuation", noisy, "1/mm", {"y": (y[:, 0], "mm"), "x": (x[0], "mm")}),
        Plot(
            "sinogram",
            "absorption",
            np.array(rows, dtype="f4"),
            "1",
            {"rotation_angle": (angles, "deg"), "position": (position, "mm")},
        ),
    ]


def kind(technique: str) -> tuple[str, Callable[[np.random.Generator], list[Plot]]]:
    """Gives the file's name and what fills it, by an experiment's technique."""
    if "tomography" in technique:
        return "slice_0001.nxs", tomogram
    if "spectroscopy" in technique or "emission" in technique:
        return "scan_0001.nxs", spectrum
    return "run_0001.nxs", diffraction


def write(path: Path, experiment: dict[str, Any]) -> None:
    """Writes one file whole or not at all, readable by everybody and writable by nobody."""
    seed = zlib.crc32(str(experiment["id"]).encode())
    plots = kind(experiment["technique"])[1](np.random.default_rng(seed))
    handle, half = tempfile.mkstemp(prefix=".half-", dir=path.parent)
    os.close(handle)
    try:
        with h5py.File(half, "w") as file:
            _fill(file, experiment, plots)
        os.chmod(half, 0o444)
        os.replace(half, path)
    except BaseException:
        os.unlink(half)
        raise


def _fill(file: h5py.File, experiment: dict[str, Any], plots: list[Plot]) -> None:
    file.attrs.update(NX_class="NXroot", default="entry")
    entry = file.create_group("entry")
    entry.attrs.update(NX_class="NXentry", default=plots[0].name)
    entry["title"] = experiment["title"]
    entry["experiment_identifier"] = experiment["proposal"]
    entry["start_time"] = f"{experiment['start']}T08:00:00Z"
    entry.create_group("instrument").attrs["NX_class"] = "NXinstrument"
    entry["instrument/name"] = experiment["instrument"]
    for plot in plots:
        data = entry.create_group(plot.name)
        axes = [*plot.axes, *["."] * (plot.values.ndim - len(plot.axes))]
        data.attrs.update(NX_class="NXdata", signal=plot.signal, axes=axes)
        data.create_dataset(plot.signal, data=plot.values, compression="gzip").attrs["units"] = plot.unit
        for name, (values, unit) in plot.axes.items():
            data.create_dataset(name, data=values).attrs["units"] = unit


def make(folder: Path) -> int:
    """Writes what is missing and gives the number of files written."""
    made = 0
    for experiment in json.loads(EXPERIMENTS.read_text(encoding="utf-8")):
        if not experiment["path"]:
            continue
        path = folder / experiment["path"] / "raw" / kind(experiment["technique"])[0]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            for made_folder in (path.parent.parent, path.parent):
                # Instances read as other accounts, whatever umask this runs with.
                made_folder.chmod(0o755)
            write(path, experiment)
            made += 1
    return made


def main() -> int:
    reader = argparse.ArgumentParser(description="Writes small NeXus files for the sample experiments.")
    reader.add_argument("folder", type=Path, help="where to write them: one folder for each experiment is made in it")
    folder = reader.parse_args().folder.resolve()
    try:
        made = make(folder)
    except OSError as error:
        print(f"The sample data cannot be written: {error}. Free the disk or choose another folder.", file=sys.stderr)
        return 1
    print(f"{made} files written to {folder}" if made else f"The sample data are in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
