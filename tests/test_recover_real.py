"""scripts/recover.py on a vault that the package wrote, with shares that lay on custodians' tokens."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import combinations
from pathlib import Path

import pytest

from medcrypt_hsm import sharing
from medcrypt_hsm.company import ALONE
from medcrypt_hsm.hashchain import CEREMONY, ROTATE
from medcrypt_hsm.keys import canonical
from medcrypt_hsm.library import Vault
from medcrypt_hsm.newcustody import Candidate, Wanted
from medcrypt_hsm.period import Month
from medcrypt_hsm.rekey import Purpose, rekey
from medcrypt_hsm.tokens import open_token
from tests.support import SoftHsm
from tests.support_practice import Practice, pin, unlocked
from tests.support_recover import Run, run

BOTH_PROFILES = True
V2, V1, SECRET = "EXP-00417", "EXP-00112", "secreto compartido 4711 ejemplo"
NAMES = ("ana", "berta", "carl")


@pytest.fixture(scope="module")
def custodians(softhsm: SoftHsm) -> list[str]:
    """Their tokens: one ceremony of each vault may lie on them."""
    return [softhsm.make_token() for _ in NAMES]


def hold_ceremony(vault: Vault, custodians: list[str], reason: str = CEREMONY) -> None:
    """Two of three."""
    with ExitStack() as stack:
        opened = [stack.enter_context(open_token(uri, pin)) for uri in custodians]
        candidates = [Candidate(name, token) for name, token in zip(NAMES, opened, strict=True)]
        purpose = Purpose(reason, f"breakglass.{reason}", "", custody=Wanted(candidates, 2))
        rekey(unlocked(vault), purpose, [], ALONE)


def take_shares(vault: Vault, custodians: list[str], directory: Path) -> list[Path]:
    """As a custodian's own program would, with the token and its PIN, without the vault."""
    state, files = unlocked(vault).state, []
    assert state.breakglass is not None
    for uri in custodians:
        with open_token(uri, pin) as token:
            record = sharing.read_record(token, state.vault_id, state.breakglass.ceremony)
            with sharing.open_share(token, record) as y:
                value = {
                    "audit_key": record.audit_key.hex(), "ceremony": record.ceremony.hex(), "of": record.of,
                    "threshold": record.threshold, "vault": record.vault_id.hex(), "version": 1, "x": record.x,
                    "y": y.value.hex(),
                }  # fmt: skip
        files.append(directory / record.name)
        files[-1].touch(mode=0o600)
        files[-1].write_bytes(canonical(value) + b"\n")
    return files


def recover(practice: Practice, command: str, *shares: Path, text: str = "") -> Run:
    arguments = [argument for share in shares for argument in ("--share", str(share))]
    return run(command, str(practice.path), *arguments, text=text)


def test_each_pair_opens_what_the_practice_wrote(practice: Practice, custodians: list[str], tmp_path: Path) -> None:
    practice.clock.set("2026-11-22")
    chat: list[str] = []
    written: list[str] = []
    with practice.open() as vault:
        phone = practice.pair(vault, V2)
        vault.add_patient(V1, protocol="v1", secret=SECRET)
    for day in ("2026-11-23", "2026-12-03", "2027-01-04"):
        practice.clock.set(day)
        with practice.open() as vault:
            vault.rotate()
            long = f"{day}: " + "informe " * 900
            read = phone.write(long)
            assert [opened.text for opened in vault.decrypt("\n".join(read))] == [long]
            for who, text, wires in (
                ("from the doctor", f"tome dos, {day}", vault.encrypt(V2, f"tome dos, {day}")),
                ("from the patient", long, read),
                ("from an unknown sender", f"versión 1, {day}", vault.encrypt(V1, f"versión 1, {day}")),
            ):
                chat += wires
                written += [f"{who}, {day[:7]}", text]
            if day == "2026-12-03":
                hold_ceremony(vault, custodians)
                vault.add_hold("pleito", patient=V2)
    with practice.open() as vault:
        shares = take_shares(vault, custodians, tmp_path)
        exported = tmp_path / "export.jsonl"
        vault.export_audit(exported)
        months, entries = [str(month) for month in unlocked(vault).state.months], vault.verify().sequence

    for pair in combinations(shares, 2):
        done = recover(practice, "read", *pair, text="\n".join(chat))
        assert (done.code, done.err) == (0, ""), done.err
        lines = done.out.splitlines()
        assert [line for at, line in enumerate(lines) if at % 2] == written[1::2]
        assert all(about in line for about, line in zip(written[::2], lines[::2], strict=True))
        assert [", seen before, " in line for line in lines[::2]] == [False, True, False] * 3
        done = recover(practice, "check", *pair)
        assert (done.code, done.err) == (0, ""), done.err
    assert f"months kept: 3 ({', '.join(months)}); shredded: 0\n" in done.out
    assert f"entries opened: {entries} of {entries}\n" in done.out
    assert "holds: 1\n" in done.out
    assert [line.split("\t")[0] for line in recover(practice, "patients", *shares).out.splitlines()[1:]] == [V1, V2]
    log = recover(practice, "log", *shares).out
    assert log.startswith(exported.read_text("utf-8"))


def test_behind_a_shredding_and_another_ceremony(practice: Practice, custodians: list[str], tmp_path: Path) -> None:
    with practice.open() as vault:
        phone = practice.pair(vault, V2)
        hold_ceremony(vault, custodians)
        old = take_shares(vault, custodians, tmp_path)
        copy = practice.copy("copy.db")
        first = phone.write("noviembre")
    practice.clock.set("2026-12-20")
    with practice.open() as vault:
        vault.rotate()
        second = phone.write("diciembre")
        vault.shred([Month.parse("2026-11")])
        done = recover(practice, "read", *old[:2], text="\n".join(first + second))
        assert done.out.splitlines()[1:] == ["diciembre"], done.err
        assert "the keys of 2026-11 were shredded on purpose" in done.err
        hold_ceremony(vault, custodians, ROTATE)
        (tmp_path / "new").mkdir()
        new = take_shares(vault, custodians, tmp_path / "new")
    assert recover(practice, "check", *new[1:]).code == 0
    done = recover(practice, "check", *old[1:])
    assert done.code == 5
    assert "is of an earlier ceremony" in done.err
    practice.path = copy
    assert recover(practice, "read", *old[1:], text=first[0]).out.splitlines()[1:] == ["noviembre"]
