"""Whoever can write to the store, but has no mint key: whatever he does to the audit trail is named.

The last chains need help from outside: nothing that started later names them. Heads saved elsewhere do.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.memory_store import MemoryStore

from credx.broker.audit import Audit, new_writer_id
from credx.broker.audit.chain import Named, head_key, record_key
from credx.broker.audit.keys import ORDER, WriterKey
from credx.broker.audit.record import canonical, digest, mint_signed_part, signed_part
from credx.broker.audit.verify import verify
from credx.broker.signer import LocalSigner
from credx.broker.stores import Delete, Key, Put
from credx.model import Secret
from credx.strict import base64url, to_base64url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from credx.broker.audit.verify import Broken

NOW = 1_800_000_000
MINT = LocalSigner(rsa.generate_private_key(65537, 2048))
KEYS = {MINT.kid: MINT.public_jwk()}
RECORDS = 4  # of each chain, with its ``started``


def writer(n: int) -> str:
    return new_writer_id(NOW + 100 * n, lambda length: n.to_bytes(length, "big"))


OLD, MIDDLE, LAST = map(writer, range(3))


class Trail:
    """Three chains, one after another, and somebody who writes to their store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.audits = [Audit(self.store, writer(n), signer=MINT) for n in range(3)]
        for n, audit in enumerate(self.audits):
            for i in range(RECORDS - 1):
                record = {
                    "event": "granted", "issuance": f"{n}-{i}", "user": "ada-1", "scopes": ["read"],
                    "role": "dev", "reason": "why", "duration": 900,
                }  # fmt: skip
                audit.append(record, now=NOW + 100 * n + i)
        found = verify(self.store, KEYS, NOW)
        assert found.broken is None
        self.heads = found.heads

    def broken(self, *, against: Sequence[Named] = ()) -> Broken | None:
        return verify(self.store, KEYS, NOW, against=against).broken

    def get(self, of: str, seq: int) -> dict[str, Any]:
        item = self.store.get(record_key(of, seq), now=NOW)
        assert item
        return dict(item.value)

    def put(self, key: Key, value: dict[str, Any]) -> None:
        self.store.apply([Put(key=key, value=value, expected=None)], now=NOW)

    def put_record(self, of: str, seq: int, record: dict[str, Any]) -> None:
        self.put(record_key(of, seq), record)

    def delete(self, *keys: Key) -> None:
        self.store.apply([Delete(key=key, expected=None) for key in keys], now=NOW)

    def set_head(self, of: str, record: dict[str, Any]) -> None:
        self.put(head_key(of), {name: record[name] for name in ("seq", "hash", "at")})

    def rehash(self, of: str, first: int) -> None:
        """All that can be made right without a key: hashes, links and the head."""
        for seq in range(first, RECORDS + 1):
            record = self.get(of, seq)
            if seq > 1:
                record["prev"] = self.get(of, seq - 1)["hash"]
            record["hash"] = digest(record)
            self.put_record(of, seq, record)
        self.set_head(of, self.get(of, RECORDS))

    def cut(self, of: str, last: int) -> None:
        """The end of a chain, and its head set back so that it fits."""
        self.delete(*(record_key(of, seq) for seq in range(last + 1, RECORDS + 1)))
        self.set_head(of, self.get(of, last))

    def delete_chain(self, of: str) -> None:
        keys = [record_key(of, seq) for seq in range(1, RECORDS + 1)]
        self.delete(*keys, head_key(of), Key("audit", of))


@pytest.fixture
def trail() -> Trail:
    return Trail()


def other(value: Any) -> Any:
    match value:
        case str():
            return ("0" if value[:1] != "0" else "1") + value[1:]
        case int():
            return value + 1
        case list():
            return [*value, "more"]
        case dict():
            return {**value, "x": other(value["x"])}
        case _:
            raise AssertionError(value)


FIELDS = [
    (seq, field)
    for seq, names in (
        (1, ["event", "at", "writer", "seq", "prev", "hash", "kid", "heads", "writer_key", "signature",
             "mint_signature"]),
        (3, ["event", "at", "writer", "seq", "prev", "hash", "signature", "issuance", "user", "scopes", "role",
             "reason", "duration"]),
    )
    for field in names
]  # fmt: skip


def test_the_list_of_fields_is_whole(trail: Trail) -> None:
    for seq in (1, 3):
        assert {field for at, field in FIELDS if at == seq} == trail.get(MIDDLE, seq).keys()


