"""``medcrypt token``: list, check, init, pin. A token's life before and beside vaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import SOURCE, Session, command, session
from medcrypt_hsm.errors import TokenUnfit, UsageError, VaultError, VaultMissing

if TYPE_CHECKING:
    from medcrypt_hsm.tokens import TokenInfo
    from medcrypt_hsm.tokens.check import CheckReport

_URI = typer.Argument(metavar="URI", help="The token, for example 'pkcs11:token=doctor' or 'pkcs11:serial=…'.")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Tokens: see them, check them, make them ready, change PINs.")
    app.add_typer(group, name="token")

    @command(group, "list")
    def list_(context: typer.Context) -> None:
        """Every token of every configured module."""
        _list(session(context))

    @command(group, "check")
    def check(context: typer.Context, uri: str = _URI) -> None:
        """Prove with throw-away keys that a token can do what a vault needs. A vault's token may be given by name."""
        _check(session(context), uri)

    @command(group, "init", shows=("pin_source", "so_pin_source"))
    def init(
        context: typer.Context,
        uri: str = _URI,
        label: str = typer.Option(..., "--label", metavar="L", help="The token's new label."),
    ) -> None:
        """Give a blank token a label, a security officer's PIN and a PIN. One in use must be named, and is erased."""
        _init(session(context), uri, label)

    @command(group, "pin", shows=("pin_source", "so_pin_source"))
    def pin(
        context: typer.Context,
        uri: str = _URI,
        unblock: bool = typer.Option(False, "--unblock", help="Set a locked or forgotten PIN with the officer's PIN."),
        new_pin_source: list[str] = typer.Option(
            [], "--new-pin-source", metavar=SOURCE, help="Where the new PIN comes from; the forms of --pin-source."
        ),
    ) -> None:
        """Change a token's PIN, or unblock it."""
        _pin(session(context), uri, unblock, new_pin_source)


def _list(run: Session) -> None:
    from medcrypt_hsm.tokens import list_tokens

    tokens = list_tokens(run.modules)
    rows = [(t.label or "-", t.serial or "-", t.model or "-", _state(t), t.uri) for t in tokens]
    if not tokens:
        run.console.say("no tokens: plug one in, or name its module with MEDCRYPT_PKCS11_MODULE")
    text = output.table(("LABEL", "SERIAL", "MODEL", "STATE", "URI"), rows) if tokens else ""
    run.result({"tokens": [_document(token) for token in tokens]}, text)


def _state(info: TokenInfo) -> str:
    if info.problem:
        return info.problem
    if not info.initialized:
        return "blank"
    words = ["ready" if info.user_pin_set else "no PIN set", *sorted(info.pin_flags)]
    return ", ".join(words)


def _document(info: TokenInfo) -> dict[str, Any]:
    return {
        "label": info.label,
        "serial": info.serial,
        "model": info.model,
        "manufacturer": info.manufacturer,
        "uri": info.uri,
        "initialized": info.initialized,
        "pin_set": info.user_pin_set,
        "pin_flags": sorted(info.pin_flags),
        "problem": info.problem,
    }


def _check(run: Session, uri: str) -> None:
    from medcrypt_hsm.tokens import open_token
    from medcrypt_hsm.tokens.check import check_token

    uri, name, keys = _of_vault(run, uri)
    with open_token(uri, run.pin_prompt(lambda _: {name}), last_try=run.last_try, modules=run.modules) as token:
        with run.console.working("checking"):
            report = check_token(token, keys)  # type: ignore[arg-type]  # every backend can try out
        info = token.info
    run.result({"token": _document(info), "name": name or None, **_report(report)}, _report_text(info, report))
    if not report.ok:
        raise TokenUnfit(
            f"token {info.label} does not prove the profile {report.profile}", "what failed is marked in the report"
        )


