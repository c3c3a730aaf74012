"""The `visahub` command: the portal, the proxy, the database, sessions, the doctor and the demonstration."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import __version__

if TYPE_CHECKING:
    from .rotation import Hub

_CONFIG = click.option(
    "-f",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("jupyterhub_config.py"),
    show_default=True,
    help="The Hub's configuration file; visahub's settings stand in it.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="visahub %(version)s")
def main() -> None:
    """visahub: experiments, environments and hardware on JupyterHub."""
    # Every process of ours starts a second faster without it: it compiles a grammar that only checks IRIs in schemas.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


@main.command()
@_CONFIG
def portal(config: Path) -> None:
    """Serve the portal (started by the Hub, or as a unit of its own)."""
    from . import build
    from .portal import app

    app.main(build.read(config))


@main.command()
@_CONFIG
def proxy(config: Path) -> None:
    """Start the proxy as a unit of its own, with the addresses and the token of the Hub's settings."""
    from . import build
    from . import proxy as starting

    try:
        starting.run(build.read(config))
    except starting.NoProxy as error:
        raise click.ClickException(str(error)) from error


@main.group()
def db() -> None:
    """Look after the database of visahub."""


@db.command()
@_CONFIG
def upgrade(config: Path) -> None:
    """Bring the tables up to date. Make a copy of the database first; an upgrade cannot be undone."""
    from . import build
    from .model.errors import Unavailable

    store = build.build(build.read(config)).store
    try:
        store.upgrade()
    except Unavailable as error:
        raise click.ClickException(error.sentence) from error
    click.echo("The tables are up to date.")


@main.group()
def sessions() -> None:
    """End logins and tokens, with an administrator's token in JUPYTERHUB_API_TOKEN. Instances go on."""


@sessions.command()
@_CONFIG
@click.option("--user", default="", help="Only this user; else everybody.")
def end(config: Path, user: str) -> None:
    """End the sessions of browsers in the portal and in instances; whoever is still logged in at the Hub comes back."""
    from . import rotation

    done = _asked(config, lambda hub: rotation.end_sessions(hub, user))
    click.echo(f"{done} sessions ended.")


@sessions.command()
@_CONFIG
@click.option("--user", default="", help="Only this user; else everybody.")
def revoke(config: Path, user: str) -> None:
    """Revoke the tokens that people have made for their scripts, the one that this command uses among them."""
    from . import rotation

    done = _asked(config, lambda hub: rotation.revoke_tokens(hub, user))
    click.echo(f"{done} tokens revoked.")


@sessions.command()
@_CONFIG
def rewrite(config: Path) -> None:
    """Encrypt what the Hub keeps of logins with the first key of JUPYTERHUB_CRYPT_KEY."""
    from . import rotation

    done = _asked(config, rotation.rewrite_logins)
    click.echo(f"What the Hub keeps of {done} people is encrypted with the first key.")


def _asked(config: Path, work: Callable[[Hub], int]) -> int:
    from . import build, rotation

    try:
        return work(rotation.Hub(build.read(config)))
    except rotation.NotDone as error:
        raise click.ClickException(str(error)) from error


@main.command()
@_CONFIG
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor(config: Path, as_json: bool) -> None:
    """Check a configuration and say what is wrong and how to mend it. Ends with 1 when there is a problem."""
    from . import doctor as findings

    sys.exit(findings.main(config, as_json=as_json))


@main.command()
def settings() -> None:
    """Print all settings with their explanation, as lines for jupyterhub_config.py."""
    from . import build

    for kind in build.configurables():
        click.echo(kind.class_config_section())


@main.command()
def demo() -> None:
    """Start a Hub with everything embedded, on this machine only, with sample accounts and experiments."""
    from . import demo as demonstration

    sys.exit(demonstration.main())


if __name__ == "__main__":
    main()
