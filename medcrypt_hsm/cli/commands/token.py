"""``medcrypt token``: list, check, attest, init, pin. A token's life before and beside vaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands import attest
from medcrypt_hsm.cli.naming import document, of_vault
from medcrypt_hsm.cli.options import SOURCE, command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import TokenUnfit
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm.tokens import TokenInfo
    from medcrypt_hsm.tokens.check import CheckReport

_FACTORY = {"so-factory": t("factory PUK"), "management-factory": t("factory management key")}
_URI = typer.Argument(metavar="URI", help="The token, for example 'pkcs11:token=doctor' or 'yubikey:12345678'.")


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Tokens: see them, check them, make them ready, change PINs.")
    app.add_typer(group, name="token")
    attest.register(group)

    @command(group, "list")
    def list_(context: typer.Context) -> None:
        """Every token of every configured module, and every YubiKey."""
        _list(run_of(context))

    @command(group, "check")
    def check(context: typer.Context, uri: str = _URI) -> None:
        """Prove with throw-away keys that a token can do what a vault needs. A vault's token may be given by name."""
        _check(run_of(context), uri)

    @command(group, "init", shows=("pin_source", "so_pin_source", "puk_source"))
    def init(
        context: typer.Context,
        uri: str = _URI,
        label: str | None = typer.Option(None, "--label", metavar="L", help="A PKCS#11 token's new label."),
    ) -> None:
        """Make a blank token ready: a PKCS#11 token with a label, an SO PIN and a PIN, a YubiKey with a PUK and a PIN.

        A PKCS#11 token in use must be named, and is erased. A YubiKey in use is refused.
        """
        _init(run_of(context), uri, label)

    @command(group, "pin", shows=("pin_source", "so_pin_source", "puk_source"))
    def pin(
        context: typer.Context,
        uri: str = _URI,
        unblock: bool = typer.Option(
            False, "--unblock", help="Set a locked or forgotten PIN with the SO PIN or the PUK."
        ),
        new_pin_source: list[str] = typer.Option(
            [], "--new-pin-source", metavar=SOURCE, help="Where the new PIN comes from; the forms of --pin-source."
        ),
    ) -> None:
        """Change a token's PIN, or unblock it."""
        _pin(run_of(context), uri, unblock, new_pin_source)


def _list(run: Run) -> None:
    from medcrypt_hsm.tokens.access import list_tokens

    tokens = list_tokens(run.modules)
    rows = [
        (token.label or "-", token.serial or "-", token.model or "-", token.firmware or "-", _state(token), token.uri)
        for token in tokens
    ]
    if not tokens:
        run.console.say("no tokens: plug one in, or name its module with MEDCRYPT_PKCS11_MODULE")
    text = output.table(("LABEL", "SERIAL", "MODEL", "FIRMWARE", "STATE", "URI"), rows) if tokens else ""
    run.result({"tokens": [document(token) for token in tokens]}, text)


def _state(info: TokenInfo) -> str:
    if info.problem:
        return info.problem
    if not info.initialized:
        return "blank"
    factory = [words for flag, words in _FACTORY.items() if flag in info.pin_flags]
    if not factory:
        factory = [t("ready") if info.user_pin_set else t("no PIN set")]
    so = "PUK " if info.unblocked_by == "puk" else "so-"
    return ", ".join([*factory, *(flag.replace("so-", so) for flag in sorted(info.pin_flags - _FACTORY.keys()))])


