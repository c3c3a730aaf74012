"""Writes small NeXus files for the sample experiments: `python make_data.py FOLDER`. A second run changes nothing.

Invented numbers that look like the real thing: a stack of diffraction patterns, a spectrum, a sinogram with its slice.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

Data = tuple[str, NDArray[np.generic], list[tuple[str, NDArray[np.generic]]]]


def diffraction(random: np.random.Generator) -> Data:
    """A stack of 12 detector images, 160 x 160 pixels: a halo and rings with spots (counts)."""
    y, x = np.mgrid[-1:1:160j, -1:1:160j]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    images = []
    for delay in np.linspace(0, 1, 12):
        expected = 40 * np.exp(-((radius / 0.5) ** 2))
        for number, ring in enumerate((0.28, 0.45, 0.62, 0.8)):
            spots = 0.4 + 0.6 * np.cos((3 + number) * angle + 2 * delay) ** 8
            expected += 60 * (1 + delay) / (1 + number) * spots * np.exp(-(((radius - ring) / 0.015) ** 2))
        images.append(random.poisson(expected * (radius > 0.06)))
    return "counts", np.array(images, dtype="u2"), [("delay", np.linspace(-1, 10, 12))]


def spectrum(random: np.random.Generator) -> Data:
    """An absorption spectrum, 600 points from 7.0 to 7.4 keV (normalised)."""
    energy = np.linspace(7.0, 7.4, 600)
    edge = 1 / (1 + np.exp(-(energy - 7.112) / 0.0015))
    white_line = 0.6 * np.exp(-(((energy - 7.125) / 0.006) ** 2))
    wiggles = 0.12 * np.sin(90 * np.sqrt(np.clip(energy - 7.112, 0, None))) * edge
    return "absorption", edge + white_line + wiggles + random.normal(0, 0.008, 600), [("energy", energy)]


def tomogram(random: np.random.Generator) -> Data:
    """A slice through a seed, 192 x 192 pixels (linear attenuation, 1/mm)."""
    y, x = np.mgrid[-1:1:192j, -1:1:192j]
    shell = np.hypot(x / 0.9, y / 0.7)
    slice_ = 0.8 * ((shell < 1) & (shell > 0.9)) + 0.35 * (shell <= 0.9)
    for _ in range(14):
        cx, cy, size = random.uniform(-0.5, 0.5), random.uniform(-0.4, 0.4), random.uniform(0.03, 0.12)
        slice_[np.hypot(x - cx, y - cy) < size] = random.uniform(0.1, 1.0)
    return "attenuation", slice_ + random.normal(0, 0.03, slice_.shape), []


def makers(technique: str) -> tuple[str, Callable[[np.random.Generator], Data]]:
    """Gives a file name and what fills it, by an experiment's technique."""
    if "tomography" in technique:
        return "slice_0001.nxs", tomogram
    if "spectroscopy" in technique or "emission" in technique:
        return "scan_0001.nxs", spectrum
    return "run_0001.nxs", diffraction


def write(path: Path, experiment: dict[str, object]) -> None:
    """Writes one file whole or not at all, readable by everybody and writable by nobody."""
    _, make = makers(str(experiment["technique"]))
    signal, values, axes = make(np.random.default_rng(zlib.crc32(str(experiment["id"]).encode())))
    half = path.with_suffix(".half")
    half.unlink(missing_ok=True)
    with h5py.File(half, "w") as file:
        file.attrs.update(NX_class="NXroot", default="entry")
        entry = file.create_group("entry")
        entry.attrs.update(NX_class="NXentry", default="data")
        entry["title"] = str(experiment["title"])
        entry["experiment_identifier"] = str(experiment["proposal"])
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal=signal)
        data.create_dataset(signal, data=values, compression="gzip")
        for name, axis in axes:
            data[name] = axis
        if axes:
            data.attrs["axes"] = [name for name, _ in axes] + ["."] * (values.ndim - len(axes))
    half.chmod(0o444)
    os.replace(half, path)


def main() -> None:
    reader = argparse.ArgumentParser(description="Writes small NeXus files for the sample experiments.")
    reader.add_argument("folder", type=Path)
    folder = reader.parse_args().folder.resolve()
    experiments = json.loads((Path(__file__).parent / "experiments.json").read_text(encoding="utf-8"))
    made = 0
    for experiment in experiments:
        if not experiment["path"]:
            continue
        target = folder / experiment["path"] / "raw"
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        path = target / makers(experiment["technique"])[0]
        if not path.exists():
            write(path, experiment)
            made += 1
    print(f"{made} files written to {folder}" if made else f"The sample data is in {folder}")


if __name__ == "__main__":
    main()
