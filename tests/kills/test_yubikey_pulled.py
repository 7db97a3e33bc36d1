"""A YubiKey pulled out at an APDU: exit code 3, nothing half done, and no second try of the PIN.

Each work runs once to its end to count its APDUs. Then a copy of vault and YubiKey is made for each point, the key is
pulled there (before the APDU is executed, or when it is but unanswered), put back, and the same work is done again. All
points with ``scripts/test --full``, some otherwise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import MedcryptError, TokenError, WrongPin
from medcrypt_hsm.tokens import provision
from tests.support.checkout import FULL
from tests.support.command_line import CommandLine
from tests.support.pcscd import Pcscd
from tests.support.practice import MovedClock, Phone
from tests.support.yubikey import FIRMWARES, VirtualYubiKey

PIN, PUK = "481516", "23423108"
TEXT = "Tome 5 mg cada mañana. Dra. Ejemplo"
RETIRED = range(0x82, 0x96)


@dataclass
class Desk:
    """A vault file, the YubiKey that it belongs to, and a clock."""

    directory: Path
    key: VirtualYubiKey
    clock: MovedClock
    wire: str = ""

    @property
    def path(self) -> Path:
        return self.directory / "vault" / "vault.db"

    def create(self) -> Vault:
        return Vault.create(self.path, token="doctor", uri=self.key.uri, pin=lambda _: PIN, clock=self.clock)

    def open(self) -> Vault:
        return Vault.open(self.path, pin=lambda _: PIN, clock=self.clock)

    def copy(self, directory: Path) -> Desk:
        """Another one of the same past; its key is in the reader."""
        shutil.copytree(self.directory, directory)
        copied = VirtualYubiKey(self.key.pcscd, directory / "key", reader=self.key.reader)
        return Desk(directory, copied.start(), MovedClock(self.clock.now), self.wire)


@pytest.fixture(scope="module", params=FIRMWARES if FULL else ["4.3.5", "5.7.4"])
def blank(
    request: pytest.FixtureRequest, worker_pcscd: Pcscd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    """A YubiKey with PINs, no vault, not inserted."""
    worker_pcscd.start(readers=1)
    directory = tmp_path_factory.mktemp("blank")
    key = VirtualYubiKey.make(worker_pcscd, directory / "key", serial=12345678, firmware=request.param).start()
    provision.initialize(key.uri, None, PUK, PIN)
    key.stop()
    yield Desk(directory, key, MovedClock())
    worker_pcscd.stop()


@pytest.fixture(scope="module")
def established(blank: Desk, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The same with a vault and a message that waits to be read."""
    desk = blank.copy(tmp_path_factory.mktemp("established") / "desk")
    with desk.create() as vault:
        phone = Phone.scan(vault.patients.add("EXP-00417", unconfirmed=True).payload, desk.clock)
        (desk.wire,) = phone.write(TEXT)
    desk.key.stop()
    return desk


def points(apdus: int, most: int) -> list[tuple[int, bool]]:
    """The APDU's number from 1, and whether it is executed. Some evenly between the first and the last, or all."""
    everywhere = [(number, executed) for number in range(1, apdus + 1) for executed in (False, True)]
    if FULL or len(everywhere) <= most:
        return everywhere
    return [everywhere[round(i * (len(everywhere) - 1) / (most - 1))] for i in range(most)]


def pulled_everywhere(
    start: Desk, work: Callable[[Desk], None], most: int, directory: Path, *, slots: Collection[int] = (2,)
) -> None:
    """Do ``work`` with the key pulled at one APDU after another: it succeeds, or says that the token is gone.

    ``slots``: how many of the retired ones may hold a key in the end.
    """
    counted = start.copy(directory / "counted")
    counted.key.log()
    work(counted)
    apdus = counted.key.log()
    counted.key.stop()
    for number, executed in points(len(apdus), most):
        desk = start.copy(directory / f"{number}-{executed}")
        tries = desk.key.state.pin.left
        desk.key.pull_at(number, executed=executed)
        try:
            work(desk)
        except TokenError as exc:
            if not exc.hint:
                pytest.fail(f"no hint: {exc}")
        except MedcryptError as exc:
            pytest.fail(f"pulled at APDU {number} of {len(apdus)} ({executed=}): {exc.name}: {exc}")
        else:
            assert number > len(apdus) // 2, "it did without most of its APDUs"
        desk.key.insert()
        assert desk.key.state.pin.left == tries
        work(desk)
        with desk.open() as vault:
            vault.log.verify()
            status = vault.status()
        assert (status.problems, status.orphans) == ((), ())
        assert len(set(desk.key.state.keys) & set(RETIRED)) in slots
        desk.key.stop()
        shutil.rmtree(desk.directory)


def create(desk: Desk) -> None:
    with desk.create() as vault:
        assert vault.status().verified


def decrypt(desk: Desk) -> None:
    with desk.open() as vault:
        (message,) = vault.decrypt(desk.wire)
        if message.error is not None:
            raise message.error
        assert message.text == TEXT


def open_month(desk: Desk) -> None:
    desk.clock.set("2026-12-03")
    with desk.open() as vault:
        vault.months.open()
        assert str(vault.month) == "2026-12"


def test_vault_create(blank: Desk, tmp_path: Path) -> None:
    def again_or_first(desk: Desk) -> None:
        """What a person does: run it again, unless the first run had made the vault when the key was pulled."""
        if desk.path.exists():
            try:
                desk.open().close()
            except MedcryptError:
                create(desk)
        else:
            create(desk)

    pulled_everywhere(blank, again_or_first, 5, tmp_path)


def test_decrypt(established: Desk, tmp_path: Path) -> None:
    pulled_everywhere(established, decrypt, 5, tmp_path)


def test_opening_a_month(established: Desk, tmp_path: Path) -> None:
    pulled_everywhere(established, open_month, 5, tmp_path)


def test_a_wrong_pin_costs_one_try_at_most(established: Desk, tmp_path: Path) -> None:
    """Nothing is sent again, wherever the first sending was cut off."""
    desk = established.copy(tmp_path / "desk")
    desk.key.log()
    with pytest.raises(WrongPin):
        Vault.open(desk.path, pin=lambda _: "999999", clock=desk.clock)
    apdus = len(desk.key.log())
    desk.key.stop()
    costs = set()
    for number, executed in points(apdus, 8):
        desk = established.copy(tmp_path / f"{number}-{executed}")
        before = desk.key.state.pin.left
        desk.key.pull_at(number, executed=executed)
        with pytest.raises((WrongPin, TokenError)):
            Vault.open(desk.path, pin=lambda _: "999999", clock=desk.clock)
        costs.add(before - desk.key.state.pin.left)
        desk.key.stop()
    assert costs <= {0, 1}


def test_the_command_line_says_so(established: Desk, tmp_path: Path, medcrypt: CommandLine) -> None:
    desk = established.copy(tmp_path / "desk")
    medcrypt.env |= {"MEDCRYPT_VAULT": str(desk.path), "PIN": PIN, "MEDCRYPT_PIN_SOURCE": "env:PIN"}
    medcrypt.now = desk.clock.now
    desk.key.pull_at(20)
    error = medcrypt("--json", "decrypt", stdin=desk.wire, code=3).error
    assert error["error"] == "token-removed"
    assert "put the token back" in error["hint"]
    assert medcrypt("--json", "decrypt", stdin=desk.wire, code=3).error["error"] == "token-absent"
    desk.key.insert()
    assert TEXT in medcrypt("decrypt", stdin=desk.wire).stdout
    desk.key.stop()
