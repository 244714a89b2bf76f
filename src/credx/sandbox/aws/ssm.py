"""The Session Manager calls that moto lacks, answered after authorisation. No agent is connected anywhere."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from credx.sandbox.aws.faults import AwsFault
from credx.sandbox.aws.wire import Response

if TYPE_CHECKING:
    from credx.sandbox.aws.actions import Operation
    from credx.sandbox.aws.moto_backend import Moto


def session_manager(asked: Operation, *, moto: Moto, region: str) -> Response | None:
    """Answer one of the calls, or None when moto should.

    Raises:
        AwsFault: TargetNotConnected and DoesNotExistException, as the SSM API has them.
    """
    match asked.action:
        case "ssm:StartSession":
            target = asked.parameters.get("Target")
            raise AwsFault("TargetNotConnected", 400, f"{target} is not connected.")
        case "ssm:ResumeSession" | "ssm:TerminateSession":
            raise AwsFault("DoesNotExistException", 400, "Session does not exist")
        case "ssm:GetConnectionStatus":
            return _json({"Target": asked.parameters.get("Target"), "Status": "notconnected"})
        case "ssm:DescribeSessions":
            return _json({"Sessions": []})
        case "ssm:DescribeInstanceInformation":
            return _instances(asked, moto, region)
    return None


def _instances(asked: Operation, moto: Moto, region: str) -> Response:
    if set(asked.parameters) - {"MaxResults"}:
        message = "filters and pages of DescribeInstanceInformation are not part of this sandbox"
        raise AwsFault("NotImplemented", 501, message)
    running = [name for name, (state, _) in moto.instances(region).items() if state == "running"]
    entries = [
        {
            "InstanceId": name,
            "PingStatus": "ConnectionLost",
            "PlatformType": "Linux",
            "ResourceType": "EC2Instance",
        }
        for name in running
    ]
    return _json({"InstanceInformationList": entries})


def _json(body: dict[str, Any]) -> Response:
    return Response(200, (("Content-Type", "application/x-amz-json-1.1"),), json.dumps(body).encode())
