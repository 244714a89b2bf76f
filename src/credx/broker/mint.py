"""The web-identity token (design step 6) and the name of the role session.

Every claim comes from the grant, the person's two derived names and this run: nothing is copied from an
inbound token, where a claim in Amazon's namespace would become a tag or a role.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Any, Final

from credx.aws_limits import TOKEN_RANGE
from credx.broker.issuance import SHORT
from credx.broker.policy.arn import MAX_TAG_VALUE
from credx.jose import sign_jwt

if TYPE_CHECKING:
    from collections.abc import Mapping

    from credx.broker.person import Person
    from credx.broker.policy.rules import Role
    from credx.jose import Signer
    from credx.model import Grant, Secret

TOKEN_LIFE: Final = 120  # seconds (design step 6); STS adds five minutes of its own

ROLES: Final = "https://aws.amazon.com/roles"
SOURCE_IDENTITY: Final = "https://aws.amazon.com/source_identity"
TAGS: Final = "https://aws.amazon.com/tags"

MAX_SUBJECT: Final = 255  # STS AssumeRoleWithWebIdentity, SubjectFromWebIdentityToken
MAX_TAGS: Final = 50  # IAM User Guide, session tags
MAX_TAG_KEY: Final = 128
MAX_SESSION_NAME: Final = 64  # STS RoleSessionName

# RFC 8176. «pop» and not «hwk»: without attestation nobody knows where a passkey lives, but possession of the
# key was proved. «user» is the presence test, which the broker always demands. «mfa»: the ID token came first.
# A workload proved nothing beyond its ID token, so it has no amr at all.
AMR: Final[Mapping[str, tuple[str, ...]]] = {
    "webauthn": ("pop", "user", "mfa"),
    "totp": ("otp", "mfa"),
    "workload": (),
}

_IDENTITY = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)  # STS SourceIdentity and RoleSessionName
_ISSUANCE = re.compile(r"[A-Za-z0-9_-]{12,64}")
_JTI = re.compile(r"[\x21-\x7e]{16,128}")
_TAG_SIGNS = "_.:/=+-@"  # STS Tag: [\p{L}\p{Z}\p{N}_.:/=+\-@]


def web_identity_token(
    grant: Grant,
    person: Person,
    *,
    issuance: str,
    jti: str,
    factor_kind: str,
    issuer: str,
    signer: Signer,
    now: float,
) -> Secret:
    """The one token that AWS trusts: good for one role of one account, for two minutes.

    ``factor_kind`` is what was proved (``webauthn``, ``totp`` or ``workload``), ``issuer`` the address of the
    IAM OIDC provider, ``now`` in seconds since 1970.

    Raises:
        ValueError: STS would refuse or misread the token; a fault of the program or of the policy's checks.
    """
    if factor_kind not in grant.factors:
        raise ValueError("the role does not accept this kind of factor")
    if not _JTI.fullmatch(jti):
        raise ValueError("a jti of 16 to 128 printable characters is needed")
    issued_at = int(now)  # STS refuses fractions
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": _subject(grant, person),
        "aud": audience(grant),
        "iat": issued_at,
        "exp": issued_at + TOKEN_LIFE,
        "jti": jti,
        # STS refuses any other role before it looks at the trust policy
        ROLES: [_role_arn(grant)],
        SOURCE_IDENTITY: _identity(person),
        TAGS: {
            "principal_tags": {
                key: [value] for key, value in _principal_tags(grant, issuance, factor_kind).items()
            },
            # through role chaining too, CloudTrail shows which issuance it was
            "transitive_tag_keys": ["credx-issuance"],
        },
    }
    if AMR[factor_kind]:
        claims["amr"] = list(AMR[factor_kind])
    token = sign_jwt(claims, signer=signer)
    if len(token.reveal()) > TOKEN_RANGE[1]:
        raise ValueError("the token is longer than STS reads")
    return token


def audience(where: Grant | Role) -> str:
    """A client id of the IAM OIDC provider: a token for one account is worthless in another (design, step 6)."""
    return f"credx:{where.partition}:{where.account}"


def session_name(person: Person, issuance: str) -> str:
    """RoleSessionName: the readable user, cut where needed, and the end of the issuance id, which is random."""
    short = _issuance(issuance)[-SHORT:]
    return f"{_identity(person)[: MAX_SESSION_NAME - len(short) - 1]}-{short}"


def _subject(grant: Grant, person: Person) -> str:
    subject = f"role:{grant.role}:user:{_identity(person)}"
    if len(subject) > MAX_SUBJECT:
        raise ValueError("the subject is too long")
    return subject


def _role_arn(grant: Grant) -> str:
    prefix = f"arn:{grant.partition}:iam::{grant.account}:role/"
    # STS also reads a semicolon list: one ARN must not be able to become two
    if not grant.role_arn.startswith(prefix) or re.search(r"[;,*\s]", grant.role_arn):
        raise ValueError("the role's ARN is not of the grant's account")
    return grant.role_arn


def _identity(person: Person) -> str:
    if not _IDENTITY.fullmatch(person.user):
        raise ValueError("the user's name does not fit a source identity")
    return person.user


def _issuance(issuance: str) -> str:
    if not _ISSUANCE.fullmatch(issuance):
        raise ValueError("the issuance id is not well formed")
    return issuance


def _principal_tags(grant: Grant, issuance: str, factor_kind: str) -> dict[str, str]:
    own = {"credx-role": grant.role, "credx-factor": factor_kind, "credx-issuance": _issuance(issuance)}
    if grant.target is not None:
        own["credx-target"] = grant.target
    tags = {**grant.tags, **own}
    reserved = {*own, "credx-target"}  # no scope speaks for the target of an issuance that has none
    if any(key.lower() in reserved for key in grant.tags):
        raise ValueError("a scope's tag has a name that is credx's own")
    if len(tags) > MAX_TAGS or len({key.lower() for key in tags}) != len(tags):  # AWS folds case
        raise ValueError("too many tags, or two that differ in case only")
    for key, value in tags.items():
        if not _tag_text(key, MAX_TAG_KEY) or not _tag_text(value, MAX_TAG_VALUE):
            raise ValueError(f"the tag {key[:MAX_TAG_KEY]!r} is outside of what STS takes")
        if key.lower().startswith("aws:"):
            raise ValueError("a tag must not begin with aws:")
    return tags


def _tag_text(text: str, limit: int) -> bool:
    """Not empty either: an empty tag would match a policy variable that nobody meant."""
    return 1 <= len(text) <= limit and all(
        char in _TAG_SIGNS or unicodedata.category(char)[0] in "LZN" for char in text
    )
