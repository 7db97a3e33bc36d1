"""``medcrypt patient``: pairing with patients, and its end."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output, patients, qr
from medcrypt_hsm.cli.commands.shred import CERTIFICATE, ROOTS, WITHOUT, other_tokens, words
from medcrypt_hsm.cli.commands.shred import document as erased_document
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.pins import read_words
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import t

if TYPE_CHECKING:
    from collections.abc import Callable

    from medcrypt_hsm import NewPairing, Vault

_ID = typer.Argument(metavar="ID", help="The patient's id, as the practice writes it.")
_PICTURE = typer.Option(None, "--qr", metavar="FILE.png|FILE.svg", help="Draw the pairing code into a new file.")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Patients: pair, confirm, list, pair again, remove, erase.")
    app.add_typer(group, name="patient")

    @command(group, "add", shows=("secret_source",))
    def add(
        context: typer.Context,
        patient_id: str = _ID,
        label: str = typer.Option("", "--label", metavar="TEXT", help="A name for people; it is kept sealed."),
        label_source: str | None = typer.Option(
            None,
            "--label-source",
            metavar="SOURCE",
            help="Where it comes from instead: prompt, env:VAR, file:PATH, fd:N.",
        ),
        protocol: str = typer.Option("v2", "--protocol", metavar="v1|v2", help="Version of the messages."),
        picture: Path | None = _PICTURE,
        unconfirmed: bool = typer.Option(
            False, "--unconfirmed", help="Write and read before the check code was compared."
        ),
    ) -> None:
        """Pair with a patient: shows the code that the patient's phone scans."""
        run = run_of(context)
        if protocol not in ("v1", "v2"):
            raise UsageError(t("{protocol!r} is not a version of messages", protocol=protocol), "it is v1 or v2")
        secret: str | None = None
        if run.secret_source:
            if protocol == "v2":
                raise UsageError("a v2 pairing makes its own secret", "leave --secret-source out, or add --protocol v1")
            secret = run.pins.get(run.secret_source, "--secret-source", "shared secret", names={patient_id}, new=True)
        label = read_words(label, label_source, "--label", t("label"), run.console)
        with qr.picture_file(picture) as file, run.open_vault("pairing") as vault:
            made = vault.patients.add(
                patient_id, label=label, protocol=protocol, secret=secret, unconfirmed=unconfirmed
            )
            if file is not None and picture is not None:
                qr.draw(made.payload, file, picture)
        _show_code(run, made, picture)

    @command(group, "confirm")
    def confirm(
        context: typer.Context,
        patient_id: str = _ID,
        code: str = typer.Argument(metavar="CODE", help="The six digits on the patient's screen."),
    ) -> None:
        """Compare the check code that the patient's program shows; from then on messages flow."""
        run = run_of(context)
        with run.open_vault("confirming") as vault:
            pairing = vault.patients.confirm(patient_id, code)
        run.result(
            patients.document(pairing), t("patient {patient} is confirmed\n", patient=output.visible(pairing.id))
        )

    @command(group, "list")
    def list_(context: typer.Context) -> None:
        """Every patient. Reading names is recorded in the audit log."""
        patients.list_all(run_of(context))

    @command(group, "show")
    def show(context: typer.Context, patient_id: str = _ID) -> None:
        """All pairings of one patient, ended ones too."""
        patients.show(run_of(context), patient_id)

    @command(group, "qr")
    def qr_(context: typer.Context, patient_id: str = _ID, picture: Path | None = _PICTURE) -> None:
        """Show the pairing code again, until it expires or is confirmed."""
        _code_of(run_of(context), picture, lambda vault: vault.patients.qr(patient_id))

    @command(group, "repair")
    def repair(context: typer.Context, patient_id: str = _ID, picture: Path | None = _PICTURE) -> None:
        """Pair again with a patient whose phone or key was lost; the old pairing ends with the confirmation."""
        _code_of(run_of(context), picture, lambda vault: vault.patients.repair(patient_id))

    @command(group, "remove")
    def remove(context: typer.Context, patient_id: str = _ID) -> None:
        """End all pairings with a patient. Old months stay readable with decrypt --archive."""
        run = run_of(context)
        run.console.agree(
            t(
                "Removing {patient} ends every pairing; no message to or from this patient will be possible.",
                patient=patient_id,
            ),
            patient_id,
            yes=run.yes,
            what=t("removing patient {patient}", patient=patient_id),
        )
        with run.open_vault("removing") as vault:
            removed = vault.patients.remove(patient_id)
        document = {"patient": patient_id, "removed": [pairing.pairing.hex() for pairing in removed]}
        run.result(document, t("patient {patient} is removed\n", patient=output.visible(patient_id)))

    @command(group, "erase")
    def erase(
        context: typer.Context,
        patient_id: str = _ID,
        certificate: Path | None = CERTIFICATE,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Destroy every key of a patient, in every backup too, by re-keying the vault."""
        run = run_of(context)
        with run.open_vault("erasing", whole_token=True) as vault:
            agree = partial(
                run.console.agree,
                t(
                    "Erasing {patient} destroys every key of this patient: no message can be read again, not from a "
                    "backup either.",
                    patient=patient_id,
                ),
                patient_id,
                yes=run.yes,
                what=t("erasing patient {patient}", patient=patient_id),
            )
            made = vault.patients.erase(
                patient_id, other_tokens(run, without, roots), certificate=certificate, agree=agree
            )
        text = t(
            "patient {patient} is erased\n{certificate}", patient=output.visible(patient_id), certificate=words(made)
        )
        run.result({"patient": patient_id, **erased_document(made)}, text)


def _code_of(run: Run, picture: Path | None, make: Callable[[Vault], NewPairing]) -> None:
    """Get a pairing code from the vault, and show it."""
    with qr.picture_file(picture) as file, run.open_vault("pairing") as vault:
        made = make(vault)
        if file is not None and picture is not None:
            qr.draw(made.payload, file, picture)
    _show_code(run, made, picture)


def _show_code(run: Run, made: NewPairing, picture: Path | None) -> None:
    """The one time that the secret is shown: a code at a terminal, its text for a pipe."""
    pairing = made.pairing
    if made.weak:
        run.console.warn("this secret can be guessed; better leave --secret-source out, and a good one is made")
    if run.json:
        document = {
            **patients.document(pairing),
            "payload": made.payload,
            "expires": output.moment(made.expires),
            "qr": None if picture is None else str(picture),
            "weak": made.weak,
            **run.month_opened,
        }
        output.write_document(document)
    else:
        if sys.stdout.isatty():
            output.write(qr.terminal(made.payload))
            output.write(output.visible(made.payload) + "\n")
        else:  # exactly: a version 1 secret may hold any character
            output.write_exactly(made.payload + "\n")
    if picture is not None:
        run.console.say(
            t("the code is drawn in {path}: it is a copy of the secret, delete it after the scan", path=picture)
        )
    run.console.say_lines(_next_step(made))


def _next_step(made: NewPairing) -> str:
    pairing, until = made.pairing, output.moment(made.expires)
    if pairing.protocol == "v1":
        return t(
            "the patient's phone scans this once; 'medcrypt patient qr {patient}' shows it again until {until}",
            patient=pairing.id,
            until=until,
        )
    if pairing.awaits_code:
        return t(
            "the patient's phone scans this before {until}, and then shows six digits\n"
            "compare them: 'medcrypt patient confirm {patient} CODE'",
            until=until,
            patient=pairing.id,
        )
    return t("the patient's phone scans this before {until}", until=until)
