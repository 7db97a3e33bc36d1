"""``medcrypt breakglass``: what is done in an emergency, and the drills before one. Not here: ceremonies (ceremony.py).

Requests, approvals and drill results are files that travel by mail or on a stick; the words of a request are compared
by voice. Where such a file came from proves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands import ceremony
from medcrypt_hsm.cli.commands.ceremony import SHARES, share_tokens
from medcrypt_hsm.cli.commands.shred import ROOTS, document, other_tokens, words
from medcrypt_hsm.cli.commands.vault_tokens import named_token, options_of
from medcrypt_hsm.cli.options import REASON_SOURCE, command, reason_of, run_of
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.cli.texts import find_messages, show_opened
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import Actor, BreakGlass, Checkpoint, Journal, RequestedBy, Reviewed

THE_PRACTICE = "practice"  # what is typed to approve, or to begin, the recovery of everything
REQUEST = typer.Argument(metavar="REQUEST", help="The request's file.")
APPROVALS = typer.Argument(None, metavar="APPROVAL...", help="The custodians' files.")
SINCE = typer.Option(
    [], "--since", metavar="CHECKPOINT", help="The vault must continue this checkpoint, kept elsewhere; repeatable."
)


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Break-glass: the practice opened in an emergency, by several custodians together.")
    app.add_typer(group, name="breakglass")
    ceremony.register(group)

    @command(group, "drill", shows=("token",))
    def drill(
        context: typer.Context,
        out: list[Path] = typer.Argument(None, metavar="[OUT...]", help="The result's new file; or results to record."),
        record: bool = typer.Option(False, "--record", help="Enter the custodians' results in the vault."),
        reconstruct: bool = typer.Option(False, "--reconstruct", help="Put shares together, here, with their tokens."),
        share_token: list[str] = SHARES,
        ceremony_id: str | None = typer.Option(
            None, "--ceremony", metavar="ID", help="Which share, where the token holds several practices'."
        ),
    ) -> None:
        """Prove that a share is there: alone with --token, record the results, or put several together."""
        _drill(run_of(context), list(out or ()), record, reconstruct, share_token, ceremony_id)

    @command(group, "request", shows=("token",))
    def request(
        context: typer.Context,
        out: Path = typer.Argument(metavar="OUT", help="The request's new file."),
        reason: str = typer.Option("", "--reason", metavar="TEXT", help="Why: custodians and auditors read it."),
        reason_source: str | None = typer.Option(None, "--reason-source", metavar="SOURCE", help=REASON_SOURCE),
        patient: str = typer.Option("", "--patient", metavar="ID", help="One patient. [default: the whole practice]"),
        hours: int = typer.Option(24, "--hours", metavar="N", help="When the request ends: 1 to 72 hours from now."),
    ) -> None:
        """Ask the custodians to open the vault; --token NAME=URI is a token that opens nothing yet."""
        run = run_of(context)
        _request(run, out, reason_of(run, reason, reason_source), patient, hours)

    @command(group, "approve", shows=("token",))
    def approve(
        context: typer.Context,
        request: Path = REQUEST,
        out: Path = typer.Argument(metavar="OUT", help="The approval's new file."),
    ) -> None:
        """Approve a request, as a custodian, with the token of one's share; no vault is needed."""
        _approve(run_of(context), request, out)

    @command(group, "decrypt")
    def decrypt(
        context: typer.Context,
        request: Path = REQUEST,
        approval: list[Path] = APPROVALS,
        texts: Path | None = typer.Option(
            None, "--in", metavar="FILE", help="Any text that holds messages. [default: stdin]"
        ),
        month: str | None = typer.Option(None, "--month", metavar="YYYY-MM", help="Read messages of this month too."),
        since: list[Path] = SINCE,
    ) -> None:
        """Read one patient's messages with an approved request; it is used then."""
        _decrypt(run_of(context), request, approval or [], texts, month, since)

    @command(group, "recover")
    def recover(
        context: typer.Context,
        request: Path = REQUEST,
        approval: list[Path] = APPROVALS,
        since: list[Path] = SINCE,
        roots: Path | None = ROOTS,
    ) -> None:
        """Bring the practice to the requester's token with an approved request; every other token is retired."""
        _recover(run_of(context), request, approval or [], since, roots)


