from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.broker.policy.faults import MAX_FAULTS, PolicyFileError
from credx.broker.policy.file import load_policy, parse_policy
from credx.broker.policy.reader import MAX_FILE, FaultyTable, parse
from credx.broker.policy.rules import Policy
from credx.errors import ConfigError

FILE = Path(__file__).parents[1] / "data" / "policy.toml"
GOOD = FILE.read_text("utf-8")


def complaint(text: str) -> str:
    return "\n".join(complaints(text))


def complaints(text: str) -> tuple[str, ...]:
    with pytest.raises(PolicyFileError) as caught:
        parse_policy(text, "p.toml")
    assert caught.value.hint
    assert "\n" not in caught.value.message
    assert caught.value.message.startswith(caught.value.faults[0].told)
    return tuple(fault.told for fault in caught.value.faults)


def attempt(text: str) -> Policy | str:
    try:
        return parse_policy(text, "p.toml")
    except ConfigError as exc:
        return exc.message


def swap(old: str, new: str, text: str = GOOD) -> str:
    assert text.count(old) == 1, text.count(old)
    return text.replace(old, new)


def test_the_good_file() -> None:
    policy = load_policy(FILE)
    assert policy.version == hashlib.sha256(GOOD.encode()).hexdigest()[:16]
    assert policy.broker.url == policy.broker.issuer == "https://credx.example.com"
    assert policy.broker.rp_id == "credx.example.com"
    assert policy.broker.max_token_age == 3600
    assert list(policy.issuers) == ["https://idp.example.com", "https://ci.example.com"]
    ci = policy.issuers["https://ci.example.com"]
    assert (ci.workloads, ci.groups_claim, ci.trusted.audience) == (True, None, "credx-ci")
    assert policy.groups["sre"].issuer == "https://idp.example.com"
    assert policy.groups["sre"].users == {("https://idp.example.com", "00u1")}
    role = policy.roles["prod-ops"]
    assert role.operations == ("shell", "run", "forward:localhost:*")
    assert (role.duration, role.max_duration, role.factor_max_age) == (3600, 3600, 0)
    assert policy.roles["logs"].factor_group == "logs"
    assert policy.roles["buckets"].operations == ("creds", "forward:*:*")


