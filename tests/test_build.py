"""The configuration becomes parts, or a sentence that names the setting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from traitlets import TraitError
from traitlets.config import Config

from visahub import build

LAB = {"id": "lab", "name": "Lab", "images": {"local": "this"}}
SMALL = {"id": "small", "name": "Small", "backend": "local", "place": "Here", "cores": 1, "memory_mb": 1024}


def config(tmp_path: Path, **settings: Any) -> Config:
    c = Config()
    c.Visahub.database_url = f"sqlite:///{tmp_path / 'visahub.sqlite'}"
    c.Visahub.environments = [LAB]
    c.Visahub.hardware = [SMALL]
    for name, value in settings.items():
        c.Visahub[name] = value
    return c


def test_parts(tmp_path: Path) -> None:
    restricted = SMALL | {"id": "large", "restriction": {"roles": ["staff"], "sentence": "Only for staff."}}
    c = config(tmp_path, hardware=[SMALL, restricted], deployment="tests")
    c.LocalBackend.data_dir = str(tmp_path)
    parts = build.build(c)
    assert [environment.id for environment in parts.menu.environments] == ["lab"]
    assert parts.menu.hardware[1].restriction.roles == {"staff"}
    assert parts.backend("local").deployment == "tests"
    assert parts.backend("local").data_dir == str(tmp_path)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"environments": [LAB, LAB]}, "Visahub.environments: the id 'lab' is there twice"),
        ({"environments": [LAB | {"colour": "red"}]}, "Visahub.environments: 'lab' has 'colour'. Known are id, name"),
        ({"environments": [{"name": "no id"}]}, "Visahub.environments: None: .*id"),
        ({"environments": [LAB | {"id": "Über"}]}, "Visahub.environments: the id"),
        ({"environments": [LAB | {"images": {"mars": "x"}}]}, "has an image for 'mars'"),
        ({"environments": [LAB | {"restriction": {"role": ["staff"]}}]}, "Visahub.environments: a restriction is"),
        ({"environments": [LAB | {"restriction": {"roles": "staff"}}]}, "is a list of names, not a text"),
        ({"hardware": [SMALL | {"backend": "mars"}]}, "Visahub.hardware: 'small' names the backend 'mars'"),
        ({"hardware": [SMALL | {"cores": 0}]}, "Visahub.hardware: 'small' needs at least one core"),
        ({"backends": ["visahub.nowhere.Backend"]}, "Visahub.backends: 'visahub.nowhere.Backend' cannot be imported"),
        ({"backends": ["pathlib.Path"]}, "is not a Backend"),
        ({"backends": ["visahub.backends.local.LocalBackend"] * 2}, "every backend needs one of its own"),
        ({"sources": ["pathlib.Path"]}, "Visahub.sources: 'pathlib.Path' is not a Source"),
        ({"deployment": "Not Good"}, "Visahub.deployment"),
        ({"database_url": "nonsense"}, "Visahub.database_url"),
        ({"database_url": "mysql://user:hunter2@host/db"}, "Visahub.database_url"),
        ({"uid_min": 0}, "uid_min"),
    ],
)
def test_wrong_settings_name_themselves(tmp_path: Path, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TraitError, match=sentence) as caught:
        build.build(config(tmp_path, **settings))
    assert "hunter2" not in str(caught.value)


def test_parts_are_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_built", {})
    c = config(tmp_path)
    assert build.parts(c) is build.parts(c)


def test_every_setting_has_help() -> None:
    for name, trait in build.Visahub.class_own_traits(config=True).items():
        assert len(trait.help) > 40, name


def test_reading_a_file(tmp_path: Path) -> None:
    file = tmp_path / "config.py"
    file.write_text("c = get_config()\nc.Visahub.deployment = 'read'\n")
    assert build.read(file).Visahub.deployment == "read"
    with pytest.raises(TraitError, match="There is no configuration file"):
        build.read(tmp_path / "absent.py")


def test_shared_files_are_found() -> None:
    assert build.share("templates", "hub", "page.html").is_file()
