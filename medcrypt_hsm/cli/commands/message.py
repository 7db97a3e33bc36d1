"""``medcrypt encrypt``, ``decrypt`` and ``rotate``: the main path. What the first two do is in texts.py."""

from __future__ import annotations

import typer

from medcrypt_hsm.cli import texts
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.sentences import t


def register(app: typer.Typer) -> None:
    @command(app, "encrypt")
    def encrypt(
        context: typer.Context,
        patient_id: str = typer.Argument(metavar="ID", help="The patient."),
        file: str | None = typer.Argument(None, metavar="[FILE]", help="The text. [default: stdin]"),
    ) -> None:
        """Encrypt a text for a patient: wire text on stdout, one line a part."""
        texts.encrypt(run_of(context), patient_id, file)

    @command(app, "decrypt")
    def decrypt(
        context: typer.Context,
        file: str | None = typer.Argument(
            None, metavar="[FILE]", help="Any text that holds messages. [default: stdin]"
        ),
        archive: bool = typer.Option(False, "--archive", help="Read messages of archived months too."),
        month: str | None = typer.Option(None, "--month", metavar="YYYY-MM", help="Read messages of this month too."),
    ) -> None:
        """Decrypt every message in a text, a whole pasted chat for example, in order."""
        texts.decrypt(run_of(context), file, archive, month)

    @command(app, "rotate")
    def rotate(
        context: typer.Context,
        to: str | None = typer.Option(None, "--to", metavar="YYYY-MM", help="The clock's month, if several are due."),
    ) -> None:
        """Open the current month now. A single month that is due opens by itself at the next command."""
        _rotate(run_of(context), to)


def _rotate(run: Run, to: str | None) -> None:
    if to is None:
        with run.open_for_work("opening the month") as work:
            opened = work.months.open()
    else:
        with run.open_vault("opening the month") as vault:
            opened = vault.months.open(parse_month(to))
    if opened is None:
        run.result({"months": [], "pairings": 0, "checkpoint": None}, "nothing is due: the current month is open\n")
        return
    months = [str(month) for month in opened.months]
    run.console.say(
        t(
            "opened {months} for {pairings} pairings; keep this checkpoint elsewhere:",
            months=", ".join(months),
            pairings=opened.pairings,
        )
    )
    document = {"months": months, "pairings": opened.pairings, "checkpoint": opened.checkpoint}
    run.result(document, opened.checkpoint)
