"""``Vault``: everything the program does, for programs. No terminal, no global state; the CLI is a thin user of it.

    from medcrypt_hsm import Vault

    with Vault.open("practice.db", pin=lambda token: ask()) as vault:
        vault.add_patient("EXP-00417", label="…")
        for message in vault.decrypt(pasted_text):
            print(message.patient, message.text)

In: paths, token URIs, a PIN callback. Out: frozen values. Every method may raise any MedcryptError.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from medcrypt_hsm import auditing, backups, creation, messages, months, notes, patients, tokens, trust, wire
from medcrypt_hsm.audit import Entry
from medcrypt_hsm.auditing import Verified
from medcrypt_hsm.backups import Loss
from medcrypt_hsm.errors import (
    LastTry,
    Malformed,
    NotAuthentic,
    PinLocked,
    TokenAbsent,
    TokenError,
    TokenRemoved,
    UsageError,
    VaultError,
    VaultUnfinished,
    WrongPin,
)
from medcrypt_hsm.messages import Opened
from medcrypt_hsm.months import MonthsOpened
from medcrypt_hsm.patients import NewPairing, Pairing
from medcrypt_hsm.period import Month
from medcrypt_hsm.tokens import PinPrompt, Token
from medcrypt_hsm.tokens.stored import same_token, stored_uri
from medcrypt_hsm.trust import RegisteredToken, TrustState
from medcrypt_hsm.unlock import unlock
from medcrypt_hsm.unlocked import Clock, Unlocked, anchor_name, audit_key_name, kek_name, system_clock, timestamp
from medcrypt_hsm.vault import VaultFile


@dataclass(frozen=True, slots=True)
class Status:
    """What is there. ``verified`` is False when only the file was looked at, without its token."""

    path: Path
    verified: bool
    vault_id: str
    created: str
    generation: int
    entries: int
    tokens: tuple[RegisteredToken, ...]
    months: tuple[tuple[str, str], ...]  # month, its state: active, grace, archived, or "due" when not opened yet
    pairings: int
    grace_days: int
    retain_months: int
    problems: tuple[str, ...]  # what is wrong or due, in words
    orphans: tuple[str, ...] = ()  # objects on the token that nothing refers to
    anchor: int | None = None  # the sequence that the token remembers


class Vault:
    """An unlocked vault. Use as a context manager: leaving locks it and logs out of the token."""

    def __init__(self, unlocked: Unlocked) -> None:
        self._unlocked = unlocked
        self.opened_month: MonthsOpened | None = None
        """The month that opened by itself during the last call, if one did."""

    # Opening and making

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        pin: PinPrompt,
        token: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        actor: str | None = None,
        clock: Clock = system_clock,
    ) -> Vault:
        """Verify and unlock the vault at ``path`` with the token called ``token`` (a short name or URI).

        Left out, the vault's only token, or the one that is present, is used. What fails before the unlock is noted
        beside the vault.
        """
        path = Path(path)
        file = VaultFile.open(path)
        try:
            state = peek(file)
            registered = choose_token(state, token)
            uri = uri_to_open(registered, token)
            with _noted(path, registered.name, clock):
                opened = tokens.open_token(uri, pin, last_try=last_try, modules=modules)
            try:
                unlocked = unlock(file, opened, registered.name, actor=actor or _user(), clock=clock)
                notes.enter(unlocked)
            except BaseException:
                opened.close()
                raise
        except BaseException:
            file.close()
            raise
        return cls(unlocked)

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        token: str,
        uri: str,
        pin: PinPrompt,
        actor: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        clock: Clock = system_clock,
    ) -> Vault:
        """Make a vault whose first token, at ``uri``, gets the short name ``token``."""
        check_token_name(token)
        path = Path(path)
        creation.check_absent(path)
        opened = tokens.open_token(uri, pin, last_try=last_try, modules=modules)
        try:
            return cls(creation.create(path, token, opened, actor=actor or _user(), clock=clock))
        except BaseException:
            opened.close()
            raise

    @classmethod
    def restore(
        cls,
        path: str | Path,
        source: str | Path,
        *,
        pin: PinPrompt,
        agree: Callable[[Loss], None],
        token: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        actor: str | None = None,
        clock: Clock = system_clock,
    ) -> Vault:
        """Put a backup in the vault's place; ``agree`` is told what would be lost and raises to stop."""
        file = VaultFile.open(Path(source), in_use=False)
        try:
            registered = choose_token(peek(file), token)
        finally:
            file.close()
        opened = tokens.open_token(uri_to_open(registered, token), pin, last_try=last_try, modules=modules)
        try:
            return cls(
                backups.restore(
                    Path(path), Path(source), opened, registered.name, agree, actor=actor or _user(), clock=clock
                )
            )
        except BaseException:
            opened.close()
            raise

    def close(self) -> None:
        self._unlocked.lock()
        self._unlocked.file.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Messages

    def encrypt(self, patient_id: str, text: str) -> list[str]:
        """Wire texts for a patient, one a part."""
        with self._work():
            texts, self.opened_month = messages.encrypt(self._unlocked, patient_id, text)
        return texts

    def decrypt(
        self, text: str | Sequence[wire.Message | wire.Bad], *, archive: bool = False, month: Month | None = None
    ) -> list[Opened]:
        """Every message in any text (or what ``wire.find`` found in it), in order; each with its text or its error."""
        found = wire.find(text) if isinstance(text, str) else text
        if not found:
            raise Malformed("there is no MedCrypt message in this text")
        with self._work():
            self.opened_month = months.open_if_due(self._unlocked)
            return messages.decrypt(self._unlocked, found, archive=archive, month=month)

    # Patients

    def add_patient(
        self,
        patient_id: str,
        *,
        label: str = "",
        protocol: str = "v2",
        secret: str | None = None,
        unconfirmed: bool = False,
    ) -> NewPairing:
        """Pair with a patient; the result's ``payload`` is what the phone must get, shown once."""
        with self._work():
            self.opened_month = months.open_if_due(self._unlocked)
            return patients.add(
                self._unlocked, patient_id, label=label, protocol=protocol, secret=secret, unconfirmed=unconfirmed
            )

    def confirm_patient(self, patient_id: str, code: str) -> Pairing:
        with self._work():
            return patients.confirm(self._unlocked, patient_id, code)

    def patients(self) -> list[Pairing]:
        with self._work():
            return patients.list_all(self._unlocked)

    def patient(self, patient_id: str) -> list[Pairing]:
        """All pairings of one patient, oldest first."""
        with self._work():
            return patients.show(self._unlocked, patient_id)

    def patient_qr(self, patient_id: str) -> NewPairing:
        """The pairing code again, until it expires or is confirmed."""
        with self._work():
            return patients.qr(self._unlocked, patient_id)

    def repair_patient(self, patient_id: str) -> NewPairing:
        with self._work():
            self.opened_month = months.open_if_due(self._unlocked)
            return patients.repair(self._unlocked, patient_id)

    def remove_patient(self, patient_id: str) -> list[Pairing]:
        with self._work():
            return patients.remove(self._unlocked, patient_id)

    # Months

    def months_due(self) -> tuple[Month, ...]:
        return months.months_due(self._unlocked)

    def rotate(self, to: Month | None = None) -> MonthsOpened | None:
        """Open the clock's month; several at once only when ``to`` names it. None if nothing is due."""
        with self._work():
            if to is None:
                return months.open_if_due(self._unlocked)
            if not self.months_due() and to == self._unlocked.current_month():
                return None
            return months.open_months(self._unlocked, to)

    # Audit

    def audit_entries(self) -> list[tuple[int, Entry]]:
        with self._work():
            return auditing.show(self._unlocked)

    def verify(self) -> Verified:
        """Chain, heads, every entry and every row. Raises AuditBroken."""
        return auditing.verify(self._unlocked)

    def anchor(self) -> int:
        """Make the token remember the newest head, recorded; its sequence."""
        self._unlocked.record("audit.anchor")
        return self._unlocked.write_anchor().sequence

    def checkpoint(self) -> str:
        """The newest head as a signed note."""
        return self._unlocked.checkpoint()

    def public_keys(self) -> dict[str, str]:
        """Short name of each token → its audit key in PEM."""
        return {name: auditing.public_key_pem(token.audit_key) for name, token in self._unlocked.state.tokens.items()}

    # The vault as a whole

    def backup(self, target: str | Path) -> Verified:
        return backups.backup(self._unlocked, Path(target))

    def status(self) -> Status:
        """Verified: the token's anchor, the newest head and what the token holds were looked at."""
        unlocked = self._unlocked
        status = file_status(unlocked.file, unlocked.state, verified=True, now=timestamp(unlocked.now()))
        orphans = find_orphans(unlocked.token, unlocked.state)
        found = tuple(
            f"the token holds an object of another vault, or of one that was never finished: {name}" for name in orphans
        )
        anchor = unlocked.anchor.sequence if unlocked.anchor else None
        return _with(status, problems=status.problems + found, orphans=orphans, anchor=anchor)

    def token_evidence(self) -> list[tokens.Evidence]:
        """What the token claims of this vault's root KEK and audit key."""
        unlocked = self._unlocked
        vault_id, generation = unlocked.state.vault_id, unlocked.state.generation
        return [unlocked.token.evidence(n) for n in (kek_name(vault_id, generation), audit_key_name(vault_id))]

    @property
    def token_name(self) -> str:
        return self._unlocked.registered.name

    @property
    def month(self) -> Month:
        """The newest month that is open: what is encrypted now is encrypted under it."""
        return self._unlocked.state.newest_month

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Around a call that may write: afterwards the token's anchor is at most a day old."""
        self.opened_month = None
        yield
        if self._unlocked.anchor_is_due():
            self._unlocked.write_anchor()


