"""A corporate identity provider on loopback: OpenID Connect, authorization code with PKCE, one click.

It enforces what a good provider enforces, so that a client fault shows here and not at the customer's.
Its knobs make it slow, absent, early or late.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from authlib.oauth2.rfc6749 import OAuth2Error
from flask import Flask, Response, jsonify, make_response, request
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from credx.sandbox import idp_page
from credx.sandbox.idp_grants import (
    SCOPES,
    Client,
    Ledger,
    LoginRequiredError,
    Server,
    SignIn,
)
from credx.sandbox.idp_tokens import PEOPLE, Person, SigningKey, compact, payload_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from flask.typing import ResponseReturnValue

CLIENT_ID: Final = "credx-cli"
MAX_BODY: Final = 64 * 1024  # bytes
COOKIE: Final = "credx_sandbox_idp"


@dataclass(frozen=True, kw_only=True)
class Authentication:
    """Who clicked, and when. ``auth_time`` in seconds since 1970."""

    person: Person
    auth_time: int


class Idp:
    """The provider.

    Knobs, to be turned while it runs: ``token_lifetime`` and ``refresh_lifetime`` (seconds),
    ``clock_offset`` (seconds added to its clock), ``down`` (every answer is 503), ``slow`` (seconds before
    every answer), ``extra_claims`` (for every ID token; None as a value leaves a claim out).
    """

    client_id = CLIENT_ID

    def __init__(self, *, people: Sequence[Person] = PEOPLE, now: Callable[[], float] = time.time) -> None:
        self.people = {person.username: person for person in people}
        self.token_lifetime = 3600
        self.refresh_lifetime = 8 * 3600
        self.clock_offset = 0.0
        self.down = False
        self.slow = 0.0
        self.extra_claims: dict[str, Any] = {}
        self.issuer = ""
        self._now = now
        self._key: SigningKey | None = None
        self._old_keys: list[SigningKey] = []
        self._sessions: dict[str, Authentication] = {}
        self._csrf_key = secrets.token_bytes(32)
        self._server: BaseWSGIServer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def start(self) -> None:
        """Listen on a free loopback port. ``issuer`` is known afterwards."""
        self._key = SigningKey()
        self._server = make_server("127.0.0.1", 0, self._app(), threaded=True, request_handler=_Quiet)
        # localhost and not 127.0.0.1: WebAuthn and cookies know names only
        self.issuer = f"http://localhost:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def now(self) -> float:
        return self._now() + self.clock_offset

    @property
    def key(self) -> SigningKey:
        if self._key is None:
            raise RuntimeError("the identity provider has not been started")
        return self._key

    def rotate_key(self, *, keep_old: bool = True) -> None:
        """Sign with a new key from now on; the old ones stay in the key set, or not."""
        self._old_keys = [self.key, *self._old_keys] if keep_old else []
        self._key = SigningKey()

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        return {"keys": [key.jwk for key in (self.key, *self._old_keys)]}

    def id_token_for(
        self,
        username: str,
        *,
        scope: str = "openid profile email",
        nonce: str | None = None,
        auth_time: float | None = None,
        claims: Mapping[str, Any] | None = None,
        headers: Mapping[str, Any] | None = None,
        algorithm: str = "RS256",
        key: Any = None,
        payload: bytes | None = None,
        **more_claims: Any,
    ) -> str:
        """An ID token without a ceremony; without arguments a good one.

        ``claims`` and further keyword arguments are put over the good claims (``issuer``, ``audience`` and
        ``subject`` are other spellings of three of them), ``headers`` over the good header; None leaves a
        member out. ``key`` signs instead of the provider's own: what pyjwt's ``algorithm`` signs with.
        ``payload`` stands in the place of all claims.
        """
        now = int(self.now())
        spellings = {"issuer": "iss", "audience": "aud", "subject": "sub"}
        over = {spellings.get(name, name): value for name, value in more_claims.items()}
        made: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.client_id,
            "iat": now,
            "exp": now + self.token_lifetime,
            "auth_time": now if auth_time is None else int(auth_time),
            "nonce": nonce,
            "amr": list(self.people[username].amr),
            "sid": secrets.token_hex(8),
            **self.people[username].claims(scope),
            **self.extra_claims,
            **(claims or {}),
            **over,
        }
        header = {"alg": algorithm, "typ": "JWT", "kid": self.key.kid, **(headers or {})}
        body = payload_of(_without_none(made)) if payload is None else payload
        return compact(_without_none(header), body, algorithm=algorithm, key=key or self.key.private)

    def _id_token(self, sign_in: SignIn, refreshed: bool) -> str:
        return self.id_token_for(
            sign_in.person.username,
            scope=sign_in.scope,
            nonce=None if refreshed else sign_in.nonce,  # OpenID Connect Core 12.2
            auth_time=sign_in.auth_time,
        )

    def _app(self) -> Flask:
        app = Flask("credx.sandbox.idp", static_folder=None)
        app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
        self._oauth = Server(
            app,
            client=Client(client_id=self.client_id),
            ledger=Ledger(self.now),
            id_token=self._id_token,
            refresh_lifetime=lambda: self.refresh_lifetime,
        )
        app.before_request(self._trouble)
        app.add_url_rule("/.well-known/openid-configuration", "discovery", self._discovery)
        app.add_url_rule("/jwks.json", "jwks", lambda: jsonify(self.jwks()))
        app.add_url_rule("/authorize", "authorize", self._authorize, methods=["GET", "POST"])
        app.add_url_rule("/token", "token", self._oauth.create_token_response, methods=["POST"])
        app.add_url_rule("/revoke", "revoke", self._revoke, methods=["POST"])
        return app

    def _trouble(self) -> ResponseReturnValue | None:
        if self.slow:
            self._stopping.wait(self.slow)
        if self.down:
            return jsonify(error="temporarily_unavailable"), 503
        return None

    def _discovery(self) -> Response:
        return jsonify(
            issuer=self.issuer,
            authorization_endpoint=f"{self.issuer}/authorize",
            token_endpoint=f"{self.issuer}/token",
            revocation_endpoint=f"{self.issuer}/revoke",
            jwks_uri=f"{self.issuer}/jwks.json",
            response_types_supported=["code"],
            response_modes_supported=["query"],
            grant_types_supported=["authorization_code", "refresh_token"],
            subject_types_supported=["public"],
            id_token_signing_alg_values_supported=["RS256"],
            scopes_supported=list(SCOPES),
            token_endpoint_auth_methods_supported=["none"],
            revocation_endpoint_auth_methods_supported=["none"],
            code_challenge_methods_supported=["S256"],
            prompt_values_supported=["none", "login", "select_account"],
            authorization_response_iss_parameter_supported=True,
        )

    def _revoke(self) -> ResponseReturnValue:
        answer: ResponseReturnValue = self._oauth.create_endpoint_response("revocation")
        return answer

    def _authorize(self) -> Response:
        """GET shows the page, POST is the click; errors go back to the client where that is safe."""
        try:
            grant = self._oauth.get_consent_grant()
            if request.method == "POST":
                return self._clicked(grant)
            if request.args.get("prompt") == "none":
                return self._silently(grant)
        except OAuth2Error as error:
            error.state = request.args.get("state")
            return self._answer(self._oauth.handle_error_response(None, error))
        return self._page(grant)

    def _page(self, grant: Any) -> Response:
        nonce, query = secrets.token_urlsafe(16), request.query_string.decode("ascii")
        session = request.cookies.get(COOKIE) or secrets.token_urlsafe(32)
        page = idp_page.render(
            tuple(self.people.values()),
            client=self.client_id,
            query=query,
            csrf=self._csrf(session, query),
            nonce=nonce,
            hint=request.args.get("login_hint"),
        )
        response = make_response(page, 200, idp_page.headers(nonce=nonce, redirect_uri=grant.redirect_uri))
        response.set_cookie(COOKIE, session, httponly=True, samesite="Lax", path="/authorize")
        return response

    def _clicked(self, grant: Any) -> Response:
        session = request.cookies.get(COOKIE, "")
        expected = self._csrf(session, request.query_string.decode("ascii"))
        if not session or not hmac.compare_digest(request.form.get("csrf", "").encode(), expected.encode()):
            return make_response("this form was not shown to you; start again", 400)
        if "refuse" in request.form:
            return self._answer(self._oauth.create_authorization_response(grant=grant, grant_user=None))
        person = self.people.get(request.form.get("username", ""))
        if person is None:
            return make_response("there is nobody of that name here", 400)
        who = Authentication(person=person, auth_time=int(self.now()))
        self._sessions[session] = who
        return self._answer(self._oauth.create_authorization_response(grant=grant, grant_user=who))

    def _silently(self, grant: Any) -> Response:
        """``prompt=none``: a code without a click, for a browser that has signed in not long ago."""
        who = self._sessions.get(request.cookies.get(COOKIE, ""))
        oldest = request.args.get("max_age", type=int)
        if who is None or (oldest is not None and self.now() - who.auth_time > oldest):
            raise LoginRequiredError(redirect_uri=grant.redirect_uri)
        return self._answer(self._oauth.create_authorization_response(grant=grant, grant_user=who))

    def _answer(self, response: Response) -> Response:
        """RFC 9207 2: errors carry ``iss`` too, which authlib's extension leaves out."""
        if response.location:
            parts = urlsplit(response.location)
            query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), ("iss", self.issuer)])
            response.location = urlunsplit(parts._replace(query=query))
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    def _csrf(self, session: str, query: str) -> str:
        return hmac.new(self._csrf_key, f"{session} {query}".encode(), "sha256").hexdigest()


def _without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


class _Quiet(WSGIRequestHandler):
    """Request lines hold authorization codes' parameters; they go to debug logging at most, without them."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        path = urlsplit(self.path).path
        logging.getLogger("credx.sandbox.idp").debug("%s %s %s %s", self.command, path, code, size)
