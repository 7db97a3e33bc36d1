"""``medcrypt encrypt-file`` and ``decrypt-file``: files of any kind and size.

A file's name is chosen by its sender; where it is shown, it is shown as hostile text is.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.cli.texts import SENDERS
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import FileDone


def register(app: typer.Typer) -> None:
    @command(app, "encrypt-file")
    def encrypt_file(
        context: typer.Context,
        patient_id: str = typer.Argument(metavar="ID", help="The patient."),
        source: Path = typer.Argument(metavar="IN", help="The file; its name goes with it, encrypted."),
        target: Path = typer.Argument(metavar="OUT", help="A new file, to send."),
    ) -> None:
        """Encrypt a file for a patient."""
        from medcrypt_hsm import Files

        run = run_of(context)
        Files.check_encrypt(source, target)
        with run.open_for_work("encrypting") as vault:
            made = vault.files.encrypt(patient_id, source, target, run.console.progress)
        _result(run, made)

    @command(app, "decrypt-file")
    def decrypt_file(
        context: typer.Context,
        source: Path = typer.Argument(metavar="IN", help="The encrypted file."),
        out: Path | None = typer.Option(None, "--out", metavar="DIR", help="Where to. [default: here]"),
        archive: bool = typer.Option(False, "--archive", help="Read a file of an archived month too."),
        month: str | None = typer.Option(None, "--month", metavar="YYYY-MM", help="Read a file of this month too."),
    ) -> None:
        """Decrypt a file: a new one of the sender's name, there only when all of it is authentic."""
        from medcrypt_hsm import Files

        run, named = run_of(context), parse_month(month)
        directory = out or Path()
        if out is None and run.surroundings.lie_in(directory):
            raise UsageError(
                "this is the vault's own directory: nothing is put beside it unasked",
                "name another directory with --out DIR",
            )
        Files.check_decrypt(source, directory)
        with run.open_for_work("decrypting", archive=archive or named is not None) as vault:
            done = vault.files.decrypt(source, directory, run.console.progress, archive=archive, month=named)
        _result(run, done)


def _result(run: Run, done: FileDone) -> None:
    words = [done.patient, done.month, SENDERS[done.sender], done.media_type, t("{size:,} bytes", size=done.size)]
    if done.seen:
        words.append(t("seen before"))
    run.console.say(t("── {details}", details=joined(" · ", map(output.visible, words))))
    document = {
        "file": str(done.path),
        "patient": done.patient,
        "month": done.month,
        "sender": done.sender,
        "name": done.name,
        "media_type": done.media_type,
        "bytes": done.size,
        "status": done.status,
        **run.month_opened,
    }
    run.result(document, output.visible(str(done.path)) + "\n")