def test_nothing_of_a_policy_can_be_changed() -> None:
    policy = load_policy(FILE)
    with pytest.raises(TypeError):
        policy.roles["x"] = policy.roles["logs"]  # type: ignore[index]
    with pytest.raises(AttributeError):
        policy.version = ""  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version = 1\n", "version = 2\n", "p.toml:1: version: must be 1"),
        ("version = 1\n", "", "p.toml: version: must be 1"),
        ("version = 1\n", "version = true\n", "must be 1"),
        ("[broker]", "[broker", "p.toml:3: no TOML: "),
        ("[broker]\n", "[broker]\nfoo = 1\n", "p.toml:4: broker.foo: unknown key"),
        ('reason = "required"', 'resaon = "required"', "roles.prod-ops.resaon: unknown key"),
        ('issuer = "https://credx.example.com"', 'issuer = "http://credx.example.com"', "broker.issuer: must be an https URL"),
        ('issuer = "https://credx.example.com"', 'issuer = "https://credx.example.com/"', "final slash"),
        ('issuer = "https://credx.example.com"', 'issuer = "https://credx.example.com?x=1"', "query"),
        ('issuer = "https://credx.example.com"', 'issuer = "https://idp.example.com"', "is the broker itself"),
        ('issuer = "https://credx.example.com"', 'issuer = "https://192.0.2.1"', "broker.rp_id: must be a domain name"),
        ('name = "Example Corp"', 'rp_id = "example.org"', "broker.rp_id: must be the host"),
        ('name = "Example Corp"', 'rp_id = "com"', "broker.rp_id: must be a domain name"),
        ('name = "Example Corp"', 'rp_id = "x.example.com"', "broker.rp_id: must be the host"),
        ('max_token_age = "1h"', 'max_token_age = "59"', "60 to 86400 seconds"),
        ('max_token_age = "1h"', 'max_token_age = "25h"', "60 to 86400 seconds"),
        ('max_token_age = "1h"', 'max_token_age = "1 h"', "must be a duration"),
        ('max_token_age = "1h"', "max_token_age = true", "must be a duration"),
        ('max_token_age = "1h"', "max_token_age = 60.5", "must be a duration"),
        ('issuer = "https://idp.example.com"\nclient_id', 'issuer = "http://idp.example.com"\nclient_id', "identity_providers[0].issuer"),
        ('issuer = "https://ci.example.com"\nclient_id', 'issuer = "https://idp.example.com"\nclient_id', "identity_providers[1].issuer: is here twice"),
        ('client_id = "credx-cli"\n', "", "identity_providers[0].client_id: is missing"),
        ('client_id = "credx-cli"\n', "client_id = 5\n", "identity_providers[0].client_id"),
        ('client_id = "credx-cli"\n', 'client_id = "c"\nalgorithms = ["HS256"]\n', "'HS256' is not RS256 or ES256"),
        ('client_id = "credx-cli"\n', 'client_id = "c"\njwks_uri = "file:///etc/passwd"\n', "jwks_uri: must be an https URL"),
        ('scopes = ["openid", "profile", "offline_access"]', 'scopes = ["profile"]', 'must hold "openid"'),
        ("workloads = true\n", 'workloads = true\ngroups_claim = "g"\n', "groups_claim: is for people"),
        ("workloads = true\n", 'workloads = true\nmfa_amr = ["mfa"]\n', "mfa_amr: is for people"),
        ("workloads = true\n", "", "groups.sre.issuer: is missing"),
        ('claims = ["sre", "platform-oncall"]', "claims = []", "groups.sre.claims: must be a list of strings that is not empty"),
        ('claims = ["sre", "platform-oncall"]', 'claims = "sre"', "groups.sre.claims: must be a list"),
        ('claims = ["sre", "platform-oncall"]', 'claims = ["sre", "sre"]', "names something twice"),
        ('claims = ["sre", "platform-oncall"]', 'claims = ["sre", ""]', "must hold strings"),
        ("|00u1", "", 'is not "ISSUER|SUBJECT" with an issuer of'),
        ("https://idp.example.com|00u1", "https://other.example.com|00u1", "groups.sre.users: 'https://other.example.com|00u1' is not"),
        ("claims = { repository_id", "claims = {} # { repository_id", "groups.deploy.workloads[0].claims: is missing"),
        ('repository_id = "4711"', "repository_id = 4711", "groups.deploy.workloads[0].claims.repository_id"),
        ("[groups.deploy]\n[[groups.deploy.workloads]]", "[groups.deploy]\n[[groups.ci.workloads]]", "groups.deploy: is a group of nobody"),
        ("[groups.sre]", "[groups.SRE]", "groups.SRE: a name is"),
        ("[groups.sre]", "[groups.ops]", "'sre' is not a group of this file"),
        ('groups = ["deploy", "sre"]', "groups = []", "roles.deploy.groups: must be a list of strings that is not empty"),
        ('groups = ["deploy", "sre"]\n', "", "roles.deploy.groups: is missing"),
        ('factors = ["workload", "webauthn"]', "factors = []", "not empty"),
        ('factors = ["workload", "webauthn"]', 'factors = ["sms"]', "'sms' is not one of"),
        ('factors = ["workload", "webauthn"]\n', "", "roles.deploy.factors: is missing"),
        ('arn = "arn:aws:iam::111122223333:role/deploy"', 'arn = "arn:aws:iam::111122223333:user/deploy"', "roles.deploy.arn: must be arn:"),
        ('arn = "arn:aws:iam::111122223333:role/deploy"', 'arn = "arn:aws:iam::111122223333:role/*"', "roles.deploy.arn: must be arn:"),
        ('arn = "arn:aws:iam::111122223333:role/deploy"', 'arn = "arn:aws:iam::1111:role/deploy"', "roles.deploy.arn: must be arn:"),
        ('arn = "arn:aws:iam::111122223333:role/deploy"', 'arn = "arn:aws:iam::111122223333:role/a,b"', "roles.deploy.arn: must be arn:"),
        ('arn = "arn:aws:iam::111122223333:role/deploy"', 'arn = "arn:aws:iam::111122223333:role/logs"', "roles.deploy.sts: this ARN is under the other mode"),
        ('duration = "15m"', 'duration = "14m"', "900 to 43200 seconds"),
        ('duration = "15m"', 'duration = "13h"', "900 to 43200 seconds"),
        ('duration = "15m"', "duration = -900", "900 to 43200 seconds"),
        ('duration = "15m"', 'duration = "\uff11\uff15m"', "must be a duration"),
        ('max_duration = "8h"', 'max_duration = "20m"', "roles.logs.max_duration: is shorter"),
        ('sts = "broker"', 'sts = "Broker"', "roles.deploy.sts: must be one of client, broker"),
        ("roles_claim = true", 'roles_claim = "true"', "must be true or false"),
        ('factor_max_age = "8h"', 'factor_max_age = "25h"', "0 to 86400 seconds"),
        ('duration = "1h"\nroles_claim', 'factor_max_age = "1h"\nroles_claim', 'must be "0" with target'),
        ('target = "required"\n', "", "${target} needs target"),
        ('target = "required"\n', 'target = "always"\n', "roles.prod-ops.target: must be one of"),
        ('targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/*"]\n', "", "roles.prod-ops.targets: goes with"),
        ("arn:aws:ec2:eu-central-1:111122223333:instance/*", "arn:aws:ec2:eu-central-1:999922223333:instance/*", "must be in the role's account"),
        ("arn:aws:ec2:eu-central-1:111122223333:instance/*", "arn:aws-cn:ec2:cn-north-1:111122223333:instance/*", "of the role's partition"),
        ("arn:aws:ec2:eu-central-1:111122223333:instance/*", "arn:aws:ec2:eu-central-1:*:instance/*", "roles.prod-ops.targets"),
        ("arn:aws:ec2:eu-central-1:111122223333:instance/*", "*", "roles.prod-ops.targets"),
        ('operations = ["shell", "run", "forward:localhost:*"]', 'operations = ["Shell"]', "'Shell' is not creds"),
        ('effect = "Allow"\nactions = ["ssm:StartSession"]', 'actions = ["ssm:StartSession"]', "statements[0].effect: is missing"),
        ('["ssm:StartSession"]', '["ssm StartSession"]', "is not an IAM action"),
        ('["ssm:StartSession"]', "[]", "not empty"),
        ('resources = ["${target}", ', 'resources = ["${targets}", ', "resources: must be ARNs"),
        ('resources = ["${target}", ', 'resources = ["${target}*", ', "resources: must be ARNs"),
        ('resources = ["${target}", ', 'resources = ["arn:aws:ec2:::${target}", ', "resources: must be ARNs"),
        ('resources = ["${target}", ', 'resources = ["arn:aws-cn:s3:::x", ', "must be of the role's partition"),
        ("BoolIfExists = {", "boolIfExists = {", "is no condition operator"),
        ("BoolIfExists = {", "BoolIfExist = {", "is no condition operator"),
        ("BoolIfExists = {", "NullIfExists = {", "is no condition operator"),
        ("BoolIfExists = {", '"ForAnyValue:Null" = {', "is no condition operator"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"SessionDocumentAccessCheck" = "true"', "is no condition key"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"" = "true"', "is no condition key"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"a:b" = "1", "A:B" = "2"', "differ in case alone"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', "", "tests nothing"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"ssm:SessionDocumentAccessCheck" = true', "must be a list"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"a:b" = "${target}"', "stands in resources alone"),
        ('"ssm:SessionDocumentAccessCheck" = "true"', '"a:b" = "\u4e2d"', "a character that AWS does not take"),
        ('resources = ["arn:aws:s3:::logs/*"]', f'resources = ["arn:aws:s3:::{"x" * 2000}"]', "roles.logs.scopes: read-logs: the session policy has"),
        ('resources = ["${target}", ', f'resources = ["arn:aws:s3:::{"x" * 2000}", ', "roles.prod-ops.statements: alone: the session policy has"),
        ('tags = { volume = "11" }', 'tags = { volume = " " }', "volume: must be a string of one line"),
        ('tags = { volume = "11" }', 'tags = { "" = "1" }', "is not what STS takes as a tag"),
        ('tags = { volume = "11" }', "", "roles.buckets.scopes.loud: has neither statements nor tags"),
        ('tags = { volume = "11" }', 'tags = { "aws:x" = "11" }', "aws: is AWS's"),
        ('tags = { volume = "11" }', 'tags = { "AWS:x" = "11" }', "aws: is AWS's"),
        ('tags = { volume = "11" }', 'tags = { "credx-role" = "root" }', "credx- is the broker's"),
        ('tags = { volume = "11" }', 'tags = { "Credx-Target" = "i-0" }', "credx- is the broker's"),
        ('tags = { volume = "11" }', 'tags = { volume = "1,1" }', "is not what STS takes"),
        ('tags = { volume = "11" }', 'tags = { volume = "*" }', "is not what STS takes"),
        ('tags = { volume = "11" }', f'tags = {{ volume = "{"1" * 257}" }}', "is not what STS takes"),
        ('tags = { volume = "11" }', f'tags = {{ {"v" * 129} = "1" }}', "is not what STS takes"),
        ('tags = { volume = "11" }', 'tags = { Bucket = "11" }', "differ in case alone"),
        ('tags = { volume = "11" }', "tags = { " + ", ".join(f"t{n} = '1'" for n in range(46)) + " }", "more than 46 tags together"),
        ('default_scopes = ["red"]', 'default_scopes = ["green"]', "'green' is no scope of this role"),
        ('default_scopes = ["red"]', 'default_scopes = ["red", "blue"]', "exclude each other"),
        ("[[roles.logs.scopes.list-logs.statements]]", '[roles.logs.scopes.wide]\ntags = {a = "1"}\n[[roles.logs.scopes.list-logs.statements]]', "wide has no statements, others have"),
        ('region = "eu-central-1"\ngroups = ["deploy", "sre"]', 'region = "eu"\ngroups = ["deploy", "sre"]', "roles.deploy.region: must be a region"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(old: str, new: str, said: str) -> None:
    assert said in complaint(swap(old, new))


def test_a_complaint_points_at_the_line() -> None:
    text = swap('actions = ["s3:ListBucket"]', "# nothing")
    line = text[: text.index("# nothing")].count("\n") + 1
    where = "roles.logs.scopes.list-logs.statements[0]"
    assert complaint(text) == f"p.toml:{line - 2}: {where}.actions: is missing"
    text = GOOD + "\nfoo = 1\n"
    assert complaint(text) == f"p.toml:{text.count(chr(10))}: roles.deploy.foo: unknown key"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('actions = ["s3:ListBucket"]', 'actionz = ["s3:ListBucket"]', "actionz: unknown key, did you mean actions?"),
        ('factors = ["totp"]', 'factor = ["totp"]', "roles.buckets.factor: unknown key, did you mean factors?"),
        ('client_id = "credx-cli"', 'clientid = "credx-cli"', "clientid: unknown key, did you mean client_id?"),
        ('reason = "required"', 'resaon = "required"', "roles.prod-ops.resaon: unknown key, did you mean reason?"),
        ('max_duration = "8h"', 'max_durations = "8h"', "roles.logs.max_durations: unknown key"),
        ('arn = "arn:aws:iam::111122223333:role/logs"', 'an = "arn:aws:iam::111122223333:role/logs"', "roles.logs.an: unknown key, did you mean arn?"),
    ],
)  # fmt: skip
def test_a_misspelled_key_is_named_and_not_called_missing(old: str, new: str, said: str) -> None:
    (fault,) = complaints(swap(old, new))
    assert said in fault


