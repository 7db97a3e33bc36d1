"""What is done without any of the vault's tokens: notes beside the vault, and statements that travel as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.errors import Malformed, Refused, UsageError
from medcrypt_hsm.vault.audit.statements import Drill, Request
from medcrypt_hsm.vault.store.rows import Location
from tests.support.breakglass import Circle
from tests.support.rogue import signed
from tests.support.vault_builder import SoftToken

DRILL = Drill(bytes(16), bytes(6), "ana", 1, bytes(32), "Ana Ejemplo", "2026-11-22T12:00:00Z", bytes(32))


def test_without_custodians_there_is_nobody_to_ask_and_the_attempt_is_noted(circle: Circle) -> None:
    with pytest.raises(UsageError, match="this vault has no custodians"):
        emergency.custodians_of(Location.parse(circle.practice.path))
    with pytest.raises(Refused, match="this vault has no custodians: nobody can open it but its own tokens"):
        circle.request("EXP-1")
    with circle.practice.open() as vault:  # which enters what was noted
        (noted,) = [entry.detail["notes"] for _, entry in vault.log.entries() if entry.action == "notes"]
    assert [(note["what"], note["actor"]) for note in noted] == [("breakglass.request: refused", "nueva")]


def test_a_statement_comes_out_of_its_file_as_it_went_in(tmp_path: Path) -> None:
    made, file = signed(DRILL, SoftToken("ana")), tmp_path / "ana.drill"
    emergency.check_new(file)
    emergency.write(file, made)
    assert emergency.read_statement(file, Drill) == made
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Malformed):
        emergency.read_statement(file, Request)
    for again in (lambda: emergency.check_new(file), lambda: emergency.write(file, made)):
        with pytest.raises(UsageError, match="exists already"):
            again()


def test_a_file_that_was_not_sent(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent cannot be read: No such file or directory") as refused:
        emergency.file_that_was_sent(tmp_path / "absent")
    assert refused.value.hint == "name the file that was sent"


@pytest.mark.parametrize("text", ["", "0123456789", "0123456789abcd", "0123456789ax"])
def test_what_is_no_ceremonys_id(text: str) -> None:
    assert emergency.ceremony_id("0123456789ab") == bytes.fromhex("0123456789ab")
    with pytest.raises(UsageError) as refused:
        emergency.ceremony_id(text)
    assert refused.value.message == f"{text!r} is no ceremony's id"
