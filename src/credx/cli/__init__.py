"""The command line: click and rich live here and nowhere else.

Light on purpose: ``credx --help`` and a warm ``credx process`` load no command but their own
(``tests/unit/cli/test_start_up.py`` holds that).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click

    from credx.cli.edges import Edges


def build(edges: Edges) -> click.Command:
    """The application over the given edges; calling it runs it and exits."""
    from credx.cli.main import build as build_root

    return build_root(edges)


def main() -> None:
    """The entry point ``credx``."""
    try:
        from credx.cli.main import main as run
    except KeyboardInterrupt:  # Ctrl-C while Python is still loading
        raise SystemExit(130) from None
    run()
