"""What every AWS client of credx is made of: a session that no file or variable bends, and TLS that the system trusts.

Endpoint variables, profiles and the shared files of the AWS CLI have no say in what credx asks and of whom.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from credx.urls import is_loopback

if TYPE_CHECKING:
    from botocore.session import Session


def detached_session() -> Session:
    """Every setting keeps its default, but loses the variable and the file it could come from."""
    # imported here: a warm `credx process` must not pay 200 ms for a call that it does not make
    import botocore.session  # noqa: PLC0415

    detached: dict[str, Any] = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in botocore.session.Session.SESSION_VARIABLES.items()
    }
    detached["config_file"] = detached["credentials_file"] = (None, None, os.devnull, None)
    detached["sts_regional_endpoints"] = (None, None, "regional", None)
    return botocore.session.Session(session_vars=detached)


def transport(url: str, *, ca_file: str | None, timeouts: tuple[float, float]) -> Any:
    """Botocore's own HTTP session, but trusting what ``credx.http`` trusts: the system's CAs and ``ca_file``.

    botocore alone knows only the CAs it ships, so that a company's own CA would need a setting. ``timeouts``:
    seconds to connect, and between two bytes of the answer.
    """
    import socket  # noqa: PLC0415
    import ssl  # noqa: PLC0415

    from botocore.httpsession import URLLib3Session  # noqa: PLC0415
    from botocore.utils import get_environ_proxies  # noqa: PLC0415

    class Transport(URLLib3Session):
        def _get_ssl_context(self) -> ssl.SSLContext:
            import truststore  # noqa: PLC0415

            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if ca_file:
                context.load_verify_locations(cafile=ca_file)
            return context

        def _setup_ssl_cert(self, conn: Any, _url: str, _verify: object) -> None:
            conn.cert_reqs = "CERT_REQUIRED"  # whatever AWS's tools are told
            conn.ca_certs = None

    proxies = {} if is_loopback(urlsplit(url).hostname or "") else get_environ_proxies(url)
    timeout: Any = timeouts  # the stubs know single numbers alone
    # as botocore does for itself: with Nagle's algorithm each request waits 40 ms for a delayed acknowledgement
    nodelay: Any = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    return Transport(timeout=timeout, proxies=proxies, socket_options=nodelay)
