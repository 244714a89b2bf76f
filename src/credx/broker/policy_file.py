"""The policy file: TOML in, a checked ``Policy`` out. Unknown keys, empty rules and loose ends are refused.

What cannot be decided for certain at run time is refused here, so that a mistake in the file is a broker
that does not start, never a person who gets more than was meant.
"""

from __future__ import annotations

import hashlib
import ipaddress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from credx.broker.policy_reader import MAX_FILE, Table, parse
from credx.broker.policy_roles import HOUR, read_roles
from credx.broker.rules import BrokerSettings, Group, IssuerRule, Policy, Workload
from credx.errors import ConfigError
from credx.jose import ALGORITHMS, TrustedIssuer
from credx.urls import permitted_url

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMAT: Final = 1
TOKEN_AGE_RANGE: Final = (60, 24 * HOUR)  # younger than a minute would refuse honest clocks
VERSION_DIGITS: Final = 16


def load_policy(path: str | Path) -> Policy:
    """Read and check a policy file.

    Raises:
        ConfigError: ``FILE:LINE: table.key: reason``.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
        text = data.decode("utf-8")
    except OSError as exc:
        raise ConfigError(
            f"{name}: cannot be read: {exc.strerror}", hint="credx broker check POLICY"
        ) from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: is not UTF-8", hint=f"credx broker check {name}") from exc
    if len(data) > MAX_FILE:
        raise ConfigError(f"{name}: is larger than {MAX_FILE} bytes", hint=f"credx broker check {name}")
    return parse_policy(text, name)


def parse_policy(text: str, source: str = "policy.toml") -> Policy:
    """Check a policy's text; ``source`` names it in complaints.

    Raises:
        ConfigError: as ``load_policy``.
    """
    root = parse(text, source)
    if root.integer("version") != FORMAT:
        raise root.error("version", f"must be {FORMAT}")
    broker = _broker(root.table("broker"))
    issuers = _issuers(root, broker)
    groups = {name: _group(table, issuers) for name, table in root.named("groups").items()}
    workloads = any(rule.workloads for rule in issuers.values())
    roles = read_roles(root, groups=frozenset(groups), workloads=workloads)
    root.close()
    return Policy(
        version=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:VERSION_DIGITS],
        broker=broker,
        issuers=MappingProxyType(issuers),
        groups=MappingProxyType(groups),
        roles=MappingProxyType(roles),
    )


def _base_url(url: str) -> bool:
    return permitted_url(url) and "?" not in url and not url.endswith("/")


_BASE_URL: Final = "an https URL (http on a loopback host) without query and final slash"


def _broker(table: Table) -> BrokerSettings:
    issuer = table.text("issuer", good=_base_url, want=_BASE_URL)
    url = table.text("url", issuer, good=_base_url, want=_BASE_URL)
    host = urlsplit(url).hostname or ""
    rp_id = table.text("rp_id", host)
    if host != rp_id and not host.endswith(f".{rp_id}"):
        raise table.error("rp_id", f"must be the host of the URL or a domain above it, {host} is neither")
    if _is_address(rp_id) or ("." not in rp_id and rp_id != "localhost"):
        raise table.error(
            "rp_id", "must be a domain name: a security key answers to nothing else (WebAuthn 5.1.3)"
        )
    settings = BrokerSettings(
        issuer=issuer,
        url=url,
        rp_id=rp_id,
        rp_name=table.text("name", "credx"),
        max_token_age=table.seconds("max_token_age", HOUR, *TOKEN_AGE_RANGE),
    )
    table.close()
    return settings


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _issuers(root: Table, broker: BrokerSettings) -> dict[str, IssuerRule]:
    issuers: dict[str, IssuerRule] = {}
    for table in root.tables("identity_providers"):
        rule = _issuer(table)
        issuer = rule.trusted.issuer
        if issuer in issuers:
            raise table.error("issuer", "is here twice")
        if issuer == broker.issuer:
            raise table.error("issuer", "is the broker itself: its tokens must never come back as ID tokens")
        issuers[issuer] = rule
    if not issuers:
        raise root.error("identity_providers", "is missing: nobody could sign in")
    return issuers


def _issuer(table: Table) -> IssuerRule:
    issuer = table.text(
        "issuer",
        good=lambda url: permitted_url(url) and "?" not in url and "|" not in url,  # users = "issuer|subject"
        want="an https URL (http on a loopback host) without query",
    )
    workloads = table.flag("workloads", default=False)
    for key in ("groups_claim", "mfa_amr"):
        if workloads and table.has(key):
            raise table.error(key, "is for people; workloads are matched in [[groups.X.workloads]]")
    rule = IssuerRule(
        trusted=TrustedIssuer(
            issuer=issuer,
            audience=table.text("client_id"),
            algorithms=table.words(
                "algorithms", ALGORITHMS, good=ALGORITHMS.__contains__, want="RS256 or ES256"
            ),
            jwks_uri=table.text("jwks_uri", good=permitted_url, want="an https URL")
            if table.has("jwks_uri")
            else None,
        ),
        readable_claim=table.text("readable_claim", "sub" if workloads else "email"),
        groups_claim=None if workloads else table.text("groups_claim", "groups"),
        mfa_amr=frozenset(table.words("mfa_amr", ())),
        scopes=table.words("scopes", ("openid",), good=lambda word: " " not in word, want="a scope"),
        workloads=workloads,
    )
    if "openid" not in rule.scopes:
        raise table.error("scopes", 'must hold "openid" (OpenID Connect Core 3.1.2.1)')
    table.close()
    return rule


def _group(table: Table, issuers: Mapping[str, IssuerRule]) -> Group:
    claims = table.words("claims", ())
    users = frozenset(_user(table, entry, issuers) for entry in table.words("users", ()))
    workloads = tuple(_workload(entry, issuers) for entry in table.tables("workloads"))
    if not (claims or users or workloads):
        raise table.error(None, "is a group of nobody: give claims, users or workloads")
    group = Group(
        issuer=_claims_issuer(table, issuers) if claims or table.has("issuer") else None,
        claims=frozenset(claims),
        users=users,
        workloads=workloads,
    )
    table.close()
    return group


def _claims_issuer(table: Table, issuers: Mapping[str, IssuerRule]) -> str:
    """A name of a group means something in one provider only, so with several the group says which."""
    candidates = [name for name, rule in issuers.items() if rule.groups_claim is not None]
    default = candidates[0] if len(candidates) == 1 else None
    if default is None and not table.has("issuer"):
        raise table.error("issuer", "is missing: claims are names in one identity provider, say in which")
    return table.text("issuer", default, good=candidates.__contains__, want="an identity provider of people")


def _user(table: Table, entry: str, issuers: Mapping[str, IssuerRule]) -> tuple[str, str]:
    issuer, bar, subject = entry.partition("|")
    if not bar or not subject or issuer not in issuers:
        raise table.error("users", 'must be "ISSUER|SUBJECT" with an issuer of [[identity_providers]]')
    return issuer, subject


def _workload(table: Table, issuers: Mapping[str, IssuerRule]) -> Workload:
    names = [name for name, rule in issuers.items() if rule.workloads]
    issuer = table.text(
        "issuer", good=names.__contains__, want="an identity provider of which workloads = true"
    )
    claims = table.strings("claims")
    if not claims:
        raise table.error("claims", "is missing: every job of the provider would match")
    table.close()
    return Workload(issuer=issuer, claims=MappingProxyType(claims))
