"""What can be told of a vault without its token: a status that is not verified, and its log verified with public keys.

In: a vault's name, or the file of a vault that is open; an auditor's public keys. Out: a ``Status``, a ``Verified``.
Not here: which token a person means (choosing.py), and what takes the token to know: an open vault's own status is
built on this one (api/status.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from medcrypt_hsm.errors import AuditBroken, NotAuthentic
from medcrypt_hsm.month import Month
from medcrypt_hsm.sentences import counted, joined, t
from medcrypt_hsm.tokens import P256_HPKE, Token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit import statements
from medcrypt_hsm.vault.audit.actions import BREAKGLASS_OPEN
from medcrypt_hsm.vault.audit.checkpoints import Checkpoint
from medcrypt_hsm.vault.audit.entries import read_clear
from medcrypt_hsm.vault.audit.statements import Request
from medcrypt_hsm.vault.audit.trust import ABSENT, Policy, RegisteredToken, RetiredToken, TrustState
from medcrypt_hsm.vault.audit.trust_custody import OPEN, PATIENT, BreakGlass, OldShare, Use
from medcrypt_hsm.vault.audit.verify import Verified, verify_with_public_keys
from medcrypt_hsm.vault.choosing import peek
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.keyset import kek_names
from medcrypt_hsm.vault.policy import in_grace, past_retention
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Status:
    """What is there. ``verified`` is False when only the file was looked at, without its token."""

    location: Location
    verified: bool
    vault_id: str
    created: str
    generation: int
    entries: int
    tokens: tuple[RegisteredToken, ...]
    months: tuple[tuple[str, str], ...]  # month, its state: active, grace, archived, shredded; "due": not opened yet
    pairings: int
    policy: Policy
    problems: tuple[str, ...]  # what is wrong or due, in words
    orphans: tuple[str, ...] = ()  # objects on the token that nothing refers to
    anchor: int | None = None  # the sequence that the token remembers
    in_use: str = ""  # the token that was looked at
    removed: tuple[RetiredToken, ...] = ()
    breakglass: BreakGlass | None = None
    old_shares: tuple[OldShare, ...] = ()
    uses: tuple[Use, ...] = ()  # also those that the log tells of and the rows not yet


def status_of_file(vault: Named, clock: Clock = system_clock) -> Status:
    """What the file says, without token and PIN: not verified."""
    file = open_store(Location.parse(vault), in_use=False, as_found=True)
    try:
        return file_status(file, peek(file), verified=False, now=clock())
    finally:
        file.close()


def verify_file(vault: Named, public_keys: Sequence[bytes], since: Sequence[Checkpoint] = ()) -> Verified:
    """The log of ``vault`` from DER public keys alone; it must continue each checkpoint of ``since``."""
    file = open_store(Location.parse(vault), in_use=False, as_found=True)
    try:
        return verify_with_public_keys(file, public_keys, since)
    finally:
        file.close()


def file_status(
    file: Store,
    state: TrustState,
    *,
    verified: bool,
    now: datetime,
    held: Collection[Month] = (),
    uses: Collection[Use] | None = None,
) -> Status:
    """``held``: months past retention that a hold keeps; only with the token can it be known which they are.

    ``uses``: of break-glass, where the caller knows them better than the file's rows tell.
    """
    uses = tuple(_uses_in(file, state) if uses is None else uses)
    current = Month.of(now)
    problems = []
    listed = []
    for month in sorted(state.months):
        if state.is_shredded(month):
            listed.append((str(month), "shredded"))
        elif month >= current:
            listed.append((str(month), "active"))
        elif in_grace(month, now, state.policy):
            listed.append((str(month), "grace"))
        else:
            listed.append((str(month), "archived"))
    due = [str(Month(n)) for n in range(state.newest_month.ordinal + 1, current.ordinal + 1)]
    listed += [(month, "due") for month in due]
    if len(due) == 1:
        problems.append(t("month {month} is due; it opens by itself at the next message or pairing", month=due[0]))
    elif due:
        problems.append(
            t("months {first} to {last} are due: run 'medcrypt rotate --to {last}'", first=due[0], last=due[-1])
        )
    if to_shred := [str(month) for month in past_retention(state, now) if month not in held]:
        span = joined(t(" to "), dict.fromkeys((to_shred[0], to_shred[-1])))
        number = counted(len(to_shred), "{count} month", "{count} months")
        if verified or not state.holds:
            problems.append(
                t("past retention: {months} ({number}): run 'medcrypt shred --due'", months=span, number=number)
            )
        else:
            problems.append(
                t(
                    "past retention, but for what is on hold: {months} ({number}): run 'medcrypt shred --due'",
                    months=span,
                    number=number,
                )
            )
    if path := file.surroundings.file_open_to_others():
        problems.append(t("the vault file can be read by others: run 'chmod 600 {path}'", path=path))
    if path := file.surroundings.directory_open_to_others():
        problems.append(t("the vault's directory can be entered by others: run 'chmod 700 {path}'", path=path))
    if file.surroundings.notes.pending():
        problems.append(
            "there are notes of what failed or was asked for before an unlock; the next command enters them in the log"
        )
    problems += [
        t(
            "adding token {token} (serial {serial}) was interrupted: run the same 'medcrypt vault add-token' "
            "again, or give it up with 'medcrypt vault remove-token {token}'",
            token=begun.name,
            serial=begun.serial,
        )
        for begun in state.adding.values()
    ]
    problems += [*_tokens_behind(state), *_to_renew(state, uses)]
    if not state.roots:
        problems.append("rows are not bound, of a vault of before: run 'medcrypt vault bind'")
    problems += filter(None, (policy.below(state.policy, token) for token in state.tokens.values()))
    newest = file.newest()
    return Status(
        file.location,
        verified,
        state.vault_id.hex(),
        state.created,
        state.generation,
        newest.sequence if newest else 0,
        tuple(state.tokens.values()),
        tuple(listed),
        file.count_pairings(),
        state.policy,
        tuple(problems),
        removed=tuple(state.retired.values()),
        breakglass=state.breakglass,
        old_shares=state.old_shares,
        uses=uses,
    )


def _uses_in(file: Store, state: TrustState) -> Iterator[Use]:
    """Those in the rows, and those after which no registered token has written an entry yet."""
    yield from state.uses
    if state.breakglass is None:
        return
    known = {use.request for use in state.uses}
    row, signers = file.newest(), state.audit_keys
    while row is not None and row.signer not in signers:  # a use that a registered token's entry follows is in the rows
        entry = read_clear(row)
        before = file.entry(row.sequence - 1)
        if entry is None or entry.action != BREAKGLASS_OPEN:
            row = before
            continue
        try:
            request = statements.from_log(entry.detail["request"], Request)
        except (ValueError, KeyError, TypeError, AttributeError, NotAuthentic) as exc:
            raise AuditBroken(
                t("audit entry {entry} tells of no request", entry=row.sequence), at=row.sequence
            ) from exc
        if request.id not in known:
            yield Use(request.id, request.told.scope, row.sequence, entry.time)
        row = before


def _to_renew(state: TrustState, uses: Collection[Use]) -> list[str]:
    """What break-glass has left to do."""
    problems = []
    for use in uses:
        if use.phase == OPEN:
            problems.append(
                t(
                    "a recovery was begun at {time} and is not finished: run the same 'medcrypt breakglass recover' "
                    "again",
                    time=use.since,
                )
            )
        if not use.answered:
            what = t("one patient") if use.scope == PATIENT else t("the whole practice")
            problems.append(
                t(
                    "BG-8: break-glass was used for {scope} at {time}: run 'medcrypt breakglass rotate' with the "
                    "custodians",
                    scope=what,
                    time=use.since,
                )
            )
    for share in state.old_shares:
        problems.append(
            t(
                "the share of {custodian} (serial {serial}) of ceremony {ceremony} is not destroyed: "
                "enough of these open copies of the vault from before {time}; plug that token in at the next "
                "ceremony or 'medcrypt vault sync'",
                custodian=share.name,
                serial=share.serial,
                ceremony=share.ceremony.hex(),
                time=share.since,
            )
        )
    if (present := state.breakglass) is not None:
        for token in state.retired.values():
            if token.id == present.audit_key and token.was == ABSENT and token.entry > present.entry:
                problems.append(
                    t(
                        "token {token}, with which the present ceremony was held, was removed unseen: run 'medcrypt "
                        "breakglass rotate' with the custodians",
                        token=token.name,
                    )
                )
    return problems


def _tokens_behind(state: TrustState) -> list[str]:
    """What re-keying has left to do."""
    problems = []
    if state.rekey is not None:
        problems.append(
            t(
                "a command that re-keys the vault ({reason}) was interrupted, or is at work: the next command "
                "that opens the vault finishes it or takes it back",
                reason=state.rekey.reason,
            )
        )
    for name in state.tokens:
        if state.keyset_of(name) is None:
            problems.append(
                t("token {token} opens the vault only after 'medcrypt vault sync': it was away at a re-key", token=name)
            )
    for old in state.doomed:
        if old.token in state.retired:
            problems.append(
                t(
                    "removed token {token} still holds root key {key}, which opens copies of the vault that "
                    "were made before it was removed: destroy those; if it turns up, run 'medcrypt vault sync' with it",
                    token=old.token,
                    key=old.kek,
                )
            )
        else:
            values = {"token": old.token, "key": old.kek, "time": old.since}
            if state.tokens[old.token].profile == P256_HPKE:
                problems.append(
                    t(
                        "token {token} still holds root key {key}, which opens copies of the vault from before {time}, "
                        "and newer ones: plug it in and run 'medcrypt vault sync'",
                        **values,
                    )
                )
            else:
                problems.append(
                    t(
                        "token {token} still holds root key {key}, which opens copies of the vault from before {time}: "
                        "plug it in and run 'medcrypt vault sync'",
                        **values,
                    )
                )
    return problems


def find_orphans(token: Token, state: TrustState, in_use: str) -> tuple[str, ...]:
    """Names on the token, called ``in_use``, that begin with ``medcrypt`` and that this vault does not use."""
    vault_id = state.vault_id
    used = {*kek_names(state, in_use), audit_key_name(vault_id), anchor_name(vault_id)}
    return tuple(name for name in token.names() if name not in used)
