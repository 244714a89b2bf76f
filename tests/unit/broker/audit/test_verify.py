import copy
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from support.memory_store import MemoryStore

from credx.broker.audit import Audit, new_writer_id
from credx.broker.audit.chain import Named, record_key
from credx.broker.audit.keys import ORDER, WriterKey, verifier
from credx.broker.audit.record import EVENTS, canonical, digest, link, mint_signed_part, signed_part
from credx.broker.audit.verify import REPORT_EVERY, Broken, Chain, verify, verify_export
from credx.broker.signer import LocalSigner
from credx.broker.stores import Item, Key
from credx.strict import base64url, to_base64url

NOW = 1_800_000_000
SIGNER = LocalSigner(rsa.generate_private_key(65537, 2048))
KEYS = {SIGNER.kid: SIGNER.public_jwk()}
GRANTED = {"event": "granted", "issuance": "i-1", "user": "ada-1", "user_key": "k1", "role": "dev"}
WRITER = new_writer_id(NOW, lambda n: b"\xaa" * n)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def store() -> Iterator[MemoryStore]:
    opened = MemoryStore()
    yield opened
    opened.close()


def open_audit(store: MemoryStore, n: int = 0, signer: LocalSigner = SIGNER) -> Audit:
    return Audit(store, new_writer_id(NOW + n, bytes), signer=signer)


class TestCodec:
    @given(
        st.fixed_dictionaries(
            {"event": st.sampled_from(sorted(EVENTS))}, optional={"reason": st.text(), "x": json_values}
        ),
        st.integers(0, 2**40),
        st.integers(2, 10**12),
    )
    def test_a_linked_and_signed_record_holds_in_its_place_alone(
        self, fields: dict[str, Any], at: int, seq: int
    ) -> None:
        key = WriterKey()
        record = link(fields, at=at, writer=WRITER, seq=seq, prev="1" * 64)
        record["signature"] = key.sign(signed_part(record["hash"]))

        def chain() -> Chain:
            made = Chain(WRITER, KEYS)
            made.seq, made.hash, made.at, made._verifies = seq - 1, "1" * 64, 0, verifier(key.jwk)
            return made

        assert chain().fault(record) is None
        assert canonical(record).isascii()
        for change in ({"seq": seq + 1}, {"prev": "2" * 64}, {"writer": "w"}, {"at": -1}):
            moved = {**record, **change}
            moved["hash"] = digest(moved)
            moved["signature"] = key.sign(signed_part(moved["hash"]))
            assert chain().fault(moved) is not None

    @given(st.dictionaries(st.text(), json_values, max_size=4))
    def test_garbage_is_a_finding_and_no_crash(self, record: dict[str, Any]) -> None:
        assert Chain(WRITER, KEYS).fault(record) is not None

    def test_what_is_no_json_is_a_finding(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]
        assert Chain(WRITER, KEYS).fault({"x": deep, "hash": ""}) == "the record was changed"
        assert Chain(WRITER, KEYS).fault({"x": float("nan"), "hash": ""}) == "the record was changed"

    def test_no_signature_is_a_jwt_or_serves_for_the_other(self) -> None:
        assert b" " in signed_part("0" * 64)
        assert b" " in mint_signed_part("0" * 64)
        assert signed_part("0" * 64) != mint_signed_part("0" * 64)


class TestWriterKey:
    def test_a_signature_holds_for_its_message_and_key_alone(self) -> None:
        key, other = WriterKey(), WriterKey()
        signature = key.sign(b"m")
        assert verifier(key.jwk)(b"m", signature)
        assert not verifier(key.jwk)(b"n", signature)
        assert not verifier(other.jwk)(b"m", signature)

    def test_its_twin_is_refused(self) -> None:
        """(r, n - s) verifies wherever (r, s) does: a record could be changed without the key."""
        key = WriterKey()
        for _ in range(20):
            raw = base64url(key.sign(b"m"))
            s = int.from_bytes(raw[32:])
            assert s <= ORDER // 2
            assert not verifier(key.jwk)(b"m", to_base64url(raw[:32] + (ORDER - s).to_bytes(32)))
            assert not verifier(key.jwk)(b"m", to_base64url(raw[:32] + b"\0" + raw[32:]))

    @given(st.binary(max_size=70) | st.just(bytes(64)))
    def test_any_other_bytes_are_no_signature(self, raw: bytes) -> None:
        verifies = verifier(WriterKey().jwk)
        assert not verifies(b"m", to_base64url(raw))
        assert not verifies(b"m", to_base64url(raw) + "=")

    @pytest.mark.parametrize(
        "change", [{"kty": "RSA"}, {"crv": "P-384"}, {"x": "AA"}, {"y": None}, {"x": "A" * 43, "y": "A" * 43}]
    )
    def test_what_is_no_key(self, change: dict[str, Any]) -> None:
        with pytest.raises(ValueError):
            verifier({**WriterKey().jwk, **change})


