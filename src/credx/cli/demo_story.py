"""What ``credx demo`` tells: the main job, each step done for real and checked.

``credx`` is the sandbox's own, run as a program; the SDK is boto3 in another one, which knows nothing but a
profile with ``credential_process``. A step that does not come out as told raises ``StepFailedError``.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from credx.cli.options import spell
from credx.errors import AwsRefusedError, CredxError
from credx.model import Secret
from credx.protocol import Ask, Issued, StepUp, TokenRequest, WebAuthnProof

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from credx.sandbox.world import World

USER: Final = "alice"
ROLE, SCOPE = "prod-logs", "read-logs"
CODE_ROLE: Final = "dev-totp"
COMMAND_LIMIT: Final = 30.0  # seconds; a sandbox command takes less than two

SDK: Final = """
import sys, boto3, botocore.exceptions
s3 = boto3.client("s3")
try:
    {call}
except botocore.exceptions.ClientError as refused:
    sys.exit(refused.response["Error"]["Code"])
"""


class StepFailedError(Exception):
    """A step did not come out as told."""


def expect(condition: object, what: str) -> None:
    if not condition:
        raise StepFailedError(what)


class Stage:
    """The world, the person at the keyboard, and what there is to see of the step at hand.

    Args:
        open_world: starts one; the first step calls it.
    """

    def __init__(self, open_world: Callable[[], World]) -> None:
        self._open_world = open_world
        self.lines: list[str] = []  # "$ " and ">>> " mark what somebody types

    @functools.cached_property
    def world(self) -> World:
        return self._open_world()

    @functools.cached_property
    def environ(self) -> Mapping[str, str]:
        return self.world.environment(USER)

    def say(self, *lines: str) -> None:
        self.lines.extend(lines)

    def credx(self, *args: str) -> str:
        """``credx ARGS`` as the person; what it prints comes back, what it notes is told."""
        self.say("$ credx " + " ".join(args))
        done = self._run([_program(self.environ), *args])
        self.say(*done.stderr.splitlines())
        expect(done.returncode == 0, f"credx {args[0]} ended with {done.returncode}: {_last(done.stderr)}")
        return done.stdout

    def sdk(self, call: str, shown: str) -> subprocess.CompletedProcess[str]:
        """One boto3 call in a process of its own, with a profile and nothing else."""
        self.say(f"$ AWS_PROFILE={ROLE} python", f">>> {shown}")
        return self._run([sys.executable, "-c", SDK.format(call=call)], AWS_PROFILE=ROLE)

    def _run(self, command: Sequence[str], **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env={**self.environ, **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_LIMIT,
            start_new_session=True,  # no terminal: what they say is told here, not written across it
        )

    def records(self, event: str, role: str | None = None) -> list[Mapping[str, Any]]:
        broker = self.world.broker
        return list(broker.audit.read(broker.now(), event=event, role=role))


def _program(environ: Mapping[str, str]) -> str:
    return shutil.which("credx", path=environ["PATH"]) or "credx"


def _last(text: str) -> str:
    """The last line that says something: an error's, not the hint after it."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("hint:")]
    return lines[-1] if lines else "nothing was said"


def world_starts(stage: Stage) -> str:
    world = stage.world
    stage.say(
        f"identity provider  {world.idp.issuer}",
        f"broker             {world.broker_url}",
        f"AWS                {world.aws.url}",
    )
    return "AWS trusts the broker, never the identity provider"


def signs_in(stage: Stage) -> str:
    stage.credx("login")
    person = json.loads(stage.credx("status", "--json"))["signed_in"]
    expect(person and person["user"].startswith(USER), "status does not know alice")
    left = spell(person["expires_at"] - stage.world.broker.now())
    return f"an ID token for {left}; AWS would not take it"


def sees_roles(stage: Stage) -> str:
    roles = json.loads(stage.credx("roles", "--json"))
    for role in roles:
        factors = " or ".join(role["factors"])
        stage.say(f"{role['name']:<11} {factors:<16} {spell(role['duration']):<4} {role['enforcement']}")
    expect({ROLE, CODE_ROLE} <= {role["name"] for role in roles}, "a role is missing")
    return f"{len(roles)} roles, each with its factor, its life and what enforces it"


def touches_the_key(stage: Stage) -> str:
    found = json.loads(stage.credx("creds", ROLE, "--scope", SCOPE, "--format", "json"))
    stage.say(f"AccessKeyId {found['AccessKeyId']}, until {found['Expiration']}")
    (granted,) = stage.records("granted", ROLE)
    expect(granted["factor_kind"] == "webauthn", "no security key was asked for")
    expect(tuple(granted["scopes"]) == (SCOPE,), "another scope was granted")
    return "the broker verified a signature over exactly this role and scope"


def sdk_works(stage: Stage) -> str:
    stage.say("~/.aws/config: credential_process = credx process prod-logs")
    done = stage.sdk(
        'print(s3.get_object(Bucket="example-logs", Key="app/2026-11-23.log")["Body"].read().decode(), end="")',
        's3.get_object(Bucket="example-logs", Key="app/2026-11-23.log")',
    )
    expect(done.returncode == 0, f"the SDK failed: {_last(done.stderr)}")
    expect("checkout" in done.stdout, "the log is not what it should be")
    stage.say(*done.stdout.splitlines())
    return "boto3 ran credx by itself; no credentials were written to a file"


