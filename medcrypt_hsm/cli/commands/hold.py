"""``medcrypt hold``: what must not be destroyed, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import REASON_SOURCE, command, reason_of, run_of
from medcrypt_hsm.cli.run import parse_month
from medcrypt_hsm.sentences import t

if TYPE_CHECKING:
    from medcrypt_hsm import Held

_PATIENT = typer.Option("", "--patient", metavar="ID", help="A patient.")
_MONTH = typer.Option(None, "--month", metavar="YYYY-MM", help="A month.")
_REASON = typer.Option("", "--reason", metavar="TEXT", help="Why; it is kept sealed, and stands in the log.")
_SOURCE = typer.Option(None, "--reason-source", metavar="SOURCE", help=REASON_SOURCE)


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Holds: patients and months that must not be destroyed.")
    app.add_typer(group, name="hold")

    @command(group, "add")
    def add(
        context: typer.Context,
        reason: str = _REASON,
        reason_source: str | None = _SOURCE,
        patient: str = _PATIENT,
        month: str | None = _MONTH,
    ) -> None:
        """Keep a patient from being erased, or a month from being shredded."""
        run = run_of(context)
        reason = reason_of(run, reason, reason_source)
        with run.open_vault("writing") as vault:
            held = vault.holds.add(reason, patient=patient, month=parse_month(month))
        run.result(_document(held), t("{held} is on hold\n", held=output.visible(held.what)))

    @command(group, "remove")
    def remove(
        context: typer.Context,
        reason: str = _REASON,
        reason_source: str | None = _SOURCE,
        patient: str = _PATIENT,
        month: str | None = _MONTH,
    ) -> None:
        """Lift a hold, with all its reasons."""
        run = run_of(context)
        reason = reason_of(run, reason, reason_source)
        with run.open_vault("writing") as vault:
            held = vault.holds.remove(reason, patient=patient, month=parse_month(month))
        lifted = "; ".join(map(output.visible, held.reasons))
        run.result(
            _document(held),
            t("the hold on {held} is lifted; it was: {reasons}\n", held=output.visible(held.what), reasons=lifted),
        )

    @command(group, "list")
    def list_(context: typer.Context) -> None:
        """Every hold. Reading them is recorded in the audit log."""
        run = run_of(context)
        with run.open_vault("reading") as vault:
            holds = vault.holds.list()
        if not holds:
            run.console.say("nothing is on hold")
        rows = [(held.what, held.since, "; ".join(held.reasons)) for held in holds]
        table = output.table(("ON HOLD", "SINCE", "REASON"), rows) if holds else ""
        run.result({"holds": [_document(held) for held in holds]}, table)


def _document(held: Held) -> dict[str, Any]:
    return {
        "patient": held.patient or None,
        "month": held.month or None,
        "reasons": list(held.reasons),
        "since": held.since,
    }
