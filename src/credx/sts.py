"""The exchange: a web-identity token for credentials at AWS STS. Client and broker make the same call.

The call is unsigned, so no credential of this machine is looked for, and what is asked is only what the
arguments say: endpoint variables, profiles and the shared files of the AWS CLI have no say.
"""

from __future__ import annotations

import functools
import os
import re
from typing import TYPE_CHECKING, Any, Final

from credx import __version__
from credx.aws_client import detached_session, transport
from credx.aws_limits import DURATION_RANGE, MAX_SESSION_POLICY, REGION, TOKEN_RANGE
from credx.errors import AwsRefusedError, ConfigError, CredxError, UnavailableError
from credx.model import AwsCredentials, Secret
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT: Final = 5  # seconds
READ_TIMEOUT: Final = 15  # seconds; STS may fetch the broker's keys meanwhile
ATTEMPTS: Final = 3  # for IDPCommunicationError, throttling and lost connections
MAX_MESSAGE: Final = 500  # characters of AWS's own words that are passed on

_ROLE = re.compile(r"arn:(aws[a-z-]*):iam::([0-9]{12}):role/(?:[!-.0-~]+/)*([A-Za-z0-9_+=,.@-]{1,64})")
_SESSION_NAME = re.compile(r"[A-Za-z0-9_+=,.@-]{2,64}")  # STS API; botocore checks the length alone
_POLICY = re.compile(r"[\t\n\r\u0020-\u00ff]+")
_UNPRINTABLE = re.compile(r"[^ -~]")  # AWS speaks ASCII
_JWT = re.compile(r"eyJ[A-Za-z0-9_-]*\.[A-Za-z0-9_.-]*")

_HINTS: Final[Mapping[str, str]] = {
    "ExpiredTokenException": "run the command again: a new proof makes a new token",
    "InvalidIdentityToken": "tell the broker's administrators: AWS must know the broker's address, audience and keys",
    "IDPCommunicationError": "AWS could not fetch the broker's keys; try again in a minute",
    "IDPRejectedClaim": "tell the broker's administrators",
    "MalformedPolicyDocument": "tell the broker's administrators: credx broker check names the scope",
    "PackedPolicyTooLarge": "ask for fewer scopes or targets at once",
    "RegionDisabledException": "--region with a region that is switched on in that account",
    "AccessDenied": "the role's trust policy does not let the broker in, or lacks sts:TagSession or"
    " sts:SetSourceIdentity; docs/broker.md shows one",
    "ValidationError": "ask for a shorter --duration: the role in AWS may allow less than the broker's policy",
}


def assume_role_with_web_identity(
    *,
    token: Secret,
    role_arn: str,
    session_name: str,
    duration: int,
    policy: str | None,
    region: str,
    endpoint: str | None,
    ca_file: str | None = None,
) -> AwsCredentials:
    """Exchange a token.

    Args:
        token: the broker's JWT. It is in no error, whatever AWS or botocore says.
        role_arn: of the role that the token is pinned to; the answer must be of this one.
        session_name: RoleSessionName, as the broker made it.
        duration: seconds.
        policy: inline session policy as JSON, or None.
        region: whose STS is called; the credentials are for it.
        endpoint: instead of the region's own; https, or http on a loopback host.
        ca_file: PEM bundle beside the system's trust store; without it ``AWS_CA_BUNDLE``, if set.

    Raises:
        AwsRefusedError: AWS said no, gave credentials of another role, or an argument is one AWS would refuse.
        UnavailableError: no answer, or one that is not understood.
        ConfigError: ``endpoint`` is not permitted.
    """
    parameters: dict[str, Any] = {
        "RoleArn": role_arn,
        "RoleSessionName": session_name,
        "DurationSeconds": duration,
        "WebIdentityToken": token.reveal(),
    }
    if policy is not None:
        parameters["Policy"] = policy
    _check(parameters, region, endpoint)
    answer = _call(parameters, region, endpoint, ca_file, token)
    if isinstance(answer, CredxError):
        # raised here, outside the handler: a botocore error would ride along as __context__, and some of
        # them hold the request with the token in it
        raise answer
    return _credentials(answer, role_arn, region)


def names_role(arn: str) -> bool:
    """Whether it is the ARN of one role, whole."""
    return _ROLE.fullmatch(arn) is not None


def names_region(region: str) -> bool:
    """Whether it looks as a region does: tools make host names of it."""
    return REGION.fullmatch(region) is not None


