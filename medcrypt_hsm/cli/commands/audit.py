"""``medcrypt audit``: read the log, verify it, and what an officer keeps of it elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands.vault import verified_document
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

if TYPE_CHECKING:
    from medcrypt_hsm import Entry, EntryFilter

TIME = "TIME"
PATIENT = typer.Option(None, "--patient", metavar="ID", help="Entries about this patient alone.")
ACTOR = typer.Option(None, "--actor", metavar="NAME", help="Entries of this user of the operating system alone.")
ACTION = typer.Option(
    None, "--action", metavar="ACTION", help="Entries of this action alone, or of a group: patient for patient.add …"
)
SINCE = typer.Option(None, "--since", metavar=TIME, help="Entries from this day or time on (UTC).")
UNTIL = typer.Option(None, "--until", metavar=TIME, help="Entries up to the end of this day, or to this time (UTC).")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The audit log: read it, verify it, keep its newest head elsewhere.")
    app.add_typer(group, name="audit")

    @command(group, "show")
    def show(
        context: typer.Context,
        patient: str | None = PATIENT,
        actor: str | None = ACTOR,
        action: str | None = ACTION,
        since: str | None = SINCE,
        until: str | None = UNTIL,
    ) -> None:
        """The entries, oldest first. Reading the log is recorded in it."""
        _show(run_of(context), _filter(patient, actor, action, since, until))

    @command(group, "export")
    def export(
        context: typer.Context,
        file: Path = typer.Argument(metavar="FILE", help="A new file; never one that exists."),
        format_: str = typer.Option("jsonl", "--format", metavar="FORMAT", help="jsonl, csv or cef."),
        patient: str | None = PATIENT,
        actor: str | None = ACTOR,
        action: str | None = ACTION,
        since: str | None = SINCE,
        until: str | None = UNTIL,
    ) -> None:
        """Write the entries to a file for other programs; the log tells of it."""
        _export(run_of(context), file, format_, _filter(patient, actor, action, since, until))

    @command(group, "verify")
    def verify(
        context: typer.Context,
        more: list[Path] = typer.Argument(None, metavar="[PEM...]", help="Further key files behind --public-key."),
        public_key: list[Path] = typer.Option(
            [], "--public-key", metavar="PEM", help="Verify with this audit key alone, without a token; repeatable."
        ),
        since: list[Path] = typer.Option(
            [], "--since", metavar="CHECKPOINT", help="The log must continue this checkpoint; repeatable."
        ),
    ) -> None:
        """Verify the whole log: with the token every entry and row, with public keys chain, heads and trust state."""
        _verify(run_of(context), public_key, more or [], since)

    @command(group, "anchor")
    def anchor(context: typer.Context) -> None:
        """Make the token remember the newest head now."""
        run = run_of(context)
        with run.open_vault("writing the anchor") as vault:
            sequence = vault.log.anchor()
        run.result({"anchor": sequence}, t("the token remembers audit entry {entry}\n", entry=sequence))

    @command(group, "checkpoint")
    def checkpoint(
        context: typer.Context,
        file: Path | None = typer.Argument(None, metavar="[FILE]", help="A new file. [default: stdout]"),
    ) -> None:
        """The newest head as a signed note, to keep elsewhere."""
        _checkpoint(run_of(context), file)

    @command(group, "public-key")
    def public_key_(context: typer.Context) -> None:
        """The audit keys of the vault's tokens in PEM; they verify the log without a token."""
        _public_key(run_of(context))


def _filter(
    patient: str | None, actor: str | None, action: str | None, since: str | None, until: str | None
) -> EntryFilter:
    from medcrypt_hsm import EntryFilter, moment

    return EntryFilter(
        patient,
        actor,
        action,
        None if since is None else moment(since),
        None if until is None else moment(until, end=True),
    )