def _of_vault(run: Session, uri: str) -> tuple[str, str, list[str]]:
    """The token's URI, its short name in the vault and the names of the vault's keys on it, where it is one of its."""
    from medcrypt_hsm.inspection import choose_token, peek, uri_to_open
    from medcrypt_hsm.tokens import find_token
    from medcrypt_hsm.unlocked import audit_key_name, kek_name
    from medcrypt_hsm.vault import VaultFile

    by_name = ":" not in uri
    wanted = uri if by_name else find_token(uri, modules=run.modules).uri
    try:
        file = VaultFile.open(run.vault_path)
        try:
            state = peek(file)
        finally:
            file.close()
        registered = choose_token(state, wanted)
    except UsageError:  # another token than the vault's
        if by_name:
            raise
        return uri, "", []
    except VaultError as exc:
        if by_name:
            raise
        if not isinstance(exc, VaultMissing):
            run.console.warn(f"the vault's keys on the token are not looked at: {exc.message}")
        return uri, "", []
    keys = [kek_name(state.vault_id, state.generation), audit_key_name(state.vault_id)]
    return uri_to_open(registered, uri), registered.name, keys


def _report(report: CheckReport) -> dict[str, Any]:
    return {
        "profile": report.profile,
        "ok": report.ok,
        "missing": list(report.missing),
        "steps": [{"name": step.name, "ok": step.ok, "words": step.words} for step in report.steps],
        "keys": [
            {"name": key.name, "claims": dict(key.claims), "problems": list(key.problems)} for key in report.evidence
        ],
    }


def _report_text(info: TokenInfo, report: CheckReport) -> str:
    lines = [f"token {info.label}, serial {info.serial}, {info.model}: profile {report.profile}"]
    lines += [f"  missing  {words}" for words in report.missing]
    lines += [f"  {'ok' if s.ok else 'failed':<8} {s.name}" + (f": {s.words}" if s.words else "") for s in report.steps]
    for key in report.evidence:
        lines.append(f"  {'failed' if key.problems else 'ok':<8} {key.name}")
        if key.claims:
            lines.append("             " + ", ".join(f"{name}={value}" for name, value in key.claims.items()))
        lines += [f"             {problem}" for problem in key.problems]
    lines.append("proven" if report.ok else "not proven")
    return "".join(output.visible(line) + "\n" for line in lines)


def _init(run: Session, uri: str, label: str) -> None:
    from medcrypt_hsm.tokens import find_token
    from medcrypt_hsm.tokens.provision import initialize
    from medcrypt_hsm.tokens.uri import parse_uri

    found = find_token(uri, blank=True, modules=run.modules)
    in_use = found.initialized
    named = parse_uri(uri)
    if in_use and (named.token or named.serial):
        run.console.agree(
            f"Token {found.label} (serial {found.serial}) is in use. Every key on it will be erased for ever.",
            found.label,
            yes=run.yes,
            what=f"erasing token {found.label}",
        )
    names = {found.label, found.serial, label}
    so_pin = user_pin = ""
    if not in_use or named.token or named.serial:  # otherwise refused below, and no PIN is asked for in vain
        so_pin = run.pins.get(
            run.so_pin_source, "--so-pin-source", "security officer's PIN", names=names, new=not in_use
        )
        user_pin = run.pins.get(run.pin_source, "--pin-source", "new PIN", names=names, new=True)
    with run.console.working("initialising"):
        info = initialize(uri, label, so_pin, user_pin, allow_reinit=in_use, modules=run.modules)
    run.result({"token": _document(info)}, f"token {output.visible(info.label)} is ready: {output.visible(info.uri)}\n")
    run.console.say("next: 'medcrypt vault create --token NAME=URI'")


def _pin(run: Session, uri: str, unblock: bool, new_pin_source: list[str]) -> None:
    from medcrypt_hsm.tokens import find_token, provision

    found = find_token(uri, modules=run.modules)
    names = {found.label, found.serial}
    option = "--new-pin-source"
    if unblock and not new_pin_source:  # no present PIN is needed then, so --pin-source can only mean the new one
        new_pin_source, option = list(run.pin_source), "--new-pin-source or --pin-source"
    new = run.pins.get(new_pin_source, option, f"new PIN of token {found.label}", names=names, new=True)
    if unblock:
        officer = run.pins.prompt(run.so_pin_source, "--so-pin-source", so=True)
        info = provision.unblock(uri, officer, new, last_try=run.last_try, modules=run.modules)
    else:
        info = provision.change_pin(uri, run.pin_prompt(), new, last_try=run.last_try, modules=run.modules)
    done = "unblocked" if unblock else "changed"
    run.result({"token": _document(info), "done": done}, f"the PIN of token {output.visible(info.label)} is {done}\n")