def scope_holds(stage: Stage) -> str:
    for call in (
        's3.get_object(Bucket="example-logs", Key="secret/payroll.csv")',
        's3.put_object(Bucket="example-logs", Key="app/new.log", Body=b"x")',
    ):
        done = stage.sdk(call, call)
        stage.say(_last(done.stderr))
        expect(_last(done.stderr) == "AccessDenied", f"AWS did not refuse {call}")
    return "AWS itself refuses what the scope does not cover"


def types_a_code(stage: Stage) -> str:
    found = json.loads(stage.credx("creds", CODE_ROLE, "--format", "json"))
    stage.say(f"AccessKeyId {found['AccessKeyId']}, until {found['Expiration']}")
    (granted,) = stage.records("granted", CODE_ROLE)
    expect(granted["factor_kind"] == "totp", "no code was asked for")
    return "six digits from an authenticator app, good for one time step and once"


def thieves_leave_empty_handed(stage: Stage) -> str:
    token = Secret(stage.world.idp.id_token_for(USER))
    _steal_the_id_token(stage, token)
    _replay_a_proof(stage, token)
    return "a stolen ID token and a used proof are both worth nothing"


def _steal_the_id_token(stage: Stage, token: Secret) -> None:
    from credx.sts import assume_role_with_web_identity

    stage.say("STS with alice's ID token, without the broker:")
    try:
        assume_role_with_web_identity(
            token=token,
            role_arn=f"arn:aws:iam::111122223333:role/{ROLE}",
            session_name="thief",
            duration=3600,
            policy=None,
            region="eu-central-1",
            endpoint=stage.world.aws.url,
        )
    except AwsRefusedError as refused:
        stage.say(f"  {refused.code}")
        return
    raise StepFailedError("AWS took an ID token of the identity provider")


def _replay_a_proof(stage: Stage, token: Secret) -> None:
    from credx.broker_client import BrokerClient
    from credx.factors.fido2 import get_assertion
    from credx.http import Http
    from credx.sandbox.plug import edges_for

    broker = BrokerClient(stage.world.broker_url, Http())
    request = TokenRequest(subject_token=token, ask=Ask(role=ROLE, scopes=(SCOPE,)))
    step_up = broker.token(request)
    expect(isinstance(step_up, StepUp), "the broker asked for no second factor")
    assert isinstance(step_up, StepUp)  # noqa: S101 -- for the type checker; the line above is the check
    assertion = get_assertion(
        broker.begin_proof(token, step_up.auth_session),
        origin=stage.world.broker_url,
        devices=edges_for(stage.world.directory, USER).devices,
        ui=_Silent(),
        approve=ROLE,
    )
    proof = WebAuthnProof(auth_session=step_up.auth_session, assertion=assertion)
    proven = TokenRequest(subject_token=token, ask=request.ask, proof=proof)
    expect(isinstance(broker.token(proven), Issued), "a good proof was refused")
    granted = len(stage.records("granted"))
    stage.say("The broker with a proof that has been used:")
    try:
        again: object = broker.token(proven)
    except CredxError as refused:
        stage.say(f"  {refused.message}")
    else:
        expect(not isinstance(again, Issued), "the same proof was taken twice")
        stage.say("  prove it anew")
    expect(len(stage.records("granted")) == granted, "a replay was granted")


class _Silent:
    interactive = True

    def patience(self, limit: float) -> float:
        return limit

    def note(self, text: str) -> None: ...

    def prompt(self, text: str) -> str:
        raise StepFailedError(f"nobody is here to answer: {text}")

    def prompt_secret(self, text: str) -> Secret:
        raise StepFailedError(f"nobody is here to answer: {text}")


def everything_is_on_record(stage: Stage) -> str:
    broker = stage.world.broker
    records = list(broker.audit.read(broker.now()))
    setting_up = {"invited", "enrolled"}
    for record in (record for record in records if record["event"] not in setting_up):
        at = datetime.fromtimestamp(record["at"], UTC).strftime("%H:%M:%S")
        what = " ".join([str(record.get("role") or ""), *record.get("scopes", ())])
        who = record.get("user") or "-"
        stage.say(f"{at}  {record['event']:<8} {what:<21} {record.get('factor_kind') or '':<9}{who}")
    expect(broker.audit.verify(broker.now()) is None, "the audit chain is broken")
    events = [record["event"] for record in records]
    expect("refused" in events, "the replay left no record")
    before = sum(record["event"] in setting_up for record in records)
    stage.say(f"and {before} from before: invitations, and the factors enrolled with them")
    return f"{len(records)} records in the broker's store, the chain verified"


STORY: Final[Sequence[tuple[str, Callable[[Stage], str]]]] = (
    ("A company on this machine", world_starts),
    ("Alice signs in", signs_in),
    ("What may she take?", sees_roles),
    ("She touches her security key for the production logs", touches_the_key),
    ("Her SDK reads a log", sdk_works),
    ("Outside the scope nothing moves", scope_holds),
    ("A role that takes a code", types_a_code),
    ("Two thieves", thieves_leave_empty_handed),
    ("All of it is on record", everything_is_on_record),
)