# Without a token


def peek(file: VaultFile) -> TrustState:
    """The trust state as the file has it: not verified. Raises VaultUnfinished."""
    with file.snapshot():
        state = trust.parse(file.trust_rows())
    if state.unfinished:
        raise VaultUnfinished(f"making the vault {file.path} was interrupted")
    return state


def choose_token(state: TrustState, wanted: str | None) -> RegisteredToken:
    """The registered token that is meant: by short name, by URI, the only one, or the one that is present."""
    if wanted is not None and wanted in state.tokens:
        return state.tokens[wanted]
    if wanted is not None:
        for token in state.tokens.values():
            if same_token(wanted, token.uri):
                return token
        known = ", ".join(sorted(state.tokens))
        raise UsageError(f"this vault has no token {wanted}", f"its tokens are: {known}")
    if len(state.tokens) == 1:
        return next(iter(state.tokens.values()))
    for token in state.tokens.values():
        with suppress(TokenError):
            tokens.find_token(stored_uri(token.uri))
            return token
    raise TokenAbsent("none of this vault's tokens is present: " + ", ".join(sorted(state.tokens)))


def uri_to_open(registered: RegisteredToken, wanted: str | None) -> str:
    """A person's URI as it is; the file's own only as far as an unverified file may say."""
    return wanted if wanted is not None and ":" in wanted else stored_uri(registered.uri)


