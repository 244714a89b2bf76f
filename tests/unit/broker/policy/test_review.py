"""What ``credx broker check`` warns of: each with the least change that causes it, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from credx.aws_limits import MAX_SESSION_POLICY
from credx.broker.policy import decide
from credx.broker.policy.arn import long_example, matches, parse_arn
from credx.broker.policy.faults import dotted
from credx.broker.policy.file import parse_policy
from credx.broker.policy.review import review, room
from credx.model import Grant
from credx.protocol import Ask
from credx.sandbox.scenario import policy_text

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy

HEAD = """version = 1
[broker]
issuer = "https://credx.example.com"
[[identity_providers]]
issuer = "https://idp.example.com"
client_id = "credx-cli"
[[identity_providers]]
issuer = "https://ci.example.com"
client_id = "credx-ci"
workloads = true
[groups.sre]
claims = ["sre"]
[groups.jobs]
workloads = [{ issuer = "https://ci.example.com", claims = { repository_id = "4711" } }]
[roles.deploy]
arn = "arn:aws:iam::111122223333:role/deploy"
region = "eu-central-1"
groups = ["jobs"]
factors = ["workload"]
"""
INSTANCES = '"arn:aws:ec2:eu-central-1:111122223333:instance/*"'


def policy(*lines: str, name: str = "x", head: str = HEAD) -> Policy:
    """The policy above and a role ``x``; a line that gives a key anew replaces it."""
    role = {
        "arn": f'"arn:aws:iam::111122223333:role/{name}"', "region": '"eu-central-1"', "groups": '["sre"]',
        "factors": '["webauthn"]',
    }  # fmt: skip
    keys, tables = [], []
    for line in lines:
        key, equals, value = line.partition(" = ")
        if equals and not tables and "[" not in key:
            role[key] = value
        else:
            tables.append(line)
    keys = [f"{key} = {value}" for key, value in role.items()]
    return parse_policy("\n".join([head, f"[roles.{name}]", *keys, *tables, ""]))


def warned(found: Policy) -> dict[str, str]:
    findings = review(found)
    assert {finding.level for finding in findings} <= {"warning"}
    return {dotted(finding.path): finding.text for finding in findings}


def test_a_policy_without_oddities_has_no_findings() -> None:
    assert warned(policy()) == {}
    text = policy_text(broker="http://localhost:1", issuer="http://localhost:2", client_id="credx-cli")
    assert warned(parse_policy(text)) == {}


def test_a_group_that_no_role_names() -> None:
    found = policy(head=HEAD.replace("[roles.deploy]", '[groups.dev]\nclaims = ["dev"]\n[roles.deploy]'))
    assert warned(found) == {"groups.dev": "no role names it: being in it opens nothing"}


def test_a_provider_that_no_group_takes_anybody_of() -> None:
    more = '[[identity_providers]]\nissuer = "https://two.example.com"\nclient_id = "c"\nworkloads = true\n[groups.sre]'
    assert warned(policy(head=HEAD.replace("[groups.sre]", more))) == {
        "identity_providers[2]": "no group takes anybody of it"
    }


@pytest.mark.parametrize(
    ("lines", "where", "said"),
    [
        (('groups = ["sre", "jobs"]',), "groups", "jobs holds only jobs, and no factor here is for them"),
        (('groups = ["jobs"]',), "groups", "jobs holds only jobs"),
        (('groups = ["sre", "jobs"]', 'factors = ["workload"]'), "groups", "sre holds only people"),
        (('groups = ["jobs"]', 'factors = ["workload", "webauthn"]'), "factors", "webauthn serves nobody"),
        (('factors = ["workload", "webauthn"]',), "factors", "workload serves nobody"),
    ],
)
def test_factors_that_nobody_in_the_groups_can_use(lines: tuple[str, ...], where: str, said: str) -> None:
    assert said in warned(policy(*lines))[f"roles.x.{where}"]


def test_a_code_serves_jobs_as_well() -> None:
    assert warned(policy('groups = ["sre", "jobs"]', 'factors = ["totp"]')) == {}


@pytest.mark.parametrize(
    ("lines", "warns"),
    [
        (('duration = "15m"',), True),
        (('duration = "16m"',), False),
        (('duration = "15m"', 'factor_max_age = "1h"'), False),
        (('duration = "15m"', 'groups = ["jobs"]', 'factors = ["workload"]'), False),
        (('duration = "15m"', 'target = "required"', f"targets = [{INSTANCES}]"), True),
    ],
)
def test_credentials_that_sdks_renew_at_once(lines: tuple[str, ...], warns: bool) -> None:
    found = warned(policy(*lines))
    assert ("roles.x.duration" in found) == warns
    assert set(found) <= {"roles.x.duration", "groups.sre"}
    if "required" in str(lines):
        assert "factor_max_age" not in found["roles.x.duration"]  # it cannot be set there


def test_a_factor_group_that_does_nothing() -> None:
    assert list(warned(policy('factor_group = "dev"'))) == ["roles.x.factor_group"]
    assert warned(policy('factor_group = "dev"', 'factor_max_age = "1h"')) == {}


def test_a_code_where_a_target_is_required() -> None:
    lines = ('target = "required"', f"targets = [{INSTANCES}]")
    assert warned(policy(*lines)) == {}
    assert "bound to no target" in warned(policy(*lines, 'factors = ["webauthn", "totp"]'))["roles.x.factors"]


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["eu-central-1:111122223333:instance/*", "eu-central-1:111122223333:instance/i-1"], "is within"),
        (["*:111122223333:instance/*", "eu-central-1:111122223333:instance/*"], "is within"),
        (["eu-central-1:111122223333:instance/*", "eu-central-1:111122223333:volume/*"], "several kinds"),
        (["us-east-1:111122223333:instance/*"], "none is in the role's region, eu-central-1"),
        (["us-east-1:111122223333:instance/*", "*:111122223333:instance/i-1"], None),
        (["us-east-1:111122223333:instance/*", "eu-central-1:111122223333:instance/*"], None),
        (["eu-central-1:111122223333:instance/i-1*", "eu-central-1:111122223333:instance/i-2*"], None),
    ],
)
def test_targets_that_overlap_mix_or_are_elsewhere(targets: list[str], said: str | None) -> None:
    listed = ", ".join(f'"arn:aws:ec2:{target}"' for target in targets)
    found = warned(policy('target = "required"', f"targets = [{listed}]"))
    assert len(found) == (said is not None)
    assert said is None or said in found["roles.x.targets"]


@pytest.mark.parametrize(
    ("target", "warns"),
    [
        ("rds:*:111122223333:db:*", True),
        ("ecs:eu-central-1:111122223333:task/*/*", True),
        ("ecs:eu-central-1:111122223333:task/main/*", False),
        ('ecs:eu-central-1:111122223333:task/a/*", "arn:aws:ecs:eu-central-1:111122223333:task/b/x*', True),
        ('rds:eu-central-1:111122223333:db:a*", "arn:aws:rds:eu-central-1:111122223333:db:b*', False),
        ("ec2:*:111122223333:instance/*", False),  # their ids are given once
        ("ssm:*:111122223333:managed-instance/mi-*", False),
    ],
)
def test_targets_of_one_name_in_several_places(target: str, warns: bool) -> None:
    found = warned(policy('target = "required"', f'targets = ["arn:aws:{target}"]'))
    assert list(found) == (["roles.x.targets"] if warns else [])
    assert not warns or "in several places" in found["roles.x.targets"]
    if warns:  # where the broker passes the session policy, that says it whole
        assert (
            warned(
                policy('target = "required"', f'targets = ["arn:aws:{target}"]', 'sts = "broker"', STATEMENT)
            )
            == {}
        )


@pytest.mark.parametrize(("second", "warns"), [("1", ["a", "b"]), ("2", [])])
def test_scopes_that_their_tags_do_not_tell_apart(second: str, warns: list[str]) -> None:
    scopes = scope("a", 1, "1") + scope("b", 1, second)
    found = warned(policy(scopes))
    assert list(found) == [f"roles.x.scopes.{name}.tags" for name in warns]
    assert warned(policy('sts = "broker"', scopes)) == {}


def test_a_scope_whose_tags_are_among_those_of_another() -> None:
    found = warned(policy(scope("a", 1, "1"), scope("b", 1, "1") + "u = '1'"))
    assert found == {
        "roles.x.scopes.a.tags": "b has them as well: in AWS a session with it may do what a says"
    }


@pytest.mark.parametrize(
    ("effect", "conditions", "warns"),
    [
        ("Allow", '"ForAllValues:StringEquals" = { "aws:TagKeys" = "a" }', True),
        (
            "Allow",
            '"ForAllValues:StringEquals" = { "aws:TagKeys" = "a" }\nNull = { "aws:tagkeys" = "false" }',
            False,
        ),
        ("Deny", '"ForAllValues:StringEquals" = { "aws:TagKeys" = "a" }', False),
        ("Allow", '"ForAnyValue:StringEquals" = { "aws:TagKeys" = "a" }', False),
    ],
)
@pytest.mark.parametrize("where", ["roles.x", "roles.x.scopes.s"])
def test_a_condition_that_holds_where_its_key_is_absent(
    where: str, effect: str, conditions: str, warns: bool
) -> None:
    statement = f'[[{where}.statements]]\neffect = "{effect}"\nactions = ["a:B"]\nresources = ["*"]\n'
    found = warned(policy(f"{statement}[{where}.statements.conditions]\n{conditions}"))
    assert list(found) == ([f'{where}.statements[0].conditions."ForAllValues:StringEquals"'] if warns else [])


@pytest.mark.parametrize(
    ("claim", "issuer", "warns"),
    [
        ("environment", "https://token.actions.githubusercontent.com", True),
        ("repository", "https://token.actions.githubusercontent.com", True),
        ("repository_owner_id", "https://token.actions.githubusercontent.com", False),
        ("ref", "https://gitlab.com", True),
        ("project_id", "https://gitlab.com", False),
        ("environment", "https://gitlab.example.com", False),
    ],
)
def test_jobs_that_anybody_may_run(claim: str, issuer: str, warns: bool) -> None:
    head = HEAD.replace("https://ci.example.com", issuer).replace("repository_id", claim)
    assert list(warned(policy(head=head))) == (["groups.jobs.workloads[0]"] if warns else [])


def test_an_operation_within_another() -> None:
    found = warned(policy('operations = ["forward:db:*", "forward:db:22", "shell"]'))
    assert found == {"roles.x.operations": "forward:db:22 is within forward:db:*"}
    assert "within" in warned(policy('operations = ["forward", "forward:[::1]:22"]'))["roles.x.operations"]
    assert warned(policy('operations = ["forward:a*:22", "forward:*b:22"]')) == {}


@pytest.mark.parametrize(
    ("resource", "warns"),
    [
        ("arn:aws:dynamodb:eu-central-1:999922223333:table/t", True),
        ("arn:aws:dynamodb:eu-central-1:111122223333:table/t", False),
        ("arn:aws:dynamodb:*:*:table/t", False),
        ("arn:aws:s3:::bucket/*", False),
        ("arn:aws:iam::aws:policy/ReadOnlyAccess", False),
        ("*", False),
    ],
)
def test_a_resource_in_another_account(resource: str, warns: bool) -> None:
    statement = f'[[roles.x.statements]]\neffect = "Allow"\nactions = ["a:B"]\nresources = ["{resource}"]'
    found = warned(policy(statement))
    assert list(found) == (["roles.x.statements[0].resources"] if warns else [])


def scope(name: str, size: int, tag: str = "") -> str:
    return (
        f'[[roles.x.scopes.{name}.statements]]\neffect = "Allow"\nactions = ["s3:GetObject"]\n'
        f'resources = ["arn:aws:s3:::{name * size}"]\n'
        + (f"[roles.x.scopes.{name}.tags]\nt = '{tag}'\n" if tag else "")
    )


def test_scopes_that_do_not_fit_together() -> None:
    found = warned(policy(scope("a", 1000), scope("b", 1000)))
    assert "all scopes together make a session policy of" in found["roles.x.scopes"]
    assert "2048 are possible" in found["roles.x.scopes"]
    assert warned(policy(scope("a", 1000, "1"), scope("b", 1000, "2"))) == {}  # they exclude each other
    assert warned(policy(scope("a", 870), scope("b", 870))) == {}
    assert (
        "1921 are possible"
        in warned(policy('sts = "broker"', scope("a", 870), scope("b", 870)))["roles.x.scopes"]
    )


STATEMENT = (
    '[[roles.x.statements]]\neffect = "Allow"\nactions = ["ssm:StartSession"]\nresources = ["${target}"]'
)


@pytest.mark.parametrize("sts", ["client", "broker"])
def test_how_many_targets_fit_is_what_decide_says(sts: str) -> None:
    found = policy('target = "required"', f"targets = [{INSTANCES}]", f'sts = "{sts}"', STATEMENT)
    needed = room(found.roles["x"])
    assert needed.targets is not None
    person = _person(found)

    def granted(count: int) -> bool:
        resources = tuple(f"{INSTANCES[1:-2]}i-{n:017x}" for n in range(count))
        return isinstance(decide(found, person, Ask(role="x", resources=resources)), Grant)

    assert granted(needed.targets)
    assert not granted(needed.targets + 1)
    assert needed.limit == MAX_SESSION_POLICY - (127 if sts == "broker" else 0)


def _person(found: Policy):  # noqa: ANN202
    from credx.broker.person import suppose

    return suppose(found, "https://idp.example.com", "s", {"groups": ["sre"]})


def test_a_target_that_alone_may_be_too_long() -> None:
    target = f'targets = ["arn:aws:ec2:eu-central-1:111122223333:instance/{"i" * 1880}*"]'
    found = warned(policy('target = "required"', target, STATEMENT))
    assert "the statements and a target with a long name make" in found["roles.x.statements"]
    assert room(policy('target = "required"', target, STATEMENT).roles["x"]).targets == 0


OTHER = """[groups.dev]
claims = ["dev"]
[roles.other]
arn = "arn:aws:iam::111122223333:role/x"
region = "eu-central-1"
groups = ["sre", "dev"]
factors = ["webauthn"]
"""


@pytest.mark.parametrize(
    ("lines", "where", "said"),
    [
        (('factors = ["webauthn", "totp"]', 'groups = ["sre", "dev"]'), "roles.x.arn", "other, which takes webauthn alone"),
        (("user_verification = false", 'groups = ["sre", "dev"]'), "roles.x.arn", "asks for PIN or finger"),
        (('factor_max_age = "1h"', 'groups = ["sre", "dev"]'), "roles.x.arn", "asks for a proof more often"),
        ((), "roles.other.arn", "x, which is open to sre alone"),
        (('reason = "required"', 'groups = ["sre", "dev"]'), "roles.other.arn", "asks for a reason"),
        (('target = "required"', f"targets = [{INSTANCES}]", 'groups = ["sre", "dev"]'), "roles.other.arn", "asks for a target"),
        (("roles_claim = true",), "roles.other.arn", "open to sre alone"),  # it names the ARN, which is the same
    ],
)  # fmt: skip
def test_one_arn_in_two_roles_that_ask_for_different_things(
    lines: tuple[str, ...], where: str, said: str
) -> None:
    found = warned(policy(*lines, head=HEAD + OTHER))
    assert list(found) == [where]
    assert said in found[where]


def test_one_arn_in_two_roles_that_ask_for_the_same() -> None:
    assert warned(policy('groups = ["sre", "dev"]', head=HEAD + OTHER)) == {}


def test_one_arn_where_the_broker_holds_the_sessions_to_their_policies() -> None:
    head = HEAD + OTHER.replace('factors = ["webauthn"]', 'factors = ["totp"]\nsts = "broker"')
    statement = '[[roles.{}.statements]]\neffect = "Allow"\nactions = ["s3:Get*"]\nresources = ["*"]\n'
    found = warned(policy('sts = "broker"', 'groups = ["dev", "sre"]', statement.format("x"), head=head))
    assert list(found) == ["roles.other.arn"]  # whose sessions have no policy
    head += statement.format("other")
    assert warned(policy('sts = "broker"', 'groups = ["dev", "sre"]', statement.format("x"), head=head)) == {}


PIECE = st.sampled_from(["i", "-", "*", "/", ":", "0", "a"])
RESOURCE = st.lists(PIECE, min_size=1, max_size=6).map("".join)


@given(RESOURCE, RESOURCE, RESOURCE)
def test_what_matches_a_covered_pattern_matches_the_covering_one(wide: str, narrow: str, text: str) -> None:
    """So a rule that is called needless is."""
    wide, narrow, text = (f"arn:aws:ec2:eu:111122223333:{part}" for part in (wide, narrow, text))
    if matches(wide, narrow) and matches(narrow, text):
        assert matches(wide, text)


@pytest.mark.parametrize("pattern", ["*:111122223333:instance/*", "eu-west-1:111122223333:task/*/*"])
def test_a_long_example_is_an_arn_of_its_pattern(pattern: str) -> None:
    example = long_example(f"arn:aws:ec2:{pattern}")
    assert parse_arn(example)
    assert matches(f"arn:aws:ec2:{pattern}", example)


def test_the_review_of_a_long_list_is_bounded() -> None:
    listed = ", ".join(f'"arn:aws:ec2:eu-central-1:111122223333:instance/i-{n}*"' for n in range(1000))
    assert len(review(policy('target = "required"', f"targets = [{listed}]"))) <= 100


def test_where_a_finding_is() -> None:
    from credx.broker.policy.file import read_policy

    text = HEAD + '[roles.x]\narn = "arn:aws:iam::111122223333:role/x"\nregion = "eu-central-1"\n'
    text += 'groups = ["sre"]\nfactors = ["webauthn"]\n# a comment\nduration = "15m"\n'
    found, source = read_policy(text, "p.toml")
    (finding,) = review(found)
    line = text.splitlines().index('duration = "15m"') + 1
    assert source.told(finding).startswith(f"p.toml:{line}: warning: roles.x.duration: SDKs renew")
