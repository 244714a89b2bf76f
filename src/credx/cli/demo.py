"""``credx demo``: the story of ``demo_story``, as it happens."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click

from credx.cli.options import as_json
from credx.ui import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console

    from credx.cli.demo_story import Stage
    from credx.cli.edges import App

WIDTH: Final = 80  # columns; what every terminal has
SHOWN: Final = 12  # lines of one step; the audit trail has them all


@dataclass
class Done:
    step: str
    ok: bool
    detail: str
    seconds: float


@click.command()
@as_json
@click.pass_context
def demo(ctx: click.Context, as_json: bool) -> None:
    """Show the main job from start to end, each step done for real and checked, on loopback alone."""
    from credx.cli.demo_story import STORY, Stage
    from credx.cli.sandbox import fresh_world

    app: App = ctx.obj
    console = _console(quiet=as_json, is_terminal=app.edges.is_terminal())
    _opening(console)
    done: list[Done] = []
    started = time.perf_counter()
    with contextlib.ExitStack() as stack:
        stage = Stage(lambda: stack.enter_context(fresh_world()))
        for number, (title, play) in enumerate(STORY, 1):
            with console.status(f"{number}  {title}"):
                done.append(_play(stage, title, play))
            _show(console, number, done[-1], stage.lines)
            if not done[-1].ok:
                break
    _closing(console, done, len(STORY), time.perf_counter() - started)
    if as_json:
        app.out(json.dumps([vars(one) for one in done], indent=2) + "\n")
    ctx.exit(0 if len(done) == len(STORY) and all(one.ok for one in done) else 1)


def _play(stage: Stage, title: str, play: Callable[[Stage], str]) -> Done:
    from credx.cli.demo_story import StepFailedError
    from credx.errors import ConfigError, CredxError

    at = time.perf_counter()
    stage.lines.clear()
    try:
        detail, ok = play(stage), True
    except ConfigError:
        raise  # a missing extra: the person can do something about it
    except StepFailedError as exc:
        detail, ok = clean(exc), False
    except (CredxError, OSError, ValueError, KeyError, subprocess.SubprocessError) as exc:
        detail, ok = clean(f"{type(exc).__name__}: {exc}"), False
    return Done(title, ok=ok, detail=detail, seconds=round(time.perf_counter() - at, 2))


def _console(*, quiet: bool, is_terminal: bool) -> Console:
    from rich.console import Console

    width = None if is_terminal else WIDTH
    console = Console(file=sys.stdout, quiet=quiet, highlight=False, width=width, soft_wrap=False)
    if console.width > WIDTH:
        console = Console(file=sys.stdout, quiet=quiet, highlight=False, width=WIDTH)
    return console


def _opening(console: Console) -> None:
    from rich.panel import Panel
    from rich.text import Text

    text = Text.assemble(
        ("credx", "bold"),
        ("  AWS credentials from a corporate sign-in and a second factor\n"),
        ("Everything below really happens, on loopback: no account, no key, no cloud.", "dim"),
    )
    console.print(Panel(text, border_style="cyan", padding=(0, 1)))


def _show(console: Console, number: int, done: Done, lines: Sequence[str]) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(expand=True)
    head.add_column()
    head.add_column(justify="right")
    head.add_row(
        Text.assemble((f"{number} ", "cyan bold"), (done.step, "bold")), Text(f"{done.seconds:.1f} s", "dim")
    )
    console.print()
    console.print(head)
    for line in lines[:SHOWN]:
        console.print(Padding(_line(line), (0, 0, 0, 2), expand=False))
    if len(lines) > SHOWN:
        console.print(Text(f"  ... {len(lines) - SHOWN} more", "dim"))
    mark = ("✓ ", "green bold") if done.ok else ("✗ ", "red bold")
    console.print(
        Padding(Text.assemble(mark, (done.detail, "green" if done.ok else "red")), (0, 0, 0, 2), expand=False)
    )


def _line(line: str) -> Any:
    from rich.text import Text

    shown = clean(line)
    if shown.startswith(("$ ", ">>> ")):
        return Text.assemble(
            (shown[:4] if shown.startswith(">>> ") else "$ ", "cyan"), shown.partition(" ")[2]
        )
    return Text(shown, "dim")


def _closing(console: Console, done: list[Done], steps: int, seconds: float) -> None:
    from rich.panel import Panel
    from rich.text import Text

    good = sum(one.ok for one in done)
    if good == steps:
        text = Text.assemble(
            (f"{good} of {steps} steps, {seconds:.1f} s. ", "green bold"),
            ("Nothing of it is left.\n"),
            ("Look around:  ", "dim"), ("credx sandbox up", "bold"),
        )  # fmt: skip
    else:
        text = Text(f"{good} of {steps} steps came out as told", "red bold")
    console.print()
    console.print(Panel(text, border_style="green" if good == steps else "red", padding=(0, 1)))
