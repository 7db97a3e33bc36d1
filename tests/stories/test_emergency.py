"""The test that matters: the doctor's token is gone, and two of three custodians bring everything back.

Five people with a machine each: a home, a SoftHSM2 directory with their own token, and nothing in common but the files
that they send each other. The ceremony alone has every token in one place, as in life.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.crypto import xwing
from medcrypt_hsm.lifecycle import escrow
from medcrypt_hsm.vault.choosing import peek
from tests.support.circle import CUSTODIANS, REASON, Machine, own_sources, shares, split, uri
from tests.support.command_line import PIN_VARIABLE
from tests.support.forged_vault import forge
from tests.support.pcscd import Pcscd
from tests.support.practice import MovedClock, Phone
from tests.support.ready_yubikey import PIN, ready
from tests.support.softhsm import SoftHsm
from tests.support.store import by_hand, open_at
from tests.support.yubikey import VirtualYubiKey

PEOPLE = ("doctor", *CUSTODIANS, "nueva")
TEXTS = tuple(f"{month} {who}" for month in ("septiembre", "octubre", "noviembre") for who in ("doctora", "paciente"))


@dataclass
class Village:
    """What is left when the doctor's machine and token are gone. ``wires``: by text, of three months."""

    machines: dict[str, Machine]
    vault: Path  # a copy of the file, as somebody found it
    checkpoint: Path  # the officer's
    former_vault: Path  # from before the present ceremony
    former: dict[str, Machine]  # and the custodians' tokens as they were then: copies, which real tokens do not allow
    wires: dict[str, str] = field(default_factory=dict)

    def nueva(self, directory: Path, vault: Path | None = None) -> Machine:
        """The machine of whoever comes to help, with a token that opens nothing, and a copy of the vault."""
        machine = self.machines["nueva"].copy(directory)
        machine.get_vault(vault or self.vault)
        return machine


def request(machine: Machine, *options: str) -> Path:
    out = machine.home / "pedido"
    token = ("--token", f"nueva={uri('nueva')}")
    machine("breakglass", "request", "--reason", REASON, *token, *options, out)
    return out


def approve(machine: Machine, sent: Path, who: str, **more: Any) -> Path:
    """On the custodian's own machine, where there is no vault."""
    (file,) = machine.get(sent)
    out = machine.home / f"permiso-{who}"
    out.unlink(missing_ok=True)
    machine("--yes", "breakglass", "approve", file, "--token", uri(who), out, **more)
    assert not machine.vault.exists()
    return out


@pytest.fixture(scope="module")
def village(tmp_path_factory: pytest.TempPathFactory) -> Village:
    directory = tmp_path_factory.mktemp("village")
    practice = Machine.of(directory / "practice")
    for label in PEOPLE:
        practice.softhsm.make_token(label)
    practice.env |= own_sources(*CUSTODIANS)
    wires, clock = {}, MovedClock()

    practice("vault", "create", "--token", f"doctor={uri('doctor')}", at="2026-09-20 12:00:00")
    clock.set("2026-09-20 12:01")
    payload = practice("--json", "patient", "add", "EXP-1", at=clock.now).json["payload"]
    phone = Phone.scan(payload, clock)
    practice("patient", "confirm", "EXP-1", phone.check_code, at=clock.now)

    def write(month: str) -> None:
        wires[f"{month} doctora"] = practice("encrypt", "EXP-1", stdin=f"{month} doctora", at=clock.now).stdout
        (wires[f"{month} paciente"],) = phone.write(f"{month} paciente")
        assert practice("decrypt", stdin=wires[f"{month} paciente"], at=clock.now).stdout == f"{month} paciente"

    write("septiembre")
    clock.set("2026-10-20")
    write("octubre")
    practice("--yes", "breakglass", "ceremony", *shares(*CUSTODIANS), at=clock.now)
    former_vault = Path(shutil.copy(practice.vault, directory / "former.db"))
    then = SoftHsm(directory / "then").prepare()
    shutil.copytree(practice.softhsm.directory / "tokens", then.directory / "tokens", dirs_exist_ok=True)
    former = {name: Machine.of(directory / "former" / name) for name in CUSTODIANS}
    split(then, former)
    clock.set("2026-11-10")
    practice("--yes", "breakglass", "rotate", at=clock.now)
    clock.set("2026-11-20")
    write("noviembre")
    checkpoint = directory / "nota"
    practice("audit", "checkpoint", checkpoint, at=clock.now)
    found = Path(shutil.copy(practice.vault, directory / "found.db"))

    machines = {name: Machine.of(directory / name) for name in PEOPLE}
    split(practice.softhsm, machines)
    for lost in (machines.pop("doctor"), practice):
        shutil.rmtree(lost.home.parent)
    return Village(machines, found, checkpoint, former_vault, former, wires)


