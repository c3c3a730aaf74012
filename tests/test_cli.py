"""The `visahub` command: its help, its commands, its settings."""

from __future__ import annotations

import subprocess
import sys

from click.testing import CliRunner

from visahub import cli


def test_an_unknown_command_is_told() -> None:
    result = CliRunner().invoke(cli.main, ["dcotor"])
    assert result.exit_code == 2
    assert "dcotor" in result.output


def test_help_and_version_answer_without_loading_the_house() -> None:
    code = (
        "import sys; from visahub.cli import main; main(['--help'], standalone_mode=False); print(sorted(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "doctor" in said
    assert "'sqlalchemy'" not in said
    assert "'jupyterhub'" not in said


def test_every_setting_is_printed() -> None:
    result = CliRunner().invoke(cli.main, ["settings"])
    assert result.exit_code == 0, result.output
    for name in ("Visahub.database_url", "LocalBackend.run_root", "FilesSource.path"):
        assert f"# c.{name} = " in result.output
