"""``Vault``: everything the program does, for programs. No terminal, no global state; the CLI is a thin user of it.

    from medcrypt_hsm import Vault

    with Vault.open("practice.db", pin=lambda token: ask()) as vault:
        vault.add_patient("EXP-00417", label="…")
        for message in vault.decrypt(pasted_text):
            print(message.patient, message.text)

In: paths, token URIs, a PIN callback. Out: frozen values. Every method may raise any MedcryptError.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from medcrypt_hsm import tokens
from medcrypt_hsm.api.base import Later, one_at_a_time
from medcrypt_hsm.errors import Malformed, PinError, UsageError, VaultBusy
from medcrypt_hsm.lifecycle import backup
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OpenToken, OtherTokens, gather, yes
from medcrypt_hsm.messages import decrypt as messages
from medcrypt_hsm.messages import encrypt, months, patients, wire
from medcrypt_hsm.messages.decrypt import Opened
from medcrypt_hsm.messages.months import MonthsOpened
from medcrypt_hsm.messages.patients import NewPairing, Pairing
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import PinPrompt, Touch, no_touch
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.tokens.session.client import refuse_remote
from medcrypt_hsm.vault import opening
from medcrypt_hsm.vault.audit.actions import AUDIT_ANCHOR
from medcrypt_hsm.vault.audit.filter import EVERY_ENTRY, EntryFilter
from medcrypt_hsm.vault.audit.trust import Policy, RegisteredToken
from medcrypt_hsm.vault.audit.verify import public_key_pem
from medcrypt_hsm.vault.choosing import check_token_name, choose_token, peek, uri_to_open
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.keyset import kek_names
from medcrypt_hsm.vault.store.location import Location, Named
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.api import chats as chat_desk
    from medcrypt_hsm.api import custodians as desk
    from medcrypt_hsm.api import files as file_desk
    from medcrypt_hsm.api import status as overview
    from medcrypt_hsm.api.chats import ChatDesk
    from medcrypt_hsm.api.custodians import BreakGlassDesk
    from medcrypt_hsm.api.files import FileDesk
    from medcrypt_hsm.breakglass import ceremony
    from medcrypt_hsm.breakglass.ceremony import PinOf
    from medcrypt_hsm.lifecycle import (
        add_token as adding,
    )
    from medcrypt_hsm.lifecycle import certificate as certificates
    from medcrypt_hsm.lifecycle import (
        create as creation,
    )
    from medcrypt_hsm.lifecycle import (
        enroll as registering,
    )
    from medcrypt_hsm.lifecycle import (
        holds,
    )
    from medcrypt_hsm.lifecycle import (
        restore as backups,
    )
    from medcrypt_hsm.lifecycle import (
        shred as shredding,
    )
    from medcrypt_hsm.lifecycle import (
        sync as syncing,
    )
    from medcrypt_hsm.lifecycle.certificate import Certificate
    from medcrypt_hsm.lifecycle.enroll import TokenOptions
    from medcrypt_hsm.lifecycle.holds import Held
    from medcrypt_hsm.lifecycle.restore import Loss
    from medcrypt_hsm.lifecycle.sync import Synced
    from medcrypt_hsm.vault import export as exporting
    from medcrypt_hsm.vault import inspection, policy
    from medcrypt_hsm.vault import log as auditing
    from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
    from medcrypt_hsm.vault.audit.entries import Entry
    from medcrypt_hsm.vault.audit.verify import Verified
    from medcrypt_hsm.vault.export import Exported
    from medcrypt_hsm.vault.inspection import Status
else:
    adding, auditing, backups = Later("lifecycle.add_token"), Later("vault.log"), Later("lifecycle.restore")
    ceremony, desk = Later("breakglass.ceremony"), Later("api.custodians")
    certificates, creation, exporting = Later("lifecycle.certificate"), Later("lifecycle.create"), Later("vault.export")
    chat_desk, file_desk = Later("api.chats"), Later("api.files")
    holds, inspection, overview = Later("lifecycle.holds"), Later("vault.choosing"), Later("api.status")
    policy, registering, shredding = Later("vault.policy"), Later("lifecycle.enroll"), Later("lifecycle.shred")
    syncing = Later("lifecycle.sync")


def _settle(unlocked: Unlocked) -> Certificate | None:
    """What an interrupted run left, ended, if there is anything."""
    if unlocked.state.rekey is None and not unlocked.state.doomed:
        return None
    from medcrypt_hsm.lifecycle import settle  # slow, and seldom needed

    return settle.settle(unlocked)


_DEFAULT_POLICY = Policy()
NO_SHARES: Mapping[str, str] = {}


class Vault:
    """An unlocked vault. Use as a context manager: leaving locks it and logs out of the token.

    Threads may share one: their calls take turns.
    """

    def __init__(self, unlocked: Unlocked) -> None:
        self._lock = threading.RLock()
        self._closed = False
        self._unlocked = unlocked
        self.opened_month: MonthsOpened | None = None
        """The month that opened by itself during the last call, if one did."""
        self.finished: Certificate | None = None
        """Of a re-key that was interrupted, and that opening the vault has finished."""

    # Opening and making

    @classmethod
    def open(
        cls,
        path: Named,
        *,
        pin: PinPrompt,
        token: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        touch: Touch = no_touch,
        actor: str | None = None,
        clock: Clock = system_clock,
        session: bool = False,
    ) -> Vault:
        """Verify and unlock the vault at ``path`` with the token called ``token`` (a short name or URI).

        Left out, the vault's only token, or the one that is present, is used. What fails before the unlock is noted
        beside the vault. ``session``: where one runs for it, nobody is asked for a PIN; keys are not made or destroyed.
        """
        unlocked, finished = opening.open_vault(
            Location.parse(path), pin, token, last_try, modules, touch, actor, clock, session, _settle
        )
        vault = cls(unlocked)
        vault.finished = finished
        return vault

    @classmethod
    def create(
        cls,
        path: Named,
        *,
        token: str,
        uri: str,
        pin: PinPrompt,
        actor: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        touch: Touch = no_touch,
        wish: TokenOptions | None = None,
        rules: Policy = _DEFAULT_POLICY,
        clock: Clock = system_clock,
    ) -> Vault:
        """Make a vault whose first token, at ``uri``, gets the short name ``token`` and serves as ``wish`` says."""
        check_token_name(token)
        wish = wish or registering.TokenOptions()
        wish.check()
        policy.check(rules)
        vault = Location.parse(path)
        creation.check_absent(vault)
        opened = tokens.open_token(uri, pin, last_try=last_try, modules=modules, touch=touch)
        with opening.closed_on_failure(opened):
            who = actor or opening.user()
            return cls(creation.create(vault, token, opened, options=wish, rules=rules, actor=who, clock=clock))

    @classmethod
    def restore(
        cls,
        path: Named,
        source: Named,
        *,
        pin: PinPrompt,
        agree: Callable[[Loss], None],
        token: str | None = None,
        last_try: bool = False,
        modules: Sequence[str] = (),
        touch: Touch = no_touch,
        actor: str | None = None,
        clock: Clock = system_clock,
    ) -> Vault:
        """Put a backup in the vault's place; ``agree`` is told what would be lost and raises to stop."""
        vault, backup_of_it = Location.parse(path), Location.parse(source)
        file = open_store(backup_of_it, in_use=False)
        with closing(file):
            registered = choose_token(peek(file), token, modules)
        uri = uri_to_open(registered, token)
        with opening.noted(vault, registered.name, clock):
            opened = tokens.open_token(uri, pin, last_try=last_try, modules=modules, touch=touch)
        with opening.closed_on_failure(opened):
            who = actor or opening.user()
            return cls(backups.restore(vault, backup_of_it, opened, registered.name, agree, actor=who, clock=clock))

    def close(self) -> None:
        with self._lock:
            if not self._closed:
                self._closed = True
                self._unlocked.lock()
                self._unlocked.file.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Messages

    @one_at_a_time
    def encrypt(self, patient_id: str, text: str) -> list[str]:
        """Wire texts for a patient, one a part."""
        with self._work():
            texts, self.opened_month = encrypt.encrypt(self._unlocked, patient_id, text)
        return texts

    @one_at_a_time
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

    @property
    def files(self) -> FileDesk:
        """Files for and from patients."""
        return file_desk.FileDesk(self)

    @property
    def chats(self) -> ChatDesk:
        """Exported chats, read batch by batch."""
        return chat_desk.ChatDesk(self)

    # Patients

    @one_at_a_time
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

    @one_at_a_time
    def confirm_patient(self, patient_id: str, code: str) -> Pairing:
        with self._work():
            return patients.confirm(self._unlocked, patient_id, code)

    @one_at_a_time
    def patients(self) -> list[Pairing]:
        with self._work():
            return patients.list_all(self._unlocked)

    @one_at_a_time
    def patient(self, patient_id: str) -> list[Pairing]:
        """All pairings of one patient, oldest first."""
        with self._work():
            return patients.show(self._unlocked, patient_id)

    @one_at_a_time
    def patient_qr(self, patient_id: str) -> NewPairing:
        """The pairing code again, until it expires or is confirmed."""
        with self._work():
            return patients.qr(self._unlocked, patient_id)

    @one_at_a_time
    def repair_patient(self, patient_id: str) -> NewPairing:
        with self._work():
            self.opened_month = months.open_if_due(self._unlocked)
            return patients.repair(self._unlocked, patient_id)

    @one_at_a_time
    def remove_patient(self, patient_id: str) -> list[Pairing]:
        with self._work():
            return patients.remove(
                self._unlocked, patient_id, lambda found: holds.refuse_held_secret(self._unlocked, patient_id, found)
            )

    # Months

    @one_at_a_time
    def months_due(self) -> tuple[Month, ...]:
        return months.months_due(self._unlocked)

    @one_at_a_time
    def rotate(self, to: Month | None = None) -> MonthsOpened | None:
        """Open the clock's month; several at once only when ``to`` names it. None if nothing is due."""
        with self._work():
            if to is None:
                return months.open_if_due(self._unlocked)
            if not self.months_due() and to == self._unlocked.clock.month():
                return None
            return months.open_months(self._unlocked, to)

    # Audit

    @one_at_a_time
    def audit_entries(self, where: EntryFilter = EVERY_ENTRY) -> list[tuple[int, Entry]]:
        with self._work():
            return auditing.show(self._unlocked, where)

    @one_at_a_time
    def export_audit(self, target: str | Path, *, format: str = "jsonl", where: EntryFilter = EVERY_ENTRY) -> Exported:
        """Entries for other programs in a new file: ``jsonl``, ``csv`` or ``cef``."""
        with self._work():
            return exporting.export(self._unlocked, Path(target), format, where)

    @one_at_a_time
    def verify(self, since: Sequence[Checkpoint] = ()) -> Verified:
        """Chain, heads, every entry and every row; the log continues each of ``since``. Raises AuditBroken."""
        return auditing.verify(self._unlocked, since)

    @one_at_a_time
    def anchor(self) -> int:
        """Make the token remember the newest head, recorded; its sequence."""
        self._unlocked.record(AUDIT_ANCHOR)
        return self._unlocked.write_anchor().sequence

    @one_at_a_time
    def checkpoint(self) -> str:
        """The newest head as a signed note."""
        return self._unlocked.log.checkpoint()

    @one_at_a_time
    def public_keys(self) -> dict[str, str]:
        """Short name of each token → its audit key in PEM."""
        return {name: public_key_pem(token.audit_key) for name, token in self._unlocked.state.tokens.items()}

    # Tokens and policy

    @one_at_a_time
    def add_token(
        self,
        name: str,
        uri: str,
        *,
        pin: PinPrompt,
        last_try: bool = False,
        modules: Sequence[str] = (),
        touch: Touch = no_touch,
        wish: TokenOptions | None = None,
    ) -> RegisteredToken:
        """Register another token, at ``uri``, as ``name``; from then on each of them opens the vault alone."""
        refuse_remote(self._unlocked.token)
        check_token_name(name)
        wish = wish or registering.TokenOptions()
        wish.check()
        adding.check_name(self._unlocked, name)
        if tokens.find_token(uri, modules=modules).uri == self._unlocked.token.info.uri:
            raise UsageError(f"that token is registered already: it is {self.token_name}", "name another token")
        with self._work():
            try:
                token = tokens.open_token(uri, pin, last_try=last_try, modules=modules, touch=touch)
            except PinError as exc:
                adding.record_failure(self._unlocked, name, exc)
                raise
            with token:
                return adding.add(self._unlocked, name, token, wish)

    @one_at_a_time
    def remove_token(
        self, name: str, company: OtherTokens = NO_OTHERS, *, certificate: Path | None = None, agree: Agree = yes
    ) -> Certificate | None:
        """Take a token away by re-keying, or give up an add that was interrupted (then there is no certificate)."""
        to = certificates.base_of(certificate)
        if name in self._unlocked.state.adding:
            with self._work():
                adding.give_up(self._unlocked, name)
            return None
        shredding.check_remove(self._unlocked, name)
        agree()
        with self._others(company, name) as others:
            return shredding.remove_token(self._unlocked, name, others, company, to)

    @one_at_a_time
    def sync(
        self, company: OtherTokens = NO_OTHERS, shares: Mapping[str, str] = NO_SHARES, pin_of: PinOf | None = None
    ) -> Synced:
        """Bring tokens up to date that were away when the vault was re-keyed.

        ``shares``: custodian's name → URI of a token on which an old share is to be destroyed.
        """
        wanted = syncing.wanted(self._unlocked)
        with (
            gather(self._unlocked, company, wanted, may_be_away=[token.name for token in wanted]) as others,
            ceremony.opened(self._unlocked, shares, pin_of or (lambda name: company.pin), company) as holders,
        ):
            return syncing.sync(self._unlocked, others, company, [holder.token for holder in holders])

    def _others(self, company: OtherTokens, *may_be_away: str) -> AbstractContextManager[list[OpenToken]]:
        """Every other token of the vault that is there."""
        wanted = list(self._unlocked.state.tokens.values())
        return gather(self._unlocked, company, wanted, may_be_away=may_be_away)

    @property
    def breakglass(self) -> BreakGlassDesk:
        """The custodians: ceremony, rotation, replacement, drills."""
        return desk.BreakGlassDesk(self)

    # Shredding, erasing, holds

    @one_at_a_time
    def months_to_shred(self) -> tuple[list[Month], dict[Month, Held]]:
        """Those past the policy's retention, and those of them that a hold keeps, with the hold."""
        return shredding.due(self._unlocked)

    @one_at_a_time
    def shred(
        self,
        wanted: Sequence[Month],
        company: OtherTokens = NO_OTHERS,
        *,
        certificate: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """Destroy every key of these months, in every backup too."""
        to = certificates.base_of(certificate)
        shredding.check_shred(self._unlocked, wanted)
        agree()
        with self._others(company) as others:
            return shredding.shred(self._unlocked, wanted, others, company, to)

    @one_at_a_time
    def erase_patient(
        self, patient_id: str, company: OtherTokens = NO_OTHERS, *, certificate: Path | None = None, agree: Agree = yes
    ) -> Certificate:
        """Destroy every key and everything else that is kept of a patient, but for what the log tells."""
        to = certificates.base_of(certificate)
        shredding.check_erase(self._unlocked, patient_id)
        agree()
        with self._others(company) as others:
            return shredding.erase(self._unlocked, patient_id, others, company, to)

    @one_at_a_time
    def add_hold(self, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
        with self._work():
            return holds.add(self._unlocked, reason, patient=patient, month=month)

    @one_at_a_time
    def remove_hold(self, reason: str, *, patient: str = "", month: Month | None = None) -> Held:
        with self._work():
            return holds.remove(self._unlocked, reason, patient=patient, month=month)

    @one_at_a_time
    def holds(self) -> list[Held]:
        with self._work():
            return holds.list_all(self._unlocked)

    @property
    def policy(self) -> Policy:
        return self._unlocked.state.policy

    @one_at_a_time
    def set_policy(
        self,
        *,
        grace_days: int | None = None,
        retain_months: int | None = None,
        require_attestation: str | None = None,
    ) -> Policy:
        """Change what is given, recorded; the policy as it is then."""
        with self._work():
            return policy.set_policy(
                self._unlocked,
                grace_days=grace_days,
                retain_months=retain_months,
                require_attestation=require_attestation,
            )

    # The vault as a whole

    @one_at_a_time
    def backup(self, target: str | Path) -> Verified:
        return backup.backup(self._unlocked, Path(target))

    @one_at_a_time
    def status(self) -> Status:
        """Verified: the token's anchor, the newest head and what the token holds were looked at."""
        return overview.status(self._unlocked)

    @one_at_a_time
    def token_evidence(self) -> list[tokens.Evidence]:
        """What the token claims of this vault's root KEK and audit key."""
        unlocked = self._unlocked
        state = unlocked.state
        keys = (*kek_names(state, self.token_name)[:1], audit_key_name(state.vault_id))
        return [unlocked.token.evidence(name) for name in keys]

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
            with suppress(VaultBusy):  # what was done is recorded and must be handed out; the anchor is due again then
                self._unlocked.write_anchor()