@pytest.mark.parametrize("pair", list(itertools.combinations(CUSTODIANS, 2)), ids="-".join)
def test_each_pair_brings_everything_back(village: Village, tmp_path: Path, pair: tuple[str, str]) -> None:
    nueva = village.nueva(tmp_path / "nueva")
    asked = request(nueva)
    approvals = [nueva.get(approve(village.machines[who], asked, who))[0] for who in pair]
    (since,) = nueva.get(village.checkpoint)
    done = nueva("--json", "--yes", "breakglass", "recover", asked, *approvals, "--since", since)
    assert (done.json["token"], done.json["retired"]) == ("nueva", ["doctor"])
    assert "only a checkpoint" not in done.stderr
    messages = nueva("--json", "decrypt", "--archive", stdin="\n".join(village.wires.values())).json["messages"]
    assert [message["text"] for message in messages] == list(TEXTS)
    nueva("audit", "verify", "--since", since)
    keys = nueva.home / "keys.pem"
    keys.write_text(nueva("audit", "public-key").stdout)
    nueva("audit", "verify", "--public-key", keys, env={"MEDCRYPT_PIN_SOURCE": "file:/nowhere"})
    nueva("patient", "repair", "EXP-1")
    assert not any("not finished" in problem for problem in nueva("--json", "status").json["problems"])


def test_one_patient_is_read_and_the_practice_stays_as_it_was(village: Village, tmp_path: Path) -> None:
    nueva = village.nueva(tmp_path / "nueva")
    asked = request(nueva, "--patient", "EXP-1")
    approvals = [nueva.get(approve(village.machines[who], asked, who))[0] for who in ("berta", "carla")]
    done = nueva("--json", "breakglass", "decrypt", asked, *approvals, stdin="\n".join(village.wires.values()))
    assert [message["text"] for message in done.json["messages"]] == list(TEXTS)
    assert [token["name"] for token in nueva("--json", "status").json["tokens"]] == ["doctor"]


def test_one_share_alone_is_none(village: Village, tmp_path: Path) -> None:
    nueva = village.nueva(tmp_path / "nueva")
    asked = request(nueva)
    (alone,) = nueva.get(approve(village.machines["ana"], asked, "ana"))
    for given in ((alone,), (alone, alone)):
        refused = nueva("--json", "--yes", "breakglass", "recover", asked, *given, code=6).error
        assert (refused["error"], "BG-2" in refused["message"]) == ("breakglass-refused", True)
    assert nueva.vault.read_bytes() == village.vault.read_bytes()


def test_shares_of_two_ceremonies_are_none(village: Village, tmp_path: Path) -> None:
    """Of the one before, as a thief of an old copy would try it: refused by the token, and by the vault."""
    nueva, aside = village.nueva(tmp_path / "nueva"), village.nueva(tmp_path / "aside", village.former_vault)
    asked, older = request(nueva), request(aside)
    (new,) = nueva.get(approve(village.machines["carla"], asked, "carla"))
    before = village.former["ana"]
    (sent,) = before.get(asked)
    command = ("--json", "--yes", "breakglass", "approve", sent, "--token", uri("ana"), "o")
    assert "BG-3" in before(*command, code=6).error["message"]
    (old,) = nueva.get(approve(before, older, "ana"))
    for machine, whose, given in ((nueva, asked, (new, old)), (aside, older, (*aside.get(old), *aside.get(new)))):
        refused = machine("--json", "--yes", "breakglass", "recover", whose, *given, code=6).error
        assert (refused["error"], "BG-3" in refused["message"]) == ("breakglass-refused", True)


def seal_another(vault: Path, key: bytes) -> None:
    """An escrow that the true shares open, with a keyset of the forger's in it."""
    with closing(open_at(vault)) as file:
        state = peek(file)
    assert state.breakglass is not None
    glass, keyset = state.breakglass, (bytes(32), bytes(32), bytes(32))
    sealed = escrow.seal(key or glass.key, keyset, state.vault_id, state.generation, glass.ceremony)
    changed = [(glass.escrow.sealed, sealed), *([(glass.key, key)] if key else [])]
    with by_hand(vault) as db:
        for old, new in changed:
            rows = db.execute("SELECT kind, value FROM trust WHERE kind IN ('breakglass', 'escrow')").fetchall()
            for kind, value in rows:
                altered = value.replace(old.hex().encode(), new.hex().encode())
                db.execute("UPDATE trust SET value = ? WHERE kind = ?", (altered, kind))


