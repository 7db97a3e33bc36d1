"""Checkpoints read back: the strict parser. That a log continues one: tests/vault/test_log.py.

The notes are made from the spec by tests/support/vault_builder.py. That the independent verifier says the same is in
tests/two_readers/test_logs.py.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from medcrypt_hsm.errors import Malformed, NotAuthentic
from medcrypt_hsm.vault.audit.checkpoints import LARGEST, Checkpoint
from tests.support.checkout import ROOT
from tests.support.vault_builder import SoftToken, VaultBuilder

DOCTOR = SoftToken("doctor")
BUILT = VaultBuilder()
BUILT.set_trust("month", "2026-11", {"opened": BUILT.now(), "shredded": ""})
BUILT.introduce(DOCTOR, DOCTOR)
NOTE = BUILT.checkpoint(DOCTOR)
LINES = NOTE.decode().split("\n")


class TestParser:
    def test_what_it_reads_it_writes(self) -> None:
        note = Checkpoint.parse(NOTE)
        assert (note.vault_id, note.sequence) == (BUILT.vault, 1)
        assert (note.hash, note.trust, note.time) == (BUILT.rows[0].hash, BUILT.rows[0].trust, BUILT.rows[0].time)
        assert note.encode().encode() == NOTE
        note.verify([SoftToken("other").spki, DOCTOR.spki])

    def test_a_signature_of_nobody_here(self) -> None:
        with pytest.raises(NotAuthentic, match="not signed by a token of this log"):
            Checkpoint.parse(NOTE).verify([SoftToken("other").spki])

    def test_the_key_id_alone_proves_nothing(self) -> None:
        """4 bytes of a fingerprint can be met by trying: the key id only says which key to try."""
        note = Checkpoint.parse(NOTE)
        twin = replace(note, key_id=(other := SoftToken("other")).id[:4])
        with pytest.raises(NotAuthentic):
            twin.verify([other.spki])
        with pytest.raises(NotAuthentic):
            twin.verify([DOCTOR.spki])

    @pytest.mark.parametrize(
        "change",
        [
            {"sequence": "01"},
            {"sequence": 0},
            {"sequence": -1},
            {"sequence": "+1"},
            {"sequence": 1 << 63},
            {"sequence": "9" * 5000},
            {"sequence": "١"},
            {"hash": ""},
            {"hash": base64.b64encode(bytes(31)).decode()},
            {"hash": base64.b64encode(bytes(33)).decode()},
            {"hash": base64.b64encode(bytes(32)).decode().rstrip("=")},
            {"hash": "A" * 42 + "B="},
            {"hash": base64.urlsafe_b64encode(b"\xff" * 32).decode()},
            {"trust": "A" * 42 + "B="},
            {"trust": " " + base64.b64encode(bytes(32)).decode()},
            {"time": "2026-11-31T09:00:00Z"},
            {"time": "2026-11-01T09:00:00+00:00"},
            {"time": "2026-11-01T09:00:00Z "},
            {"time": "2026-11-01T09:00:00Z\nmore"},
            {"origin": "example.com/log"},
            {"origin": "medcrypt/" + "AB" * 16},
            {"origin": f"medcrypt/{BUILT.vault.hex()}00"},
        ],
    )
    def test_signed_all_the_same_but_not_of_the_form(self, change: dict[str, object]) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(BUILT.checkpoint(DOCTOR, None, **change))

    @pytest.mark.parametrize(
        "note",
        [
            b"",
            b"\n",
            NOTE[:-1],
            NOTE + b"\n",
            NOTE + NOTE,
            NOTE + LINES[6].encode() + b"\n",
            b"\xef\xbb\xbf" + NOTE,
            b"\xff" + NOTE,
            NOTE.replace(b"\n", b"\r\n"),
            NOTE.replace("—".encode(), b"-"),
            NOTE.replace(b"\n\n", b"\n"),
            NOTE.replace(b"\n\n", b"\n\n\n"),
            NOTE.decode().encode("utf-16"),
            NOTE + bytes(LARGEST),
        ],
    )
    def test_other_bytes(self, note: bytes) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(note)

    @pytest.mark.parametrize(
        "der",
        [
            b"",
            b"\x30\x00",
            encode_dss_signature(0, 1),
            encode_dss_signature(1, 0),
            encode_dss_signature(1 << 256, 1),
            encode_dss_signature(1, 1) + b"\0",
            b"\x30\x81\x06\x02\x01\x01\x02\x01\x01",
            b"\x30\x07\x02\x02\x00\x01\x02\x01\x01",
            b"\x30\x06\x02\x01\xff\x02\x01\x01",
            b"\x30\x06\x02\x01\x01",
        ],
    )
    def test_a_signature_in_another_form(self, der: bytes) -> None:
        signed = base64.b64encode(DOCTOR.id[:4] + der).decode()
        with pytest.raises(Malformed):
            Checkpoint.parse("\n".join([*LINES[:6], " ".join([*LINES[6].split(" ")[:2], signed]), ""]).encode())

    @settings(max_examples=500)
    @given(st.data())
    def test_mutations_are_refused_or_read_as_they_are(self, data: st.DataObject) -> None:
        note = bytearray(NOTE)
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, 400)) % (len(note) + 1)  # a signature in DER has one of several lengths
            length = data.draw(st.integers(0, 4))
            note[at : at + length] = data.draw(st.one_of(st.binary(max_size=4), st.sampled_from([b"\n", b"=", b"A"])))
        try:
            parsed = Checkpoint.parse(bytes(note))
        except Malformed:
            return
        assert parsed.encode().encode() == bytes(note)
        try:
            parsed.verify([DOCTOR.spki])
        except NotAuthentic:
            return
        assert parsed.text == Checkpoint.parse(NOTE).text

    @given(st.binary(max_size=600))
    def test_anything(self, note: bytes) -> None:
        with pytest.raises(Malformed):
            Checkpoint.parse(note)


_PEAK = """
import re, sys
from pathlib import Path
from medcrypt_hsm.vault.audit.verify import public_key_der
from medcrypt_hsm.vault.inspection import verify_file
verify_file(sys.argv[1], [public_key_der(Path(sys.argv[2]).read_text())])
print(re.search(r"VmHWM:\\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """200,000 records held at once would be 80 MiB. A long log of entries is measured by scripts/bench."""
    key = tmp_path / "doctor.pem"
    key.write_bytes(DOCTOR.pem())

    def peak(records: int) -> int:
        BUILT.records = [("message", n.to_bytes(8, "big"), "2026-11", 1) for n in range(records)]
        path = BUILT.write(tmp_path / "vault.db")
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, str(path), str(key)], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return int(done.stdout)

    try:
        assert peak(200_000) - peak(2_000) < 4 << 10
    finally:
        BUILT.records = []
