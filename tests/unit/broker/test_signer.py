from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from joserfc.jwk import RSAKey

from credx.broker.signer import LocalSigner
from credx.errors import ConfigError


def write(path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, password: bytes = b"") -> Path:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
    path.chmod(0o600)
    return path


def test_what_it_signs_another_library_verifies_with_the_published_key(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path / "mint.key")
    published = RSAKey.import_key({**signer.public_jwk()})
    published.public_key.verify(signer.sign(b"message"), b"message", padding.PKCS1v15(), SHA256())
    assert published.public_key.key_size == 2048
    assert published.thumbprint() == signer.kid == signer.public_jwk()["kid"]  # RFC 7638


def test_the_published_key_has_nothing_private_and_nothing_that_sts_refuses(tmp_path: Path) -> None:
    jwk = LocalSigner.open(tmp_path / "mint.key").public_jwk()
    assert set(jwk) == {"kty", "kid", "use", "alg", "n", "e"}


def test_the_published_key_cannot_be_changed_from_outside(tmp_path: Path) -> None:
    signer = LocalSigner.open(tmp_path / "mint.key")
    signer.public_jwk()["n"] = "x"
    assert signer.public_jwk()["n"] != "x"


def test_the_key_stays(tmp_path: Path) -> None:
    assert LocalSigner.open(tmp_path / "mint.key").kid == LocalSigner.open(tmp_path / "mint.key").kid


def test_it_does_not_print_its_key(tmp_path: Path) -> None:
    assert "PRIVATE" not in repr(vars(LocalSigner.open(tmp_path / "mint.key")))


def test_a_key_of_ones_own_may_be_brought(tmp_path: Path) -> None:
    path = write(tmp_path / "mint.key", rsa.generate_private_key(65537, 3072))
    assert len(LocalSigner.open(path).sign(b"")) == 384


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (rsa.generate_private_key(65537, 1024), "2048 to 4096"),  # noqa: S505 -- that is the point
        (rsa.generate_private_key(3, 2048), "exponent"),
        (ec.generate_private_key(ec.SECP256R1()), "no RSA key"),
    ],
)
def test_another_kind_of_key_is_refused(
    tmp_path: Path, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        LocalSigner.open(write(tmp_path / "mint.key", key))


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "mint.key", rsa.generate_private_key(65537, 2048), password=b"secret")
    with pytest.raises(ConfigError, match="unencrypted"):
        LocalSigner.open(path)
