"""The policy file: TOML in, a checked ``Policy`` out. Unknown keys, empty rules and loose ends are refused.

What cannot be decided for certain at run time is refused here, so that a mistake in the file is a broker
that does not start, never a person who gets more than was meant.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from credx.broker.policy.reader import MAX_FILE, FaultyTable, Table, parse
from credx.broker.policy.roles import HOUR, read_roles
from credx.broker.policy.rules import BrokerSettings, Group, IssuerRule, Policy, Workload
from credx.errors import ConfigError
from credx.jose import ALGORITHMS, TrustedIssuer
from credx.urls import is_address, permitted_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from credx.broker.policy.faults import Source

FORMAT: Final = 1
TOKEN_AGE_RANGE: Final = (60, 24 * HOUR)  # younger than a minute would refuse honest clocks
VERSION_DIGITS: Final = 16


def load_policy(path: str | Path) -> Policy:
    """Read and check a policy file.

    Raises:
        ConfigError: the file cannot be read; ``PolicyFileError`` where faults are in it.
    """
    return parse_policy(read_text(path), str(path))


def read_text(path: str | Path) -> str:
    """What is in a policy file, as long as it may be.

    Raises:
        ConfigError: it cannot be read, can be written by everybody, is too large or is not UTF-8.
    """
    name = str(path)
    try:
        with Path(path).open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:  # whoever writes it gives himself any role
                raise ConfigError(f"{name}: can be written by everybody", hint=f"chmod o-w {name}")
            data = file.read(MAX_FILE + 1)
        if len(data) > MAX_FILE:
            raise ConfigError(f"{name}: is larger than {MAX_FILE} bytes", hint=f"credx broker check {name}")
        return data.decode("utf-8")
    except OSError as exc:
        raise ConfigError(f"{name}: cannot be read: {exc.strerror}", hint=f"ls -l {name}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: is not UTF-8", hint=f"credx broker check {name}") from exc


def parse_policy(text: str, source: str = "policy.toml") -> Policy:
    """Check a policy's text; ``source`` names it in complaints.

    Raises:
        PolicyFileError: with every fault that was found.
    """
    return read_policy(text, source)[0]


def read_policy(text: str, name: str) -> tuple[Policy, Source]:
    """A policy, and what knows the lines of its text.

    Raises:
        PolicyFileError: as ``parse_policy``.
    """
    root, source = parse(text, name)
    try:
        policy = _policy(root, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
    except FaultyTable:
        policy = None
    source.finish()
    if policy is None:
        raise AssertionError("a table is faulty, and nothing was said of it")
    return policy, source


def _policy(root: Table, digest: str) -> Policy:
    if root.integer("version") != FORMAT:
        root.fault("version", f"must be {FORMAT}")
    broker = root.each([("broker", root.table("broker"))], lambda _, table: _broker(table))
    providers = root.tables("identity_providers")
    issuers = _issuers(root, providers, broker.get("broker"))
    whole = len(issuers) == len(providers)  # else what names a faulty one cannot be judged
    named = root.named("groups")
    groups = root.each(named.items() if whole else (), lambda _, table: _group(table, issuers))
    workloads = any(rule.workloads for rule in issuers.values()) or not whole
    roles = read_roles(root, groups=frozenset(named), workloads=workloads)
    root.close()
    return Policy(
        version=digest[:VERSION_DIGITS],
        broker=broker["broker"],
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
    settings = BrokerSettings(
        issuer=issuer,
        url=url,
        rp_id=table.text("rp_id", host),
        rp_name=table.text("name", "credx"),
        max_token_age=table.seconds("max_token_age", HOUR, *TOKEN_AGE_RANGE),
    )
    table.close()
    rp_id = settings.rp_id
    if host != rp_id and not host.endswith(f".{rp_id}"):
        table.fault("rp_id", f"must be the host of the URL or a domain above it, {host} is neither")
    elif is_address(rp_id) or ("." not in rp_id and rp_id != "localhost"):
        table.fault("rp_id", "must be a domain name: a security key answers to nothing else (WebAuthn 5.1.3)")
    return settings


def _issuers(root: Table, providers: Sequence[Table], broker: BrokerSettings | None) -> dict[str, IssuerRule]:
    issuers: dict[str, IssuerRule] = {}
    for table in providers:
        with contextlib.suppress(FaultyTable):
            rule = _issuer(table)
            issuer = rule.trusted.issuer
            if issuer in issuers:
                table.fault("issuer", "is here twice")
            if broker is not None and issuer == broker.issuer:
                table.fault("issuer", "is the broker itself: its tokens must never come back as ID tokens")
            issuers[issuer] = rule
    if not providers:
        root.fault("identity_providers", "is missing: nobody could sign in")
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
            table.fault(key, "is for people; workloads are matched in [[groups.X.workloads]]")
    audience = table.text("client_id")
    algorithms = table.words("algorithms", ALGORITHMS, good=ALGORITHMS.__contains__, want="RS256 or ES256")
    jwks_uri = table.text("jwks_uri", "", good=permitted_url, want="an https URL")
    readable_claim = table.text("readable_claim", "sub" if workloads else "email")
    groups_claim = table.one_or_more("groups_claim", ("groups",))  # several: a path
    mfa_amr = table.words("mfa_amr", ())
    scopes = table.words("scopes", ("openid",), good=lambda word: " " not in word, want="a scope")
    if "openid" not in scopes:
        table.fault("scopes", 'must hold "openid" (OpenID Connect Core 3.1.2.1)')
    table.close()
    return IssuerRule(
        trusted=TrustedIssuer(
            issuer=issuer, audience=audience, algorithms=algorithms, jwks_uri=jwks_uri or None
        ),
        readable_claim=readable_claim,
        groups_claim=None if workloads else groups_claim,
        mfa_amr=frozenset(mfa_amr),
        scopes=scopes,
        workloads=workloads,
    )


def _group(table: Table, issuers: Mapping[str, IssuerRule]) -> Group:
    claims = table.words("claims", ())
    users = table.words("users", (), good=_user_of(issuers), want=_USER)
    workloads = table.all(table.tables("workloads"), lambda entry: _workload(entry, issuers))
    issuer = _claims_issuer(table, issuers) if claims or table.has("issuer") else None
    table.close()
    if not (claims or users or workloads):
        table.fault(None, "is a group of nobody: give claims, users or workloads")
    return Group(
        issuer=issuer,
        claims=frozenset(claims),
        users=frozenset((user.partition("|")[0], user.partition("|")[2]) for user in users),
        workloads=workloads,
    )


def _claims_issuer(table: Table, issuers: Mapping[str, IssuerRule]) -> str:
    """A name of a group means something in one provider only, so with several the group says which."""
    candidates = [name for name, rule in issuers.items() if rule.groups_claim is not None]
    if len(candidates) != 1 and not table.has("issuer"):
        table.fault("issuer", "is missing: claims are names in one identity provider, say in which")
        return ""
    return table.text(
        "issuer",
        next(iter(candidates), ""),
        good=candidates.__contains__,
        want="an identity provider of people",
    )


_USER: Final = '"ISSUER|SUBJECT" with an issuer of [[identity_providers]]'


def _user_of(issuers: Mapping[str, IssuerRule]) -> Callable[[str], bool]:
    def good(entry: str) -> bool:
        issuer, _, subject = entry.partition("|")
        return bool(subject) and issuer in issuers

    return good


def _workload(table: Table, issuers: Mapping[str, IssuerRule]) -> Workload:
    names = [name for name, rule in issuers.items() if rule.workloads]
    issuer = table.text(
        "issuer", good=names.__contains__, want="an identity provider of which workloads = true"
    )
    claims = table.strings("claims")
    if not claims:
        table.fault("claims", "is missing: every job of the provider would match")
    table.close()
    return Workload(issuer=issuer, claims=MappingProxyType(claims))
