"""``medcrypt shred``, and what all commands that re-key the vault share: the other tokens, and the certificate."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run, parse_month
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import Certificate, Held, Month, OtherTokens

CERTIFICATE = typer.Option(
    None, "--certificate", metavar="FILE", help="The certificate's name, .md and .json. [default: beside the vault]"
)
WITHOUT = typer.Option([], "--without", metavar="NAME", help="Leave out a token that is not here; repeatable.")
ROOTS = typer.Option(
    None, "--roots", metavar="DIR", help="The vendor's published certificates, to check the new root keys."
)


def register(app: typer.Typer) -> None:
    @command(app, "shred")
    def shred(
        context: typer.Context,
        month: list[str] = typer.Argument(None, metavar="[MONTH...]", help="Archived months, as YYYY-MM."),
        due: bool = typer.Option(False, "--due", help="Every month past the policy's retention."),
        certificate: Path | None = CERTIFICATE,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Destroy every key of these months, in every backup too, by re-keying the vault."""
        if bool(month) == due:
            raise UsageError("name the months to shred, or --due", "for example 'medcrypt shred 2021-10'")
        _shred(
            run_of(context),
            [found for text in month or () if (found := parse_month(text)) is not None],
            certificate,
            without,
            roots,
        )


def _shred(
    run: Run, wanted: Sequence[Month], certificate: Path | None, without: Sequence[str], roots: Path | None
) -> None:
    with run.open_vault("shredding") as vault:
        held: dict[Month, Held] = {}
        months = sorted(set(wanted))
        if not months:
            months, held = vault.months.past_retention()
        kept = joined(
            "",
            (
                t("kept: {month}, {held} is on hold\n", month=month, held=output.visible(hold.what))
                for month, hold in held.items()
            ),
        )
        found = {"months": list(map(str, months)), "held": list(map(str, held))}
        if not months:
            nothing = t("every month that is due is on hold") if held else t("no month is due")
            run.result({**found, **document(None)}, joined("\n", (nothing, kept)))
            return
        names = ", ".join(map(str, months))
        agree = partial(
            run.console.agree,
            t(
                "Shredding destroys every key of {months}: no message of that time can be read again, not from a "
                "backup either.",
                months=names,
            ),
            str(months[0]) if len(months) == 1 else t("shred {count} months", count=len(months)),
            yes=run.yes,
            what=t("shredding {months}", months=names),
        )
        made = vault.months.shred(months, other_tokens(run, without, roots), certificate=certificate, agree=agree)
    run.result(
        {**found, **document(made)},
        t("shredded: {months}\n{kept}{certificate}", months=names, kept=kept, certificate=words(made)),
    )


def other_tokens(run: Run, without: Sequence[str], roots: Path | None) -> OtherTokens:
    """How this run reaches the vault's other tokens. Raises UsageError."""
    from medcrypt_hsm import OtherTokens
    from medcrypt_hsm.tokens.attestation.vendor import read_roots

    return OtherTokens(run.access_to_others(), tuple(without), () if roots is None else read_roots(roots))


def document(made: Certificate | None) -> dict[str, Any]:
    """A certificate and its two files, in JSON."""
    if made is None:
        return {"certificate": None, "certificate_files": []}
    return {"certificate": made.value, "certificate_files": [str(file) for file in made.files]}


def words(made: Certificate) -> str:
    """What a person must know of it at once: which tokens can still open old copies, and where the rest is told."""
    lines = []
    for token in made.value["tokens"]:
        which = t("token {token}: old root key {key}", token=output.visible(token["name"]), key=token["kek"])
        if token["destroyed"]:
            lines.append(t("{key} destroyed", key=which))
        else:
            lines.append(
                t("{key} LEFT, the token was not used: it opens older copies until 'medcrypt vault sync'", key=which)
            )
    files = joined(t(" and "), (output.visible(str(file)) for file in reversed(made.files)))
    lines.append(
        t("earlier backups cannot be put back any more: 'medcrypt vault backup FILE', and keep that elsewhere")
    )
    return joined("\n", [*lines, t("certificate: {files}", files=files), ""])
