"""moto's DynamoDB on loopback, with what it lacks: one write at a time, and answers that are given twice.

moto makes a transaction by copying the table, and takes the copy back where an item is refused: two at once undo
each other, so a lock stands in front. It does not know ``ClientRequestToken`` either: the gate remembers the answer of
a transaction that was made, as DynamoDB does for ten minutes.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
from typing import TYPE_CHECKING, Any, Self

import boto3
from moto.moto_server.werkzeug_app import (
    DomainDispatcherApplication,
    MotoRequestHandler,
    create_backend_app,
)
from werkzeug.serving import make_server

from credx.broker.stores import dynamodb_calls
from credx.broker.stores.dynamodb import DynamoStore, Table, create_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}


class Gate:
    """In front of moto. ``trouble(operation, body)`` may return (status, code) to answer instead of moto."""

    def __init__(self) -> None:
        self.trouble: Callable[[str, dict[str, Any]], tuple[int, str] | None] = lambda *_: None
        self.after: Callable[[str, dict[str, Any]], tuple[int, str] | None] = lambda *_: None  # it was done
        self.asked: list[str] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._made: dict[str, tuple[str, Any, bytes]] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        raw = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        body = json.loads(raw or b"{}") if operation else {}
        self.asked.append(operation)
        if trouble := self.trouble(operation, body):
            return refuse(start_response, *trouble)
        token = body.get("ClientRequestToken", "")
        with self._lock:
            if token not in self._made:
                answer = self._answer(environ, raw)
                if token and answer[0].startswith("200"):
                    self._made[token] = answer
            else:
                answer = self._made[token]
        if trouble := self.after(operation, body):
            return refuse(start_response, *trouble)
        status, headers, content = answer
        start_response(status, headers)
        return [content]

    def _answer(self, environ: dict[str, Any], raw: bytes) -> tuple[str, Any, bytes]:
        told: list[Any] = []
        environ["wsgi.input"] = io.BytesIO(raw)
        chunks = self._app(environ, lambda status, headers, *_: told.append((status, headers)))
        content = b"".join(chunks)
        return (*told[0], content)


def refuse(start_response: Any, status: int, code: str) -> list[bytes]:
    error: dict[str, Any] = {
        "__type": f"com.amazonaws.dynamodb.v20120810#{code.partition(' ')[0]}",
        "message": "no",
    }
    if code.startswith("TransactionCanceledException "):
        error["CancellationReasons"] = [{"Code": reason} for reason in code.split()[1:]]
    start_response(f"{status} no", [("Content-Type", "application/x-amz-json-1.0")])
    return [json.dumps(error).encode()]


class Quiet(MotoRequestHandler):
    def log_request(self, *_: object) -> None:
        pass


class Dynamo:
    """The server; ``with Dynamo() as dynamo: store = dynamo.new()``."""

    def __init__(self, port: int = 0) -> None:
        self._port = port

    def __enter__(self) -> Self:
        self.gate = Gate()
        self._server = make_server("127.0.0.1", self._port, self.gate, threaded=True, request_handler=Quiet)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True)
        self._thread.start()
        self.client = boto3.client("dynamodb", region_name=REGION, endpoint_url=self.endpoint, **KEYS)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def table(self, name: str) -> Table:
        return Table(name, REGION, self.endpoint)

    def new(self) -> DynamoStore:
        """A store in a table of its own. The environment must have credentials, see ``set_credentials``."""
        name = f"credx-{secrets.token_hex(4)}"  # moto's tables are the process's
        create_table(self.client, name)
        return DynamoStore(self.table(name))


def set_credentials(monkeypatch: Any) -> None:
    """And patience: a DynamoDB in Python on a busy machine is slower than the real one."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name.upper(), value)
    be_patient(monkeypatch.setattr)


def be_patient(setattr_: Callable[[Any, str, Any], object] = setattr) -> None:
    for name in ("CONNECT_TIMEOUT", "READ_TIMEOUT", "BUDGET"):
        setattr_(dynamodb_calls, name, 60.0)
