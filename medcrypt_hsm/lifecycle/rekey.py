"""Re-keying: a new root KEK on every token and a new vault keyset (docs/spec/rekey.md).

    intent ─▶ new KEKs ─▶ keyset wrapped, proven ─▶ COMMIT ─▶ anchors ─▶ file rewritten, backup verified ─▶
    old KEKs destroyed ─▶ certificate

What is kept is carried over inside the commit. What is not carried over is gone with the old KEKs, in every earlier
backup too. The commit decides: a run that was interrupted before it is rolled back by the next run, one that was
interrupted after it is finished.

In: an unlocked vault, the other tokens that are there, a ``Purpose``. Out: a certificate. The steps are commit.py and
settle.py. Not here: what is to be shredded and whether it may be (shred.py), and a token that was away (sync.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from medcrypt_hsm.errors import Failed, MedcryptError
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.commit import Purpose, make_and_commit
from medcrypt_hsm.lifecycle.others import OpenToken, OtherTokens, own
from medcrypt_hsm.lifecycle.settle import begin, finish, roll_back, settle_locked
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens import Token
from medcrypt_hsm.vault import log
from medcrypt_hsm.vault.audit.actions import INTENDED, UNDONE, VAULT_REKEY
from medcrypt_hsm.vault.unlocked import Unlocked


def rekey(
    unlocked: Unlocked, purpose: Purpose, others: Sequence[OpenToken], options: OtherTokens, to: Path | None = None
) -> Certificate:
    """Everything; the certificate is in ``to``, or beside the vault.

    Raises Refused and UsageError before anything is done, TokenUnfit for a token that cannot make its new KEK. If it
    raises after the commit, the next run finishes it.
    """
    with unlocked.file.surroundings.alone():
        return rekey_locked(unlocked, purpose, others, options, to)


def rekey_locked(
    unlocked: Unlocked,
    purpose: Purpose,
    others: Sequence[OpenToken],
    options: OtherTokens,
    to: Path | None = None,
    custodians: Sequence[Token] = (),
) -> Certificate:
    """The same, where the caller has the directory's lock. ``custodians``: tokens that may hold old shares."""
    settle_locked(unlocked)
    unlocked.end_session()
    # Verified first: a row that somebody put back would be carried over and vouched for, and a row that somebody took
    # away could stop the re-key half way.
    log.verify(unlocked)
    with unlocked.change(purpose.action, purpose.subject, outcome=INTENDED) as change:
        purpose.may(unlocked)
        change.detail.update(purpose.detail)
    generation, entry = unlocked.state.generation + 1, change.sequence
    begin(unlocked, VAULT_REKEY, purpose.reason, generation, entry)
    gone = {token.id for token in purpose.retire}
    opened = [own(unlocked), *(other for other in others if other.id not in gone)]
    try:
        make_and_commit(unlocked, purpose, opened, generation, options)
    except BaseException as exc:
        if unlocked.state.rekey is not None and unlocked.state.rekey.phase == INTENDED:
            with suppress(MedcryptError):  # the reason matters more, and the next run rolls back as well
                roll_back(unlocked, opened, getattr(exc, "name", UNDONE))
        raise
    try:
        return finish(unlocked, others, to, custodians)
    except OSError as exc:
        failed = Failed(t("{file}: {reason}", file=exc.filename or unlocked.file.location, reason=exc.strerror))
        _tell_unfinished(failed, bool(custodians))
        raise failed from exc
    except MedcryptError as exc:
        _tell_unfinished(exc, bool(custodians))
        raise


def _tell_unfinished(exc: MedcryptError, custodians: bool) -> None:
    """Add to the error what a person must know: the re-key is done, and all but old shares is finished by itself."""
    exc.message = t("the vault is re-keyed, but not all that follows is done yet: {reason}", reason=exc.message)
    exc.hint = t(
        "see to that; the next command that opens the vault does the rest, and writes the certificate beside it"
    )
    if custodians:
        exc.hint = t(
            "{hint}. Old shares stay on record until 'medcrypt vault sync --share-token NAME=URI'", hint=exc.hint
        )
