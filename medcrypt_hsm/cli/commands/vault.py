"""``medcrypt vault``: create, backup, bind, restore."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands import vault_tokens
from medcrypt_hsm.cli.commands.status import token_document, token_words
from medcrypt_hsm.cli.commands.vault_tokens import PROFILE, REQUIRE, ROOTS, TOUCH, named_token, options_of
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import Location, Loss, Verified


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="The vault as a whole: make it, back it up, put a backup back.")
    app.add_typer(group, name="vault")
    vault_tokens.register(group)

    @command(group, "create", shows=("token",))
    def create(
        context: typer.Context,
        profile: str | None = PROFILE,
        touch: str = TOUCH,
        roots: Path | None = ROOTS,
        require_attestation: str | None = REQUIRE,
    ) -> None:
        """Make a vault; --token NAME=URI names its first token."""
        _create(run_of(context), profile, touch, roots, require_attestation)

    @command(group, "backup")
    def backup(
        context: typer.Context,
        file: Path = typer.Argument(metavar="FILE", help="A new file; never one that exists."),
    ) -> None:
        """Write a consistent copy of the vault, and verify it."""
        _backup(run_of(context), file)

    @command(group, "bind")
    def bind(context: typer.Context) -> None:
        """Verify a vault of before, and bind its rows to its heads."""
        _bind(run_of(context))

    @command(group, "restore")
    def restore(
        context: typer.Context,
        file: Path = typer.Argument(
            metavar="FILE", help="A backup of this vault, or its own file where the token has lost its anchor."
        ),
        since: list[Path] = typer.Option(
            [], "--since", metavar="CHECKPOINT", help="The file must continue this checkpoint; repeatable."
        ),
    ) -> None:
        """Put a backup in the vault's place, after saying what would be lost."""
        _restore(run_of(context), file, since)


def _create(run: Run, profile: str | None, touch: str, roots: Path | None, require_attestation: str | None) -> None:
    name, uri = named_token(run.token, "--token doctor=pkcs11:token=doctor")
    options = options_of(profile, touch, roots)
    from medcrypt_hsm import Policy, Vault

    location = run.location
    with run.console.working("making the vault"):
        made = Vault.create(
            location,
            token=name,
            uri=uri,
            pin=run.access(name),
            options=options,
            policy=Policy(require_attestation=require_attestation or "none"),
        )
    with made as vault:
        status = vault.status()
    if directory := run.surroundings.directory_open_to_others():
        run.console.warn(t("others can enter the vault's directory: run 'chmod 700 {directory}'", directory=directory))
    token = status.tokens[0]
    month = status.months[-1][0]
    document = {
        "vault": str(location),
        "id": status.vault_id,
        "token": token_document(token),
        "month": month,
        "fingerprint": token.id.hex(),
    }
    text = output.fields(
        [
            ("vault", location),
            ("id", status.vault_id),
            ("token", token_words(token)),
            ("month", month),
            ("audit key", token.id.hex()),
        ]
    )
    run.result(document, text)
    run.console.say_lines(
        "next: 'medcrypt vault backup FILE', and keep it elsewhere\n"
        "      'medcrypt audit public-key', and give it to the officer: it verifies the log without the token\n"
        "      'medcrypt patient add ID'"
    )


def _backup(run: Run, file: Path) -> None:
    with run.open_vault("copying and verifying") as vault:
        verified = vault.backup(file)
    run.result(
        {"backup": str(file), **verified_document(verified)},
        t(
            "backup {file} is written and verified: {count} audit entries\n",
            file=output.visible(str(file)),
            count=verified.entries,
        ),
    )


def _bind(run: Run) -> None:
    with run.open_vault("verifying and binding") as vault:
        verified = vault.log.bind()
    run.result(
        verified_document(verified),
        t("the rows are bound as they were found: {rows} of them, verified\n", rows=verified.rows),
    )


def verified_document(verified: Verified) -> dict[str, Any]:
    """What a verification covered, in JSON."""
    return {
        "entries": verified.entries,
        "sequence": verified.sequence,
        "hash": verified.hash.hex(),
        "tokens": list(verified.keys),
        "rows": verified.rows,
        "rows_bound": verified.bound,
    }


