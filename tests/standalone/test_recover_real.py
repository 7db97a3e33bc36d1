"""scripts/standalone/recover.py on a vault that the package wrote, with shares that lay on custodians' tokens."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from medcrypt_hsm.api.vault import Vault
from medcrypt_hsm.lifecycle import shares as sharing
from medcrypt_hsm.month import Month
from medcrypt_hsm.notation import canonical
from medcrypt_hsm.tokens.access import open_token
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.openable_vault import Run, run
from tests.support.practice import Practice, pin, statuses, unlocked
from tests.support.softhsm import SoftHsm

BOTH_PROFILES = True
V2, V1, SECRET = "EXP-00417", "EXP-00112", "secreto compartido 4711 ejemplo"


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm) -> dict[str, str]:
    return {name: softhsm.make_token() for name in (*CUSTODIANS, "nueva")}


@pytest.fixture
def circle(practice: Practice, uris: dict[str, str], tmp_path: Path) -> Circle:
    return Circle(practice, uris, tmp_path / "homes")


def take_shares(vault: Vault, circle: Circle, directory: Path) -> list[Path]:
    """As a custodian's own program would, with the token and its PIN."""
    state, files = unlocked(vault).state, []
    assert state.breakglass is not None
    for who in CUSTODIANS:
        with open_token(circle.uris[who], pin) as token:
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


def opens(practice: Practice, *shares: Path) -> str:
    done = recover(practice, "check", *shares)
    assert (done.code, done.err) == (0, ""), done.err
    return done.out


def test_each_pair_opens_what_the_practice_wrote(circle: Circle, tmp_path: Path) -> None:
    practice = circle.practice
    chat: list[str] = []
    written: list[str] = []
    with practice.open() as vault:
        phone = practice.pair(vault, V2)
        vault.patients.add(V1, protocol="v1", secret=SECRET)
    for day in ("2026-11-23", "2026-12-03", "2027-01-04"):
        practice.clock.set(day)
        with practice.open() as vault:
            vault.months.open()
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
            circle.ceremony()
            circle.practice.clock.forward(hours=1)
            circle.record(circle.drill("ana"))
    with practice.open() as vault:
        vault.holds.add("pleito", patient=V2)
        shares = take_shares(vault, circle, tmp_path)
        exported = tmp_path / "export.jsonl"
        vault.log.export(exported)
        months, entries = [str(month) for month in unlocked(vault).state.months], vault.log.verify().sequence

    for pair in combinations(shares, 2):
        done = recover(practice, "read", *pair, text="\n".join(chat))
        assert (done.code, done.err) == (0, "")
        lines = done.out.splitlines()
        assert lines[1::2] == written[1::2]
        assert all(about in line for about, line in zip(written[::2], lines[::2], strict=True))
        assert [", seen before, " in line for line in lines[::2]] == [False, True, False] * 3
        said = opens(practice, *pair)
    assert f"months kept: 3 ({', '.join(months)}); shredded: 0\n" in said
    assert f"entries opened: {entries} of {entries}\n" in said
    assert "holds: 1\n" in said
    assert [line.split("\t")[0] for line in recover(practice, "patients", *shares).out.splitlines()[1:]] == [V1, V2]
    assert recover(practice, "log", *shares).out.startswith(exported.read_text("utf-8"))


def test_behind_a_shredding_and_another_ceremony(circle: Circle, tmp_path: Path) -> None:
    practice = circle.practice
    circle.ceremony()
    with practice.open() as vault:
        phone = practice.pair(vault, V2)
        old = take_shares(vault, circle, tmp_path)
        first = phone.write("noviembre")
    copy = practice.copy("copy.db")
    practice.clock.set("2026-12-20")
    with practice.open() as vault:
        vault.months.open()
        second = phone.write("diciembre")
        vault.months.shred([Month.parse("2026-11")])
        done = recover(practice, "read", *old[:2], text="\n".join(first + second))  # while it is in use
        assert done.out.splitlines()[1:] == ["diciembre"]
        assert "the keys of 2026-11 were shredded on purpose" in done.err
    circle.rotate()
    (tmp_path / "new").mkdir()
    with practice.open() as vault:
        new = take_shares(vault, circle, tmp_path / "new")
    opens(practice, *new[1:])
    done = recover(practice, "check", *old[1:])
    assert done.code == 5
    assert "is of an earlier ceremony" in done.err
    practice.path = copy
    assert recover(practice, "read", *old[1:], text=first[0]).out.splitlines()[1:] == ["noviembre"]


def test_behind_uses_of_break_glass(circle: Circle, tmp_path: Path) -> None:
    """The guest's entries, the practice as another token has it, and a ceremony of that token."""
    practice = circle.practice
    circle.ceremony()
    with practice.open() as vault:
        (wire,) = practice.pair(vault, V2).write("hola")
        shares = take_shares(vault, circle, tmp_path)
    request = circle.request(V2)
    assert statuses(circle.decrypt(request, [circle.approve(request, who) for who in ("ana", "carla")], wire)) == ["ok"]
    opens(practice, *shares[:2])
    with practice.open() as vault:
        vault.encrypt(V2, "gracias")
    opens(practice, *shares[:2])
    practice.clock.forward(hours=1)
    request = circle.request()
    circle.recover(request, [circle.approve(request, who) for who in ("ana", "berta")])
    opens(practice, *shares[1:])
    assert recover(practice, "read", *shares[1:], text=wire).out.splitlines()[1:] == ["hola"]
    practice.clock.forward(hours=1)
    circle.rotate(token="nueva")
    with practice.open() as vault:
        shares = take_shares(vault, circle, tmp_path)
    opens(practice, *shares[:2])
    assert recover(practice, "read", *shares[:2], text=wire).out.splitlines()[1:] == ["hola"]
