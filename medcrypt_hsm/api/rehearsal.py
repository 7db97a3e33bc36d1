"""A ceremony rehearsed from end to end on throw-away SoftHSM2 tokens: what would be done, and that it would work.

    ceremony ─▶ a drill by each custodian ─▶ every threshold put together ─▶ too few refused ─▶ one patient read ─▶
    the practice recovered, its old token refused

In: names and a threshold. Out: the certificate, and each step that was proven. Everything lies in a directory of mode
0700 that is gone at the end, also after Ctrl-C. A process can rehearse once, before it has used any token: SoftHSM2
reads where its tokens are when it is loaded, and never again.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from medcrypt_hsm.api.vault import Vault
from medcrypt_hsm.breakglass import emergency
from medcrypt_hsm.breakglass.emergency import Actor
from medcrypt_hsm.breakglass.journal import Journal
from medcrypt_hsm.breakglass.request import RequestOptions
from medcrypt_hsm.errors import Failed, TokenAbsent, VaultForeign
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.messages import wire
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import TokenInfo, provision
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from medcrypt_hsm.vault.audit.statements import Approval, Request, Signed
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass
from medcrypt_hsm.vault.clock import system_clock
from medcrypt_hsm.vault.store.rows import Location

PLACES = ("softhsm/libsofthsm2.so", "*/softhsm/libsofthsm2.so", "pkcs11/libsofthsm2.so", "libsofthsm2.so")
ROOTS = ("/usr/lib", "/usr/lib64", "/usr/local/lib")
MODULE_VARIABLE = "MEDCRYPT_PKCS11_MODULE"
_CONF = """directories.tokendir = {}
objectstore.backend = file
objectstore.umask = 0077
log.level = ERROR
slots.removable = false
slots.mechanisms = ALL
library.reset_on_fork = false
"""
_DOCTOR, _EMERGENCY = "the practice", "an emergency"  # labels; no custodian's name has a space
_PRACTICE = "practice"  # what the throw-away vault calls its token
_PATIENTS = ("REHEARSAL-1", "REHEARSAL-2")
_NAMED = 6  # sets of custodians that are named one by one


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    words: str  # what was proven


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """``certificate``'s files are gone; its value and text are those of a real ceremony's."""

    glass: BreakGlass
    certificate: Certificate
    steps: tuple[Step, ...]


def rehearse(names: Sequence[str], threshold: int, modules: Sequence[str] = ()) -> Rehearsed:
    """Hold the ceremony with custodians of these names, use it, and take everything away.

    ``modules``: those that a config file names. Raises TokenAbsent without SoftHSM2, Failed where a step does not hold.
    """
    from medcrypt_hsm.tokens.pkcs11.modules import any_loaded

    module = find_module(modules)
    if any_loaded():
        raise Failed("this process has used a token already", "rehearse in a process of its own")
    with tempfile.TemporaryDirectory(prefix="medcrypt-rehearsal-") as made, _only_here(Path(made), module):
        return _Stage(Path(made), module, tuple(names), threshold).play()


def find_module(modules: Sequence[str] = ()) -> Path:
    """SoftHSM2's module: where one was named, or where packages put it. Raises TokenAbsent."""
    named = [os.environ.get(MODULE_VARIABLE, ""), *modules]
    found = [Path(path) for path in named if "softhsm2" in Path(path).name]
    found += [path for root in ROOTS for place in PLACES for path in sorted(Path(root).glob(place))]
    for path in found:
        if path.is_file():
            return path
    raise TokenAbsent(
        "a rehearsal needs SoftHSM2, and it is not there",
        t("install it (Debian: 'apt install softhsm2'), or name its module in {variable}", variable=MODULE_VARIABLE),
    )


