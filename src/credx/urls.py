"""The one rule for addresses that credx may talk to: https, or http to this very machine.

A token that leaves in the clear is a token given away, so the rule stands below every room that reads a
URL from a file, a document or an argument.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

LOOPBACK_HOSTS: Final = frozenset({"localhost", "127.0.0.1", "::1"})
MAX_URL: Final = 2048  # characters; what common servers and proxies take

_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?")
_PLAIN = re.compile(r"[!-~]+")  # visible ASCII: no space, control character or lone surrogate


def permitted_url(url: str) -> bool:
    """Whether ``url`` is ``https`` anywhere or ``http`` on a loopback host; no user info, no fragment."""
    parts = _parts(url)
    if parts is None or parts.hostname is None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname))


def is_loopback(host: str) -> bool:
    """Whether a host name or address literal means this machine: ``localhost``, 127.0.0.0/8 or ``::1``."""
    if host in LOOPBACK_HOSTS:
        return True
    try:
        return ipaddress.IPv4Address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether a host is an IPv4 or IPv6 address literal, without brackets."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def origin(url: str) -> str:
    """``scheme://host[:port]`` of a permitted URL, without a port that is the scheme's own (RFC 6454 4).

    Raises:
        ValueError: the URL is not permitted.
    """
    parts = _parts(url)
    if parts is None or parts.hostname is None or not permitted_url(url):
        raise ValueError("not a permitted URL")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"https": 443, "http": 80}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if parts.port in (None, default) else f":{parts.port}")


def _parts(url: str) -> SplitResult | None:
    if len(url) > MAX_URL or not _PLAIN.fullmatch(url) or "\\" in url:
        return None  # urlsplit drops tabs and newlines silently; browsers read a backslash as a slash
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if "[" in parts.netloc:
            host = str(ipaddress.IPv6Address(host))
        elif not _HOST.fullmatch(host):
            return None
    except ValueError:
        return None
    if not host or port == 0 or "@" in parts.netloc or "#" in url or parts.netloc.endswith(":"):
        return None
    return parts