@pytest.mark.parametrize("rehashed", [False, True])
@pytest.mark.parametrize("how", ["other", "gone"])
@pytest.mark.parametrize(("seq", "field"), FIELDS)
def test_one_field_changed(trail: Trail, seq: int, field: str, how: str, rehashed: bool) -> None:
    record = trail.get(MIDDLE, seq)
    value = record.pop(field)
    if how == "other":
        record[field] = other(value)
    trail.put_record(MIDDLE, seq, record)
    if rehashed:
        trail.rehash(MIDDLE, seq)
        made_right = field == "hash" or (field == "prev" and seq > 1)
        assert (trail.broken() is None) == made_right
    else:
        broken = trail.broken()
        assert broken
        assert broken[:2] == (MIDDLE, seq)


@pytest.mark.parametrize("rehashed", [False, True])
def test_one_field_added(trail: Trail, rehashed: bool) -> None:
    trail.put_record(OLD, 2, {**trail.get(OLD, 2), "detail": "by root"})
    if rehashed:
        trail.rehash(OLD, 2)
    broken = trail.broken()
    assert broken
    assert broken[:2] == (OLD, 2)


@pytest.mark.parametrize("of", [OLD, LAST])
def test_what_the_hash_leaves_out_is_added_to_a_record_that_has_no_use_for_it(trail: Trail, of: str) -> None:
    trail.put_record(of, 2, {**trail.get(of, 2), "mint_signature": "the reason was another one"})
    assert trail.broken() == (of, 2, "the record was changed")


def test_the_other_signature_that_verifies(trail: Trail) -> None:
    record = trail.get(LAST, RECORDS)
    raw = base64url(record["signature"])
    record["signature"] = to_base64url(raw[:32] + (ORDER - int.from_bytes(raw[32:])).to_bytes(32))
    trail.put_record(LAST, RECORDS, record)
    broken = trail.broken()
    assert broken == (LAST, RECORDS, "the signature of the record is wrong")


@pytest.mark.parametrize("of", [OLD, MIDDLE, LAST])
@pytest.mark.parametrize("seq", range(1, RECORDS + 1))
def test_one_record_removed(trail: Trail, of: str, seq: int) -> None:
    trail.delete(record_key(of, seq))
    broken = trail.broken()
    assert broken
    assert broken[:2] == (of, seq)


def test_a_record_under_another_key(trail: Trail) -> None:
    """In its order, whole and signed; but who looks for it by its number does not find it."""
    key = record_key(OLD, 2)
    trail.put(Key(key.partition, key.sort + "x"), trail.get(OLD, 2))
    trail.delete(key)
    assert trail.broken() == (OLD, 2, "the record is missing")


@pytest.mark.parametrize("seq", range(1, RECORDS))
def test_one_record_removed_and_the_others_moved_up(trail: Trail, seq: int) -> None:
    for at in range(seq, RECORDS):
        trail.put_record(OLD, at, {**trail.get(OLD, at + 1), "seq": at})
    trail.delete(record_key(OLD, RECORDS))
    trail.set_head(OLD, trail.get(OLD, RECORDS - 1))
    broken = trail.broken()
    assert broken
    assert broken[:2] == (OLD, seq)


@pytest.mark.parametrize(("one", "two"), [*itertools.combinations(range(1, RECORDS + 1), 2)])
def test_two_records_in_each_others_place(trail: Trail, one: int, two: int) -> None:
    first, second = trail.get(OLD, one), trail.get(OLD, two)
    trail.put_record(OLD, one, second)
    trail.put_record(OLD, two, first)
    broken = trail.broken()
    assert broken
    assert broken[:2] == (OLD, one)


@pytest.mark.parametrize("of", [OLD, MIDDLE, LAST])
class TestAnEndCutOff:
    def test_with_the_head_left(self, trail: Trail, of: str) -> None:
        trail.delete(record_key(of, RECORDS))
        broken = trail.broken()
        assert broken
        assert broken[:2] == (of, RECORDS)

    def test_without_the_head(self, trail: Trail, of: str) -> None:
        trail.delete(record_key(of, RECORDS), head_key(of))
        assert trail.broken() == (of, 0, "the chain has no head")

    def test_with_the_head_alone_set_back(self, trail: Trail, of: str) -> None:
        trail.set_head(of, trail.get(of, RECORDS - 1))
        broken = trail.broken()
        assert broken
        assert "head" in broken.why

    @pytest.mark.parametrize("name", ["seq", "hash", "at"])
    def test_with_a_head_of_ones_own(self, trail: Trail, of: str, name: str) -> None:
        head = {field: trail.get(of, RECORDS)[field] for field in ("seq", "hash", "at")}
        for value in (other(head[name]), None):
            trail.put(head_key(of), {**head, name: value})
            broken = trail.broken()
            assert broken
            assert broken.writer == of

    def test_with_the_head_set_back(self, trail: Trail, of: str) -> None:
        """Shown by a chain that started later, and for the last one by heads saved elsewhere."""
        trail.cut(of, RECORDS - 1)
        shown, against = trail.broken(), trail.broken(against=trail.heads)
        if of == LAST:
            assert shown is None
            assert against == (
                of,
                RECORDS,
                "from this record on the chain is gone, which saved heads name",
            )
        else:
            assert shown
            assert shown == against
            assert shown[:2] == (of, RECORDS)


