"""``medcrypt shred``, and what every command shares that re-keys the vault: the other tokens, and the certificate."""

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
    with run.open_vault("shredding", whole_token=True) as vault:
        held: dict[Month, Held] = {}
        months = sorted(set(wanted))
        if not months:
            months, held = vault.months.past_retention()
        kept = "".join(f"kept: {month}, {output.visible(hold.what)} is on hold\n" for month, hold in held.items())
        found = {"months": list(map(str, months)), "held": list(map(str, held))}
        if not months:
            nothing = "every month that is due is on hold" if held else "no month is due"
            run.result({**found, **document(None)}, f"{nothing}\n{kept}")
            return
        names = ", ".join(map(str, months))
        agree = partial(
            run.console.agree,
            f"Shredding destroys every key of {names}: no message of that time can be read again, not from a backup "
            "either.",
            str(months[0]) if len(months) == 1 else f"shred {len(months)} months",
            yes=run.yes,
            what=f"shredding {names}",
        )
        made = vault.months.shred(months, company(run, without, roots), certificate=certificate, agree=agree)
    run.result({**found, **document(made)}, f"shredded: {names}\n{kept}{words(made)}")


def company(run: Run, without: Sequence[str], roots: Path | None) -> OtherTokens:
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
        which = f"token {output.visible(token['name'])}: old root key {token['kek']}"
        if token["destroyed"]:
            lines.append(f"{which} destroyed")
        else:
            lines.append(f"{which} LEFT, the token was not used: it opens older copies until 'medcrypt vault sync'")
    files = " and ".join(output.visible(str(file)) for file in reversed(made.files))
    lines.append("earlier backups cannot be put back any more: 'medcrypt vault backup FILE', and keep that elsewhere")
    return "\n".join([*lines, f"certificate: {files}"]) + "\n"
