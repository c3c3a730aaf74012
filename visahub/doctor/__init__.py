"""`visahub doctor`: checks a configuration and a machine, and says what is wrong and how to mend it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click
from traitlets import TraitError

from .. import build
from . import databases, machine, names, packages, running, secrecy, web
from .findings import Check, Finding, Grade, Site, environment

CHECKS: tuple[Check, ...] = (
    *names.CHECKS,
    *databases.CHECKS,
    *secrecy.CHECKS,
    *machine.CHECKS,
    *web.CHECKS,
    *packages.CHECKS,
    *running.CHECKS,
)


def main(path: Path, *, as_json: bool) -> int:
    """Prints all findings and gives the exit status: 1 when there is a problem."""
    findings = list(examine(path))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.grade.value:<8} {finding.check}: {finding.sentence}")
        bad = sum(finding.grade is Grade.PROBLEM for finding in findings)
        odd = sum(finding.grade is Grade.WARNING for finding in findings)
        click.echo(f"\n{len(findings)} checks, {bad} problems, {odd} warnings.")
    return int(any(finding.grade is Grade.PROBLEM for finding in findings))


def examine(path: Path) -> Iterator[Finding]:
    """Gives the findings of all checks; a check that breaks is itself a finding."""
    with environment(path.resolve().parent):
        yield from _examine(path)


def _examine(path: Path) -> Iterator[Finding]:
    try:
        config = build.read(path)
    except Exception as error:
        yield Finding(Grade.PROBLEM, "configuration", f"{path} cannot be read: {error}. Correct the file.")
        return
    yield Finding(Grade.OK, "configuration", f"{path} is readable.")
    parts: build.Parts | None = None
    try:
        parts = build.build(config)
        yield Finding(Grade.OK, "settings", f"{len(parts.backends)} backends, {len(parts.menu.hardware)} sizes.")
    except (TraitError, ValueError) as error:
        yield Finding(Grade.PROBLEM, "settings", f"{error} Correct it in {path}.")
    site = Site(path, config, parts)
    try:
        for check in CHECKS:
            name = check.__name__.removeprefix("_").replace("_", " ")
            try:
                grade, sentence = check(site)
            except Exception as error:
                grade, sentence = Grade.PROBLEM, f"The check broke: {error!r}. Tell the developers of visahub."
            yield Finding(grade, name, sentence)
    finally:
        if parts is not None:
            parts.store.close()
