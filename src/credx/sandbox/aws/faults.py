"""AWS errors: the code and status each protocol uses for the same mishap, and its way to write them down."""

from __future__ import annotations

import enum
import json
import uuid
from typing import Final
from xml.sax.saxutils import escape

from credx.sandbox.aws.wire import Response

NAMESPACES: Final = {
    "sts": "https://sts.amazonaws.com/doc/2011-06-15/",
    "iam": "https://iam.amazonaws.com/doc/2010-05-08/",
}


class Mishap(enum.Enum):
    UNSIGNED = enum.auto()
    INCOMPLETE = enum.auto()
    UNKNOWN_KEY = enum.auto()
    BAD_TOKEN = enum.auto()
    BAD_SIGNATURE = enum.auto()
    SKEWED = enum.auto()
    EXPIRED = enum.auto()
    DENIED = enum.auto()
    MALFORMED = enum.auto()
    NOT_BUILT = enum.auto()  # not an answer of AWS: the sandbox says what it cannot do


_QUERY: Final[dict[Mishap, tuple[str, int]]] = {
    Mishap.UNSIGNED: ("MissingAuthenticationToken", 403),
    Mishap.INCOMPLETE: ("IncompleteSignature", 400),
    Mishap.UNKNOWN_KEY: ("InvalidClientTokenId", 403),
    Mishap.BAD_TOKEN: ("InvalidClientTokenId", 403),
    Mishap.BAD_SIGNATURE: ("SignatureDoesNotMatch", 403),
    Mishap.SKEWED: ("SignatureDoesNotMatch", 403),
    Mishap.EXPIRED: ("ExpiredToken", 403),
    Mishap.DENIED: ("AccessDenied", 403),
    Mishap.MALFORMED: ("MalformedInput", 400),
    Mishap.NOT_BUILT: ("NotImplemented", 501),
}
_EC2: Final = _QUERY | {
    Mishap.UNSIGNED: ("AuthFailure", 401),
    Mishap.INCOMPLETE: ("AuthFailure", 401),
    Mishap.UNKNOWN_KEY: ("AuthFailure", 401),
    Mishap.BAD_TOKEN: ("AuthFailure", 401),
    Mishap.BAD_SIGNATURE: ("AuthFailure", 401),
    Mishap.SKEWED: ("RequestExpired", 400),
    Mishap.EXPIRED: ("RequestExpired", 400),
    Mishap.DENIED: ("UnauthorizedOperation", 403),
    Mishap.MALFORMED: ("MalformedQueryString", 400),
}
_S3: Final = _QUERY | {
    Mishap.UNSIGNED: ("AccessDenied", 403),
    Mishap.INCOMPLETE: ("AuthorizationHeaderMalformed", 400),
    Mishap.UNKNOWN_KEY: ("InvalidAccessKeyId", 403),
    Mishap.BAD_TOKEN: ("InvalidToken", 400),
    Mishap.SKEWED: ("RequestTimeTooSkewed", 403),
    Mishap.EXPIRED: ("ExpiredToken", 400),
    Mishap.MALFORMED: ("InvalidURI", 400),
}
_JSON: Final = _QUERY | {
    Mishap.UNSIGNED: ("MissingAuthenticationTokenException", 400),
    Mishap.INCOMPLETE: ("IncompleteSignatureException", 400),
    Mishap.UNKNOWN_KEY: ("UnrecognizedClientException", 400),
    Mishap.BAD_TOKEN: ("UnrecognizedClientException", 400),
    Mishap.BAD_SIGNATURE: ("InvalidSignatureException", 400),
    Mishap.SKEWED: ("InvalidSignatureException", 400),
    Mishap.EXPIRED: ("ExpiredTokenException", 400),
    Mishap.DENIED: ("AccessDeniedException", 400),
    Mishap.MALFORMED: ("SerializationException", 400),
}
_CODES: Final = {"ec2": _EC2, "s3": _S3, "ssm": _JSON, "ssmmessages": _JSON}
_TEXTS: Final = {
    Mishap.UNSIGNED: "Request is missing Authentication Token",
    Mishap.UNKNOWN_KEY: "The security token included in the request is invalid.",
    Mishap.BAD_TOKEN: "The security token included in the request is invalid.",
    Mishap.BAD_SIGNATURE: (
        "The request signature we calculated does not match the signature you provided."
        " Check your AWS Secret Access Key and signing method."
    ),
    Mishap.SKEWED: "Signature expired or not yet current: the clocks differ by more than 15 minutes",
    Mishap.EXPIRED: "The security token included in the request is expired",
}


class AwsFault(Exception):  # noqa: N818 -- an answer on the wire, not an error of the sandbox
    """A refusal as a service words it.

    Args:
        code: the error code of the service.
        status: HTTP.
        message: for the caller.
        detail: for the sandbox's own log.
    """

    def __init__(self, code: str, status: int, message: str, *, detail: str = "") -> None:
        super().__init__(code)
        self.code = code
        self.status = status
        self.message = message
        self.detail = detail or message


def fault(service: str, mishap: Mishap, message: str = "", *, detail: str = "") -> AwsFault:
    """The fault that ``service`` would answer for a mishap."""
    code, status = _CODES.get(service, _QUERY)[mishap]
    return AwsFault(code, status, message or _TEXTS.get(mishap, code), detail=detail)


def render(service: str, found: AwsFault) -> Response:
    """Write a fault in the service's protocol: query XML, EC2 XML, S3 XML or JSON 1.1."""
    request_id = str(uuid.uuid4())
    shown = "".join(c if c.isprintable() else "?" for c in found.message)  # XML takes no control character
    code, message = escape(found.code), escape(shown)
    error = f"<Code>{code}</Code><Message>{message}</Message>"
    if service in ("ssm", "ssmmessages"):
        body = json.dumps({"__type": found.code, "message": found.message, "Message": found.message})
        headers = (("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", request_id))
        return Response(found.status, headers, body.encode())
    if service == "s3":
        body = f"<Error>{error}<RequestId>{request_id}</RequestId></Error>"
    elif service == "ec2":
        body = (
            f"<Response><Errors><Error>{error}</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    else:
        kind = "Sender" if found.status < 500 else "Receiver"
        body = (
            f'<ErrorResponse xmlns="{NAMESPACES.get(service, NAMESPACES["sts"])}"><Error>'
            f"<Type>{kind}</Type>{error}</Error><RequestId>{request_id}</RequestId></ErrorResponse>"
        )
    return Response(
        found.status, (("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)), body.encode()
    )
