"""Backups, and putting one back.

A backup is one SQLite file, consistent while others write, and opened and verified before it gets its name. Restoring
is the only way in which a file older than the token's anchor is accepted: the token's KEK must open its keyset, an
entry in the clear names what was abandoned, the file takes the old one's place in one rename, and only then does the
token forget. A kill anywhere leaves the old vault, or the new one with a restore that the next unlock completes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from medcrypt_hsm import audit, auditing, trust
from medcrypt_hsm.audit import Anchor
from medcrypt_hsm.errors import AuditBroken, NotAuthentic, UsageError, VaultError, VaultForeign
from medcrypt_hsm.keys import VaultKeyset
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.trust import TrustState
from medcrypt_hsm.unlock import newest_anchor, prove_audit_key
from medcrypt_hsm.unlocked import Clock, Unlocked, kek_name, keyset_info, system_clock
from medcrypt_hsm.vault import VaultFile, alone, files_of, sync_directory


def _name(partial: Path, target: Path) -> None:
    """Give a whole backup its name, never over a file that appeared meanwhile. Raises FileExistsError."""
    try:
        os.link(partial, target)
    except FileExistsError:
        raise
    except OSError as exc:  # FAT, as on most memory sticks, knows no links: the next best, not quite atomic
        if target.exists():
            raise FileExistsError(target) from exc
        partial.replace(target)


@dataclass(frozen=True, slots=True)
class Loss:
    """What putting a backup back would abandon."""

    backup_ends: int
    token_has_seen: int
    vault_ends: int | None  # None: there is no readable vault in its place
    entries_lost: int
    departs: bool  # the backup is not a prefix of what the token has seen


def backup(unlocked: Unlocked, target: Path) -> auditing.Verified:
    """A verified single-file copy at ``target``, which must not exist; recorded and anchored."""
    if target.exists():
        raise UsageError(f"{target} exists already", "name a new file; backups are never overwritten")
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent}", "make it first, with mode 0700")
    unlocked.record("vault.backup", target.name)
    unlocked.write_anchor()
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        unlocked.file.copy_to(partial)
        copy = VaultFile.open(partial, in_use=False)
        try:
            copy.check_integrity()
            with copy.snapshot():
                keys = [token.audit_key for token in trust.parse(copy.trust_rows()).tokens.values()]
            verified = auditing.verify_with_public_keys(copy, keys)
        finally:
            copy.close()
        _name(partial, target)
    except FileExistsError as exc:
        raise UsageError(f"{target} exists already", "name a new file; backups are never overwritten") from exc
    finally:
        partial.unlink(missing_ok=True)
    sync_directory(target.parent)
    return verified


def restore(
    path: Path,
    source: Path,
    token: Token,
    name: str,
    agree: Callable[[Loss], None],
    *,
    actor: str,
    clock: Clock = system_clock,
) -> Unlocked:
    """Put the backup at ``source`` in the place of the vault at ``path``; unlocked when it returns.

    ``agree`` is told what would be lost and raises to stop. Raises VaultError for a backup that does not verify, of
    another vault, or from before a re-key; nothing is replaced then.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with alone(path.parent):  # the draft's name is the same for everybody
        return _restore(path, source, token, name, agree, actor, clock)


def _restore(
    path: Path, source: Path, token: Token, name: str, agree: Callable[[Loss], None], actor: str, clock: Clock
) -> Unlocked:
    # Copied first, and verified where nobody else writes: the source may lie on a stick or a share, and what changed
    # there while a person thinks about the loss would be signed unseen.
    draft = _draft_of(path, source)
    file = VaultFile.open(draft)
    try:
        with file.snapshot():
            state = trust.parse(file.trust_rows())
        registered = state.tokens.get(name)
        if registered is None:
            raise VaultForeign(f"the backup knows no token called {name}", "use a token that was registered in it")
        file.check_integrity()
        auditing.verify_with_public_keys(file, [t.audit_key for t in state.tokens.values()])
        _same_vault(path, state)
        prove_audit_key(token, state.vault_id, registered)
        anchor = newest_anchor(token, state.vault_id, registered)
        _same_keys(file, state, anchor)
        loss = _loss(path, file, anchor)
        keyset = _open_keyset(token, state, name)
        agree(loss)

        newest = file.newest()
        assert newest is not None
        spkis = {t.id: t.audit_key for t in state.tokens.values()}
        chain = audit.Chain(state.vault_id, newest.sequence, newest.hash, spkis)
        chain.trust = newest.trust
        unlocked = Unlocked(file, token, registered, state, keyset, chain, actor, clock)
        unlocked.look_at_clock()
        abandoned = {"abandoned_sequence": anchor.sequence, "abandoned_hash": anchor.hash.hex()}
        with unlocked.change(audit.RESTORE, name, named_month=True) as change:
            change.detail.update(abandoned)
        file.fold()
        file.close()
        _replace(path, draft)
    except BaseException:
        file.close()
        for leftover in files_of(draft):
            leftover.unlink(missing_ok=True)
        raise

    unlocked.file = VaultFile.open(path)
    unlocked.write_anchor()
    return unlocked


