"""ARNs as values: parsed whole or not at all, and matched field by field."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from credx.protocol import MAX_ARN

MAX_TAG_VALUE: Final = 256  # STS session tags; the last part of an ARN becomes the tag credx-target

# No space, quote, wildcard or ${...} gets through: an asked ARN is written into an IAM policy.
_ARN = re.compile(
    r"arn:(?P<partition>aws[a-z-]{0,20}):(?P<service>[a-z0-9-]{1,63}):(?P<region>[a-z0-9-]{0,32})"
    r":(?P<account>[0-9]{12}|):(?P<resource>[A-Za-z0-9_][A-Za-z0-9_.:/=+@-]*)",
    re.ASCII,
)
# IAM takes a comma in a name; the mint signs none, where one ARN could be read as two
_ROLE = re.compile(
    r"arn:(aws[a-z-]{0,20}):iam::([0-9]{12}):role/(?:[A-Za-z0-9_+=.@-]+/)*([A-Za-z0-9_+=.@-]{1,64})"
)
_PATTERN = re.compile(
    r"arn:[a-z-]+:[a-z0-9-]+:(?:[a-z0-9-]*|\*):[0-9]{12}:[A-Za-z0-9_.:/=+@*-]+", re.ASCII
)  # partition and account are the role's own and stand for themselves

_LONG_REGION = "ap-southeast-1"
_LONG_IDS = {"instance": 19, "managed-instance": 20}  # i-, mi- and 17 hex digits
_LONG_NAME = 32  # such as the id of an ECS task


class Arn(NamedTuple):
    partition: str
    service: str
    region: str
    account: str
    resource: str

    @property
    def last(self) -> str:
        """What follows the last ``/`` or ``:``, such as an instance id."""
        return _last(self.resource)


class RoleArn(NamedTuple):
    partition: str
    account: str
    name: str


def parse_arn(text: str) -> Arn | None:
    """The ARN of one existing thing: no wildcard, no variable, nothing empty at its end."""
    found = _ARN.fullmatch(text) if len(text) <= MAX_ARN else None
    if found is None:
        return None
    arn = Arn(**found.groupdict())
    return arn if 0 < len(arn.last) <= MAX_TAG_VALUE else None


def parse_role_arn(text: str) -> RoleArn | None:
    found = _ROLE.fullmatch(text) if len(text) <= MAX_ARN else None
    return RoleArn(*found.groups()) if found else None


def is_pattern(text: str) -> bool:
    """An ARN of which region and resource may hold ``*``."""
    return len(text) <= MAX_ARN and _PATTERN.fullmatch(text) is not None


def matches(pattern: str, text: str) -> bool:
    """Whether the ARN ``text`` is ``pattern``, ``*`` standing for any run of characters within one field.

    Both are cut at the first five colons, so that a ``*`` never reaches from a region into an account; the
    resource is the rest. The last part of the resource is matched by the last part of the pattern as well: it
    becomes the tag ``credx-target``, and ``db:dev-*`` must not let through ``db:dev-x:prod``, whose tag is prod.
    """
    wanted, given = pattern.split(":", 5), text.split(":", 5)
    return (
        len(wanted) == len(given)
        and all(map(glob, wanted, given))
        and glob(_last(wanted[-1]), _last(given[-1]))
    )


def long_example(pattern: str) -> str:
    """An ARN of this pattern that is about as long as one gets."""
    *head, region, account, resource = pattern.split(":", 5)
    name = "x" * _LONG_IDS.get(resource.split("/")[0], _LONG_NAME)
    return ":".join([*head, region.replace("*", _LONG_REGION), account, resource.replace("*", name)])


def _last(resource: str) -> str:
    return re.split("[/:]", resource)[-1]


def glob(pattern: str, text: str) -> bool:
    """The whole of ``text`` is ``pattern``, ``*`` standing for any run of characters; nothing else is special."""
    first, *rest = map(re.escape, pattern.split("*"))
    if not rest:
        return pattern == text
    *middle, last = rest
    # atomic groups: the leftmost place for a part is as good as any, so nothing is ever tried twice
    between = "".join(f"(?>.*?{part})" for part in middle)
    return re.fullmatch(f"{first}{between}.*{last}", text, re.DOTALL) is not None