@contextmanager
def _only_here(directory: Path, module: Path) -> Iterator[None]:
    """SoftHSM2 sees this directory's tokens alone, and no URI leads to another module."""
    conf = directory / "softhsm2.conf"
    (directory / "tokens").mkdir(mode=0o700)
    conf.write_text(_CONF.format(directory / "tokens"))
    changed = {"SOFTHSM2_CONF": str(conf), MODULE_VARIABLE: str(module)}
    before = {name: os.environ.get(name) for name in changed}
    os.environ |= changed
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass
class _Clock:
    """The machine's, but that a minute passes between two steps: what is newer must be so by a second."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return system_clock() + self.ahead

    def forward(self) -> None:
        self.ahead += timedelta(minutes=1)


@dataclass
class _Stage:
    """The throw-away practice, its custodians, and whoever comes in an emergency."""

    directory: Path
    module: Path
    names: tuple[str, ...]
    threshold: int
    clock: _Clock = field(default_factory=_Clock)
    steps: list[Step] = field(default_factory=list)
    pins: dict[str, str] = field(default_factory=dict, repr=False)  # by serial
    uris: dict[str, str] = field(default_factory=dict)  # by label

    def play(self) -> Rehearsed:
        for label in (_DOCTOR, *self.names, _EMERGENCY):
            self._make_token(label)
        wires = self._make_practice()
        shares = {name: self.uris[name] for name in self.names}
        with self._open() as vault:
            made = vault.custodians.ceremony(shares, self.threshold, lambda name: self._pin)
            glass = vault.custodians.present
        assert glass is not None
        self._proven(
            "ceremony", t("every share was read back from its token: {custodians}", custodians=", ".join(self.names))
        )
        self._drill()
        self._reconstruct(shares)
        self._refuse_too_few(wires)
        self._read_one_patient(wires)
        self._recover(wires)
        return Rehearsed(glass, made, tuple(self.steps))

    def _proven(self, name: str, words: str) -> None:
        self.steps.append(Step(name, words))
        self.clock.forward()

    # What there is

    def _make_token(self, label: str) -> None:
        pin, so_pin = secrets.token_hex(8), secrets.token_hex(8)
        info = provision.initialize(f"pkcs11:?module-path={self.module}", label, so_pin, pin)
        self.pins[info.serial], self.uris[label] = pin, info.uri

    def _pin(self, info: TokenInfo) -> str:
        return self.pins[info.serial]

    @property
    def _path(self) -> Path:
        return self.directory / "vault" / "vault.db"

    def _make_practice(self) -> dict[str, str]:
        """A vault with two patients; what was written to each."""
        self._path.parent.mkdir(mode=0o700)
        wires = {}
        uri = self.uris[_DOCTOR]
        with Vault.create(self._path, token=_PRACTICE, uri=uri, pin=self._pin, clock=self.clock) as vault:
            for patient in _PATIENTS:
                vault.patients.add(patient, unconfirmed=True)
                wires[patient] = "".join(vault.encrypt(patient, _text(patient)))
        return wires

    def _open(self) -> Vault:
        return Vault.open(self._path, token=_PRACTICE, pin=self._pin, clock=self.clock)

    def _hand(self, label: str) -> Actor:
        return Actor(self._pin, "rehearsal", self.uris[label], clock=self.clock)

    def _journal(self, label: str) -> Journal:
        return Journal(self.directory / f"journal {label}")

    # What is done

    def _drill(self) -> None:
        results = [emergency.drill(self._hand(name), self._journal(name))[0] for name in self.names]
        self.clock.forward()
        with self._open() as vault:
            vault.custodians.drill(results)
        self._proven(
            "drill",
            t("each custodian alone shows that the share is there: {custodians}", custodians=", ".join(self.names)),
        )

    def _reconstruct(self, shares: Mapping[str, str]) -> None:
        with self._open() as vault:
            tried = vault.custodians.reconstruct(shares, lambda name: self._pin)
        sets = ", ".join(["+".join(some) for some in tried[:_NAMED]] + ["…"] * (len(tried) > _NAMED))
        self._proven(
            "reconstruct",
            t(
                "{count} sets of {threshold} shares open the escrow: {sets}",
                count=len(tried),
                threshold=self.threshold,
                sets=sets,
            ),
        )

    def _ask(self, patient: str, names: Sequence[str]) -> tuple[Signed[Request], list[Signed[Approval]]]:
        asked = RequestOptions("emergency", "rehearsal", "rehearsal", patient)
        request = emergency.request(
            Location.parse(self._path), self._hand(_EMERGENCY), asked, self._journal(_EMERGENCY)
        )
        data = request.file()
        return request, [
            emergency.approve(data, self._hand(name), self._journal(name), lambda reviewed: None) for name in names
        ]

    def _refuse_too_few(self, wires: Mapping[str, str]) -> None:
        some = self.names[: self.threshold - 1]
        request, approvals = self._ask(_PATIENTS[0], some)
        try:
            self._read(request, approvals, wires)
        except BreakGlassRefused as exc:
            if exc.rule is not Rule.BG_2:
                raise
        else:
            raise _does_not_hold(t("too few custodians opened the vault"))
        self._proven(
            "too-few",
            t("approvals of {custodians} alone are refused ({rule})", custodians=", ".join(some), rule=Rule.BG_2),
        )

    def _read(
        self, request: Signed[Request], approvals: Sequence[Signed[Approval]], wires: Mapping[str, str]
    ) -> list[Opened]:
        found = wire.find("\n".join(wires.values()))
        return emergency.decrypt(Location.parse(self._path), self._hand(_EMERGENCY), request, approvals, found)

    def _read_one_patient(self, wires: Mapping[str, str]) -> None:
        some = self.names[-self.threshold :]
        opened = self._read(*self._ask(_PATIENTS[0], some), wires)
        if [message.text for message in opened] != [_text(_PATIENTS[0]), None]:
            raise _does_not_hold(t("one patient's messages were not read, or another's were"))
        self._proven(
            "decrypt",
            t(
                "{custodians} let one patient be read, and no other ({rule})",
                custodians=joined(t(" and "), some),
                rule=Rule.BG_9,
            ),
        )

    def _recover(self, wires: Mapping[str, str]) -> None:
        some = self.names[: self.threshold]
        with Vault.recover(
            self._path,
            *self._ask("", some),
            pin=self._pin,
            uri=self.uris[_EMERGENCY],
            actor="rehearsal",
            clock=self.clock,
        ) as vault:
            vault.log.verify()
            opened = vault.decrypt("\n".join(wires.values()), archive=True)
        if [message.text for message in opened] != [_text(patient) for patient in _PATIENTS]:
            raise _does_not_hold(t("not every message was read after the recovery"))
        self._proven(
            "recover",
            t(
                "{custodians} bring the practice to a new token, and every message is read",
                custodians=joined(t(" and "), some),
            ),
        )
        try:
            self._open().close()
        except VaultForeign:
            self._proven("retired", "the token that was lost opens nothing any more")
        else:
            raise _does_not_hold(t("the token that was lost still opens the vault"))


def _text(patient: str) -> str:
    return f"to {patient}"


def _does_not_hold(what: str) -> Failed:
    return Failed(t("the rehearsal failed: {step}", step=what), "do not hold the ceremony; report this")
