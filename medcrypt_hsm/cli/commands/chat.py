"""``medcrypt chat``: how its command line is parsed. What it does is in conversation.py."""

from __future__ import annotations

import typer

from medcrypt_hsm.cli import conversation, plain
from medcrypt_hsm.cli.options import command, run_of


def register(app: typer.Typer) -> None:
    @command(app, "chat")
    def chat(
        context: typer.Context,
        patient_id: str = typer.Argument(metavar="ID", help="The patient."),
        idle: str = typer.Option(
            plain.DEFAULTS["idle"], "--idle", metavar="TIME", help="Ends after so long without input."
        ),
        archive: bool = typer.Option(False, "--archive", help="Read messages of archived months too."),
    ) -> None:
        """Read and reply at the terminal: paste what came, type what goes."""
        conversation.chat(run_of(context), patient_id, idle, archive)
