from __future__ import annotations

import io
import os
import traceback
from typing import TYPE_CHECKING

import pytest

from credx.errors import SignInError
from credx.identity.ambient import MAX_TOKEN, read_token
from credx.model import Secret

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJodW50ZXIyIn0.c2ln"


def read(source: str, text: str | bytes = "", environ: dict[str, str] | None = None) -> Secret:
    stdin = io.BytesIO(text) if isinstance(text, bytes) else io.StringIO(text)
    return read_token(source, environ=environ or {}, stdin=stdin)


@pytest.mark.parametrize("around", ["{}", "{}\n", "\r\n {}\t\n", "{}" + " " * 500])
def test_a_token_from_each_source(tmp_path: Path, around: str) -> None:
    text = around.format(TOKEN)
    path = tmp_path / "to:ken"
    path.write_text(text)
    assert read(f"file:{path}") == Secret(TOKEN)
    assert read("env:CI_TOKEN", environ={"CI_TOKEN": text}) == Secret(TOKEN)
    assert read("stdin", text) == Secret(TOKEN)
    assert read("stdin", text.encode()) == Secret(TOKEN)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no token in"),
        (" \n", "no token in"),
        ("hunter2", "is not a token"),
        ("a.b", "is not a token"),
        ("a.b.c.d", "is not a token"),
        ("a..c", "is not a token"),
        ("a.b.c=", "is not a token"),
        ("a.b.c d.e.f", "is not a token"),
        ("Bearer " + TOKEN, "is not a token"),
        ('{"id_token":"' + TOKEN + '"}', "is not a token"),
        (TOKEN + "\n" + TOKEN, "is not a token"),
        ("\ufeff" + TOKEN, "is not a token"),
        (TOKEN + "\0", "is not a token"),
        ("a.b." + "c" * MAX_TOKEN, "too long"),
        (" " * 20_000 + TOKEN, "too long|no token"),
    ],
)
def test_what_is_no_token_is_refused_and_not_quoted(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "token"
    path.write_text(content, encoding="utf-8")
    for source, text, environ in [
        (f"file:{path}", "", {}),
        ("env:CI_TOKEN", "", {"CI_TOKEN": content}),
        ("stdin", content, {}),
    ]:
        with pytest.raises(SignInError, match=said) as caught:
            read(source, text, environ)
        shown = f"{caught.value!r} {caught.value.hint}"
        assert "hunter2" not in shown
        assert "eyJ" not in shown


@pytest.mark.parametrize(
    "source", ["", "file:", "env:", "env:" + TOKEN, TOKEN, "stdin:x", "http://x", "FILE:x"]
)
def test_a_source_that_is_not_known(source: str) -> None:
    with pytest.raises(SignInError, match="source of the token is not known") as caught:
        read(source)
    assert "eyJ" not in f"{caught.value!r} {caught.value.hint}"


@pytest.mark.parametrize("name", ["/nonexistent/token", "/", "a\0b"])
def test_a_file_that_cannot_be_read(name: str) -> None:
    with pytest.raises(SignInError, match="cannot be read"):
        read(f"file:{name}")


def test_a_file_that_is_too_large_is_read_to_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with path.open("wb") as file:
        file.write(b"a.b.")
        file.truncate(1 << 40)  # sparse; whoever reads it all has no memory left
    with pytest.raises(SignInError, match="too long"):
        read(f"file:{path}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_could_hold_us_for_ever_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for name in (str(pipe), "/dev/zero", "/dev/tty"):
        with pytest.raises(SignInError, match="cannot be read"):
            read(f"file:{name}")


def test_a_link_to_a_file_is_read(tmp_path: Path) -> None:
    """Kubernetes mounts its tokens as links."""
    (tmp_path / "data").write_text(TOKEN)
    (tmp_path / "token").symlink_to(tmp_path / "data")
    assert read(f"file:{tmp_path / 'token'}") == Secret(TOKEN)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_other_encodings_are_no_tokens(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "token").write_text(TOKEN, encoding=encoding)
    for source in (f"file:{tmp_path / 'token'}", "stdin"):
        with pytest.raises(SignInError, match="is not a token") as caught:
            read(source, (tmp_path / "token").read_bytes())
        assert "eyJ" not in "".join(traceback.format_exception(caught.value))


def test_stdin_that_is_a_terminal_closed_or_not_text() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    closed = io.StringIO()
    closed.close()
    broken = io.TextIOWrapper(io.BytesIO(b"\xff" * 100), encoding="utf-8")
    for stdin in (None, Terminal(TOKEN), closed, broken):
        with pytest.raises(SignInError, match="standard input"):
            read_token("stdin", environ={}, stdin=stdin)