def test_every_fault_is_told_in_one_run_and_in_the_order_of_the_file() -> None:
    text = swap('client_id = "credx-ci"', "client_id = 7")  # two of a table, and tables beside each other
    text = swap('readable_claim = "repository"', 'readable_claim = ""', text)
    text = swap('resources = ["arn:aws:s3:::logs/*"]', "resources = []", text)
    text = swap('actions = ["s3:ListBucket"]', "actions = []", text)
    text = swap('max_duration = "1h"', 'max_duration = "1s"', text)
    text = swap('factors = ["totp"]', 'factors = ["sms"]', text)
    text = swap('sts = "broker"', 'sts = "brokr"\nsurprise = 1', text)
    told = complaints(text)
    assert [fault.split(": ")[1] for fault in told] == [
        "identity_providers[1].client_id",
        "identity_providers[1].readable_claim",
        "roles.logs.scopes.read-logs.statements[0].resources",
        "roles.logs.scopes.list-logs.statements[0].actions",
        "roles.buckets.factors",
        "roles.buckets.max_duration",
        "roles.deploy.sts",
        "roles.deploy.surprise",
    ]
    lines = [int(fault.split(":")[1]) for fault in told]
    assert lines == sorted(lines)


def test_a_fault_does_not_cause_others_that_are_none() -> None:
    text = swap('issuer = "https://idp.example.com"\nclient_id', 'issuer = "no"\nclient_id')
    assert len(complaints(text)) == 1  # groups and roles that rest on the provider are not blamed
    assert len(complaints(swap('target = "required"', 'target = "always"'))) == 1
    assert len(complaints(swap('claims = ["sre", "platform-oncall"]', "claims = 3"))) == 1


