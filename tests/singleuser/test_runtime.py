"""The private directory of a desktop, and one daemon in it at a time."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from visahub.model.errors import Refused
from visahub.singleuser import runtime


def test_the_directory_is_private(tmp_path: Path) -> None:
    found = runtime.find({"VISAHUB_RUNTIME": str(tmp_path)})
    assert found.folder == tmp_path / "desktop"
    assert stat.S_IMODE(found.folder.stat().st_mode) == 0o700
    found.folder.chmod(0o755)
    runtime.find({"VISAHUB_RUNTIME": str(tmp_path)})
    assert stat.S_IMODE(found.folder.stat().st_mode) == 0o700


def test_without_a_backend_the_login_or_the_home_serves(folder: Path) -> None:
    login, home = folder / "login", folder / "home"
    assert runtime.find({"XDG_RUNTIME_DIR": str(login), "HOME": str(home)}).folder.parent == login
    assert runtime.find({"HOME": str(home)}).folder.parent == home / ".cache"


def test_a_symlink_or_a_long_path_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "desktop").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Refused, match="private"):
        runtime.find({"VISAHUB_RUNTIME": str(tmp_path)})
    with pytest.raises(Refused, match="too long"):
        runtime.find({"VISAHUB_RUNTIME": str(tmp_path / ("x" * 90))})


def test_a_directory_of_another_user_is_refused(tmp_path: Path, stranger: int) -> None:
    (tmp_path / "desktop").mkdir()
    os.chown(tmp_path / "desktop", stranger, -1)
    with pytest.raises(Refused):
        runtime.find({"VISAHUB_RUNTIME": str(tmp_path)})


def test_there_is_one_daemon(tmp_path: Path) -> None:
    found = runtime.find({"VISAHUB_RUNTIME": str(tmp_path)})
    assert runtime.running(found) is None
    with runtime.held(found) as first:
        assert first
        assert runtime.running(found) == os.getpid()
        with runtime.held(found) as second:
            assert not second
    assert runtime.running(found) is None
    # A file left behind by a daemon that was killed says nothing.
    found.pid.write_text('{"pid": 1}')
    assert runtime.running(found) is None


def test_no_token_goes_to_the_desktop() -> None:
    secret = ["JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN", "JUPYTER_TOKEN", "MY_PASSWORD", "JUPYTERHUB_COOKIE_SECRET"]
    assert all(runtime._is_secret(name) for name in secret)
    assert not any(runtime._is_secret(name) for name in ("HOME", "PATH", "VISAHUB_NAME", "VISAHUB_RUNTIME"))