def _show(run: Run, where: EntryFilter) -> None:
    with run.open_for_work("reading the log") as vault:
        entries = vault.log.entries(where)
    if run.json:
        run.result({"entries": [_document(sequence, entry) for sequence, entry in entries]})
        return
    heads = ("ENTRY", "TIME", "ACTOR", "TOKEN", "ACTION", "SUBJECT", "OUTCOME")
    rows = [(n, e.time, e.actor, e.token, e.action, e.subject, e.outcome) for n, e in entries]
    run.result({}, output.table(heads, rows))


def _document(sequence: int, entry: Entry) -> dict[str, object]:
    return {
        "sequence": sequence,
        "time": entry.time,
        "actor": entry.actor,
        "token": entry.token,
        "action": entry.action,
        "subject": entry.subject,
        "outcome": entry.outcome,
        "detail": entry.detail,
    }


def _export(run: Run, file: Path, format_: str, where: EntryFilter) -> None:
    from medcrypt_hsm import Log

    Log.check_export(file, format_)
    with run.open_for_work("exporting the log", archive=True) as vault:
        exported = vault.log.export(file, format=format_, where=where)
    run.console.say("it names patients: keep it as you keep the vault")
    run.result(
        {"export": str(file), "format": exported.format, "entries": exported.entries},
        t("{count} audit entries are in {file}\n", count=exported.entries, file=output.visible(str(file))),
    )


def _verify(run: Run, public_key: list[Path], more: list[Path], since: list[Path]) -> None:
    if more and not public_key:
        raise UsageError("key files are given behind --public-key", "write --public-key before the first of them")
    from medcrypt_hsm import read_checkpoint

    notes = [read_checkpoint(path) for path in since]
    if public_key:
        from medcrypt_hsm import read_public_keys, verify_file

        keys = [key for path in (*public_key, *more) for key in read_public_keys(path)]
        with run.console.working("verifying"):
            verified = verify_file(run.location, keys, notes)
        how = t("with public keys alone: chain, every head and the trust state")
    else:
        with run.open_for_work("verifying") as vault:
            verified = vault.log.verify(notes)
        how = t("with the token: chain, every head, every entry and all {rows} rows", rows=verified.rows)
    text = t(
        "verified {scope}\n{count} entries, signed by {tokens}\nnewest: {entry} {hash}\n",
        scope=how,
        count=verified.entries,
        tokens=output.visible(", ".join(verified.keys)),
        entry=verified.sequence,
        hash=verified.hash.hex(),
    )
    if verified.checkpoints:
        continued = ", ".join(map(str, verified.checkpoints))
        text = t("{verified}checkpoints that the log continues: {entries}\n", verified=text, entries=continued)
    if not verified.bound:
        text = t("{verified}rows are not bound: run 'medcrypt vault bind'\n", verified=text)
    document = {"with_token": not public_key, "checkpoints": list(verified.checkpoints)}
    run.result(document | verified_document(verified), text)


def _checkpoint(run: Run, file: Path | None) -> None:
    if file is not None and file.exists():
        raise UsageError(t("{file} exists already", file=file), "name a new file")
    with run.open_for_work("signing") as vault:
        note = vault.log.checkpoint()
    if file is not None:
        from medcrypt_hsm.vault.store.atomic import new_file

        try:
            target = new_file(file, 0o644)
        except OSError as exc:
            raise UsageError(
                t("{file} cannot be made: {reason}", file=file, reason=exc.strerror),
                "name a new file in a directory of yours",
            ) from exc
        with target:
            target.write(note.encode())
        run.console.say(t("the checkpoint is in {file}; keep it where the vault's owner cannot change it", file=file))
    document = {"checkpoint": note, "file": None if file is None else str(file)}
    run.result(document, "" if file is not None else note)


def _public_key(run: Run) -> None:
    with run.open_vault("reading the keys") as vault:
        keys, tokens = vault.log.public_keys(), {token.name: token for token in vault.status().tokens}
    for name in keys:
        run.console.say(t("audit key of token {token}: SHA-256 {hash}", token=name, hash=tokens[name].id.hex()))
    document = [{"token": name, "fingerprint": tokens[name].id.hex(), "pem": pem} for name, pem in keys.items()]
    run.result({"keys": document}, "".join(keys.values()))
