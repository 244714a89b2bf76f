"""ID tokens that nobody may accept, made by a seeded generator out of a good one.

Every mutant has at least one fault for which it must be refused. Those that are signed with the right key are refused
for what they say, the others for that, for their form, or for their signature.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

STRANGER = ec.generate_private_key(ec.SECP256R1())
HUGE = [10**30, 10**400, -1, 2**63, 1e300, 253402300800]
NO_TIME = ["1800000000", 1.8e9, True, None, [1], {}, 0, -5, 10**15, "", *HUGE]
TEXTS = [
    "",
    " ",
    "\0",
    "a\nb",
    "\u202eevil",
    "a" * 300,
    " lead",
    "trail ",
    "\ufeffx",
    "\ud800",
    "é\x7f",
    "\u2028",
]
KIDS = [
    "",
    "../../../etc/passwd",
    "' OR 1=1 --",
    "k\0",
    "k" * 129,
    "é",
    "http://evil.example/k",
    None,
    1,
    ["k"],
    {},
]
HEADERS = ["crit", "b64", "zip", "enc", "cty", "jku", "jwk", "x5u", "x5c"]
TYPES = ["at+jwt", "JOSE", "jwt", "", None, 1, ["JWT"], "application/jwt", "logout+jwt"]
ALGORITHMS = [
    "none", "None", "", "HS256", "HS384", "RS384", "PS256", "ES384", "EdDSA", "rs256", "RS256 ", None, 1, ["RS256"], {},
]  # fmt: skip


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def es256(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@dataclass(frozen=True)
class Good:
    """A good token, and what it takes to make more of them. ``public``: as a confused verifier may use it for HMAC."""

    header: dict[str, Any]
    claims: dict[str, Any]
    sign: Callable[[bytes], bytes]
    public: bytes

    def token(self) -> str:
        return joined(self.header, self.claims, self.sign)


def joined(header: Any, claims: Any, sign: Callable[[bytes], bytes]) -> str:
    head, body = (
        part if isinstance(part, bytes) else json.dumps(part, separators=(",", ":")).encode()
        for part in (header, claims)
    )
    signed = f"{b64(head)}.{b64(body)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def mutant(good: Good, rng: random.Random) -> str:
    """One token that must be refused."""
    return str(rng.choice(KINDS)(good, rng))


def _bytes(good: Good, rng: random.Random) -> str:
    """Any other spelling of a good token, be it of the same bytes."""
    token = original = good.token()
    while token == original:
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            token = _one_edit(token, rng)
    return token


def _one_edit(token: str, rng: random.Random) -> str:
    at = rng.randrange(len(token) + 1)
    one = token[at : at + 1]
    parts = token.split(".")
    rng.shuffle(parts)
    return rng.choice(
        [
            token[:at] + (chr(ord(one) ^ (1 << rng.randrange(7))) if one else "") + token[at + 1 :],
            token[:at],
            token[at:],
            token[:at] + rng.choice("=.+/-_ \n\t\0Aé\u200b\U0001d7ce\ud800") + token[at:],
            token + rng.choice(["=", "==", ".", "..", "\n", " ", "A", token, "." * 9000]),
            ".".join(parts),
            token.replace("-", "+", 1).replace("_", "/", 1),
            token[:at] + token[at : at + 3].swapcase() + token[at + 3 :],
            token[:at] + token[at + rng.randrange(1, 9) :],
        ]
    )


def _claims(good: Good, rng: random.Random) -> str:
    """Signed with the right key: what it says is wrong."""
    claims = dict(good.claims)
    for _ in range(rng.choice([1, 1, 2, 3])):
        _spoil(claims, good.claims, rng)
    return joined(good.header, claims, good.sign)


def _spoil(claims: dict[str, Any], was: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(
        ["iss", "aud", "azp", "sub", "exp", "iat", "nbf", "auth_time", "nonce", "acr", "amr", ""]
    )
    iss, aud = was["iss"], was["aud"]
    junk: Any = rng.choice([None, 1, True, [], {}, [[]], {"a": {}}])
    bad: dict[str, list[Any]] = {
        "iss": [
            iss + "/",
            iss.upper(),
            iss + ".evil.example",
            "x" + iss,
            iss + "\0",
            "",
            [iss],
            {iss: 1},
            junk,
        ],
        "aud": [
            "",
            aud + " ",
            aud.upper(),
            [aud, "other"],
            ["other", aud],
            [aud, aud],
            [[aud]],
            [],
            "other",
            junk,
        ],
        "azp": ["other", "", aud + " ", [aud], junk],
        "sub": [*TEXTS, junk],
        "exp": [*NO_TIME, was["iat"] - 1000, was["iat"]],
        "iat": [*NO_TIME, was["iat"] - 90_000, was["iat"] + 90_000],
        "nbf": [*NO_TIME, was["iat"] + 90_000],
        "auth_time": [*NO_TIME, was["iat"] + 90_000],
        "nonce": [None, 1, True, [], {}],
        "acr": [None, 1, True, [], {}],
        "amr": [None, 1, True, {}, "mfa", [1], ["mfa", None]],
    }
    if name in bad:
        claims[name] = rng.choice(bad[name])
    elif rng.random() < 0.5:  # an old token: expired, or good for longer than anybody takes it
        claims["iat"] = was["iat"] - rng.choice([4_000, 90_000])
        claims["exp"] = was["iat"] + rng.choice([-100, 3600])
    else:
        claims.pop(rng.choice(["iss", "aud", "sub", "exp", "iat"]), None)


def _header(good: Good, rng: random.Random) -> str:
    """Signed with the right key: the header is wrong."""
    header = dict(good.header)
    match rng.randrange(4):
        case 0:
            header[rng.choice(HEADERS)] = rng.choice(
                [True, False, None, "x", ["exp"], {}, "https://evil.example/"]
            )
        case 1:
            header["typ"] = rng.choice(TYPES)
        case 2:
            header["kid"] = rng.choice(["", "k\0", "k" * 129, "é", None, 1, ["k"], {}])
        case _:
            header["alg"] = rng.choice(ALGORITHMS)
    if rng.random() < 0.1:
        header.pop("kid")
    return joined(header, good.claims, good.sign)


def _confused(good: Good, rng: random.Random) -> str:
    """By a stranger: another key, another algorithm, the public key as a secret, a key that it brings along."""
    claims = good.claims | {"sub": rng.choice(["root", "admin", good.claims["sub"]])}
    header = good.header | {"alg": rng.choice([*ALGORITHMS, "RS256", "ES256"])}
    if rng.random() < 0.5:
        header["kid"] = rng.choice([*KIDS, good.header["kid"]])
    if rng.random() < 0.3:
        header["jwk"] = {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}
    size = rng.choice([1, 32, 64, 255, 256, 512])
    signatures: list[Callable[[bytes], bytes]] = [
        lambda message: es256(STRANGER, message),
        lambda message: hmac.digest(good.public, message, "sha256"),
        lambda message: hashlib.sha256(message).digest(),
        lambda _: bytes(size),
        lambda _: b"\xff" * size,
        lambda _: rng.randbytes(size),
        lambda _: b"",
    ]
    return joined(header, claims, rng.choice(signatures))


def _json(good: Good, rng: random.Random) -> str:
    """Signed with the right key: bytes that parsers disagree about."""
    text = json.dumps(good.claims).encode()
    depth = rng.choice([17, 100, 1000, 4000])
    key = rng.choice([*good.claims, "x"]).encode()
    tails = [
        b',"%s":1,"%s":2}' % (key, key),
        b',"sub":"root"}',
        b',"x":{"a":1,"a":2}}',
        b',"x":%s}' % rng.choice([b"NaN", b"Infinity", b"-Infinity", b"1e999", b"01", b"0x1", b"1.", b"'a'"]),
        b',"x":' + b"9" * rng.choice([41, 500, 5000]) + b"}",
        b',"x":' + b"[" * depth + b"]" * depth + b"}",
        b',"x":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}",
        b',"x":"\\ud8%02x"}' % rng.randrange(256),
        b',"x":"%s"}' % bytes([rng.choice([0xFF, 0xC0, 0x80, 0x00, 0x0A])]),
        b"} {}", b"", b"},", b"}\0", b',"x":}', b",}",
    ]  # fmt: skip
    body = text[:-1] + rng.choice(tails)
    match rng.randrange(8):
        case 0:
            body = text.decode().encode(rng.choice(["utf-8-sig", "utf-16", "utf-16-le", "utf-32"]))
        case 1:
            body = rng.choice(
                [b"[]", b"null", b"1", b'"x"', b"{}", b"[" + text + b"]", rng.randbytes(40), b"\0"]
            )
        case 2:
            body = text[: rng.randrange(1, len(text) - 1)]
        case 3:
            body = b'{"pad":"' + b"x" * rng.choice([16_000, 60_000]) + b'",' + text[1:]
    if rng.random() < 0.2:
        head = json.dumps(good.header).encode()[:-1] + rng.choice(
            [b',"alg":"none"}', b',"alg":"RS256"}', b"", b"}}"]
        )
        return joined(head, good.claims, good.sign)
    return joined(good.header, body, good.sign)


KINDS = (_bytes, _bytes, _claims, _header, _confused, _json)
