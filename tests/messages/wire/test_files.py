"""Files on the wire: vectors that the patient's program made, every kind of damage, both programs on each other's."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, UsageError
from medcrypt_hsm.messages.wire import files
from medcrypt_hsm.messages.wire.files import CHUNK, HEADER_BYTES, STORED, FileHeader, Metadata
from medcrypt_hsm.month import Month
from scripts.standalone import patient
from tests.support.checkout import VECTOR_DIRECTORY

VECTORS: dict[str, Any] = json.loads((VECTOR_DIRECTORY / "files-v2.json").read_text("utf-8"))
PAIRING, KEY = bytes.fromhex(VECTORS["pairing_hex"]), bytes.fromhex(VECTORS["message_key_hex"])
NOVEMBER = Month.parse("2026-11")


def content(vector: dict[str, Any]) -> bytes:
    unit, length = bytes.fromhex(vector["repeat_hex"]), vector["length"]
    return (unit * (length // len(unit) + 1))[:length]


def made(data: bytes, metadata: Metadata, random: bytes, *, sender: str = "p", month: Month = NOVEMBER) -> bytes:
    """By the package, under the vectors' message key. ``random``: file key 32, prefix 7, nonce 12."""
    first = files.head(PAIRING, month, sender, random[32:39], random[39:51])
    with Secret(bytes(random[:32])) as key:
        header = FileHeader.parse(first + AESGCM(KEY).encrypt(first[-12:], key.value, files.key_aad(first)))
        chunks = b"".join(bytes(view) for view in files.sealed(key, header, metadata, io.BytesIO(data)))
    return header.text + chunks


def read(blob: bytes) -> tuple[FileHeader, Metadata, bytes]:
    """By the package. Raises what it raises; nothing is handed out then."""
    header = FileHeader.parse(blob[:HEADER_BYTES])
    files.check_length(len(blob))
    try:
        file_key = AESGCM(KEY).decrypt(header.nonce, header.sealed, header.aad)
    except Exception as exc:
        raise NotAuthentic("the file key does not open") from exc
    with Secret(file_key) as key:
        payload = b"".join(bytes(view) for view in files.opened(key, header, io.BytesIO(blob[HEADER_BYTES:])))
    metadata, rest = Metadata.parse(memoryview(payload))
    return header, metadata, bytes(rest)


def read_by_patient(blob: bytes) -> tuple[str, str, bytes]:
    source = io.BytesIO(blob)
    header = patient.FileHeader.parse(source.read(HEADER_BYTES))
    return patient.parse_metadata(b"".join(patient.open_file(KEY, header, source)))


@pytest.mark.parametrize("vector", VECTORS["files"], ids=lambda vector: vector["what"])
def test_vectors(vector: dict[str, Any]) -> None:
    """Both programs make each file to the byte, and read it."""
    data, random = content(vector), bytes.fromhex(vector["random_hex"])
    metadata = Metadata(vector["name"], vector["media_type"])
    blob = made(data, metadata, random, sender=vector["sender"], month=Month.parse(vector["month"]))
    assert (blob[:HEADER_BYTES].hex(), len(blob)) == (vector["header_hex"], vector["bytes"])
    assert hashlib.sha256(blob).hexdigest() == vector["sha256"]
    assert vector.get("file_hex", blob.hex()) == blob.hex()
    by_patient = patient.seal_file(
        KEY, PAIRING, patient.Month.parse(vector["month"]), vector["sender"], vector["name"], vector["media_type"],
        io.BytesIO(data), random,
    )  # fmt: skip
    assert b"".join(by_patient) == blob
    header, read_metadata, read_data = read(blob)
    assert (header.pairing, str(header.month), header.sender) == (PAIRING, vector["month"], vector["sender"])
    assert (read_metadata, read_data) == (metadata, data)
    assert read_by_patient(blob) == (vector["name"], vector["media_type"], data)


@pytest.fixture(scope="module")
def blobs() -> list[bytes]:
    return [
        made(content(vector), Metadata(vector["name"], vector["media_type"]), bytes.fromhex(vector["random_hex"]),
             sender=vector["sender"])
        for vector in VECTORS["files"]
    ]  # fmt: skip


@pytest.mark.parametrize("fault", VECTORS["faults"], ids=lambda fault: fault["what"])
def test_faults(blobs: list[bytes], fault: dict[str, Any]) -> None:
    if "file_hex" in fault:
        blob = bytes.fromhex(fault["file_hex"])
    else:
        whole = blobs[fault["of"]]
        pieces = (bytes.fromhex(p) if isinstance(p, str) else whole[p[0] : p[1]] for p in fault["parts"])
        blob = b"".join(pieces)
        assert blob != whole
    with pytest.raises(MedcryptError) as caught:
        read(blob)
    assert caught.value.name == fault["error"]
    with pytest.raises(patient.Problem) as problem:
        read_by_patient(blob)
    assert problem.value.code == patient.NOT_AUTHENTIC


