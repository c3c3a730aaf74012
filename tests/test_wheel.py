"""The wheel holds all that an installation without a checkout needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SHARED = (
    "static/visahub.css",
    "static/desktop.js",
    "proxy/503.html",
    "systemd/visahub-hub.service",
    "systemd/visahub.target",
    "systemd/visahub.sysusers.conf",
    "samples/experiments.json",
    "samples/make_data.py",
    "templates/hub/login.html",
    "templates/portal/new.html",
    "templates/desktop/desktop.html",
    "node_modules/htmx.org/dist/htmx.min.js",
    "node_modules/@novnc/novnc/LICENSE.txt",
    "node_modules/@novnc/novnc/docs/LICENSE.MPL-2.0",
    "node_modules/@novnc/novnc/core/rfb.js",
    "node_modules/@novnc/novnc/core/decoders/tight.js",
    "node_modules/@novnc/novnc/vendor/pako/lib/zlib/inflate.js",
)
PACKAGED = (
    "visahub/store/migrations/env.py",
    "visahub/store/migrations/versions/v0001_first_tables.py",
    "visahub/singleuser/start.ipynb",
    "visahub/singleuser/jupyter/jupyter_lab_config.json",
)


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    if not (ROOT / "share" / "node_modules").exists():
        pytest.skip("htmx and noVNC are not installed: run `npm ci` in share/")
    # What an older build left there would go into the wheel: a module that has moved since, a second first migration.
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("visahub-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        shared = {name.split("/data/share/visahub/", 1)[1] for name in names if "/data/share/visahub/" in name}
        assert set(SHARED) <= shared
        assert set(PACKAGED) <= names
        modules = {file.relative_to(ROOT).as_posix() for file in (ROOT / "visahub").rglob("*.py")}
        assert {name for name in names if name.endswith(".py") and name.startswith("visahub/")} == modules
        assert any(name.endswith("/data/etc/jupyter/jupyter_server_config.d/visahub.json") for name in names)
        assert any(name.endswith("licenses/LICENSE") for name in names)
        assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
        wheels_copy = archive.read(next(name for name in names if name.endswith("novnc/core/rfb.js")))
    installed = ROOT / "share" / "node_modules" / "@novnc" / "novnc" / "core" / "rfb.js"
    assert wheels_copy == installed.read_bytes()
