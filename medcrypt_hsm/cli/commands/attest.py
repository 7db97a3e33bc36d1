"""``medcrypt token attest``: were these keys made on the device? (docs/spec/attestation.md)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.naming import document, of_vault
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit, UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm.tokens import Token
    from medcrypt_hsm.tokens.attestation.grades import Attested


def register(group: typer.Typer) -> None:
    @command(group, "attest")
    def attest(
        context: typer.Context,
        uri: str | None = typer.Argument(None, metavar="[URI]", help="The token: its URI, or its name in the vault."),
        certificate: Path | None = typer.Option(
            None, "--certificate", metavar="SLOT.pem", help="Judge this saved certificate of a key, with no token."
        ),
        intermediate: Path | None = typer.Option(
            None, "--intermediate", metavar="F9.pem", help="The device's own certificate, saved beside it."
        ),
        roots: Path | None = typer.Option(
            None, "--roots", metavar="DIR", help="A directory with the vendor's published certificates."
        ),
        save: Path | None = typer.Option(
            None, "--save", metavar="DIR", help="Save the token's certificates there, for somebody without the token."
        ),
    ) -> None:
        """Say whether a token's keys were made on it, and who vouches for that. Files are judged without a token."""
        run = run_of(context)
        if uri is not None and certificate is None and intermediate is None:
            _of_token(run, uri, roots, save)
        elif uri is None and certificate is not None and intermediate is not None and save is None:
            _of_files(run, certificate, intermediate, roots)
        else:
            raise UsageError(
                "give either a token, or the files of one key with --certificate and --intermediate",
                "see 'medcrypt token attest --help'",
            )


def _of_token(run: Run, uri: str, roots: Path | None, save: Path | None) -> None:
    from medcrypt_hsm.tokens.attestation.grades import grade

    vendors = _roots(roots)
    uri, name, keys = of_vault(run, uri)
    with run.access(name).open(uri) as token:
        names = tuple(keys) or _keys_on(token)
        with run.console.working("attesting"):
            attested = grade(token, names, vendors, on_record=keys)
        info = token.info
    saved = _save(save, attested) if save is not None else []
    title = t("token {token}, serial {serial}, {model}", token=info.label, serial=info.serial, model=info.model)
    _show(run, {"token": document(info), "name": name or None}, title, attested, saved)
    if not attested:
        raise TokenUnfit(t("token {token} holds no key of this program", token=info.label), "name the token of a vault")
    _refuse(attested)


def _keys_on(token: Token) -> tuple[str, ...]:
    """Every key of this program on the token, of whatever vault; small objects are no keys."""
    found = []
    for name in token.names():
        try:
            token.evidence(name)
        except KeyError:
            continue
        found.append(name)
    return tuple(found)


def _of_files(run: Run, certificate: Path, intermediate: Path, roots: Path | None) -> None:
    from medcrypt_hsm.tokens.attestation.grades import judge
    from medcrypt_hsm.tokens.attestation.vendor import read_certificate

    vendors = _roots(roots)
    attested = judge([read_certificate(certificate), read_certificate(intermediate)], vendors, name=certificate.name)
    _show(run, {"token": None, "name": None}, "saved certificates", [attested], [])
    if attested.serial:
        run.console.say(t("compare the serial, {serial}, with the one printed on the device", serial=attested.serial))
    _refuse([attested], files=True)


def _roots(directory: Path | None) -> Sequence[bytes]:
    from medcrypt_hsm.tokens.attestation.vendor import read_roots

    return read_roots(directory) if directory is not None else ()


def _save(directory: Path, attested: Sequence[Attested]) -> list[str]:
    """One file for each key's certificate, named by its slot, and F9.pem. Nothing is overwritten."""
    from medcrypt_hsm.tokens.attestation.vendor import pem
    from medcrypt_hsm.vault.store.atomic import new_file

    files: dict[str, str] = {}
    for one in attested:
        if one.slot:
            key, f9 = one.certificates
            files |= {f"{one.slot}.pem": pem(key), "F9.pem": pem(f9)}
    if not files:
        raise TokenUnfit("the token shows no certificates that could be saved", "leave --save out")
    directory.mkdir(exist_ok=True)
    if present := [name for name in files if (directory / name).exists()]:
        raise UsageError(
            t("{path} is there already", path=directory / present[0]), "name another directory; nothing was written"
        )
    for name, text in files.items():
        with new_file(directory / name, 0o644) as file:
            file.write(text.encode("ascii"))
    return [str(directory / name) for name in files]


def _show(run: Run, about: Mapping[str, Any], title: str, attested: Sequence[Attested], saved: Sequence[str]) -> None:
    from medcrypt_hsm.tokens.attestation.grades import worst

    overall = worst(one.grade for one in attested)
    lines = [joined(": ", (title, overall))]
    for one in attested:
        lines.append(f"  {one.grade:<15}  {one.name}")
        lines += [joined(" ", (" " * 18, words)) for words in (*_told(one), *one.reasons)]
    lines += [t("saved {path}", path=path) for path in saved]
    text = "".join(output.visible(line) + "\n" for line in lines)
    run.result({**about, "grade": overall, "keys": [_document(one) for one in attested], "saved": list(saved)}, text)


def _told(one: Attested) -> list[str]:
    """What is known of the key, for people."""
    device = [
        t("slot {slot}", slot=one.slot),
        t("serial {serial}", serial=one.serial) if one.serial else t("serial not shown"),
        t("firmware {firmware}", firmware=one.firmware),
        one.form_factor,
    ]
    policies = t("PIN {pin_policy}, touch {touch}", pin_policy=one.pin_policy, touch=one.touch_policy)
    lines = [joined(", ", filter(None, device)), policies] if one.slot else []
    if one.root:
        lines.append(t("vouched for by {root}", root=one.root))
    if one.public_key:
        lines.append(t("public key SHA-256 {hash}", hash=one.public_key))
    return lines


def _document(one: Attested) -> dict[str, Any]:
    found = asdict(one)
    del found["certificates"], found["hint"]
    return {**found, "reasons": list(one.reasons)}


def _refuse(attested: Sequence[Attested], *, files: bool = False) -> None:
    """The result stands; exit code 0 is for keys of which none is ``not-attested``."""
    from medcrypt_hsm.tokens.attestation.grades import NOT_ATTESTED

    failed = sorted((one for one in attested if one.grade == NOT_ATTESTED), key=lambda one: not one.forged)
    if failed:
        first = failed[0]
        kind = NotAuthentic if first.forged or files else TokenUnfit
        raise kind(
            t("{name} is not attested: {reason}", name=first.name, reason=first.reasons[0]),
            first.hint or "do not count on this key",
        )