def whole_vault(vault: Path, key: bytes) -> None:
    """The same, in a log that is right in itself: signed by the forger from the first entry on."""
    true = vault.rename(vault.with_name("true.db"))
    evil = vault.with_name("evil")
    forge(true, evil / "vault.db", key=key)
    (evil / "vault.db").rename(vault)


@pytest.mark.parametrize(("plant", "code"), [(seal_another, 7), (whole_vault, 5)], ids=["rows", "log"])
@pytest.mark.parametrize("swapped", [False, True], ids=["keyset", "break-glass key"])
def test_what_a_forger_plants_is_found_out(
    village: Village, tmp_path: Path, plant: Callable[[Path, bytes], None], code: int, swapped: bool
) -> None:
    """Requester and custodians are honest, and consented; the file was altered before, or without their knowledge."""
    nueva = village.nueva(tmp_path / "nueva")
    if code == 5:  # an honest request is made with the planted file: with the true one it names another history
        plant(nueva.vault, xwing.public_key(bytes(32)) if swapped else b"")
    asked = request(nueva)
    approvals = [nueva.get(approve(village.machines[who], asked, who))[0] for who in ("ana", "berta")]
    if code == 7:
        plant(nueva.vault, xwing.public_key(bytes(32)) if swapped else b"")
    planted = nueva.vault.read_bytes()
    refused = nueva("--json", "--yes", "breakglass", "recover", asked, *approvals, code=code).error
    assert refused["error"] == {5: "not-authentic", 7: "audit-broken"}[code]
    assert nueva.vault.read_bytes() == planted


def test_a_pair_with_their_shares_on_yubikeys(
    pcscd: Pcscd, yubikey: Callable[..., VirtualYubiKey], tmp_path: Path
) -> None:
    """Each is plugged in where its owner is, and nowhere else."""
    pcscd.stop()
    pcscd.start(readers=2)
    keys = {name: ready(yubikey("5.7.4")) for name in ("ana", "berta")}
    practice = Machine.of(tmp_path / "practice")
    for label in ("doctor", "carla", "nueva"):
        practice.softhsm.make_token(label)
    sources = f"env:{PIN_VARIABLE} carla=env:{PIN_VARIABLE} ana=env:KEY_PIN berta=env:KEY_PIN"
    practice.env |= {"KEY_PIN": PIN, "MEDCRYPT_PIN_SOURCE": sources}
    practice("vault", "create", "--token", f"doctor={uri('doctor')}")
    practice("patient", "add", "EXP-1", "--unconfirmed")
    wire = practice("encrypt", "EXP-1", stdin="hola").stdout
    named = [part for name, key in keys.items() for part in ("--share-token", f"{name}={key.uri}")]
    held = practice("--json", "--yes", "breakglass", "ceremony", *named, *shares("carla")).json
    assert [told["serial"] for told in held["custodians"]][:2] == [str(key.serial) for key in keys.values()]

    nueva = Machine.of(tmp_path / "nueva")
    split(practice.softhsm, {"nueva": nueva})
    nueva.get_vault(practice.vault)
    shutil.rmtree(practice.home.parent)
    for key in keys.values():
        key.pull()
    nueva.now = "2026-11-22 13:00:00"
    asked, approvals = request(nueva), []
    for name, key in keys.items():
        key.insert()
        machine = Machine.of(tmp_path / name)
        machine.now = nueva.now
        machine.env |= {"KEY_PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:KEY_PIN"}
        (sent,) = machine.get(asked)
        machine("--yes", "breakglass", "approve", sent, "--token", key.uri, machine.home / name)
        drill = machine("--json", "breakglass", "drill", "--token", key.uri, f"{name}.drill").json
        assert drill["custodian"] == name
        key.pull()
        approvals += nueva.get(machine.home / name)
    done = nueva("--json", "--yes", "breakglass", "recover", asked, *approvals).json
    assert (done["token"], done["retired"]) == ("nueva", ["doctor"])
    assert nueva("decrypt", stdin=wire).stdout == "hola"
    nueva("audit", "verify")