def test_what_is_said_of_a_wrong_end(blobs: list[bytes]) -> None:
    two = next(blob for blob, v in zip(blobs, VECTORS["files"], strict=True) if "exactly two" in v["what"])
    with pytest.raises(NotAuthentic, match="cut off"):
        read(two[: HEADER_BYTES + STORED])
    with pytest.raises(NotAuthentic, match="goes on behind its end"):
        read(two + two[HEADER_BYTES + STORED :])
    with pytest.raises(NotAuthentic, match="altered"):
        read(two[:-1] + bytes([two[-1] ^ 1]))


LARGE = made(bytes(range(256)) * 1100, Metadata("lab.pdf", "application/pdf"), bytes(range(51)))
PIECES = [LARGE[HEADER_BYTES + at : HEADER_BYTES + at + STORED] for at in range(0, len(LARGE) - HEADER_BYTES, STORED)]


def refused(blob: bytes) -> None:
    for reader in (read, read_by_patient):
        with pytest.raises((NotAuthentic, patient.Problem)):
            reader(blob)


@given(at=st.integers(0, len(LARGE) - 1), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(at: int, bit: int) -> None:
    refused(LARGE[:at] + bytes([LARGE[at] ^ 1 << bit]) + LARGE[at + 1 :])


BORDERS = [HEADER_BYTES + n * STORED for n in range(len(PIECES))]


@given(
    st.one_of(st.integers(0, len(LARGE) - 1), st.sampled_from(BORDERS).flatmap(lambda b: st.integers(b - 17, b + 17)))
)
def test_any_truncation_is_found(length: int) -> None:
    refused(LARGE[:length])


@given(st.binary(min_size=1, max_size=200).map(bytes) | st.sampled_from(PIECES))
def test_anything_behind_the_end_is_found(more: bytes) -> None:
    refused(LARGE + more)


@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=7).filter(lambda order: order != list(range(len(PIECES)))))
def test_any_other_order_of_chunks_is_found(order: list[int]) -> None:
    refused(LARGE[:HEADER_BYTES] + b"".join(PIECES[at] for at in order))


names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60)


@given(st.binary(max_size=300), names, st.binary(min_size=51, max_size=51))
def test_what_one_program_makes_the_other_reads(data: bytes, name: str, random: bytes) -> None:
    blob = made(data, Metadata(name), random)
    assert read(blob)[1:] == (Metadata(name), data)
    assert read_by_patient(blob) == (name, files.UNKNOWN_TYPE, data)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    refused(data)
    refused(files.MAGIC + data)


def test_the_counter_ends() -> None:
    assert files.chunk_nonce(b"prefix7", 2**32 - 1, last=True) == b"prefix7\xff\xff\xff\xff\x01"
    with pytest.raises(UsageError, match="too long"):
        files.chunk_nonce(b"prefix7", 2**32, last=True)
    assert files.most_content(Metadata("a.b")) == 2**48 - len(Metadata("a.b").encode())


def test_a_source_that_gives_little_at_a_time() -> None:
    """What is read at once is the system's choice, and makes no difference."""
    data = bytes(range(256)) * 600

    class Dripping(io.BytesIO):
        def readinto(self, buffer: Any, /) -> int:
            return super().readinto(memoryview(buffer)[:1009])

    whole = made(data, Metadata("a"), bytes(51))
    header = FileHeader.parse(whole[:HEADER_BYTES])
    with Secret(bytes(32)) as key:
        assert b"".join(map(bytes, files.sealed(key, header, Metadata("a"), Dripping(data)))) == whole[HEADER_BYTES:]
        opened = b"".join(map(bytes, files.opened(key, header, Dripping(whole[HEADER_BYTES:]))))
    assert opened == Metadata("a").encode() + data
    assert len(data) > 2 * CHUNK


@pytest.mark.parametrize(
    ("name", "media_type"), [("", "a/b"), ("n" * 256, "a/b"), ("a", "ab"), ("a", "a/b;c"), ("a", "")]
)
def test_metadata_that_no_file_carries(name: str, media_type: str) -> None:
    with pytest.raises(ValueError):
        Metadata(name, media_type)


def test_nothing_tells_the_name_or_the_key() -> None:
    assert "lab" not in repr(Metadata("lab.pdf"))
