"""``medcrypt vault add-token``, ``remove-token``, ``sync`` and ``policy``: who opens the vault, and by which rules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands.shred import CERTIFICATE, WITHOUT, document, other_tokens, words
from medcrypt_hsm.cli.commands.status import token_document, token_words
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import TokenOptions

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
        _add(run_of(context), named, profile, touch, roots)

    @command(group, "remove-token")
    def remove_token(
        context: typer.Context,
        name: str = typer.Argument(metavar="NAME", help="A token's short name."),
        certificate: Path | None = CERTIFICATE,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Take a token away by re-keying the vault; or give up an add-token that was interrupted."""
        _remove(run_of(context), name, certificate, without, roots)

    @command(group, "sync")
    def sync(
        context: typer.Context,
        share_token: list[str] = typer.Option(
            [], "--share-token", metavar="NAME=URI", help="A custodian's token with an old share; repeatable."
        ),
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Bring tokens up to date that were away when the vault was re-keyed; destroys old root keys and shares."""
        _sync(run_of(context), share_token, without, roots)

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
        _policy(run_of(context), grace_days, retain_months, require_attestation)


def named_token(text: str | None, example: str) -> tuple[str, str]:
    """NAME=URI as name and URI. Raises UsageError."""
    match = _NAMED.fullmatch(text or "")
    if match is None:
        raise UsageError(
            "a token and a short name for it are needed",
            t("for example {example}; see 'medcrypt token list'", example=example),
        )
    return match["name"], match["uri"]


def options_of(profile: str | None, touch: str, roots: Path | None) -> TokenOptions:
    """Raises UsageError."""
    from medcrypt_hsm import TokenOptions
    from medcrypt_hsm.tokens.attestation.vendor import read_roots

    options = TokenOptions(profile, touch, () if roots is None else read_roots(roots))
    options.check()
    return options


def _add(run: Run, named: str, profile: str | None, touch: str, roots: Path | None) -> None:
    name, uri = named_token(named, "spare=pkcs11:token=spare")
    options = options_of(profile, touch, roots)
    with run.open_vault("adding the token") as vault:
        token = vault.tokens.add(name, uri, pin=run.access(name), options=options)
    run.result(
        {"token": token_document(token)}, output.fields([("token", token_words(token)), ("audit key", token.id.hex())])
    )
    run.console.say_lines(
        "next: 'medcrypt audit public-key', and give the new key to the officer\n"
        "      'medcrypt vault backup FILE': a backup from before does not know this token"
    )


def _remove(run: Run, name: str, certificate: Path | None, without: Sequence[str], roots: Path | None) -> None:
    with run.open_vault("removing the token") as vault:
        agree = partial(
            run.console.agree,
            t("Removing token {token} re-keys the vault: that token opens nothing of it any more.", token=name),
            name,
            yes=run.yes,
            what=t("removing token {token}", token=name),
        )
        made = vault.tokens.remove(name, other_tokens(run, without, roots), certificate=certificate, agree=agree)
        problems = vault.status().problems
    shown = output.visible(name)
    if made is None:
        run.result(
            {"given_up": name, "removed": None, **document(None)}, t("adding token {token} is given up\n", token=shown)
        )
        return
    run.result(
        {"given_up": None, "removed": name, **document(made)},
        t("token {token} is removed\n{certificate}", token=shown, certificate=words(made)),
    )
    for problem in problems:
        if "could be followed" in problem:
            run.console.warn(problem)


def _sync(run: Run, share_tokens: Sequence[str], without: Sequence[str], roots: Path | None) -> None:
    shares = dict(named_token(text, "ana=pkcs11:token=ana") for text in share_tokens)
    with run.open_vault("bringing tokens up to date") as vault:
        synced = vault.tokens.sync(other_tokens(run, without, roots), shares, run.pin_prompt)
    lines = [t("token {token} has a new root key", token=output.visible(name)) for name in synced.renewed]
    lines += [t("{key} destroyed", key=_old_key(row)) for row in synced.destroyed]
    lines += [t("{key} LEFT, the token was not used", key=_old_key(row)) for row in synced.left]
    lines += [t("{share} destroyed", share=_old_share(row)) for row in synced.shares_destroyed]
    lines += [t("{share} LEFT, the token was not used", share=_old_share(row)) for row in synced.shares_left]
    found = {
        "renewed": list(synced.renewed),
        "destroyed": list(synced.destroyed),
        "left": list(synced.left),
        "shares_destroyed": list(synced.shares_destroyed),
        "shares_left": list(synced.shares_left),
    }
    run.result(found, joined("\n", [*(lines or [t("every token is up to date")]), ""]))


def _old_key(row: str) -> str:
    """``2:spare`` in words."""
    generation, _, name = row.partition(":")
    return t("token {token}: old root key {key}", token=output.visible(name), key=generation)


def _old_share(row: str) -> str:
    """``a1b2c3d4e5f6:ana`` in words."""
    ceremony, _, name = row.partition(":")
    return t(
        "custodian {custodian}: old share of ceremony {ceremony}", custodian=output.visible(name), ceremony=ceremony
    )


def _policy(run: Run, grace_days: int | None, retain_months: int | None, require_attestation: str | None) -> None:
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
    run.result({"policy": policy.whole()}, text)
    for problem in problems:
        if "below what the policy requires" in problem:
            run.console.warn(problem)