def _restore(run: Run, file: Path, since: list[Path]) -> None:
    from medcrypt_hsm import Vault, read_checkpoint

    notes = [read_checkpoint(path) for path in since]

    location = run.location
    run.make_way()
    agreed: list[Loss] = []

    def agree(loss: Loss) -> None:
        agreed.append(loss)
        run.console.say_lines(_loss_text(loss, location, file))
        run.console.agree(
            t("{file} takes the place of {location}.", file=file, location=location),
            location.name,
            yes=run.yes,
            what=t("replacing the vault {vault}", vault=location.name),
        )

    with run.console.working("restoring"):
        restored = Vault.restore(
            location,
            file,
            pin=run.access(),
            agree=agree,
            token=run.token,
            since=notes,
            end_session=run.end_session,
        )
    restored.close()
    document = {"vault": str(location), "restored_from": str(file), "loss": _loss(agreed[0])}
    run.result(
        document,
        t(
            "vault {vault} is restored from {file}\n",
            vault=output.visible(str(location)),
            file=output.visible(str(file)),
        ),
    )


def _loss(loss: Loss) -> dict[str, Any]:
    return {
        "backup_ends": loss.backup_ends,
        "token_has_seen": loss.token_has_seen,
        "vault_ends": loss.vault_ends,
        "common": loss.common,
        "entries_lost": loss.entries_lost,
        "departs": loss.departs,
        "anchor_lost": loss.anchor_lost,
        "newest_hash": loss.newest_hash.hex(),
        "checkpoints": list(loss.vouched),
        "vouchers": list(loss.vouchers),
        "lost": [{"action": action, "subject": subject} for action, subject in loss.lost],
    }


def _unknown(loss: Loss) -> Iterator[str]:
    yield "the token has lost its anchor: it cannot tell whether this file is the newest, or of another history"
    yield t("newest: {entry} {hash}", entry=loss.backup_ends, hash=loss.newest_hash.hex())
    for entry in loss.vouched:
        yield t("it continues the checkpoint of entry {entry}; what came after that nobody vouches for", entry=entry)
    for name in loss.vouchers:
        yield t("it continues what token {token} remembers; what came after that nobody vouches for", token=name)
    if not loss.vouched and not loss.vouchers:
        yield "nothing vouches for it: compare that with the officer's newest checkpoint ('--since CHECKPOINT' does)"


def _loss_text(loss: Loss, location: Location, file: Path) -> str:
    lines = [t("the backup {file} ends at audit entry {entry}", file=file, entry=loss.backup_ends)]
    if loss.anchor_lost:
        lines.extend(_unknown(loss))
    else:
        lines.append(t("the token has seen entry {entry}", entry=loss.token_has_seen))
    if loss.vault_ends is None:
        lines.append(t("there is no readable vault at {location}", location=location))
    else:
        lines.append(t("the vault at {location} ends at entry {entry}", location=location, entry=loss.vault_ends))
    if loss.departs:
        lines.append("the backup is of another history than the token remembers: what it tells may not have happened")
    if loss.entries_lost > 0:
        lines.append(
            t("LOST would be what {count} entries did: patients, months, records of messages", count=loss.entries_lost)
        )
        told: dict[str, list[str]] = {}
        for action, subject in loss.lost:
            told.setdefault(action, []).append(subject)
        for action, subjects in told.items():
            named = sorted(
                {subject for subject in subjects if subject and action.startswith(("patient.", "month.", "hold."))}
            )
            shown = ", ".join([*named[:20], "…"] if len(named) > 20 else named)
            lines.append(f"  {len(subjects)} × {action}: {shown}" if shown else f"  {len(subjects)} × {action}")
    newest = max(loss.backup_ends, loss.vault_ends or 0)
    if loss.token_has_seen > newest and loss.vault_ends is not None:
        lines.append(
            t(
                "entries {first} to {entry}, which the token has seen, are in neither file",
                first=newest + 1,
                entry=loss.token_has_seen,
            )
        )
    elif loss.entries_lost <= 0 and not loss.departs and not loss.anchor_lost:
        lines.append(t("nothing would be lost"))
    return joined("\n", lines)