def _check(run: Run, uri: str) -> None:
    from medcrypt_hsm.tokens.check import NO_PROFILE, check_token

    uri, name, keys = of_vault(run, uri)
    with run.access(name).open(uri) as token:
        with run.console.working("checking"):
            report = check_token(token, tuple(keys))  # type: ignore[arg-type]  # every backend can try out
        info = token.info
    run.result({"token": document(info), "name": name or None, **_report(report)}, _report_text(info, report))
    if not report.ok:
        if report.profile == NO_PROFILE:
            words = t("token {token} does not prove any profile", token=info.label)
        else:
            words = t("token {token} does not prove the profile {profile}", token=info.label, profile=report.profile)
        raise TokenUnfit(words, "what failed is marked in the report")


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
    lines = [
        t(
            "token {token}, serial {serial}, {model}: profile {profile}",
            token=info.label,
            serial=info.serial,
            model=info.model,
            profile=report.profile,
        )
    ]
    lines += [t("  missing  {missing}", missing=words) for words in report.missing]
    for step in report.steps:
        outcome = t("ok") if step.ok else t("failed")
        if step.words:
            lines.append(t("  {outcome:<8} {step}: {words}", outcome=outcome, step=step.name, words=step.words))
        else:
            lines.append(t("  {outcome:<8} {step}", outcome=outcome, step=step.name))
    for key in report.evidence:
        lines.append(t("  {outcome:<8} {key}", outcome=t("failed") if key.problems else t("ok"), key=key.name))
        if key.claims:
            lines.append("             " + ", ".join(f"{name}={value}" for name, value in key.claims.items()))
        lines += [joined(" ", (" " * 12, problem)) for problem in key.problems]
    lines.append(t("proven") if report.ok else t("not proven"))
    return "".join(output.visible(line) + "\n" for line in lines)


def _init(run: Run, uri: str, label: str | None) -> None:
    from medcrypt_hsm.tokens.provision import begin, initialize

    beginning = begin(uri, label, modules=run.modules)
    found = beginning.info
    if beginning.erases:
        run.console.agree(
            t(
                "Token {token} (serial {serial}) is in use. Every key on it will be erased for ever.",
                token=found.label,
                serial=found.serial,
            ),
            found.label,
            yes=run.yes,
            what=t("erasing token {token}", token=found.label),
        )
    names = {found.label, found.serial, label or ""} - {""}
    sources, option, what = run.unblocking(found)
    unblocking = run.pins.get(
        sources,
        option,
        t("new {secret}", secret=what) if not beginning.erases else what,
        names=names,
        new=not beginning.erases,
    )
    pin = run.pins.get(run.pin_source, "--pin-source", t("new PIN"), names=names, new=True)
    with run.console.working("initialising"):
        info = initialize(uri, label, unblocking, pin, allow_reinit=beginning.erases, modules=run.modules)
    run.result(
        {"token": document(info)},
        t("token {token} is ready: {uri}\n", token=output.visible(info.label), uri=output.visible(info.uri)),
    )
    run.console.say("next: 'medcrypt vault create --token NAME=URI'")


def _pin(run: Run, uri: str, unblock: bool, new_pin_source: list[str]) -> None:
    from medcrypt_hsm.tokens import provision
    from medcrypt_hsm.tokens.access import find_token

    option = "--new-pin-source"
    if unblock:
        found = provision.begin_unblock(uri, last_try=run.last_try, modules=run.modules)
        sources, so_option, what = run.unblocking(found)
        unblocker = run.pins.prompt(sources, so_option, what=what, flags="so-")(found)
        if not new_pin_source:  # no present PIN is needed, so --pin-source can only mean the new one
            new_pin_source, option = list(run.pin_source), "--new-pin-source or --pin-source"
    else:
        found = find_token(uri, modules=run.modules)
    names = {found.label, found.serial}
    new = run.pins.get(new_pin_source, option, t("new PIN of token {token}", token=found.label), names=names, new=True)
    if unblock:
        info = provision.unblock(uri, lambda _: unblocker, new, last_try=run.last_try, modules=run.modules)
    else:
        info = provision.change_pin(uri, run.pin_prompt(), new, last_try=run.last_try, modules=run.modules)
    shown = output.visible(info.label)
    if unblock:
        text = t("the PIN of token {token} is unblocked\n", token=shown)
    else:
        text = t("the PIN of token {token} is changed\n", token=shown)
    run.result({"token": document(info), "done": "unblocked" if unblock else "changed"}, text)
