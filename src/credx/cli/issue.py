"""Commands that hand credentials out: ``creds``, ``process``, ``exec``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.options import COMMAND, WithCommand, issuing, make_ask, the_role
from credx.cli.terminal import PROCESS_PROMPT_SECONDS
from credx.errors import UsageError

if TYPE_CHECKING:
    from credx.cli.edges import App
    from credx.model import AwsCredentials

FORMATS: Final = ("env", "fish", "powershell", "dotenv", "json", "process")


def _issue(
    app: App,
    role: str | None,
    *,
    scopes: tuple[str, ...],
    resources: tuple[str, ...],
    duration: int | None,
    reason: str,
    min_left: int,
    fresh: bool,
    region: str | None,
) -> AwsCredentials:
    flow = app.flow()
    ask = make_ask(
        the_role(role, app.settings.default_role, flow),
        scopes=scopes,
        resources=resources,
        duration=duration,
        reason=reason,
    )
    creds = flow.credentials(ask, min_left=min_left, use_cache=not fresh)
    chosen = region or app.settings.region
    return dataclasses.replace(creds, region=chosen) if chosen else creds


@click.command()
@click.argument("role", required=False)
@click.option(
    "--format", "shape", type=click.Choice(FORMATS), default="env", show_default=True,
    help="env is for bash and zsh.",
)  # fmt: skip
@issuing
@click.pass_obj
def creds(app: App, /, role: str | None, shape: str, **options: Any) -> None:
    """Print credentials for ROLE, for a shell to evaluate or a program to read.

    \b
    eval "$(credx creds ROLE)"
    credx creds ROLE --format fish | source
    credx creds ROLE --format powershell | Out-String | Invoke-Expression
    """  # noqa: D301 -- \b is click's mark for lines to keep
    found = _issue(app, role, **options)
    if shape == "process":
        from credx.credentials.process import document

        app.edges.write(document(found, app.edges.now()))
        return
    from credx.credentials.env import render

    app.out(render(found, shape, app.edges.now()))


@click.command()
@click.argument("role", required=False)
@issuing
@click.pass_obj
def process(app: App, /, role: str | None, **options: Any) -> None:
    """Print credentials for ROLE as an AWS SDK reads them from credential_process.

    \b
    ~/.aws/config:
      [profile prod]
      credential_process = credx process ROLE
    """  # noqa: D301 -- \b is click's mark for lines to keep
    from credx.credentials.process import document

    # SDKs swallow stderr and some kill the process after a minute
    app.ui.mirror_notes = True
    app.ui.prompt_seconds = PROCESS_PROMPT_SECONDS
    found = _issue(app, role, **options)
    app.edges.write(document(found, app.edges.now()))


@click.command("exec", cls=WithCommand)
@click.argument("role", required=False)
@issuing
@click.pass_context
def execute(ctx: click.Context, /, role: str | None, **options: Any) -> None:
    """Run CMD with credentials for ROLE in its environment; its exit code is credx's.

    \b
    credx exec ROLE -- aws s3 ls
    """  # noqa: D301 -- \b is click's mark for lines to keep
    import shutil

    from credx.credentials.env import child_environment

    app: App = ctx.obj
    command: list[str] = ctx.meta[COMMAND]
    path = app.edges.environ.get("PATH")
    if shutil.which(command[0], path=path) is None:  # before anybody is asked to touch a key for nothing
        raise UsageError(f"{command[0]!r} is not a command on this machine", hint="check the PATH")
    environ = child_environment(_issue(app, role, **options), app.edges.environ)
    try:
        code = app.edges.execute(command, environ)
    except OSError as exc:
        raise UsageError(f"{command[0]!r} cannot be run: {exc.strerror}", hint="check the file") from exc
    ctx.exit(code)
