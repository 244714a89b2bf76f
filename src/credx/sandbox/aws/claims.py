"""The claims in AWS's own namespace: roles, source identity, session tags (IAM User Guide, session tags)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from credx.sandbox.aws.faults import AwsFault

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMESPACE: Final = "https://aws.amazon.com/"
MAX_TAGS: Final = 50  # STS API, Tag
SOURCE_IDENTITY = re.compile(r"(?!aws:)[A-Za-z0-9_+=,.@-]{2,64}", re.ASCII | re.IGNORECASE)
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[A-Za-z0-9_+=,.@/-]{1,512}", re.ASCII)
_TAG_PUNCTUATION: Final = "_.:/=+-@"


@dataclass(frozen=True, kw_only=True)
class AwsClaims:
    """``roles`` is None when the token does not pin any: then ``sts:RoleAuthorizedByIdp`` is false."""

    roles: frozenset[str] | None
    source_identity: str | None
    tags: Mapping[str, str]
    transitive: tuple[str, ...]


def read_aws_claims(claims: Mapping[str, Any]) -> AwsClaims:
    """Read them all.

    Raises:
        AwsFault: InvalidIdentityToken, for a wrong shape, a limit, or a claim that is not known.
    """
    known = {"roles", "source_identity", "tags", "tags/transitive_tag_keys"}
    for name in claims:
        tail = name.removeprefix(NAMESPACE)
        if tail != name and tail not in known and not tail.startswith("tags/principal_tags/"):
            raise _invalid("the token has a claim in the AWS namespace that is not known")
    tags, transitive = _tags(claims)
    return AwsClaims(
        roles=_roles(claims.get(NAMESPACE + "roles")),
        source_identity=_source_identity(claims.get(NAMESPACE + "source_identity")),
        tags=tags,
        transitive=transitive,
    )


def _invalid(message: str) -> AwsFault:
    return AwsFault("InvalidIdentityToken", 400, message)


def _roles(raw: Any) -> frozenset[str] | None:
    """[OBS]: string, list, or semicolon list of exact ARNs; null is absent; no valid ARN is a refusal."""
    if raw is None:
        return None
    values = raw.split(";") if isinstance(raw, str) else raw
    if not isinstance(values, list):
        raise _invalid("The roles claim of the identity token is invalid")
    return frozenset(v for v in values if isinstance(v, str) and ROLE_ARN.fullmatch(v))


def _source_identity(raw: Any) -> str | None:
    if raw is None:
        return None
    if not isinstance(raw, str) or not SOURCE_IDENTITY.fullmatch(raw):
        raise _invalid("The source identity claim of the identity token is invalid")
    return raw


def _tags(claims: Mapping[str, Any]) -> tuple[dict[str, str], tuple[str, ...]]:
    nested = claims.get(NAMESPACE + "tags", {})
    prefix = NAMESPACE + "tags/principal_tags/"
    flat = {name.removeprefix(prefix): value for name, value in claims.items() if name.startswith(prefix)}
    if not isinstance(nested, dict) or not set(nested) <= {"principal_tags", "transitive_tag_keys"}:
        raise _invalid("The tags claim of the identity token is invalid")
    principal = nested.get("principal_tags", {})
    if not isinstance(principal, dict) or (nested and flat):
        raise _invalid("The tags claim of the identity token is invalid")
    tags = {**{key: _only(value) for key, value in principal.items()}, **flat}
    folded = {key.lower() for key in tags}
    transitive = nested.get("transitive_tag_keys", claims.get(NAMESPACE + "tags/transitive_tag_keys", []))
    if len(tags) > MAX_TAGS or len(folded) != len(tags) or not all(_good_tag(k, v) for k, v in tags.items()):
        raise _invalid("The tags claim of the identity token breaks a rule for session tags")
    if not isinstance(transitive, list) or not all(isinstance(t, str) for t in transitive):
        raise _invalid("The transitive tag keys of the identity token are invalid")
    if not {t.lower() for t in transitive} <= folded:
        raise _invalid("A transitive tag key names no session tag")
    return tags, tuple(transitive)


def _only(value: Any) -> Any:
    """The nested form wants a list of exactly one string."""
    return value[0] if isinstance(value, list) and len(value) == 1 else None


def _good_tag(key: str, value: Any) -> bool:
    """STS API, Tag: 1-128 and 0-256 characters of letters, separators, numbers and ``_.:/=+-@``."""
    if not isinstance(value, str) or not 1 <= len(key) <= 128 or len(value) > 256:
        return False
    return not key.lower().startswith("aws:") and all(
        c.isalpha() or c.isnumeric() or c == " " or c in _TAG_PUNCTUATION for c in key + value
    )
