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
    """Bring the tables up to date. A database in a file is copied first; of PostgreSQL make a copy: db backup."""
    from . import build
    from .model.errors import Unavailable

    store = build.build(build.read(config)).store
    try:
        copy = store.upgrade()
    except Unavailable as error:
        raise click.ClickException(error.sentence) from error
    click.echo(f"The tables are up to date. A copy from before: {copy}" if copy else "The tables are up to date.")


@db.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@_CONFIG
def backup(folder: Path, config: Path) -> None:
    """Copy both databases, visahub's and the Hub's, into FOLDER, while they are used."""
    from . import copies

    copies.backup(config, folder)


@db.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--only", type=click.Choice(["visahub", "jupyterhub"]), help="Put back only one of the two.")
@_CONFIG
def restore(folder: Path, only: str | None, config: Path) -> None:
    """Put the copies in FOLDER back, while Hub and portal are stopped. What was there is kept beside them."""
    from . import copies

    copies.restore(config, folder, only or "")


@main.group()
def strays() -> None:
    """Look after what runs and no row of the database knows, as after a restore. Nothing is done without --really."""


@strays.command("list")
@_CONFIG
def list_strays(config: Path) -> None:
    """List them; ends with 1 when there are any."""
    from . import copies

    sys.exit(copies.list_strays(config))


@strays.command("adopt")
@click.argument("attempt")
@click.option("--owner", required=True, help="The user name of its owner, who has logged in before.")
@click.option("--server", default="", help="Its name in the address /user/OWNER/SERVER/, when the place does not say.")
@click.option("--name", default="", help="What its owner reads.")
@click.option("--really", is_flag=True, help="Do it; without this it is only told.")
@_CONFIG
def adopt_stray(attempt: str, owner: str, server: str, name: str, really: bool, config: Path) -> None:
    """Write the row of one, so that it is its owner's instance again."""
    from . import copies

    copies.adopt_stray(config, attempt, copies.Wish(owner, server, name), really=really)


@strays.command("end")
@click.argument("attempt")
@click.option("--really", is_flag=True, help="Do it; without this it is only told.")
@_CONFIG
def end_stray(attempt: str, really: bool, config: Path) -> None:
    """End one. Its files stay, as after every stop; what was not saved is lost."""
    from . import copies

    copies.end_stray(config, attempt, really=really)


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


@main.group()
def privacy() -> None:
    """Tell or erase what is stored about a person."""


@privacy.command()
@_CONFIG
@click.argument("name")
def export(config: Path, name: str) -> None:
    """Print all that visahub stores about the account NAME, as JSON."""
    from . import build, personal
    from .model.errors import VisahubError

    try:
        click.echo(personal.export(build.build(build.read(config)).store, name))
    except VisahubError as error:
        raise click.ClickException(error.sentence) from error


@privacy.command()
@_CONFIG
@click.argument("name")
@click.option("--really", is_flag=True, help="Erase; without it only the rows are counted.")
def erase(config: Path, name: str, really: bool) -> None:
    """Erase the person behind the account NAME: identities, mail, names, preferences, notes.

    User name and uid stay, so that neither is given again. Refuses while the account has instances.
    """
    from . import build, personal
    from .model.errors import VisahubError

    try:
        click.echo(personal.erase(build.build(build.read(config)), name, is_dry=not really))
    except VisahubError as error:
        raise click.ClickException(error.sentence) from error


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
