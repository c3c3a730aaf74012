"""Lays out a home as an instance of the Hub would have it: `samples.py EXPERIMENTS DATA HOME`. Run by postBuild."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from visahub.singleuser import launcher, start


def main(experiments: Path, data: Path, home: Path) -> None:
    """Links the sample data, lists the experiments, and names the page that JupyterLab opens."""
    rows = []
    for row in json.loads(experiments.read_text(encoding="utf-8")):
        folder = data / row["path"] if row.get("path") else None
        if folder is None or not folder.is_dir():
            continue
        link = home / "experiments" / row["proposal"]
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(folder)
        rows.append({**row, "path": str(folder), "link": str(link)})
    listed = home / ".local" / "share" / "visahub" / "experiments.json"
    listed.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    environ = {"VISAHUB_EXPERIMENTS": str(listed)}
    start.copy_notebook(environ, home)
    folder = home / ".jupyter"
    folder.mkdir(exist_ok=True)
    # JupyterLab's own setting wins over the server's when it is JupyterLab that is started.
    for name, section in (("jupyter_server_config", "ServerApp"), ("jupyter_lab_config", "LabApp")):
        setting = {section: {"default_url": start.page(environ, home)}}
        (folder / f"{name}.json").write_text(json.dumps(setting), encoding="utf-8")
    # `start` reads these at each start of the image.
    (home / ".local" / "share" / "visahub" / "environ").write_text(
        f"export VISAHUB_EXPERIMENTS='{listed}' JUPYTER_CONFIG_PATH='{launcher.CONFIG}'\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
