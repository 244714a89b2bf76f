"""What the broker tells everybody: its keys and issuer (for STS), and its configuration (for ``credx init``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import credx
from credx.protocol import JWKS_PATH, TOKEN_PATH

if TYPE_CHECKING:
    from credx.broker.policy.rules import Policy
    from credx.jose import Signer


def discovery(policy: Policy) -> dict[str, Any]:
    """What STS reads of OpenID Connect Discovery; there is nothing to sign in to here."""
    return {
        "issuer": policy.broker.issuer,
        "jwks_uri": policy.broker.issuer.rstrip("/") + JWKS_PATH,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "jti", "amr"],
    }


def keys(signer: Signer) -> dict[str, Any]:
    return {"keys": [signer.public_jwk()]}


def configuration(policy: Policy) -> dict[str, Any]:
    """People's identity providers first: a client that knows no better takes the first."""
    rules = sorted(policy.issuers.values(), key=lambda rule: rule.workloads)
    return {
        "issuer": policy.broker.issuer,
        "broker": policy.broker.url,
        "token_endpoint": policy.broker.url.rstrip("/") + TOKEN_PATH,
        "identity_providers": [
            {"issuer": r.trusted.issuer, "client_id": r.trusted.audience, "scopes": list(r.scopes)}
            for r in rules
        ],
        "webauthn": {"rp_id": policy.broker.rp_id},
        "regions": sorted({role.region for role in policy.roles.values()}),
        "version": credx.__version__,
    }
