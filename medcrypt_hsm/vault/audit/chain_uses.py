"""``Uses``: what the log told of break-glass, as it is followed (docs/spec/breakglass.md, "Entries in the clear").

In: entries in the clear in their order, and the custody of a ceremony. Out: the present custodians, who used
break-glass and whose run has not ended, which shares became old; or AuditBroken, or ValueError and its like, for what
cannot be. Not here: what makes a request and its approvals count (consent.py), and hashes and heads (chain.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any, NamedTuple

from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_CLOSE, CEREMONY, NEW_CUSTODY, RECOVER
from medcrypt_hsm.vault.audit.chain_signers import Rekeyed
from medcrypt_hsm.vault.audit.entries import Entry
from medcrypt_hsm.vault.audit.fields import TOLD, token_ids
from medcrypt_hsm.vault.audit.trust_custody import DONE as OVER
from medcrypt_hsm.vault.audit.trust_custody import OPEN, Use
from medcrypt_hsm.vault.store.rows import EntryRow

if TYPE_CHECKING:
    from medcrypt_hsm.vault.audit.consent import Custody, Opening
    from medcrypt_hsm.vault.audit.statements import Request, Signed


class NeedsWholeLog(Exception):
    """Break-glass was used after the anchor: whether that counts hangs on a ceremony further back."""


class Guest(NamedTuple):
    """Who used break-glass for one patient: may write sealed entries, while the run lasts, and change nothing else."""

    id: bytes  # fingerprint of the key that signs
    request: Signed[Request]
    opened_at: str

    @property
    def spki(self) -> bytes:
        return self.request.told.signer

    def check_time(self, time: str) -> None:
        """Of the guest's own next entry: no registered token would vouch for a later one. Raises BreakGlassRefused."""
        if time > self.request.told.expires:
            from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule

            raise BreakGlassRefused(
                Rule.BG_4, t("the request ended at {time}, meanwhile", time=self.request.told.expires)
            )


class OldShareTold(NamedTuple):
    """A share of an earlier ceremony, as the log told of it, and the re-key that made it an old one."""

    told: Mapping[str, Any]
    rekeyed: Rekeyed


