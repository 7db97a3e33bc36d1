"""``medcrypt vault add-token``, ``remove-token`` and ``policy``: who may open the vault, and by which rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import Session, command, session
from medcrypt_hsm.cli.status import token_document, token_words
from medcrypt_hsm.errors import UsageError

if TYPE_CHECKING:
    from medcrypt_hsm.registering import Wish

_NAMED = re.compile(r"(?P<name>[^=:/]+)=(?P<uri>[a-z0-9+.-]+:.*)", re.DOTALL)

PROFILE = typer.Option(
    None, "--profile", metavar="PROFILE", help="How its root key works: aes-kw or p256-hpke. [default: its best]"
)
TOUCH = typer.Option(
    "never", "--touch", metavar="WHEN", help="When its root key asks for a finger: never, cached or always."
)
ROOTS = typer.Option(
    None, "--roots", metavar="DIR", help="The vendor's published certificates, to check the token's attestation."
)
REQUIRE = typer.Option(
    None,
    "--require-attestation",
    metavar="GRADE",
    help="What tokens must show to be registered: none, token-claimed or device-attested.",
)


def register(group: typer.Typer) -> None:
    @command(group, "add-token")
    def add_token(
        context: typer.Context,
        named: str = typer.Argument(metavar="NAME=URI", help="The new token, and a short name for it."),
        profile: str | None = PROFILE,
        touch: str = TOUCH,
        roots: Path | None = ROOTS,
    ) -> None:
        """Register a spare token: from then on each token opens the vault alone."""
        _add(session(context), named, profile, touch, roots)

    @command(group, "remove-token")
    def remove_token(
        context: typer.Context, name: str = typer.Argument(metavar="NAME", help="A token's short name.")
    ) -> None:
        """Give up an interrupted add-token; a registered token is refused by this version."""
        run = session(context)
        with run.open_vault("writing") as vault:
            vault.remove_token(name)
        run.result({"given_up": name}, f"adding token {output.visible(name)} is given up\n")

    @command(group, "policy")
    def policy(
        context: typer.Context,
        grace_days: int | None = typer.Option(
            None, "--grace-days", metavar="N", help="Through which day of a month the one before is read as usual."
        ),
        retain_months: int | None = typer.Option(
            None, "--retain-months", metavar="N", help="How many months are kept."
        ),
        require_attestation: str | None = REQUIRE,
    ) -> None:
        """Show the vault's rules, or change them."""
        _policy(session(context), grace_days, retain_months, require_attestation)


def named_token(text: str | None, example: str) -> tuple[str, str]:
    """NAME=URI as name and URI. Raises UsageError."""
    match = _NAMED.fullmatch(text or "")
    if match is None:
        raise UsageError(
            "a token and a short name for it are needed", f"for example {example}; see 'medcrypt token list'"
        )
    return match["name"], match["uri"]


def wish_of(profile: str | None, touch: str, roots: Path | None) -> Wish:
    """Raises UsageError."""
    from medcrypt_hsm.registering import Wish
    from medcrypt_hsm.tokens.attestation import read_roots

    wish = Wish(profile, touch, () if roots is None else read_roots(roots))
    wish.check()
    return wish


def _add(run: Session, named: str, profile: str | None, touch: str, roots: Path | None) -> None:
    name, uri = named_token(named, "spare=pkcs11:token=spare")
    wish = wish_of(profile, touch, roots)
    with run.open_vault("adding the token") as vault:
        token = vault.add_token(
            name,
            uri,
            pin=run.pin_prompt(lambda _: {name}),
            last_try=run.last_try,
            modules=run.modules,
            touch=run.touch_prompt,
            wish=wish,
        )
    run.result(
        {"token": token_document(token)}, output.fields([("token", token_words(token)), ("audit key", token.id.hex())])
    )
    run.console.say_lines(
        "next: 'medcrypt audit public-key', and give the new key to the officer\n"
        "      'medcrypt vault backup FILE': a backup from before does not know this token"
    )


def _policy(run: Session, grace_days: int | None, retain_months: int | None, require_attestation: str | None) -> None:
    with run.open_vault("verifying") as vault:
        policy = vault.policy
        if (grace_days, retain_months, require_attestation) != (None, None, None):
            policy = vault.set_policy(
                grace_days=grace_days, retain_months=retain_months, require_attestation=require_attestation
            )
        problems = vault.status().problems
    text = output.fields(
        [
            ("grace days", policy.grace_days),
            ("months kept", policy.retain_months),
            ("tokens must be", "any" if policy.require_attestation == "none" else policy.require_attestation),
        ]
    )
    run.result({"policy": policy.value()}, text)
    for problem in problems:
        if "below what the policy requires" in problem:
            run.console.warn(problem)
