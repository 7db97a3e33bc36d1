"""What a re-key and a sync do for the custodians: their rows, the escrow, and the end of shares that no longer count.

In: an unlocked vault, the change of a re-key, open tokens of custodians. Out: trust rows for new custodians, or the new
keyset escrowed for the present ones; old shares destroyed, each proven. Not here: making shares and opening custodians'
tokens (breakglass/), and a share on its token (shares.py).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit, VaultRolledBack
from medcrypt_hsm.lifecycle import shares
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.tokens.names import approval_name
from medcrypt_hsm.vault.audit.consent import Custody
from medcrypt_hsm.vault.audit.entries import read_clear
from medcrypt_hsm.vault.audit.trust import TrustState
from medcrypt_hsm.vault.audit.trust_custody import DONE, OPEN, BreakGlass, Custodian, Escrow, OldShare, Use
from medcrypt_hsm.vault.change import Change
from medcrypt_hsm.vault.unlock import prove_key
from medcrypt_hsm.vault.unlocked import Unlocked


@dataclass(frozen=True, slots=True)
class NewCustody:
    """A break-glass key whose shares are on custodians' tokens, made and verified (breakglass/custodians.py).

    ``seed`` is the key itself, in locked memory until the commit.
    """

    ceremony: bytes
    key: bytes  # the public one
    threshold: int
    custodians: tuple[Custodian, ...]
    seed: Secret

    def __repr__(self) -> str:
        return f"NewCustody({self.ceremony.hex()})"

    def commit(self, unlocked: Unlocked, change: Change, generation: int, escrowed: bytes) -> None:
        """The rows, and what the entry tells. Inside the re-key's change."""
        _retire(unlocked, change)
        present = BreakGlass(
            self.ceremony,
            self.key,
            self.threshold,
            unlocked.registered.id,
            change.sequence,
            change.time,
            {custodian.name: custodian for custodian in self.custodians},
            Escrow(self.ceremony, generation, escrowed),
        )
        change.put_trust("breakglass", "", present.value())
        change.put_trust("escrow", "", present.escrow.value())
        for custodian in self.custodians:
            change.put_trust("custodian", custodian.name, custodian.value())
        for use in unlocked.uses:
            if not use.answered:
                change.put_trust("use", use.request.hex(), use._replace(answered=change.time).value())
        change.detail["custody"] = Custody.of(present).value()


def _retire(unlocked: Unlocked, change: Change) -> None:
    """The present custodians' shares become old ones."""
    if (present := unlocked.state.breakglass) is None:
        return
    for name, custodian in present.custodians.items():
        told = (custodian.approval_key, custodian.uri, custodian.label, custodian.serial, custodian.model)
        old = OldShare(present.ceremony, name, *told, change.sequence, change.time)
        change.delete_trust("custodian", name)
        change.put_trust("oldshare", old.row, old.value())


def reescrow(state: TrustState, change: Change, generation: int, escrowed: bytes) -> None:
    """A re-key that makes no new custodians: the new keyset for the present ones."""
    assert state.breakglass is not None
    change.put_trust("escrow", "", Escrow(state.breakglass.ceremony, generation, escrowed).value())


def end_recoveries(unlocked: Unlocked, change: Change, retired: Collection[bytes] | None) -> None:
    """Mark uses as no longer under way: those whose new token is ``retired``; all of them where that is None."""
    for use in unlocked.uses:
        if use.phase == OPEN and (retired is None or _introduced(unlocked, use) in retired):
            change.put_trust("use", use.request.hex(), use._replace(phase=DONE).value())


def _introduced(unlocked: Unlocked, use: Use) -> bytes:
    """The token that this use of the practice brought in."""
    row = unlocked.file.entry(use.entry)
    entry = None if row is None else read_clear(row)
    return b"" if entry is None else bytes.fromhex(entry.detail["token"]["id"])


def destroy_old(unlocked: Unlocked, tokens: Sequence[Token]) -> dict[OldShare, Token]:
    """Destroy the old shares that are on these tokens, each proven by a failed use of its KEK; which, and where.

    Call ``forget`` when that is on record. A run that is cut off before that can still recognise the token.
    """
    gone = {}
    for share in unlocked.state.old_shares:
        for token in tokens:
            if _holds(token, unlocked.state.vault_id, share):
                shares.destroy_share(token, unlocked.state.vault_id, share.ceremony)
                gone[share] = token
                break
    return gone


def forget(unlocked: Unlocked, gone: Mapping[OldShare, Token], tokens: Sequence[Token]) -> None:
    """Destroy the approval keys of those shares, and what else these tokens hold of ceremonies that count for nothing.

    But never what a newer file may know.
    """
    state = unlocked.state
    for share, token in gone.items():
        shares.destroy(token, state.vault_id, share.ceremony)
    known = known_ceremonies(state)
    for token in tokens:
        with suppress(VaultRolledBack):
            for ceremony in shares.leftovers(token, state.vault_id, known, unlocked.log.hash_of):
                shares.destroy(token, state.vault_id, ceremony)


def known_ceremonies(state: TrustState) -> set[bytes]:
    """The ceremonies of which a share is on record, the present one or old."""
    known = {share.ceremony for share in state.old_shares}
    return known if state.breakglass is None else known | {state.breakglass.ceremony}


def _holds(token: Token, vault_id: bytes, share: OldShare) -> bool:
    """Is this the token of that share? It signs a challenge with the approval key on record."""
    try:
        prove_key(token, approval_name(vault_id, share.ceremony), share.approval_key, vault_id)
    except (KeyError, NotAuthentic, TokenUnfit):
        return False
    return True
