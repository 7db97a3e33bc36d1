"""``medcrypt status``: what is there, due and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import RegisteredToken, RetiredToken, Status


def register(app: typer.Typer) -> None:
    @command(app, "status", shows=("token",))
    def status(context: typer.Context) -> None:
        """What is there, due and wrong. Without --token only the file is looked at, and nothing is verified."""
        run = run_of(context)
        if run.token is None:
            from medcrypt_hsm import status_of_file

            _show(run, status_of_file(run.location))
            return
        with run.open_for_work("verifying") as vault:
            found = vault.status()
        _show(run, found)


def _show(run: Run, status: Status) -> None:
    document: dict[str, Any] = {
        "verified": status.verified,
        "vault": str(status.location),
        "id": status.vault_id,
        "created": status.created,
        "generation": status.generation,
        "entries": status.entries,
        "tokens": [token_document(token) for token in status.tokens],
        "months": [{"month": month, "state": state} for month, state in status.months],
        "pairings": status.pairings,
        "policy": status.policy.whole(),
        "problems": list(status.problems),
        "orphans": list(status.orphans),
        "removed": [
            {"name": token.name, "serial": token.serial, "since": token.since, "was": token.was}
            for token in status.removed
        ],
        "breakglass": _breakglass(status),
        "anchor": status.anchor,
        "in_use": status.in_use or None,
    }
    known = "verified" if status.verified else "NOT VERIFIED: name a token with --token to verify"
    text = output.fields(
        [
            ("vault", status.location),
            ("state", known),
            ("id", status.vault_id),
            ("created", status.created),
            ("pairings", status.pairings),
            ("policy", _policy(status)),
            *(("token", _token(token, status.in_use)) for token in status.tokens),
            *(("removed", _removed(token)) for token in status.removed),
            *_custodians(status),
            *(("month", line) for line in _months(status)),
            ("audit log", _log(status)),
            *(("problem", problem) for problem in status.problems),
            *([] if status.problems else [("problems", "none" if status.verified else "none to be seen in the file")]),
        ]
    )
    run.result(document, text)


def _breakglass(status: Status) -> dict[str, Any] | None:
    if (present := status.breakglass) is None:
        return None
    return {
        "ceremony": present.ceremony.hex(),
        "since": present.since,
        "threshold": present.threshold,
        "words": key_words(present.key),
        "custodians": [
            {
                "name": custodian.name,
                "serial": custodian.serial,
                "model": custodian.model,
                "attestation": custodian.attestation,
                "drilled": custodian.drilled or None,
                "words": key_words(custodian.approval_key),
            }
            for custodian in present.in_order()
        ],
        "old_shares": [
            {"name": old.name, "serial": old.serial, "ceremony": old.ceremony.hex(), "since": old.since}
            for old in status.old_shares
        ],
        "uses": [{"since": use.since, "scope": use.scope, "answered": use.answered or None} for use in status.uses],
    }


def key_words(key: bytes) -> str:
    """A public key's fingerprint, for reading aloud."""
    from hashlib import sha256

    from medcrypt_hsm import in_words

    return in_words(sha256(key).digest())


def _custodians(status: Status) -> Iterator[tuple[str, str]]:
    """Who they are, and whether everybody knows that their shares work."""
    if (present := status.breakglass) is None:
        return
    custodians = present.in_order()
    names = ", ".join(custodian.name for custodian in custodians)
    yield (
        "custodians",
        t(
            "any {threshold} of {custodians}; ceremony {ceremony} of {since}",
            threshold=present.threshold,
            custodians=names,
            ceremony=present.ceremony.hex(),
            since=present.since,
        ),
    )
    drilled = sorted((custodian.drilled, custodian.name) for custodian in custodians if custodian.drilled)
    never = ", ".join(custodian.name for custodian in custodians if not custodian.drilled)
    words = [t("last at {time}", time=drilled[-1][0])] if drilled else []
    words += (
        [t("longest ago {custodian}, at {time}", custodian=drilled[0][1], time=drilled[0][0])]
        if len(drilled) > 1 and not never
        else []
    )
    words += [t("never {custodians}", custodians=never)] if never else []
    yield "drills", joined("; ", words)


def _months(status: Status) -> list[str]:
    """Those that are due as one line: a clock that runs years ahead would make hundreds."""
    lines = [f"{month} {state}" for month, state in status.months if state != "due"]
    due = [month for month, state in status.months if state == "due"]
    return [*lines, t("{months} due", months=joined(t(" to "), dict.fromkeys((due[0], due[-1]))))] if due else lines


def _log(status: Status) -> str:
    if not status.verified:
        return t("{count} entries, not verified", count=status.entries)
    # A practice keeps hundreds of thousands: reading them all is 'audit verify', not what a doctor waits for each day.
    return t(
        "{count} entries, verified from entry {entry} on; 'medcrypt audit verify' reads them all",
        count=status.entries,
        entry=status.anchor,
    )


def _policy(status: Status) -> str:
    policy = status.policy
    words = t("grace {days} days, months kept {months}", days=policy.grace_days, months=policy.retain_months)
    if policy.require_attestation == "none":
        return words
    return t("{policy}, tokens {required}", policy=words, required=policy.require_attestation)


def token_words(token: RegisteredToken) -> str:
    """A registered token in one line."""
    touch = () if token.touch == "never" else (t("touch {touch}", touch=token.touch),)
    serial = t("serial {serial}", serial=token.serial)
    told = (token.label, serial, token.model, token.profile, *touch, token.attestation)
    return joined(": ", (token.name, joined(", ", told)))


def _token(token: RegisteredToken, in_use: str) -> str:
    words = token_words(token)
    return t("{token}, in use", token=words) if token.name == in_use else words


def _removed(token: RetiredToken) -> str:
    return t(
        "{token}: {label}, serial {serial}, at {since}",
        token=token.name,
        label=token.label,
        serial=token.serial,
        since=token.since,
    )


def token_document(token: RegisteredToken) -> dict[str, str]:
    """A registered token in JSON."""
    return {
        "name": token.name,
        "label": token.label,
        "serial": token.serial,
        "model": token.model,
        "uri": token.uri,
        "profile": token.profile,
        "touch": token.touch,
        "attestation": token.attestation,
        "fingerprint": token.id.hex(),
    }