class TestVerify:
    def test_says_what_it_looked_at(self, store: MemoryStore) -> None:
        other = LocalSigner(rsa.generate_private_key(65537, 2048))
        for n, signer in enumerate([SIGNER, other]):
            audit = open_audit(store, n, signer)
            for _ in range(2):
                audit.append(GRANTED, now=NOW + n)
        both = {**KEYS, other.kid: other.public_jwk()}
        found = verify(store, both, NOW)
        assert (found.broken, found.records, found.kids) == (None, 6, {SIGNER.kid, other.kid})
        assert [(head.writer, head.seq) for head in found.heads] == [
            (new_writer_id(NOW + n, bytes), 3) for n in range(2)
        ]
        assert verify(store, both, NOW, against=found.heads).broken is None

    def test_by_default_our_own_mint_key_alone(self, store: MemoryStore) -> None:
        open_audit(store, 0).append(GRANTED, now=NOW)
        assert open_audit(store, 1).verify(NOW) is None
        other = open_audit(store, 1, LocalSigner(rsa.generate_private_key(65537, 2048)))
        assert other.verify(NOW) == Broken(
            new_writer_id(NOW, bytes), 1, "the chain is not signed by a known mint key"
        )

    def test_progress_is_told(self, store: MemoryStore) -> None:
        audit = open_audit(store)
        for _ in range(REPORT_EVERY):
            audit.append(GRANTED, now=NOW)
        told: list[int] = []
        assert verify(store, KEYS, NOW, progress=told.append).records == REPORT_EVERY + 1
        assert told == [REPORT_EVERY]

    def test_a_broker_may_go_on_writing_meanwhile(self) -> None:
        class Busy(MemoryStore):
            """Whenever the trail is looked at, something is written first; up to a point."""

            audit: Audit | None = None
            left = 40

            def get(self, key: Key, *, now: float) -> Item | None:
                self._write(key.partition)
                return super().get(key, now=now)

            def query(self, partition: str, prefix: str = "", *, now: float, limit: int = 1000) -> Any:
                found = super().query(partition, prefix, now=now, limit=limit)
                self._write(partition)
                return found

            def _write(self, partition: str) -> None:
                if self.audit and self.left and partition.startswith("audit#"):
                    self.left -= 1
                    self.audit.append(GRANTED, now=NOW)

        store = Busy()
        audit = open_audit(store)
        audit.append(GRANTED, now=NOW)
        store.audit = audit
        found = verify(store, KEYS, NOW)
        assert found.broken is None
        assert store.left < 40
        for head in found.heads:
            assert store.get(record_key(head.writer, head.seq), now=NOW)

    def test_a_fork_of_the_process_keeps_one_chain(self, store: MemoryStore) -> None:
        audit = open_audit(store)
        twin = copy.copy(audit)
        for _ in range(3):
            audit.append(GRANTED, now=NOW)
            twin.append(GRANTED, now=NOW)
        assert verify(store, KEYS, NOW).records == 7


class TestExport:
    @pytest.fixture
    def records(self, store: MemoryStore) -> list[dict[str, Any]]:
        audits = [open_audit(store, n) for n in range(3)]
        for n in range(12):
            audits[n % 3].append(GRANTED, now=NOW + 2 + n)
        return [dict(record) for record in audits[0].read(NOW, starts=True)]

    def test_a_whole_one(self, store: MemoryStore, records: list[dict[str, Any]]) -> None:
        found = verify_export(records, KEYS)
        assert found[:2] == (None, 15)
        assert sorted(found.heads) == sorted(verify(store, KEYS, NOW).heads)
        assert found.begins_late == 0

    def test_of_some_days_with_the_first_record_of_each_chain(self, records: list[dict[str, Any]]) -> None:
        starts = [record for record in records if record["seq"] == 1]
        later = [record for record in records if record["at"] >= NOW + 9]
        found = verify_export([*starts, *later], KEYS)
        assert (found.broken, found.begins_late) == (None, 3)
        broken = verify_export(later, KEYS).broken
        assert broken
        assert "of another place" in broken.why

    @pytest.mark.parametrize("at", range(3, 14))
    def test_a_changed_or_missing_line_is_named(self, records: list[dict[str, Any]], at: int) -> None:
        changed = [dict(record) for record in records]
        changed[at]["user"] = "eve-1"
        broken = verify_export(changed, KEYS).broken
        assert broken
        assert broken.why == f"line {at + 1}: the record was changed"
        writer = records[at]["writer"]
        follows = any(record["writer"] == writer for record in records[at + 1 :])
        broken = verify_export(records[:at] + records[at + 1 :], KEYS).broken
        if records[at]["seq"] > 2 and follows:
            assert broken
            assert broken.writer == writer

    def test_a_stray_writer(self, records: list[dict[str, Any]]) -> None:
        assert verify_export([{"writer": "x"}], KEYS).broken == Broken(
            "x", 0, "line 1: no chain is called so"
        )
        assert verify_export([], KEYS).heads == []

    def test_heads_are_comparable(self, records: list[dict[str, Any]]) -> None:
        assert all(isinstance(head, Named) for head in verify_export(records, KEYS).heads)
