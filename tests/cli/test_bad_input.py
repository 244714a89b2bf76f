"""Whatever goes wrong: one clear line, a hint, the exit code, nothing on stdout, and what was stored is as before."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from credx.cli.sandbox import fresh_world
from credx.sandbox import scenario

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from credx.sandbox.world import World

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals, modes, limits")

LIMIT = 40  # seconds
NOWHERE = "http://localhost:1"
OFF = 600  # seconds that a clock is wrong by
# the sandbox's own program with one part changed
PROGRAM = """
import pathlib, sys, time
from credx.cli.edges import Edges
from credx.cli.main import build
from credx.sandbox.plug import edges_for, security_key_path
directory, user = pathlib.Path({directory!r}), {user!r}
parts = dict(vars(edges_for(directory, user)))
{change}
build(Edges(**parts))()
"""
NO_KEYRING = (
    "from credx.credentials.keystore import SystemKeyStore\n"
    "parts['keystore'] = lambda: SystemKeyStore((sys.executable, '-c', 'raise SystemExit(1)'))"
)
NO_KEY = "parts['devices'] = lambda: []"
NO_APP = "parts['totp_code'] = None"
WRONG_CODE = "from credx.model import Secret; parts['totp_code'] = lambda: Secret('000000')"
FINGER = (
    "from credx.sandbox.security_key import SoftwareKey; from credx.sandbox.key_finger import Touch\n"
    "parts['devices'] = lambda: [SoftwareKey(security_key_path(directory, user), touch=lambda _: Touch.{})]"
)
NO_BROWSER = "parts['open_browser'] = lambda url: False"


def clock(seconds: int) -> str:
    return f"parts['now'] = lambda: time.time() + {seconds}"


class Desk:
    """Somebody's machine: configuration, vault, and the sandbox's ``credx`` with one part changed."""

    def __init__(self, world: World, user: str, home: Path) -> None:
        self.world, self.user, self.home = world, user, home
        self.config, self.state = home / "config.toml", home / "state"
        self.environ = world.environment(user) | {"CREDX_HOME": str(home)}

    def command(self, *args: str, change: str = "") -> list[str]:
        code = PROGRAM.format(directory=str(self.world.directory), user=self.user, change=change)
        return [sys.executable, "-c", code, *args]

    def credx(
        self, *args: str, change: str = "", prefix: Sequence[str] = (), **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Without a controlling terminal."""
        return subprocess.run(
            [*prefix, *self.command(*args, change=change)], env=self.environ | environ, input="",
            capture_output=True, text=True, check=False, timeout=LIMIT, start_new_session=True,
        )  # fmt: skip

    def terminal(self, *args: str, change: str = "") -> pexpect.spawn[str]:
        """On a terminal, under a shell that then tells the exit code and how the terminal was left."""
        tell = [
            "/bin/sh",
            "-c",
            'trap : INT; "$@"; echo "code $?"; stty -a',
            "sh",
            *self.command(*args, change=change),
        ]
        child = pexpect.spawn(
            tell[0], tell[1:], env=self.environ, timeout=LIMIT, encoding="utf-8", dimensions=(24, 200)
        )
        child.str_last_chars = 3000  # what a failure shows
        return child

    def settings(self, **changes: str) -> None:
        """Put other values (of TOML) in the place of the configured ones."""
        lines = [line for line in self.config.read_text().splitlines() if line.split(" ")[0] not in changes]
        self.config.write_text("\n".join([*lines, *(f"{k} = {v}" for k, v in changes.items())]) + "\n")

    def stored(self) -> dict[str, tuple[int, bytes]]:
        files = (self.config, self.state / "vault")
        return {str(file): (file.stat().st_mode, file.read_bytes()) for file in files if file.is_file()}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """One of its own: trust policies are broken here."""
    wide = scenario.POLICY.replace("[roles.discover]", '[roles.discover]\nmax_duration = "2h"')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scenario, "POLICY", wide)
        with fresh_world() as running:
            yield running