class Uses:
    """``custody`` is that of the newest ceremony; ``noted`` are the uses that a registered token's entry followed."""

    def __init__(self, *, whole: bool) -> None:
        """``whole``: the walk begins at the log's own beginning."""
        self.custody: Custody | None = None
        self.ceremonies: set[bytes] = set()
        self.old_shares: dict[tuple[bytes, str], OldShareTold] = {}  # by ceremony and name
        self.noted: dict[bytes, Use] = {}  # by request
        self.unnoted: dict[bytes, Use] = {}  # the others
        self.guest: Guest | None = None  # whose run has not ended
        self.recovering: dict[bytes, bytes] = {}  # request of a use of phase open → the token that it introduced
        self.claims: list[tuple[int, bytes]] = []  # entries that requests name, with their hash: for whoever has them
        self._knows_custody = self._knows_uses = whole

    def copy(self) -> Uses:
        other = copy(self)
        other.ceremonies, other.old_shares = set(self.ceremonies), dict(self.old_shares)
        other.noted, other.unnoted = dict(self.noted), dict(self.unnoted)
        other.recovering, other.claims = dict(self.recovering), list(self.claims)
        return other

    def read_opening(self, entry: Entry, row: EntryRow, vault_id: bytes, trust: bytes, settled: int) -> Opening:
        """A ``breakglass.open`` that counts. ``trust``: as the entry before it has it; ``settled``: the newest entry
        of a registered token. Raises AuditBroken for one that does not count, and NeedsWholeLog."""
        from medcrypt_hsm.vault.audit.consent import Opening  # slow, and needed only where break-glass was used
        from medcrypt_hsm.vault.audit.rules import BreakGlassRefused

        at = row.sequence
        if not self._knows_custody:
            raise NeedsWholeLog
        try:
            if self.custody is None:
                raise ValueError("there are no custodians")
            used = {*self.noted, *self.unnoted}
            opening = Opening.parse(entry.detail, entry.time, self.custody, vault_id, used)
            request = opening.request.told
            if fingerprint(request.signer) != row.signer:
                raise ValueError("it is signed by another key than the request names")
            if opening.token is None and row.trust != trust:
                raise ValueError("it changes the trust state")
            if opening.token is not None and set(opening.token) != {"name", *TOLD}:
                raise ValueError("it introduces no token as the spec has it")
            if opening.token is not None and opening.token["id"] == row.signer.hex():
                raise ValueError("it introduces the request's own key, which signs nothing more")
            if not request.sequence <= settled:
                raise ValueError("the request names an entry that is not there, or a guest's")
            self.claims.append((request.sequence, request.hash))
        except (KeyError, ValueError, TypeError, AttributeError, NotAuthentic, BreakGlassRefused) as exc:
            raise AuditBroken(
                t("audit entry {entry} opens the vault without right: {reason}", entry=at, reason=exc), at=at
            ) from exc
        return opening

    @staticmethod
    def check_guest(guest: Guest, row: EntryRow, entry: Entry | None, trust: bytes) -> None:
        """Of an entry within the guest's run. Raises AuditBroken for what a guest may not write."""
        if row.signer != guest.id:
            if entry is not None and entry.action == BREAKGLASS_CLOSE:
                raise AuditBroken(
                    t("audit entry {entry} ends a use of break-glass that is another's", entry=row.sequence)
                )
            return
        closes = (
            entry is not None
            and entry.action == BREAKGLASS_CLOSE
            and entry.detail == {"request": guest.request.id.hex()}
        )
        late = entry is not None and entry.time > guest.request.told.expires
        if (entry is not None and not closes) or late or row.trust != trust:
            raise AuditBroken(
                t(
                    "audit entry {entry} is of a guest, who may not write it: break-glass was for one patient",
                    entry=row.sequence,
                ),
                at=row.sequence,
            )

    def take(self, row: EntryRow, entry: Entry | None, opening: Opening | None) -> None:
        """The next entry: who used break-glass by it, and whose run it begins or ends. Raises AuditBroken."""
        if opening is not None:
            assert entry is not None
            request = opening.request
            practice = opening.token is not None
            use = Use(request.id, request.told.scope, row.sequence, entry.time, OPEN if practice else OVER)
            self.unnoted[request.id] = use
            if opening.token is None:
                self.guest = Guest(row.signer, request, entry.time)
                return
            self.recovering[request.id] = bytes.fromhex(opening.token["id"])
        elif self.guest is not None and row.signer == self.guest.id:
            if entry is not None:
                self.guest = None  # it can only be its close
            return
        elif entry is not None and entry.action == BREAKGLASS_CLOSE:
            raise AuditBroken(t("audit entry {entry} ends a use of break-glass that there is not", entry=row.sequence))
        self.guest = None
        if self.unnoted:
            self.noted |= self.unnoted
            self.unnoted = {}

    def check_reason(self, reason: str) -> None:
        """Are there custodians, or none, and a practice to recover? Raises ValueError."""
        if self._knows_custody and reason in NEW_CUSTODY and (reason == CEREMONY) != (self.custody is None):
            raise ValueError("a first ceremony where there was one, or another where there was none")
        if self._knows_uses and reason == RECOVER and not self.recovering:
            raise ValueError("a recovery without break-glass")

    def take_rekey(
        self, reason: str | None, detail: Mapping[str, Any], row: EntryRow, rekeyed: Rekeyed, valid: Collection[bytes]
    ) -> None:
        """Whether a re-key made new custodians, and did what its reason says. ``valid``: the tokens before it.

        ``reason`` is None where its intent is further back. Raises ValueError and its like.
        """
        if reason is not None and (reason in NEW_CUSTODY) != ("custody" in detail):
            raise ValueError("custodians, or none, against its reason")
        if reason == RECOVER:
            if self._knows_uses and row.signer not in self.recovering.values():
                raise ValueError("a recovery by another token than break-glass introduced")
            if set(token_ids(detail["retired"])) != set(valid) - {row.signer}:
                raise ValueError("a recovery that does not retire every other token")
            self.recovering = {}
            self.noted = {id_: use._replace(phase=OVER) for id_, use in self.noted.items()}
        if "custody" in detail:
            self._take_custody(detail["custody"], row, rekeyed)

    def _take_custody(self, value: Mapping[str, Any], row: EntryRow, rekeyed: Rekeyed) -> None:
        from medcrypt_hsm.vault.audit.consent import Custody  # likewise

        custody = Custody.parse(value, rekeyed.entry, rekeyed.time, row.signer)
        if custody.ceremony in self.ceremonies:
            raise ValueError("a ceremony id that was there before")
        if self.custody is not None:
            for name, told in self.custody.told.items():
                self.old_shares[self.custody.ceremony, name] = OldShareTold(told, rekeyed)
        self.custody, self._knows_custody = custody, True
        self.ceremonies.add(custody.ceremony)
        for id_, use in self.noted.items():
            if not use.answered:
                self.noted[id_] = use._replace(answered=rekeyed.time)

    def retire(self, token: bytes) -> None:
        """A token was retired: nobody goes on with the recovery that introduced it."""
        for request in [request for request, introduced in self.recovering.items() if introduced == token]:
            del self.recovering[request]
            self.noted[request] = self.noted[request]._replace(phase=OVER)