@pytest.mark.parametrize("of", [OLD, MIDDLE, LAST])
class TestAWholeChainGone:
    def test_all_of_it(self, trail: Trail, of: str) -> None:
        trail.delete_chain(of)
        shown, against = trail.broken(), trail.broken(against=trail.heads)
        if of == LAST:
            assert shown is None
        else:
            assert shown
            assert shown[:2] == (of, 0)
        assert against
        assert against[:2] == (of, 0)

    def test_from_the_list_of_chains(self, trail: Trail, of: str) -> None:
        """Its records are there, but no reader would come to them."""
        trail.delete(Key("audit", of))
        assert (trail.broken() is None) == (of == LAST)
        against = trail.broken(against=trail.heads)
        assert against
        assert against[:2] == (of, 0)


def test_every_chain_gone(trail: Trail) -> None:
    for of in (OLD, MIDDLE, LAST):
        trail.delete_chain(of)
    assert trail.broken() is None  # as on the first day
    assert trail.broken(against=trail.heads)


class TestAChainOfOnesOwn:
    """Made with the broker's own code, but without its mint key."""

    def begin(self, trail: Trail, signer: LocalSigner) -> str:
        Audit(trail.store, writer(9), signer=signer).append({"event": "granted"}, now=NOW + 1000)
        return writer(9)

    def test_signed_by_another_key(self, trail: Trail) -> None:
        of = self.begin(trail, LocalSigner(rsa.generate_private_key(65537, 2048)))
        assert trail.broken() == (of, 1, "the chain is not signed by a known mint key")

    def test_signed_by_another_key_under_the_name_of_ours(self, trail: Trail) -> None:
        own = LocalSigner(rsa.generate_private_key(65537, 2048))
        own.kid = MINT.kid
        assert trail.broken() is None
        assert trail.get(self.begin(trail, own), 1)["kid"] == MINT.kid
        assert trail.broken() == (writer(9), 1, "the mint key's signature is wrong")

    @pytest.mark.parametrize("taken", ["mint_signature", "all but the key", "all"])
    def test_with_the_first_record_of_a_real_chain(self, trail: Trail, taken: str) -> None:
        of = self.begin(trail, LocalSigner(rsa.generate_private_key(65537, 2048)))
        real, mine = trail.get(OLD, 1), trail.get(of, 1)
        first = {
            "mint_signature": {**mine, "kid": MINT.kid, "mint_signature": real["mint_signature"]},
            "all but the key": {**real, "writer_key": mine["writer_key"]},
            "all": real,
        }[taken]
        trail.put_record(of, 1, first)
        broken = trail.broken()
        assert broken
        assert broken[:2] == (of, 1)

    def test_signed_with_a_token_of_the_mint_key(self, trail: Trail) -> None:
        """What the mint key signs every day are JWTs: none of them is a first record."""
        of = self.begin(trail, LocalSigner(rsa.generate_private_key(65537, 2048)))
        first = {**trail.get(of, 1), "kid": MINT.kid}
        first["hash"] = digest(first)
        for message in (first["hash"].encode(), signed_part(first["hash"]), canonical(first).encode()):
            first["mint_signature"] = to_base64url(MINT.sign(message))
            trail.put_record(of, 1, first)
            assert trail.broken() == (of, 1, "the mint key's signature is wrong")
        first["mint_signature"] = to_base64url(MINT.sign(mint_signed_part(first["hash"])))
        trail.put_record(of, 1, first)
        broken = trail.broken()
        assert broken
        assert "mint" not in broken.why