def _since(paths: Sequence[Path]) -> list[Checkpoint]:
    from medcrypt_hsm import read_checkpoint

    return [read_checkpoint(path) for path in paths]


def _warn_without(run: Run, since: Sequence[Path]) -> None:
    if not since:
        run.console.warn(
            "without --since nobody knows that this file is the newest: only a checkpoint that was kept elsewhere "
            "shows it, and an older file lacks what was done since"
        )


def _actor(run: Run, uri: str = "", *names: str) -> Actor:
    """Whoever runs the command, with the one token that it uses."""
    from medcrypt_hsm import Actor, this_user

    return Actor(run.access(*names), this_user(), uri)


def _journal(run: Run) -> Journal:
    from medcrypt_hsm import Journal

    return Journal(run.journal_path)


def _own_token(run: Run, uri: str | None) -> str:
    """A URI from --token. Raises UsageError."""
    if uri is None or not uri.startswith(("pkcs11:", "yubikey:")):
        raise UsageError(
            "the token with the share is needed",
            "name it by its URI, for example --token yubikey:12345678; see 'medcrypt token list'",
        )
    return uri


def _drill(
    run: Run,
    out: Sequence[Path],
    record: bool,
    reconstruct: bool,
    share_token: Sequence[str],
    ceremony_id: str | None,
) -> None:
    if record and reconstruct:
        raise UsageError("--record and --reconstruct are two drills", "give one of them")
    if share_token and not reconstruct:
        raise UsageError("--share-token belongs to --reconstruct", "a custodian alone gives --token URI")
    if ceremony_id is not None and (record or reconstruct):
        raise UsageError("--ceremony belongs to a custodian's drill alone", "leave it out")
    if reconstruct:
        if out:
            raise UsageError("--reconstruct writes no file", "leave OUT out")
        _reconstruct(run, share_token)
    elif record:
        _record(run, out)
    else:
        _drill_alone(run, out, ceremony_id)


def _drill_alone(run: Run, out: Sequence[Path], ceremony_id: str | None) -> None:
    from medcrypt_hsm import emergency

    if len(out) != 1:
        raise UsageError("one new file for the result is needed", "for example 'ana.drill'")
    uri = _own_token(run, run.token)
    wanted = None if ceremony_id is None else emergency.ceremony_id(ceremony_id)
    emergency.check_new(out[0])
    with run.console.working("opening the share"):
        signed, share = emergency.drill(_actor(run, uri), _journal(run), wanted)
    emergency.write(out[0], signed)
    found = {
        "file": str(out[0]),
        "custodian": share.name,
        "ceremony": share.ceremony.hex(),
        "vault": share.vault_id.hex(),
        "threshold": share.threshold,
        "of": share.of,
        "time": signed.told.time,
    }
    run.result(
        found,
        output.fields(
            [
                (
                    "share of",
                    t(
                        "{custodian}: {number} of {count}, {threshold} are needed",
                        custodian=share.name,
                        number=share.x,
                        count=share.of,
                        threshold=share.threshold,
                    ),
                ),
                ("ceremony", share.ceremony.hex()),
                ("proven", t("it opens and matches, at {time}", time=signed.told.time)),
                ("result", out[0]),
            ]
        ),
    )
    run.console.say("next: send the result to the practice: 'medcrypt breakglass drill --record'")


def _record(run: Run, paths: Sequence[Path]) -> None:
    from medcrypt_hsm import Drill, emergency

    if not paths:
        raise UsageError("there is no drill result to record", "name the files that the custodians sent")
    results = [emergency.read_statement(path, Drill) for path in paths]
    with run.open_vault("recording the drill") as vault:
        names = vault.custodians.drill(results)
        custodians = _present(vault.custodians.present).custodians
        drilled = {name: custodian.drilled for name, custodian in custodians.items()}
    missing = [name for name in drilled if not drilled[name]]
    lines = [
        t("drill of {custodian} at {time} is recorded", custodian=output.visible(name), time=drilled[name])
        for name in names
    ]
    lines += [t("never drilled: {custodians}", custodians=output.visible(", ".join(missing)))] if missing else []
    run.result({"recorded": names, "never_drilled": missing}, joined("\n", [*lines, ""]))