def test_a_role_without_its_first_keys_tells_the_others_too() -> None:
    text = swap('arn = "arn:aws:iam::111122223333:role/prod-ops"\nregion = "eu-central-1"\n', "")
    text = swap('["ssm:StartSession"]', '["ssm StartSession"]', text)
    assert [fault.split(": ", 1)[1] for fault in complaints(text)] == [
        "roles.prod-ops.arn: is missing",
        "roles.prod-ops.region: is missing",
        "roles.prod-ops.statements[0].actions: 'ssm StartSession' is not an IAM action such as s3:GetObject",
    ]


def test_what_is_told_of_one_file_is_bounded() -> None:
    assert len(complaints(GOOD + "".join(f"k{n} = 1\n" for n in range(1000)))) == MAX_FAULTS


def test_a_table_that_is_faulty_never_makes_a_policy() -> None:
    """Whatever is noted ends in an error, even where nobody closes the table."""
    table, source = parse("[a]\nb = 3\n", "p.toml")
    table.table("a").text("b")
    with pytest.raises(FaultyTable):
        table.close()
    with pytest.raises(PolicyFileError, match=r"p\.toml:2: a\.b: must be"):
        source.finish()


def test_a_workload_factor_needs_a_provider_of_workloads() -> None:
    text = re.sub(r"\[\[identity_providers\]\]\nissuer = \"https://ci.*?\n\n", "", GOOD, flags=re.DOTALL)
    text = re.sub(r"\[groups\.deploy\].*?\n\n", "", text, flags=re.DOTALL)
    text = text.replace('groups = ["deploy", "sre"]', 'groups = ["sre"]')
    assert "workload needs an identity provider" in complaint(text)