def _check(parameters: Mapping[str, Any], region: str, endpoint: str | None) -> None:
    if endpoint is not None and not permitted_url(endpoint):
        raise ConfigError("the STS endpoint must be https, or http on a loopback host", hint="credx init URL")
    good = {
        "role ARN": _ROLE.fullmatch(parameters["RoleArn"]),
        "session name": _SESSION_NAME.fullmatch(parameters["RoleSessionName"]),
        "duration": DURATION_RANGE[0] <= parameters["DurationSeconds"] <= DURATION_RANGE[1],
        "token": TOKEN_RANGE[0] <= len(parameters["WebIdentityToken"]) <= TOKEN_RANGE[1],
        "region": REGION.fullmatch(region),
    }
    if "Policy" in parameters:
        good["session policy"] = len(parameters["Policy"]) <= MAX_SESSION_POLICY and _POLICY.fullmatch(
            parameters["Policy"]
        )
    for name, fine in good.items():
        if not fine:
            raise AwsRefusedError(
                f"the {name} is not one that AWS takes",
                code="ValidationError",
                hint="check --region and --duration: credx roles",
            )


def _call(
    parameters: Mapping[str, Any], region: str, endpoint: str | None, ca_file: str | None, token: Secret
) -> dict[str, Any] | CredxError:
    """The answer of STS, or the error to raise."""
    # imported here: a warm `credx process` must not pay 200 ms for a call that it does not make
    from botocore.exceptions import ClientError  # noqa: PLC0415

    try:
        answer: dict[str, Any] = _client(
            region, endpoint, ca_file or os.environ.get("AWS_CA_BUNDLE")
        ).assume_role_with_web_identity(**parameters)
    except ClientError as exc:
        return _refused(exc.response, token)
    except Exception as exc:  # noqa: BLE001 -- botocore's parsers raise what the answer makes them raise
        return UnavailableError(
            f"AWS STS in {region} cannot be reached ({type(exc).__name__})",
            hint="check the network, the proxy and --region",
        )
    return answer


@functools.lru_cache(
    maxsize=16
)  # 100 ms each; botocore's clients serve threads, and this one holds no secret
def _client(region: str, endpoint: str | None, ca_file: str | None) -> Any:
    from botocore import UNSIGNED  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    client: Any = detached_session().create_client(
        "sts",
        region_name=region,
        endpoint_url=endpoint,
        config=Config(
            signature_version=UNSIGNED,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            ignore_configured_endpoint_urls=True,  # type: ignore[call-arg]  # stubs lag
            use_fips_endpoint=False,
            use_dualstack_endpoint=False,
            user_agent_extra=f"credx/{__version__}",
        ),
    )
    client._endpoint.http_session = transport(  # noqa: SLF001 -- no other seam
        client.meta.endpoint_url, ca_file=ca_file, timeouts=(CONNECT_TIMEOUT, READ_TIMEOUT)
    )
    return client


def _refused(response: Mapping[str, Any], token: Secret) -> CredxError:
    error = response.get("Error", {})
    code = str(error.get("Code", ""))
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500 or not re.fullmatch(r"[A-Za-z.]{1,64}", code):
        return UnavailableError(
            f"AWS STS does not work just now (HTTP {status})", hint="try again in a minute"
        )
    text = str(error.get("Message", "")).replace(token.reveal(), "(token)")
    message = _UNPRINTABLE.sub("?", _JWT.sub("(token)", text))[:MAX_MESSAGE].rstrip(".")
    return AwsRefusedError(f"AWS refused: {code}: {message}", code=code, hint=_HINTS.get(code, "credx roles"))


def _credentials(answer: Mapping[str, Any], role_arn: str, region: str) -> AwsCredentials:
    try:
        given, assumed = answer["Credentials"], str(answer["AssumedRoleUser"]["Arn"])
        credentials = AwsCredentials(
            access_key_id=_text(given["AccessKeyId"]),
            secret_access_key=Secret(_text(given["SecretAccessKey"])),
            session_token=Secret(_text(given["SessionToken"])),
            expiration=int(given["Expiration"].timestamp()),
            account_id=assumed.split(":")[4],
            region=region,
            role_arn=role_arn,
        )
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as exc:
        raise UnavailableError(
            "the answer of AWS STS is not understood", hint="check the network and the proxy"
        ) from exc
    role = _ROLE.fullmatch(role_arn)
    expected = f"arn:{role[1]}:sts::{role[2]}:assumed-role/{role[3]}/" if role else None
    if expected is None or not assumed.startswith(expected):
        raise AwsRefusedError(
            "AWS gave credentials of another role than was asked for",
            code="UnexpectedRole",
            hint="tell the broker's administrators before you try again",
        )
    return credentials


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("no text")
    return value
