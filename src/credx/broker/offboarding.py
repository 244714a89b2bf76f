"""What ends sessions that AWS has given out already: no broker can, a policy at AWS does.

AWS calls it revoking a role's sessions: deny everything to sessions issued before a moment
(IAM User Guide, «Revoking IAM role temporary security credentials»), here to those of one person.
"""

from __future__ import annotations

import math
from typing import Any, Final

from credx.broker.mint import TOKEN_LIFE
from credx.strict import timestamp

# Seconds after ``exp`` for which STS still takes a token. AWS documents them (IAM User Guide, «Create a role
# for OpenID Connect federation»); so a token minted just before the person was disabled still opens a session.
STS_LEEWAY: Final = 300


def ends_at(now: float) -> int:
    """Sessions issued before this moment, in seconds since 1970, may come of a token that exists at ``now``."""
    return math.ceil(now) + TOKEN_LIFE + STS_LEEWAY


def deny_policy(user_hash: str, *, now: float) -> dict[str, Any]:
    """An IAM policy that kills one person's sessions of the roles that it is attached to.

    The source identity is told by its end: the readable part in front of the hash is a claim and may change.
    """
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": f"CredxRevoke{user_hash}",
                "Effect": "Deny",
                "Action": "*",
                "Resource": "*",
                "Condition": {
                    "StringLike": {"aws:SourceIdentity": f"*-{user_hash}"},
                    "DateLessThan": {"aws:TokenIssueTime": timestamp(ends_at(now))},
                },
            }
        ],
    }


def policy_name(user_hash: str) -> str:
    return f"credx-revoke-{user_hash}"
