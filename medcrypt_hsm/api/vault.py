"""``Vault``: everything the program does, for programs. No terminal, no global state; the CLI is a thin user of it.

    from medcrypt_hsm import Vault

    with Vault.open("practice.db", pin=lambda token: ask()) as vault:
        vault.patients.add("EXP-00417", label="…")
        for message in vault.decrypt(pasted_text):
            print(message.patient, message.text)

In: paths, token URIs, a PIN callback. Out: frozen values. Every method may raise any MedcryptError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from medcrypt_hsm.api.base import EndSession, OnMonthOpened, OpenOptions, OpenVault, taken
from medcrypt_hsm.errors import Malformed
from medcrypt_hsm.messages import wire
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.vault import opening
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.unlocked import Unlocked

if TYPE_CHECKING:
    from medcrypt_hsm.api.chats import Chats
    from medcrypt_hsm.api.custodians import Custodians
    from medcrypt_hsm.api.files import Files
    from medcrypt_hsm.api.holds import Holds
    from medcrypt_hsm.api.log import Log
    from medcrypt_hsm.api.months import Months
    from medcrypt_hsm.api.patients import Patients
    from medcrypt_hsm.api.tokens import Tokens
    from medcrypt_hsm.lifecycle.certificate import Certificate
    from medcrypt_hsm.lifecycle.enroll import TokenOptions
    from medcrypt_hsm.lifecycle.restore import Loss
    from medcrypt_hsm.messages.decrypt import Opened
    from medcrypt_hsm.messages.wire import Bad, Message
    from medcrypt_hsm.month import Month
    from medcrypt_hsm.tokens import PinPrompt
    from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
    from medcrypt_hsm.vault.audit.statements import Approval, Request, Signed
    from medcrypt_hsm.vault.audit.verify import Verified
    from medcrypt_hsm.vault.inspection import Status


class Vault:
    """An unlocked vault. Use as a context manager: leaving locks it and logs out of the token.

    Threads may share one: their calls take turns. Its ways in are ``open``, ``create``, ``restore`` and ``recover``.
    Each takes as ``pin`` a callback that is asked for the token's PIN, or a ``TokenAccess``; and what ``OpenOptions``
    lists: ``actor``, ``clock``, ``on_month_opened``, ``end_session``.

    Long because each way in takes what belongs to it.
    """

    _vault: OpenVault
    finished: Certificate | None
    """Of the re-key that opening the vault has finished: one that was interrupted, or that of a recovery."""

    def __init__(self) -> None:
        raise TypeError("a vault is opened with Vault.open, or made with create, restore or recover")

    @classmethod
    def _of(
        cls, unlocked: Unlocked, tell: OnMonthOpened, end: EndSession, finished: Certificate | None = None
    ) -> Vault:
        unlocked.end_session = end
        vault = cls.__new__(cls)
        vault._vault = OpenVault(unlocked, tell)
        vault.finished = finished
        return vault

    @classmethod
    def open(
        cls,
        path: Named,
        *,
        pin: PinPrompt | TokenAccess,
        token: str | None = None,
        **given: Unpack[OpenOptions],
    ) -> Vault:
        """Verify and unlock the vault at ``path`` with the token called ``token`` (a short name or URI).

        Left out, the vault's only token, or the one that is present, is used. What fails before the unlock is noted
        beside the vault.
        """
        actor, clock, tell, end = taken(**given)

        def settle(unlocked: Unlocked) -> Certificate | None:
            unlocked.end_session = end
            return _settle(unlocked)

        unlocked, finished = opening.open_vault(
            Location.parse(path), TokenAccess.of(pin), token, actor=actor, clock=clock, settle=settle, proven=False
        )
        return cls._of(unlocked, tell, end, finished)

    @classmethod
    def create(
        cls,
        path: Named,
        *,
        token: str,
        uri: str,
        pin: PinPrompt | TokenAccess,
        options: TokenOptions | None = None,
        policy: Policy | None = None,
        **given: Unpack[OpenOptions],
    ) -> Vault:
        """Make a vault whose first token, at ``uri``, gets the short name ``token`` and serves as ``options`` say."""
        from medcrypt_hsm.api import making

        actor, clock, tell, end = taken(**given)
        access, vault = TokenAccess.of(pin), Location.parse(path)
        return cls._of(making.create(vault, token, uri, access, options, policy, actor, clock), tell, end)

    @classmethod
    def restore(
        cls,
        path: Named,
        source: Named,
        *,
        pin: PinPrompt | TokenAccess,
        agree: Callable[[Loss], None],
        token: str | None = None,
        since: Sequence[Checkpoint] = (),
        **given: Unpack[OpenOptions],
    ) -> Vault:
        """Put a backup in the vault's place; ``agree`` is told what would be lost and raises to stop.

        ``since``: checkpoints that were kept elsewhere, which the backup must continue. The vault's own file may be
        given where the token has lost its anchor: then it is accepted again as it is.
        """
        from medcrypt_hsm.api import making

        actor, clock, tell, end = taken(**given)
        access, vault, backup = TokenAccess.of(pin), Location.parse(path), Location.parse(source)

        end()  # whoever has the old file open keeps the new one from its place; and its end is an entry that is told of
        return cls._of(making.restore(vault, backup, access, token, agree, since, actor, clock), tell, end)

    @classmethod
    def recover(
        cls,
        path: Named,
        request: Signed[Request],
        approvals: Sequence[Signed[Approval]],
        *,
        pin: PinPrompt | TokenAccess,
        uri: str = "",
        since: Sequence[Checkpoint] = (),
        options: TokenOptions | None = None,
        **given: Unpack[OpenOptions],
    ) -> Vault:
        """Bring the practice to the requester's token, at ``uri`` or where the request says, by consent of custodians.

        It then serves as ``options`` say; every other token is retired. ``since``: checkpoints that were kept
        elsewhere, which the vault must continue. ``finished`` is the certificate.
        """
        from medcrypt_hsm.breakglass import emergency
        from medcrypt_hsm.lifecycle.enroll import TokenOptions

        actor, clock, tell, end = taken(**given)
        requester, vault = emergency.Actor(pin, actor, uri, clock), Location.parse(path)
        serving = options or TokenOptions()
        unlocked, made = emergency.recover(
            vault, requester, request, approvals, since=since, options=serving, end_session=end
        )
        return cls._of(unlocked, tell, end, made)

    def close(self) -> None:
        """Lock it and log out of the token; closing it again does nothing."""
        self._vault.close()

    def __enter__(self) -> Vault:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # Messages

    def encrypt(self, patient_id: str, text: str) -> list[str]:
        """Wire texts for a patient, one a part."""
        from medcrypt_hsm.messages import encrypt

        with self._vault.working(entry_first=True) as unlocked:
            self._vault.open_month_if_due()
            return encrypt.encrypt(unlocked, patient_id, text)

    def decrypt(
        self, text: str | Sequence[Message | Bad], *, archive: bool = False, month: Month | None = None
    ) -> list[Opened]:
        """Every message in any text (or what ``find_messages`` found in it), in order, each with its text or error.

        ``archive`` reads older months that are kept too, ``month`` one of them. Raises Malformed where there is none.
        """
        from medcrypt_hsm.messages import decrypt

        with self._vault.working(entry_first=True) as unlocked:
            found = wire.find(text) if isinstance(text, str) else text
            if not found:
                raise Malformed("there is no MedCrypt message in this text")
            self._vault.open_month_if_due()
            return decrypt.decrypt(unlocked, found, archive=archive, month=month)

    # Its parts

    @property
    def patients(self) -> Patients:
        """Pairing with patients, and its end."""
        from medcrypt_hsm.api.patients import Patients

        return Patients(self._vault)

    @property
    def months(self) -> Months:
        """Months are opened, kept, shredded."""
        from medcrypt_hsm.api.months import Months

        return Months(self._vault)

    @property
    def files(self) -> Files:
        """Files for and from patients."""
        from medcrypt_hsm.api.files import Files

        return Files(self._vault)

    @property
    def chats(self) -> Chats:
        """Exported chats, read batch by batch."""
        from medcrypt_hsm.api.chats import Chats

        return Chats(self._vault)

    @property
    def log(self) -> Log:
        """The audit log."""
        from medcrypt_hsm.api.log import Log

        return Log(self._vault)

    @property
    def tokens(self) -> Tokens:
        """Which tokens open the vault."""
        from medcrypt_hsm.api.tokens import Tokens

        return Tokens(self._vault)

    @property
    def holds(self) -> Holds:
        """What must not be destroyed."""
        from medcrypt_hsm.api.holds import Holds

        return Holds(self._vault)

    @property
    def custodians(self) -> Custodians:
        """Who holds the shares of the emergency key: ceremony, rotation, replacement, drills."""
        from medcrypt_hsm.api.custodians import Custodians

        return Custodians(self._vault)

    # The vault as a whole

    @property
    def token_name(self) -> str:
        """The short name of the token in use."""
        return self._unlocked.registered.name

    @property
    def month(self) -> Month:
        """The newest month that is open: what is encrypted now is encrypted under it."""
        return self._unlocked.state.newest_month

    @property
    def policy(self) -> Policy:
        """Days of grace, how many months are kept, what tokens must show."""
        return self._unlocked.state.policy

    def set_policy(
        self,
        *,
        grace_days: int | None = None,
        retain_months: int | None = None,
        require_attestation: str | None = None,
    ) -> Policy:
        """Change what is given, recorded; the policy as it is then."""
        from medcrypt_hsm.vault import policy

        with self._vault.working() as unlocked:
            return policy.set_policy(
                unlocked, grace_days=grace_days, retain_months=retain_months, require_attestation=require_attestation
            )

    def status(self) -> Status:
        """Verified: the token's anchor, the newest head and what the token holds were looked at."""
        from medcrypt_hsm.api import status

        with self._vault.working(anchor=False) as unlocked:
            return status.status(unlocked)

    def backup(self, target: str | Path) -> Verified:
        """A consistent copy in a new file, verified."""
        from medcrypt_hsm.lifecycle import backup

        with self._vault.working(anchor=False) as unlocked:
            return backup.backup(unlocked, Path(target))

    @property
    def _unlocked(self) -> Unlocked:
        return self._vault.unlocked


def _settle(unlocked: Unlocked) -> Certificate | None:
    """What an interrupted run left, ended."""
    from medcrypt_hsm.lifecycle import settle  # slow, and seldom needed

    return settle.settle(unlocked)