def test_with_two_providers_of_people_a_group_says_whose_claims_it_means() -> None:
    second = '[[identity_providers]]\nissuer = "https://two.example.com"\nclient_id = "c"\n\n[groups.sre]\n'
    text = swap("[groups.sre]\n", second)
    assert "groups.sre.issuer: is missing" in complaint(text)
    policy = parse_policy(swap("[groups.sre]\n", '[groups.sre]\nissuer = "https://two.example.com"\n', text))
    assert policy.groups["sre"].issuer == "https://two.example.com"
    text = swap("[groups.sre]\n", '[groups.sre]\nissuer = "https://ci.example.com"\n', text)
    assert "must be an identity provider of people" in complaint(text)


def test_a_file_that_is_no_policy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_policy(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load_policy(bad)
    bad.write_bytes(b"#" * (MAX_FILE + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load_policy(bad)
    for text in ("", "x = " + "[" * 5000, "version = " + "9" * 5000, "\x00", "version = 1\nroles = 3"):
        complaint(text)


def _tables(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every table that has keys of the format, not of the administrator."""
    found = []
    if isinstance(value, dict):
        named = path[-1:] in [("tags",), ("claims",), ("conditions",)] or path[-2:-1] == ("conditions",)
        if not named:
            found.append(path)
        for key, inner in value.items():
            found += _tables(inner, (*path, key))
    if isinstance(value, list):
        for n, inner in enumerate(value):
            found += _tables(inner, (*path, n))
    return found


def _dump(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_dump(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_dump, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else _key(value)


def _key(text: str) -> str:
    return '"' + "".join(f"\\U{ord(c):08x}" if c in '"\\\x7f' or ord(c) < 32 else c for c in text) + '"'


def _document(value: dict[str, Any]) -> str:
    return "\n".join(f"{_key(k)} = {_dump(v)}" for k, v in value.items())


def test_a_workload_rule_needs_a_provider_of_workloads() -> None:
    text = swap('issuer = "https://ci.example.com"\nclaims', 'issuer = "https://idp.example.com"\nclaims')
    assert "groups.deploy.workloads[0].issuer: must be an identity provider of which" in complaint(text)


TREE = tomllib.loads(GOOD)


def test_the_tree_writes_back_to_the_same_policy() -> None:
    again, policy = parse_policy(_document(TREE)), load_policy(FILE)
    assert (again.roles, again.groups, again.issuers) == (policy.roles, policy.groups, policy.issuers)


@pytest.mark.parametrize("path", [p for p in _tables(TREE) if p not in [("groups",), ("roles",)] and p[-1:] != ("scopes",)], ids=str)  # fmt: skip
def test_an_unknown_key_is_refused_anywhere(path: tuple[Any, ...]) -> None:
    tree = tomllib.loads(GOOD)
    table: Any = tree
    for step in path:
        table = table[step]
    table["surprise"] = 1
    assert "surprise: unknown key" in complaint(_document(tree))


SCALARS = (
    st.sampled_from(
        ["", "*", "required", "broker", "webauthn", "0", "1h", "${target}", "arn:aws:s3:::x", "\x7f\u202e"]
    )
    | st.integers(-(2**70), 2**70)
    | st.booleans()
    | st.floats(allow_nan=True)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
VALUES = (
    SCALARS
    | st.lists(SCALARS, max_size=3)
    | st.dictionaries(st.sampled_from(["a", "Allow", "x y", ""]), SCALARS, max_size=2)
)


@settings(max_examples=300)
@given(st.data())
def test_a_mutated_policy_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    tree: Any = tomllib.loads(GOOD)
    for _ in range(data.draw(st.integers(1, 3))):
        table = tree
        while True:
            keys = list(table) if isinstance(table, dict) else list(range(len(table)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(table[key], dict | list) and data.draw(st.booleans()):
                table = table[key]
                continue
            if data.draw(st.booleans()):
                table[key] = data.draw(VALUES)
            else:
                del table[key]
            break
    text = _document(tree).replace("inf", "1.0").replace("nan", "1.0")
    outcome = attempt(text)
    assert isinstance(outcome, Policy) or (outcome.startswith("p.toml:") and outcome.isprintable())


@given(st.text() | st.binary().map(lambda b: b.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    complaint(text)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 40), st.text(max_size=3))
def test_a_damaged_file_is_read_or_refused(at: int, cut: int, put: str) -> None:
    attempt(GOOD[:at] + put + GOOD[at + cut :])