def _draft_of(path: Path, source: Path) -> Path:
    """A copy of the backup beside the vault that it is to replace."""
    if path.is_symlink():
        raise VaultError(f"{path} is a symbolic link", "name the vault file itself")
    backup_file = VaultFile.open(source, in_use=False)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(path.name + "-restoring")
        for leftover in files_of(draft):
            leftover.unlink(missing_ok=True)
        backup_file.copy_to(draft)
    finally:
        backup_file.close()
    return draft


def _same_vault(path: Path, state: TrustState) -> None:
    """A vault that can be read must be the backup's. One that cannot be read is what restoring is for."""
    if not path.exists():
        return
    try:
        present = VaultFile.open(path)
    except VaultError:
        return
    try:
        with present.snapshot():
            other = trust.parse(present.trust_rows()).vault_id
    except VaultError:
        return
    finally:
        present.close()
    if other != state.vault_id:
        raise VaultForeign(f"the backup is of another vault than the one at {path}", "name the right file with --vault")


def _same_keys(backup_file: VaultFile, state: TrustState, anchor: Anchor) -> None:
    """Only keys that the token itself remembers as valid may vouch for a file that departs from its anchor.

    Otherwise the holder of a token that was removed since could extend an old copy and have it restored.
    """
    known = backup_file.entry(anchor.sequence)
    if known is not None and known.hash == anchor.hash:
        return  # the file goes on where the anchor stands; the chain itself was verified
    newest = backup_file.newest()
    signer = newest.signer if newest else b""
    if signer not in anchor.audit_keys or any(t.id not in anchor.audit_keys for t in state.tokens.values()):
        raise VaultError(
            "the backup trusts a token that this one does not remember as valid",
            "use a newer backup, or restore with a token that knows it",
        )


def _loss(path: Path, backup_file: VaultFile, anchor: Anchor) -> Loss:
    newest = backup_file.newest()
    ends = newest.sequence if newest else 0
    present = _end_of(path)
    in_backup = backup_file.entry(anchor.sequence)
    departs = ends >= anchor.sequence > 0 and (in_backup is None or in_backup.hash != anchor.hash)
    return Loss(ends, anchor.sequence, present, max(anchor.sequence, present or 0) - ends, departs)


def _end_of(path: Path) -> int | None:
    try:
        file = VaultFile.open(path)
    except VaultError:
        return None
    try:
        newest = file.newest()
        return newest.sequence if newest else 0
    except VaultError:
        return None
    finally:
        file.close()


def _open_keyset(token: Token, state: TrustState, name: str) -> VaultKeyset:
    registered = state.tokens[name]
    wrapped_for, wrapped = state.keysets.get(f"{state.generation}:{name}", (b"", b""))
    if wrapped_for != registered.id:
        raise AuditBroken("the keyset on record is another token's")
    try:
        handles = token.unwrap_keyset(
            kek_name(state.vault_id, state.generation),
            wrapped,
            keyset_info(state.vault_id, state.generation, registered.id),
        )
    except (KeyError, NotAuthentic) as exc:
        raise VaultError(
            "the token's root KEK does not open this backup: it is from before a re-key",
            "use a backup that was made after it",
        ) from exc
    return VaultKeyset(handles, state.vault_id)


def _replace(path: Path, draft: Path) -> None:
    """``draft`` becomes ``path``, whatever state the file there is in."""
    try:
        old = VaultFile.open(path)
    except VaultError:
        for leftover in files_of(path)[:-1]:  # of a file that cannot be read; it would be replayed into the new one
            leftover.unlink(missing_ok=True)
        draft.replace(path)
        sync_directory(path.parent)
        return
    try:
        old.replace_with(draft)
    finally:
        old.close()