@pytest.fixture(scope="module")
def signed_in(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice's machine with a sign-in and the credentials of one role."""
    home = tmp_path_factory.mktemp("signed-in") / "home"
    shutil.copytree(world.environment("alice")["CREDX_HOME"], home)
    desk = Desk(world, "alice", home)
    for args in (("roles",), ("creds", "dev")):
        assert desk.credx(*args).returncode == 0
    return home


@pytest.fixture
def alice(world: World, signed_in: Path, tmp_path: Path) -> Desk:
    shutil.copytree(signed_in, tmp_path / "home")
    return Desk(world, "alice", tmp_path / "home")


@pytest.fixture
def bob(world: World, tmp_path: Path) -> Desk:
    shutil.copytree(world.environment("bob")["CREDX_HOME"], tmp_path / "bob")
    return Desk(world, "bob", tmp_path / "bob")


@pytest.fixture
def newcomer(alice: Desk) -> Desk:
    """Configured, not signed in."""
    shutil.rmtree(alice.state)
    return alice


def told(stderr: str, *, notes: int | None = 0) -> tuple[str, list[str]]:
    """The error and its hints, after ``notes`` notes (None: any number)."""
    lines = stderr.splitlines()
    hints = [line for line in lines if line.startswith("hint: ")]
    said = lines[: len(lines) - len(hints)]
    assert lines == [*said, *hints], stderr
    assert said, stderr
    assert hints, stderr
    assert all(line.startswith("credx: ") for line in said), stderr
    assert notes is None or len(said) == notes + 1, stderr
    assert "Traceback" not in stderr
    return said[-1].removeprefix("credx: "), [hint.removeprefix("hint: ") for hint in hints]


def refused(
    done: subprocess.CompletedProcess[str], code: int, *words: str, notes: int | None = 0
) -> tuple[str, list[str]]:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    message, hints = told(done.stderr, notes=notes)
    for word in words:
        assert word in message, done.stderr
    assert not message.endswith("."), message
    return message, hints


@contextlib.contextmanager
def server(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A server that has one answer to everything."""

    class Answer(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815 -- the names that http.server calls

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://localhost:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


# network and broker: 7


@pytest.mark.parametrize("args", [("roles",), ("process", "discover"), ("factor", "list")])
def test_the_broker_is_away(alice: Desk, args: tuple[str, ...]) -> None:
    alice.settings(broker=f'"{NOWHERE}"')
    alice.credx("login")  # a sign-in belongs to its broker
    before = alice.stored()
    refused(alice.credx(*args), 7, NOWHERE)
    assert alice.stored() == before


def test_the_identity_provider_is_away(newcomer: Desk) -> None:
    newcomer.settings(issuer=f'"{NOWHERE}"')
    refused(newcomer.credx("login"), 7, NOWHERE)


def test_sts_is_away(alice: Desk) -> None:
    alice.settings(sts_endpoint=f'"{NOWHERE}"')
    before = alice.stored()
    refused(alice.credx("creds", "prod-logs"), 7, "STS", notes=1)
    assert alice.stored() == before


GARBAGE: dict[str, tuple[int, bytes, dict[str, str]]] = {
    "a page": (200, b"<html>Welcome to the hotel's network</html>", {"content-type": "text/html"}),
    "a gateway": (502, b"<html>Bad Gateway</html>", {}),
    "nothing": (200, b"", {}),
    "an empty object": (200, b"{}", {}),
    "a list": (200, b"[]", {}),
    "bytes": (200, bytes(range(256)), {}),
    "an escape": (400, b'{"error":"access_denied\\u001b[2J","error_description":"\\u001b[2J"}', {}),
    "a refusal without words": (403, b"{}", {}),
    "too much": (200, b" " * 70_000, {}),
    "another encoding": (200, b"\x1f\x8b", {"content-encoding": "gzip"}),
    "a redirect": (302, b"", {"location": "https://login.example.com"}),
}


@pytest.mark.parametrize("answer", GARBAGE)
def test_the_broker_answers_garbage(alice: Desk, answer: str) -> None:
    status, body, headers = GARBAGE[answer]
    with server(status, body, **headers) as url:
        alice.settings(broker=f'"{url}"')
        alice.credx("login")
        before = alice.stored()
        message, _ = refused(alice.credx("process", "prod-logs"), 7)
    assert "\x1b" not in message
    assert alice.stored() == before


@pytest.mark.parametrize("answer", ["a page", "an empty object"])
def test_init_at_something_else(alice: Desk, answer: str) -> None:
    status, body, headers = GARBAGE[answer]
    before = alice.stored()
    with server(status, body, **headers) as url:
        done = alice.credx("init", url, "--yes")
    refused(done, 3 if body == b"{}" else 7)
    assert alice.stored() == before


# clocks


@pytest.mark.parametrize(("off", "side"), [(-OFF, "behind"), (OFF, "ahead of")])
def test_a_wrong_clock_is_named_when_signing_in(newcomer: Desk, off: int, side: str) -> None:
    idp, lifetime = newcomer.world.idp, newcomer.world.idp.token_lifetime
    idp.token_lifetime = 300  # so that a clock ahead by more finds it expired
    try:
        message, hints = refused(newcomer.credx("login", change=clock(off)), 4, notes=1)
    finally:
        idp.token_lifetime = lifetime
    assert any(
        f"the clock here is {OFF + d} seconds {side} the identity provider's" in message for d in (-1, 0, 1)
    )
    assert "clock" in hints[0]
    assert not (newcomer.state / "vault").exists()


@pytest.mark.parametrize(("off", "side"), [(-OFF, "behind"), (OFF, "ahead of")])
@pytest.mark.parametrize("source", ["a file", "the browser"])
def test_a_wrong_clock_is_named_when_the_broker_refuses(
    alice: Desk, tmp_path: Path, off: int, side: str, source: str
) -> None:
    idp = alice.world.idp
    if source == "a file":  # nobody but the broker looks at its times
        token = tmp_path / "token"
        at = int(idp.now()) + (off if off > 0 else off - 3600)
        token.write_text(idp.id_token_for("alice", iat=at, exp=at + 3600, auth_time=at))
        alice.settings(token_source=f'"file:{token}"')
        before = alice.stored()
        message, hints = refused(alice.credx("creds", "discover", change=clock(off)), 4)
        assert alice.stored() == before
    else:  # the identity provider's clock agrees with the one here, the broker's does not
        shutil.rmtree(alice.state)
        idp.clock_offset = off
        lifetime, idp.token_lifetime = idp.token_lifetime, 300
        try:
            assert alice.credx("login", change=clock(off)).returncode == 0
            message, hints = refused(
                alice.credx("--no-input", "creds", "discover", change=clock(off)), 4, notes=None
            )
        finally:
            idp.clock_offset, idp.token_lifetime = 0.0, lifetime
    assert any(f"the clock here is {OFF + d} seconds {side} the broker's" in message for d in (-1, 0, 1))
    assert "clock" in hints[0]


@pytest.mark.parametrize(("off", "side"), [(-OFF, "behind"), (OFF, "ahead of")])
def test_a_wrong_clock_is_named_when_credentials_come(alice: Desk, off: int, side: str) -> None:
    done = alice.credx("creds", "prod-logs", change=clock(off))
    assert done.returncode == 0, done.stderr
    assert "ASIA" in done.stdout
    assert any(f"the clock here is {OFF + d} seconds {side} AWS's" in done.stderr for d in (-1, 0, 1))


def test_credentials_that_a_wrong_clock_makes_too_short(alice: Desk) -> None:
    done = alice.credx("process", "prod-admin", "--duration", "15m", change=clock(OFF + 60))
    _, hints = refused(done, 1, "too soon to hand out", notes=2)
    assert "clock" in hints[0]


# keyring


@pytest.mark.parametrize("args", [("creds", "dev"), ("process", "dev"), ("exec", "dev", "--", "env")])
def test_without_a_keyring_everything_is_issued_anew(alice: Desk, args: tuple[str, ...]) -> None:
    before = alice.stored()
    done = alice.credx(*args, change=NO_KEYRING)
    assert done.returncode == 0, done.stderr
    assert "ASIA" in done.stdout
    assert done.stderr.count("nothing is kept") == 1
    assert len(done.stderr.splitlines()) == 3, done.stderr  # besides: the sign-in, and the touch
    assert alice.stored() == before


def test_logout_without_a_keyring_leaves_no_sign_in(alice: Desk) -> None:
    done = alice.credx("logout", change=NO_KEYRING)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not (alice.state / "vault").exists()


# configuration: 3

BROKEN = {
    "no TOML": ("broker = = 1\n", "config.toml: line 1"),
    "an unknown key": ('brokr = "https://x.example.com"\n', "brokr"),
    "a wrong type": ("broker = 7\n", "broker"),
    "a wrong list": ('id_scopes = "openid"\n', "id_scopes"),
    "a wrong address": ('broker = "http://broker.example.com"\n', "broker"),
    "a wrong role": ('default_role = "Not A Role"\n', "default_role"),
    "a control character": ('client_id = "a\\u001b[2J"\n', "client_id"),
    "nothing": ("", "is missing"),
    "too much": ("# " + "x" * 70_000 + "\n", "larger than"),
    "no text": ("\udcff\n", "is not readable as TOML"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_configuration(alice: Desk, what: str) -> None:
    text, word = BROKEN[what]
    good = alice.config.read_text()
    rest = "" if what == "nothing" else good
    if "=" in text:
        rest = "".join(line for line in good.splitlines(True) if line.split()[0] != text.split()[0])
    alice.config.write_bytes((text + rest).encode("utf-8", "surrogateescape"))
    before = alice.stored()
    message, _ = refused(alice.credx("process", "dev"), 3, word)
    assert "\x1b" not in message
    assert alice.stored() == before
    alice.config.write_text(good)
    assert alice.credx("--no-input", "process", "dev").returncode == 0


def test_no_configuration(alice: Desk, tmp_path: Path) -> None:
    for home in (str(tmp_path / "nowhere"), "relative"):
        refused(alice.credx("process", "dev", CREDX_HOME=home), 3)
    assert not (tmp_path / "nowhere").exists()


def test_a_configuration_that_others_may_write(alice: Desk) -> None:
    alice.config.chmod(0o666)
    before = alice.stored()
    _, hints = refused(alice.credx("roles"), 3, "others may write")
    assert hints == [f"chmod 600 {alice.config}"]
    assert alice.stored() == before


# policy: 6, usage: 2


def test_what_the_policy_does_not_allow(alice: Desk) -> None:
    before = alice.stored()
    target = "arn:aws:ec2:eu-central-1:111122223333:instance/i-1"
    for args, word in {
        ("nosuch",): "nosuch",
        ("dev", "--scope", "read-logs"): "scope",
        ("dev", "--duration", "12h"): "dev",
        ("prod-shell",): "target",
        ("dev", "--target", target): "target",
    }.items():
        refused(alice.credx("creds", *args, "--fresh"), 6, word)
    assert alice.stored() == before


def test_a_role_of_others(bob: Desk) -> None:
    assert bob.credx("login").returncode == 0
    before = bob.stored()
    refused(bob.credx("process", "prod-logs"), 6, "prod-logs")
    assert bob.stored() == before


@pytest.mark.parametrize(
    "args",
    [
        ("creds", "Not A Role"),
        ("creds", "dev", "--duration", "soon"),
        ("creds", "dev", "--duration", "5m"),
        ("creds", "dev", "--format", "yaml"),
        ("creds", "dev", "--target", "i-0abc"),
        ("creds", "dev", "--reason", "two\nlines"),
        ("creds", "dev", "--region", "no\x1b[2J"),
        ("exec", "dev", "--", "no-such-command"),
        ("exec", "dev"),
        ("proces", "dev"),
        ("factor", "lst"),
        ("factor", "add", "totp", "--name", "x", "--invitation", "not-in-argv"),
        ("login", "--token-source", "nonsense"),
        ("init", "broker.example.com"),
        ("init", "http://broker.example.com"),
    ],
)
def test_a_wrong_command_line(alice: Desk, args: tuple[str, ...]) -> None:
    before = alice.stored()
    message, _ = refused(alice.credx(*args), 2)
    assert "\x1b" not in message
    assert "not-in-argv" not in message
    assert alice.stored() == before


@pytest.mark.parametrize(
    ("args", "meant"), [(("proces",), "credx process"), (("factor", "lst"), "credx factor list")]
)
def test_a_mistyped_command_is_guessed(alice: Desk, args: tuple[str, ...], meant: str) -> None:
    _, hints = refused(alice.credx(*args), 2, args[-1])
    assert any(meant in hint for hint in hints)


# AWS: 8


def test_a_role_that_aws_does_not_let_one_into(alice: Desk) -> None:
    iam = alice.world.aws.admin_client("iam")
    for role, notes in (("prod-logs", 1), ("prod-admin", 1)):  # the client's call, and the broker's
        trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        others = json.loads(json.dumps(trust).replace("oidc-provider/", "oidc-provider/other."))
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(others))
        before = alice.stored()
        try:
            refused(alice.credx("process", role, "--fresh"), 8, "AccessDenied", notes=notes)
        finally:
            iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
        assert alice.stored() == before


def test_longer_than_the_role_in_aws_allows(alice: Desk) -> None:
    iam = alice.world.aws.admin_client("iam")
    iam.update_role(RoleName="discover", MaxSessionDuration=3600)
    before = alice.stored()
    try:
        _, hints = refused(
            alice.credx("creds", "discover", "--duration", "2h"), 8, "ValidationError", notes=None
        )
    finally:
        iam.update_role(RoleName="discover", MaxSessionDuration=7200)
    assert "--duration" in hints[0]
    assert alice.stored() == before


# second factor: 5


@pytest.mark.parametrize(
    ("role", "change", "word", "notes"),
    [
        ("prod-logs", NO_KEY, "no security key is plugged in", 0),
        ("prod-logs", FINGER.format("REFUSED"), "refused", 1),
        ("dev-totp", NO_APP, "would have asked for the code", 0),
    ],
)
def test_no_second_factor(alice: Desk, role: str, change: str, word: str, notes: int) -> None:
    before = alice.stored()
    refused(alice.credx("creds", role, change=change), 5, word, notes=notes)
    assert alice.stored() == before
    assert alice.credx("--no-input", "creds", "dev").returncode == 0


def test_a_wrong_code(bob: Desk) -> None:
    assert bob.credx("login").returncode == 0
    before = bob.stored()
    refused(bob.credx("creds", "dev-totp", change=WRONG_CODE), 5, notes=None)
    assert bob.stored() == before


def test_the_input_is_forbidden(alice: Desk) -> None:
    refused(alice.credx("--no-input", "creds", "prod-logs"), 5, "would have asked for a touch")
    refused(alice.credx("process", "prod-logs", CI="true"), 5, "would have asked for a touch")


# sign-in: 4


@pytest.mark.parametrize(("args", "environ"), [(("--no-input",), {}), ((), {"CI": "true"})])
def test_an_expired_sign_in_and_nobody_there(
    newcomer: Desk, args: tuple[str, ...], environ: dict[str, str]
) -> None:
    newcomer.settings(id_scopes='["openid", "profile"]')  # so that no refresh token is given
    assert newcomer.credx("login").returncode == 0
    before = newcomer.stored()
    later = newcomer.credx(*args, "process", "dev", change=clock(2 * 3600), **environ)
    _, hints = refused(later, 4, "would have asked you to sign in")
    assert hints == ["credx login"]
    assert newcomer.stored() == before


@pytest.mark.parametrize("source", ["file:/no/such/file", "env:NO_SUCH_VARIABLE", "stdin", "env:HOME"])
def test_a_token_source_without_a_token(alice: Desk, source: str) -> None:
    before = alice.stored()
    refused(alice.credx("login", "--token-source", source), 4)
    assert alice.stored() == before


# what is stored: 3


@pytest.mark.parametrize(
    ("what", "mode"), [("state/vault", 0o644), ("state", 0o755), ("state/vault.lock", 0o666)]
)
def test_a_vault_that_others_may_read(alice: Desk, what: str, mode: int) -> None:
    path = alice.home / what
    good = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    before = alice.stored()
    done = alice.credx("creds", "discover")
    _, hints = refused(done, 3, "open to other users", notes=None)
    assert hints == [f"chmod {good:o} {path}"]
    assert alice.stored() == before
    path.chmod(good)
    assert alice.credx("--no-input", "creds", "dev").returncode == 0


def test_a_vault_that_is_a_link(alice: Desk) -> None:
    vault = alice.state / "vault"
    aside = vault.rename(alice.home / "aside")
    vault.symlink_to(aside)
    content = aside.read_bytes()
    refused(alice.credx("creds", "dev"), 3, "is a link")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("at", [0, 20, -1])
def test_a_tampered_vault_is_dropped_and_said(alice: Desk, at: int) -> None:
    vault = alice.state / "vault"
    content = bytearray(vault.read_bytes())
    content[at] ^= 1
    vault.write_bytes(content)
    _, hints = refused(alice.credx("--no-input", "creds", "dev"), 4, notes=1)
    assert hints == ["credx login"]
    assert vault.read_bytes() == content  # nothing to put in its place yet
    done = alice.credx("creds", "dev")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot be decrypted") == 1
    assert alice.credx("--no-input", "creds", "dev").returncode == 0


FULL = ("/bin/sh", "-c", 'ulimit -f 0; exec "$@"', "sh")  # no file may grow, as on a full disk


def test_a_full_disk_costs_no_issued_credentials(alice: Desk) -> None:
    before = alice.stored()
    done = alice.credx("process", "discover", prefix=FULL)  # the proof for dev serves for it too
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["Version"] == 1
    assert done.stderr.count("not kept") == 1
    assert alice.stored() == before
    assert sorted(p.name for p in alice.state.iterdir()) == ["turn.lock", "vault", "vault.lock"]


def test_a_full_disk_and_a_configuration_to_write(alice: Desk) -> None:
    before = alice.stored()
    refused(alice.credx("init", alice.world.broker_url, prefix=FULL), 3, "cannot be written")
    assert alice.stored() == before
    assert sorted(p.name for p in alice.home.iterdir()) == ["config.toml", "state"]


def test_a_state_directory_that_is_read_only(alice: Desk) -> None:
    alice.state.joinpath("turn.lock").unlink(missing_ok=True)
    before = alice.stored()
    alice.state.chmod(0o500)
    if os.access(alice.state, os.W_OK):
        pytest.skip("root may write everywhere")
    try:
        assert alice.credx("--no-input", "creds", "dev").returncode == 0  # what is there serves
        refused(alice.credx("creds", "discover"), 3, "turn.lock")
    finally:
        alice.state.chmod(0o700)
    assert alice.stored() == before


def test_a_state_directory_that_cannot_be_made(newcomer: Desk) -> None:
    newcomer.state.write_text("a file")
    refused(newcomer.credx("creds", "dev"), 3, str(newcomer.state))
    assert newcomer.state.read_text() == "a file"


# interrupted: 130


@pytest.mark.parametrize(
    ("args", "change", "question"),
    [
        (("creds", "prod-logs"), FINGER.format("NEVER"), "touch your security key"),
        (("creds", "dev-totp"), NO_APP, "code of your authenticator app"),
        (("factor", "add", "totp", "--name", "x", "--invitation", "-"), "", "invitation"),
        (("login", "--force"), NO_BROWSER, "open this address"),
    ],
)
def test_ctrl_c(alice: Desk, args: tuple[str, ...], change: str, question: str) -> None:
    before = alice.stored()
    child = alice.terminal(*args, change=change)
    child.expect_exact(question)
    child.sendintr()
    child.expect_exact("credx: interrupted")
    child.expect_exact("code 130")
    child.expect(pexpect.EOF)
    child.close()
    left = (child.before or "").split()
    assert {"echo", "icanon", "isig"} <= {word.strip(";") for word in left}
    assert alice.stored() == before
    assert alice.credx("--no-input", "creds", "dev").returncode == 0


# stdout


def test_process_with_stdout_closed(alice: Desk) -> None:
    done = alice.credx("process", "dev", prefix=("/bin/sh", "-c", 'exec "$@" >&-', "sh"))
    refused(done, 2, "stdout is closed")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has one")
@pytest.mark.parametrize("args", [("process", "dev"), ("status",)])
def test_stdout_on_a_full_disk(alice: Desk, args: tuple[str, ...]) -> None:
    done = alice.credx(*args, prefix=("/bin/sh", "-c", 'exec "$@" >/dev/full', "sh"))
    refused(done, 1, "stdout")


def test_process_into_a_full_pipe_that_does_not_block(alice: Desk) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETFL, os.O_NONBLOCK)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writer, b"x" * 1024)
    with subprocess.Popen(
        alice.command("process", "dev"), env=alice.environ, stdin=subprocess.DEVNULL, stdout=writer,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as running:  # fmt: skip
        os.close(writer)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(1.5)
        with os.fdopen(reader, "rb") as stream:
            content = stream.read()
        assert running.wait(LIMIT) == 0
    assert json.loads(content[filled:])["Version"] == 1


def test_process_into_a_pipe_that_nobody_reads(alice: Desk) -> None:
    before = alice.stored()
    done = alice.credx("process", "dev", prefix=("/bin/sh", "-c", '"$@" | true', "sh"))
    assert (done.stdout, done.stderr) == ("", "")
    assert alice.stored() == before