def check_token_name(name: str) -> None:
    if not (name.isascii() and name.replace("-", "").replace("_", "").isalnum() and len(name) <= 32):
        raise UsageError(
            f"{name!r} is no name for a token", "use letters, digits, - and _, for example doctor or dr-garcia"
        )


def status_of_file(path: str | Path, clock: Clock = system_clock) -> Status:
    """What the file says, without token and PIN: not verified."""
    file = VaultFile.open(Path(path), in_use=False)
    try:
        return file_status(file, peek(file), verified=False, now=timestamp(clock()))
    finally:
        file.close()


def verify_file(path: str | Path, public_keys: Sequence[bytes]) -> Verified:
    """The log of the vault at ``path`` from DER public keys alone."""
    file = VaultFile.open(Path(path), in_use=False)
    try:
        return auditing.verify_with_public_keys(file, public_keys)
    finally:
        file.close()


def file_status(file: VaultFile, state: TrustState, *, verified: bool, now: str) -> Status:
    current = Month.parse(now[:7])
    day = int(now[8:10])
    problems = []
    listed = []
    for month in sorted(state.months):
        if month >= current:
            listed.append((str(month), "active"))
        elif month + 1 == current and day <= state.policy.grace_days:
            listed.append((str(month), "grace"))
        else:
            listed.append((str(month), "archived"))
    due = [str(Month(n)) for n in range(state.newest_month.ordinal + 1, current.ordinal + 1)]
    listed += [(month, "due") for month in due]
    if len(due) == 1:
        problems.append(f"month {due[0]} is due; it opens by itself at the next command")
    elif due:
        problems.append(f"months {due[0]} to {due[-1]} are due: run 'medcrypt rotate --to {due[-1]}'")
    if file.path.stat().st_mode & 0o077:
        problems.append(f"the vault file can be read by others: run 'chmod 600 {file.path}'")
    if file.path.parent.stat().st_mode & 0o077:
        problems.append(f"the vault's directory can be entered by others: run 'chmod 700 {file.path.parent}'")
    if notes.pending(file.path):
        problems.append("there are notes of what failed before an unlock; the next command enters them in the log")
    newest = file.newest()
    return Status(
        file.path,
        verified,
        state.vault_id.hex(),
        state.created,
        state.generation,
        newest.sequence if newest else 0,
        tuple(state.tokens.values()),
        tuple(listed),
        file.count_pairings(),
        state.policy.grace_days,
        state.policy.retain_months,
        tuple(problems),
    )


def find_orphans(token: Token, state: TrustState) -> tuple[str, ...]:
    """Names on the token that begin with ``medcrypt`` and that this vault does not use."""
    vault_id = state.vault_id
    used = {kek_name(vault_id, state.generation), audit_key_name(vault_id), anchor_name(vault_id)}
    return tuple(name for name in token.names() if name not in used)


def _with(status: Status, **fields: object) -> Status:
    from dataclasses import replace

    return replace(status, **fields)  # type: ignore[arg-type]  # the names are Status's own


@contextmanager
def _noted(path: Path, token: str, clock: Clock) -> Iterator[None]:
    """What fails before the unlock leaves a note beside the vault."""
    try:
        yield
    except (WrongPin, PinLocked, LastTry, TokenRemoved, NotAuthentic, VaultError) as exc:
        with suppress(VaultError):  # the reason for the note matters more than the note
            notes.write(path, exc.name, timestamp(clock()), token=token, actor=_user())
        raise


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
