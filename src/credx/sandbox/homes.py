"""A home directory for each person of the sandbox, with a ``credx`` on PATH that uses the sandbox's things.

Nothing of the person's own machine comes in: the environment is made of an allow-list.
"""

from __future__ import annotations

import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from credx.sandbox.plug import pocket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

# what a terminal program needs; no AWS_*, no CI, no proxy, no PYTHON*
_KEPT: Final = (
    "PATH", "TERM", "COLORTERM", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "COLUMNS", "LINES", "SHELL",
    "SYSTEMROOT", "PATHEXT",
)  # fmt: skip

_SHIM: Final = """#!{python}
import pathlib
from credx.cli.edges import Edges
from credx.cli.main import build
from credx.sandbox.plug import edges_for

build(Edges(**vars(edges_for(pathlib.Path({directory!r}), {user!r}))))()
"""

_PROFILE: Final = """[profile {role}]
region = {region}
credential_process = "{credx}" process {role}
s3 =
  addressing_style = path

"""


class Home:
    """One person's home in the sandbox of ``directory``."""

    def __init__(self, directory: Path, user: str) -> None:
        self.user = user
        self.path = directory / "homes" / user
        self.credx_home = self.path / ".credx"
        self.aws_config = self.path / ".aws" / "config"
        self.bin = self.path / "bin"
        self._directory = directory

    @property
    def credx(self) -> Path:
        return self.bin / "credx"

    def make(self) -> None:
        """The directories and the shim."""
        self.path.parent.mkdir(mode=0o700, exist_ok=True)
        for path in (self.path, self.credx_home, self.aws_config.parent, self.bin):
            path.mkdir(mode=0o700, exist_ok=True)
        pocket(self._directory, self.user).mkdir(mode=0o700, exist_ok=True)
        shim = _SHIM.format(python=sys.executable, directory=str(self._directory), user=self.user)
        self.credx.write_text(shim, encoding="utf-8")
        self.credx.chmod(stat.S_IRWXU)

    def write_aws_config(self, roles: Sequence[tuple[str, str]]) -> None:
        """One ``credential_process`` profile for each (role, region), named after the role."""
        text = "".join(_PROFILE.format(role=role, region=region, credx=self.credx) for role, region in roles)
        self.aws_config.write_text(text, encoding="utf-8")

    def environment(self, *, endpoint: str, region: str, inherited: Mapping[str, str]) -> dict[str, str]:
        """What a program needs to be this person: AWS at ``endpoint``, credx from the shim."""
        kept = {name: inherited[name] for name in _KEPT if name in inherited}
        return {
            **kept,
            "PATH": os.pathsep.join([str(self.bin), kept.get("PATH", os.defpath)]),
            "HOME": str(self.path),
            "CREDX_HOME": str(self.credx_home),
            "AWS_CONFIG_FILE": str(self.aws_config),
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": region,
            "AWS_DEFAULT_REGION": region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "NO_PROXY": "localhost,127.0.0.1,::1",
        }
