"""The certificate in words: whatever a name holds, it is a name there and ends no line."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import pytest

from medcrypt_hsm.crypto.words import words
from medcrypt_hsm.lifecycle.certificate_text import markdown

KEK: dict[str, Any] = {"name": "doctor", "serial": "12345678", "kek": 1, "destroyed": True}
BACKUP: dict[str, Any] = {
    "name": "before.db", "time": "2026-11-01T09:00:00Z", "deleted": False, "opened_by": [], "ceremony": ""
}  # fmt: skip
SHREDDED: dict[str, Any] = {
    "action": "month.shred", "subject": "2026-09", "vault": "c0ffee", "generation": 2, "entry": 9, "hash": "ab" * 32,
    "actor": "mara", "intended": "2026-11-22T12:00:00Z", "time": "2026-11-22T12:00:05Z", "tokens": [KEK],
    "backups": [], "custody": None, "escrow": "none", "old_shares": [], "v1_secrets": 0, "outside": [],
}  # fmt: skip


def lines(**changed: Any) -> list[str]:
    return markdown(SHREDDED | changed, "cd" * 32).splitlines()


def test_all_of_a_plain_one() -> None:
    assert markdown(SHREDDED, "cd" * 32) == (
        "# Months shredded: 2026-09\n"
        "\n"
        "Vault c0ffee, new keyset 2, committed by audit entry 9.\n"
        f"Entry hash: {'ab' * 32}\n"
        "Ordered by mara at 2026-11-22T12:00:00Z; certified at 2026-11-22T12:00:05Z.\n"
        f"JSON with the same content, SHA-256: {'cd' * 32}\n"
        "\n"
        "## Old root keys\n"
        "\n"
        "- token doctor (serial 12345678), root key 1: destroyed; its use was tried afterwards and failed\n"
        "\n"
        "## Backups\n"
        "\n"
        "- none was made by the program; copies of the file that somebody made fare like backups\n"
        "\n"
        "## What is left\n"
        "\n"
        "- break-glass escrow: none\n"
        "- old blocks of the disk that held the vault: what they hold is under the destroyed root keys\n"
    )


def test_a_token_that_was_away() -> None:
    told = lines(tokens=[KEK, KEK | {"name": "spare", "destroyed": False}])
    assert [line for line in told if "spare" in line] == [
        "- token spare (serial 12345678), root key 1: NOT DESTROYED, the token was not used. With its PIN it opens "
        "older copies"
    ]
    assert told[-1] == "- old blocks of the disk that held the vault: what they hold fares like a backup of that time"


@pytest.mark.parametrize(
    ("changed", "fate"),
    [
        ({}, "opens with no token of this practice any more"),
        ({"deleted": True}, "deleted: it was the program's own, made at the re-key before"),
        ({"opened_by": ["spare", "third"]}, "STILL OPENS with token spare, third: destroy this copy"),
        ({"ceremony": "c1"}, "STILL OPENS with the break-glass key of ceremony c1: destroy this copy"),
        (
            {"opened_by": ["spare"], "ceremony": "c1"},
            "STILL OPENS with token spare and with the break-glass key of ceremony c1: destroy this copy",
        ),
    ],
)
def test_the_fate_of_a_backup(changed: dict[str, Any], fate: str) -> None:
    assert f"- before.db of 2026-11-01T09:00:00Z: {fate}" in lines(backups=[BACKUP | changed])


def test_custodians_are_read_aloud() -> None:
    key = "ef" * 32
    ana = {"name": "ana", "x": 1, "model": "SoftHSM v2", "serial": "7", "profile": "aes-kw", "commitment": "01" * 32,
           "attestation": "token-claimed", "approval_key": "30"}  # fmt: skip
    custody = {"ceremony": "c2", "threshold": 2, "custodians": [ana, ana | {"name": "berta", "x": 2}], "key": key}
    told = lines(custody=custody, action="breakglass.rotate", subject="ana, berta")
    assert told[0] == "# Break-glass rotated: ana, berta"
    assert "Ceremony c2: any 2 of 2 open the vault." in told
    assert f"Break-glass key: {words(bytes.fromhex(key))}" in told
    at = told.index("- 1: ana, SoftHSM v2, serial 7, aes-kw, token-claimed")
    assert told[at + 1] == f"  - approval key: {words(sha256(b'0').digest())}"


@pytest.mark.parametrize("name", ["a\n# Nothing was destroyed", "a\u2028b", "a\x1b[2J", "*a*", "[a](b)", "`a`", "a|b"])
def test_no_name_ends_a_line_or_means_anything(name: str) -> None:
    plain = markdown(SHREDDED, "")
    told = markdown(SHREDDED | {"actor": name, "subject": name, "tokens": [KEK | {"name": name}]}, "")
    assert len(told.splitlines()) == len(plain.splitlines())
    assert name not in told
    assert told.count("\\u") >= 3