def _reconstruct(run: Run, share_token: Sequence[str]) -> None:
    shares = share_tokens(share_token)
    with run.open_vault("putting shares together") as vault:
        tried = vault.custodians.reconstruct(shares, run.custodian_pins(), other_tokens(run, (), None))
    lines = [t("{custodians} open the escrow", custodians=output.visible(joined(t(" and "), some))) for some in tried]
    run.result({"reconstructed": [list(some) for some in tried]}, joined("\n", [*lines, ""]))


def _present(found: BreakGlass | None) -> BreakGlass:
    assert found is not None  # the library refuses a vault without custodians
    return found


def _request(run: Run, out: Path, reason: str, patient: str, hours: int) -> None:
    from medcrypt_hsm import RequestOptions, emergency, in_words, this_user

    name, uri = named_token(run.token, "--token emergency=yubikey:12345678")
    emergency.check_new(out)
    options = RequestOptions(name, reason, this_user(), patient, hours)
    with run.console.working("making the request"):
        made = emergency.request(run.location, _actor(run, uri, name), options, _journal(run))
    emergency.write(out, made)
    glass = emergency.custodians_of(run.location)
    found = {
        "file": str(out),
        "request": made.id.hex(),
        "words": in_words(made.id),
        "name": name,
        "scope": made.told.scope,
        "patient": patient or None,
        "created": made.told.created,
        "expires": made.told.expires,
        "ceremony": glass.ceremony.hex(),
        "threshold": glass.threshold,
        "custodians": list(glass.custodians),
    }
    run.result(
        found,
        output.fields(
            [
                ("request", out),
                ("words", found["words"]),
                ("for", _what(patient)),
                ("until", made.told.expires),
                (
                    "approvals",
                    t("{threshold} of {custodians}", threshold=glass.threshold, custodians=", ".join(glass.custodians)),
                ),
            ]
        ),
    )
    then = "decrypt" if patient else "recover"
    run.console.say_lines(
        t(
            "next: send the file to the custodians, and read them its words by voice\n"
            "      'medcrypt breakglass {command} REQUEST APPROVAL…' with their files, and this very token",
            command=then,
        )
    )


def _what(patient: str) -> str:
    return t("patient {patient}", patient=patient) if patient else t("THE WHOLE PRACTICE")


def _approve(run: Run, request: Path, out: Path) -> None:
    from medcrypt_hsm import emergency, in_words

    uri = _own_token(run, run.token)
    emergency.check_new(out)
    data = emergency.file_that_was_sent(request)
    seen: list[Reviewed] = []

    def agree(reviewed: Reviewed) -> None:
        seen.append(reviewed)
        _show_request(run, reviewed)
        patient = reviewed.by.patient
        run.console.agree(
            t("Approving hands your share to this request: it opens {scope}.", scope=_what(patient)),
            patient or THE_PRACTICE,
            yes=run.yes,
            what=t("approving a request"),
        )

    made = emergency.approve(data, _actor(run, uri), _journal(run), agree)
    emergency.write(out, made)
    reviewed = seen[0]
    told, by = reviewed.request.told, reviewed.by
    found = {
        "file": str(out),
        "custodian": made.told.custodian,
        "ceremony": told.ceremony.hex(),
        "vault": told.vault_id.hex(),
        "request": reviewed.request.id.hex(),
        "words": in_words(reviewed.request.id),
        "scope": told.scope,
        "patient": by.patient or None,
        "reason": by.reason,
        "requester": by.requester,
        "expires": told.expires,
        "sequence": told.sequence,
        "seen_before": reviewed.seen_before,
    }
    run.result(found, output.fields([("approval", out), ("of", made.told.custodian), ("for", _what(by.patient))]))
    run.console.say("next: send the file to the requester; it opens nothing but this request")