class TestTheKeyOfAChain:
    """Stolen out of a process it signs for that chain: for no other, and nothing that somebody has named."""

    def signed(self, trail: Trail, key: WriterKey, record: dict[str, Any]) -> dict[str, Any]:
        record = {**record, "hash": digest(record)}
        return {**record, "signature": key.sign(signed_part(record["hash"]))}

    def test_another_chain(self, trail: Trail) -> None:
        stolen = trail.audits[0]._key
        record = self.signed(trail, stolen, {**trail.get(LAST, RECORDS), "user": "eve-1"})
        trail.put_record(LAST, RECORDS, record)
        trail.set_head(LAST, record)
        assert trail.broken() == (LAST, RECORDS, "the signature of the record is wrong")

    @pytest.mark.parametrize("of", [OLD, MIDDLE, LAST])
    def test_what_another_chain_or_a_saved_head_has_named(self, trail: Trail, of: str) -> None:
        stolen = trail.audits[[OLD, MIDDLE, LAST].index(of)]._key
        record = self.signed(trail, stolen, {**trail.get(of, RECORDS), "user": "eve-1"})
        trail.put_record(of, RECORDS, record)
        trail.set_head(of, record)
        shown, against = trail.broken(), trail.broken(against=trail.heads)
        if of == LAST:
            assert shown is None
        else:
            assert shown == (of, RECORDS, "the record is not the one that a later chain names")
        assert against
        assert against[:2] == (of, RECORDS)

    def test_a_chain_that_begins_anew_in_the_middle(self, trail: Trail) -> None:
        own = WriterKey()
        first = {**trail.get(LAST, 1), "seq": RECORDS, "prev": trail.get(LAST, RECORDS - 1)["hash"]}
        record = self.signed(trail, own, {**first, "writer_key": own.jwk, "at": NOW + 300})
        trail.put_record(LAST, RECORDS, record)
        trail.set_head(LAST, record)
        assert trail.broken() == (LAST, RECORDS, "the chain begins twice")

    def test_a_chain_without_a_beginning(self, trail: Trail) -> None:
        stolen = trail.audits[2]._key
        first = {**trail.get(LAST, 2), "seq": 1, "prev": "0" * 64}
        trail.put_record(LAST, 1, self.signed(trail, stolen, first))
        assert trail.broken() == (LAST, 1, "the chain does not begin with its key")

    def test_a_time_that_goes_back(self, trail: Trail) -> None:
        """A reader that halves a chain relies on it, so a chain in which it does not hold is broken."""
        stolen = trail.audits[2]._key
        record = self.signed(trail, stolen, {**trail.get(LAST, RECORDS), "at": NOW})
        trail.put_record(LAST, RECORDS, record)
        trail.set_head(LAST, record)
        assert trail.broken() == (LAST, RECORDS, "the record is earlier than the one before")


@pytest.mark.parametrize("seq", [10**14, 2**63, 10**30])
@pytest.mark.parametrize("since", [None, NOW + 1.0])
@pytest.mark.parametrize("newest_first", [False, True])
def test_a_head_that_names_a_far_away_record_hides_nothing(
    trail: Trail, seq: int, since: float | None, newest_first: bool
) -> None:
    """A reader that counted down from there would come to no end."""

    def found() -> int:
        return len(list(trail.audits[0].read(NOW, since=since, newest_first=newest_first)))

    before = found()
    trail.put_record(LAST, seq, trail.get(LAST, RECORDS))
    trail.put(head_key(LAST), {"seq": seq, "hash": "0" * 64, "at": NOW + 1000})
    assert before <= found() <= before + 1
    assert trail.broken()


def test_a_spoilt_trail_does_not_stop_the_broker(trail: Trail) -> None:
    """It starts a chain, names what heads it can make out, and leaves the finding to ``verify``."""
    trail.put(head_key(MIDDLE), {"seq": [], "hash": {}, "at": "x"})
    trail.put(Key("audit", "zz"), {})
    trail.put_record(
        LAST, 1, {**trail.get(LAST, 1), "heads": [7, {"writer": "x"}, {"writer": OLD, "seq": "x"}]}
    )
    Audit(trail.store, writer(9), signer=MINT).append({"event": "refused"}, now=NOW + 1000)
    named = [head["writer"] for head in trail.get(writer(9), 1)["heads"]]
    assert named == [LAST, OLD]
    assert trail.broken()


@pytest.mark.parametrize("field", ["reason", "user", "detail", "administrator", "access_key_id"])
def test_no_secret_enters_a_record(trail: Trail, field: str) -> None:
    before = [*trail.audits[0].read(NOW)]
    with pytest.raises(TypeError):
        trail.audits[0].append({"event": "granted", field: Secret("hunter2")}, now=NOW)
    for name in ("token", "otp", "assertion", "secret_access_key", "heads", "writer_key", "kid"):
        with pytest.raises(ValueError, match="unknown"):
            trail.audits[0].append({"event": "granted", name: "hunter2"}, now=NOW)
    with pytest.raises(ValueError, match="event"):
        trail.audits[0].append({"event": "started"}, now=NOW)
    assert [*trail.audits[0].read(NOW)] == before