def _show_request(run: Run, reviewed: Reviewed) -> None:
    """Everything that is approved, in words; with --yes and --quiet too."""
    from medcrypt_hsm import in_words

    told, by, share = reviewed.request.told, reviewed.by, reviewed.record
    run.console.show_lines(
        output.fields(
            [
                ("request", in_words(reviewed.request.id)),
                ("opens", _what(by.patient)),
                ("asked by", by.requester),
                ("because", by.reason),
                ("with token", _token_words(by)),
                ("made", told.created),
                ("until", told.expires),
                ("vault", told.vault_id.hex()),
                ("ceremony", told.ceremony.hex()),
                (
                    "your share",
                    t(
                        "{number} of {count}, as {custodian}; {threshold} are needed",
                        number=share.x,
                        count=share.of,
                        custodian=share.name,
                        threshold=share.threshold,
                    ),
                ),
                ("their file", t("stands at audit entry {entry}", entry=told.sequence)),
            ]
        )
    )
    run.console.show_lines("ask the requester, by voice, for the words of the request, and compare them")
    if reviewed.seen_before > told.sequence:
        run.console.warn(
            t(
                "an earlier request showed audit entry {earlier} of this vault, and this one shows "
                "{entry}: it was made with an older file. Ask why before you approve",
                earlier=reviewed.seen_before,
                entry=told.sequence,
            )
        )


def _token_words(by: RequestedBy) -> str:
    token = by.token
    return t(
        "{token}: {label}, serial {serial}, {model}",
        token=by.name,
        label=token["label"],
        serial=token["serial"],
        model=token["model"],
    )


def _decrypt(
    run: Run,
    request: Path,
    approvals: Sequence[Path],
    texts: Path | None,
    month: str | None,
    since: Sequence[Path],
) -> None:
    from medcrypt_hsm import Approval, Request, emergency, requested_by

    named = parse_month(month)
    signed = emergency.read_statement(request, Request)
    given = [emergency.read_statement(path, Approval) for path in approvals]
    checkpoints, by = _since(since), requested_by(signed)
    found = find_messages(run, texts)
    _warn_without(run, since)
    actor = _actor(run, run.token or "", by.name)
    with run.console.working("opening the vault"):
        results = emergency.decrypt(run.location, actor, signed, given, found, month=named, since=checkpoints)
    run.console.warn("break-glass was used: 'medcrypt status' is red until 'medcrypt breakglass rotate'")
    show_opened(run, results, {"request": signed.id.hex(), "patient": by.patient})


def _recover(run: Run, request: Path, approvals: Sequence[Path], since: Sequence[Path], roots: Path | None) -> None:
    from medcrypt_hsm import Approval, Request, Vault, emergency, requested_by

    signed = emergency.read_statement(request, Request)
    given = [emergency.read_statement(path, Approval) for path in approvals]
    checkpoints, by = _since(since), requested_by(signed)
    options = options_of(None, "never", roots)
    _warn_without(run, since)
    run.console.agree(
        t(
            "Recovering brings the practice to token {token}, serial {serial}, and retires every other "
            "token: none of them opens it any more, and earlier backups cannot be put back.",
            token=by.name,
            serial=by.token["serial"],
        ),
        THE_PRACTICE,
        yes=run.yes,
        what=t("recovering the practice"),
    )
    with run.console.working("recovering"):
        recovered = Vault.recover(
            run.location,
            signed,
            given,
            pin=run.access(by.name),
            uri=run.token or "",
            since=checkpoints,
            options=options,
            end_session=run.end_session,
        )
    with recovered as vault:
        made, status = vault.finished, vault.status()
    assert made is not None
    found: dict[str, Any] = {
        "request": signed.id.hex(),
        "token": by.name,
        "retired": [token.name for token in status.removed],
        **document(made),
    }
    run.result(
        found,
        t(
            "the practice is on token {token} now\n{certificate}",
            token=output.visible(by.name),
            certificate=words(made),
        ),
    )
    due = [month for month, state in status.months if state == "due"]
    steps = [t("next: 'medcrypt audit public-key', and give the new key to the officer")]
    steps += [t("      'medcrypt rotate --to {month}'", month=due[-1])] if due else []
    steps += [
        t("      'medcrypt breakglass rotate', with the custodians: this emergency key was used"),
        t("      'medcrypt patient list', and 'medcrypt patient repair ID' for each that is COMPROMISED"),
        t("      'medcrypt vault backup FILE', and keep it elsewhere"),
    ]
    run.console.say_lines(joined("\n", steps))
