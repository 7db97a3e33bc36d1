"""``medcrypt breakglass ceremony``, ``rotate`` and ``replace``: who holds the shares of the practice's emergency key.

Each is a re-key, and its certificate is the ceremony's transcript. What is read aloud and written down by custodians is
on stdout; what people are to do, on stderr.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.commands.shred import ROOTS, WITHOUT, document, other_tokens, words
from medcrypt_hsm.cli.commands.status import key_words
from medcrypt_hsm.cli.commands.vault_tokens import named_token
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.sentences import joined, t

if TYPE_CHECKING:
    from medcrypt_hsm import BreakGlass, Certificate, Plan

SHARES = typer.Option(
    [], "--share-token", metavar="NAME=URI", help="A custodian, and the token for the share; repeatable."
)
THRESHOLD = typer.Option(None, "--threshold", metavar="N", help="How many custodians are needed. [default: as before]")
TRANSCRIPT = typer.Option(
    None, "--transcript", metavar="FILE", help="The certificate's name, .md and .json. [default: beside the vault]"
)


def register(group: typer.Typer) -> None:
    @command(group, "ceremony")
    def ceremony(
        context: typer.Context,
        share_token: list[str] = SHARES,
        threshold: int | None = typer.Option(
            None, "--threshold", metavar="N", help="How many custodians are needed. [default: 2]"
        ),
        file: Path | None = typer.Option(
            None, "--file", metavar="CEREMONY.toml", help="Who, with which tokens, where, before whom."
        ),
        dry_run: bool = typer.Option(
            False, "--dry-run", help="Rehearse all of it on throw-away tokens; nothing of yours is touched."
        ),
        transcript: Path | None = TRANSCRIPT,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Give custodians a share each of a new emergency key; any two of them, or N, open the vault together."""
        run = run_of(context)
        plan = _plan(share_token, threshold, file)
        if dry_run:
            if transcript is not None or without or roots is not None:
                raise UsageError(
                    "a rehearsal has no tokens of yours, and leaves nothing behind",
                    "leave out --transcript, --without and --roots",
                )
            _rehearse(run, plan)
        else:
            _hold(run, plan, transcript, without, roots)

    @command(group, "rotate")
    def rotate(
        context: typer.Context,
        share_token: list[str] = SHARES,
        threshold: int | None = THRESHOLD,
        transcript: Path | None = TRANSCRIPT,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Make a new emergency key for the same custodians; --share-token: one who has another token now."""
        _rotate(run_of(context), share_tokens(share_token), threshold, transcript, without, roots)

    @command(group, "replace")
    def replace(
        context: typer.Context,
        name: str = typer.Argument(metavar="NAME", help="The custodian who goes."),
        share_token: list[str] = SHARES,
        transcript: Path | None = TRANSCRIPT,
        without: list[str] = WITHOUT,
        roots: Path | None = ROOTS,
    ) -> None:
        """Exchange one custodian for another, with a new emergency key for all."""
        shares = share_tokens(share_token)
        if len(shares) != 1:
            raise UsageError("one custodian takes the place of another", "give --share-token NEW=URI once")
        _replace(run_of(context), name, shares, transcript, without, roots)


def share_tokens(texts: Sequence[str]) -> dict[str, str]:
    """--share-token options as name → URI. Raises UsageError."""
    found: dict[str, str] = {}
    for text in texts:
        name, uri = named_token(text, "--share-token ana=yubikey:12345678")
        if name in found:
            raise UsageError(t("custodian {custodian} is named twice", custodian=name), "give each custodian one token")
        found[name] = uri
    return found


def _plan(share_token: Sequence[str], threshold: int | None, file: Path | None) -> Plan:
    from medcrypt_hsm import read_plan

    return read_plan(file, share_tokens(share_token), threshold)


def _checklist(run: Run, plan: Plan, what: str) -> None:
    """Who is to be there, as it was agreed on: for whoever leads through it."""
    pairs = [
        (
            what,
            t(
                "any {threshold} of {count} custodians are to open the vault",
                threshold=plan.threshold,
                count=len(plan.custodians),
            ),
        )
    ]
    pairs += [("place", plan.place)] if plan.place else []
    pairs += [("witness", witness) for witness in plan.witnesses]
    for one in plan.custodians:
        who = _who(one.name, one.person)
        pairs.append(("custodian", f"{who}: {one.token}" if one.token else who))
    run.console.say_lines(output.fields(pairs))


def _who(name: str, person: str) -> str:
    return f"{name} ({person})" if person else name


def _agree(run: Run, question: str, word: str, what: str) -> Callable[[], None]:
    said = t("{question} The vault is re-keyed: backups from before cannot be put back any more.", question=question)
    return partial(run.console.agree, said, word, yes=run.yes, what=what)


def _hold(run: Run, plan: Plan, transcript: Path | None, without: Sequence[str], roots: Path | None) -> None:
    shares = plan.shares
    _checklist(run, plan, "ceremony")
    question = t("The ceremony gives {custodians} a share each of a new emergency key.", custodians=", ".join(shares))
    with run.open_vault("holding the ceremony") as vault:
        made = vault.custodians.ceremony(
            shares,
            plan.threshold,
            run.custodian_pins(),
            other_tokens(run, without, roots),
            transcript=transcript,
            agree=_agree(run, question, "ceremony", t("a ceremony")),
        )
        glass = vault.custodians.present
    _report(run, glass, made, plan, {"rehearsal": False, "steps": []})


def _rotate(
    run: Run,
    instead: Mapping[str, str],
    threshold: int | None,
    transcript: Path | None,
    without: Sequence[str],
    roots: Path | None,
) -> None:
    question = "Rotating makes a new emergency key: the shares that custodians have now open nothing newer any more."
    with run.open_vault("making the new shares") as vault:
        made = vault.custodians.rotate(
            run.custodian_pins(),
            other_tokens(run, without, roots),
            instead=instead,
            threshold=threshold,
            transcript=transcript,
            agree=_agree(run, question, "rotate", t("rotating the emergency key")),
        )
        glass = vault.custodians.present
    _report(run, glass, made)


def _replace(
    run: Run,
    gone: str,
    shares: Mapping[str, str],
    transcript: Path | None,
    without: Sequence[str],
    roots: Path | None,
) -> None:
    ((name, uri),) = shares.items()
    question = t(
        "Replacing {custodian} by {successor} makes a new emergency key, and a new share for every custodian.",
        custodian=gone,
        successor=name,
    )
    with run.open_vault("making the new shares") as vault:
        made = vault.custodians.replace(
            gone,
            name,
            uri,
            run.custodian_pins(),
            other_tokens(run, without, roots),
            transcript=transcript,
            agree=_agree(run, question, gone, t("replacing {custodian}", custodian=gone)),
        )
        glass = vault.custodians.present
    _report(run, glass, made)


def _report(
    run: Run,
    glass: BreakGlass | None,
    made: Certificate,
    plan: Plan | None = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    assert glass is not None  # there was a ceremony just now
    found, text = told(glass, made, plan)
    run.result({**found, **(more or {}), **document(made)}, text + words(made))
    run.console.say_lines(
        "next: read the words aloud; each custodian writes down those of their approval key and of the emergency key\n"
        "      'medcrypt vault backup FILE', and keep it elsewhere: earlier backups are of no use any more\n"
        "      each custodian, at home: 'medcrypt breakglass drill --token URI OUT'"
    )


def told(glass: BreakGlass, made: Certificate, plan: Plan | None) -> tuple[dict[str, Any], str]:
    """Custodians, their tokens, and the words that are compared, in JSON and for people."""
    persons = {} if plan is None else {planned.name: planned.person for planned in plan.custodians}
    key = key_words(glass.key)
    count = len(glass.custodians)
    pairs: list[tuple[str, object]] = [
        ("ceremony", glass.ceremony.hex()),
        ("needed", t("{threshold} of {count} custodians", threshold=glass.threshold, count=count)),
        ("emergency key", key),
    ]
    custodians = []
    for custodian in glass.in_order():
        approval = key_words(custodian.approval_key)
        person = persons.get(custodian.name, "")
        where = t(
            "{label}, serial {serial}, {model}, {attestation}",
            label=custodian.label,
            serial=custodian.serial,
            model=custodian.model,
            attestation=custodian.attestation,
        )
        pairs += [("custodian", joined(": ", (_who(custodian.name, person), where))), ("approval key", approval)]
        custodians.append(
            {
                "name": custodian.name,
                "person": person,
                "label": custodian.label,
                "serial": custodian.serial,
                "model": custodian.model,
                "attestation": custodian.attestation,
                "words": approval,
            }
        )
    old = made.value["old_shares"]
    pairs += [("old share", _old_share(share)) for share in old]
    found: dict[str, Any] = {
        "ceremony": glass.ceremony.hex(),
        "threshold": glass.threshold,
        "words": key,
        "custodians": custodians,
        "old_shares": list(old),
    }
    if plan is not None:
        found |= {"place": plan.place, "witnesses": list(plan.witnesses)}
    return found, output.fields(pairs)


def _old_share(share: Mapping[str, Any]) -> str:
    which = t("{custodian}, ceremony {ceremony}", custodian=share["name"], ceremony=share["ceremony"])
    if share["destroyed"]:
        return t("{share} destroyed", share=which)
    return t(
        "{share} LEFT, the token was not used: enough of them open copies of the vault from that time", share=which
    )


def _rehearse(run: Run, plan: Plan) -> None:
    from medcrypt_hsm import rehearse

    names = [custodian.name for custodian in plan.custodians]
    _checklist(run, plan, "REHEARSAL")
    run.console.say("on throw-away tokens and a throw-away vault: nothing of yours is touched, no PIN is asked for")
    with run.console.working("rehearsing"):
        held = rehearse(names, plan.threshold, run.modules)
    found, text = told(held.glass, held.certificate, plan)
    steps = [{"name": step.name, "words": step.words} for step in held.steps]
    made = {"certificate": held.certificate.value, "certificate_files": []}
    if run.json:
        run.result({**found, "rehearsal": True, "steps": steps, **made})
        return
    lines = [*text.splitlines(), "", *held.certificate.text.splitlines()]
    output.write("".join(f"REHEARSAL {output.FRAME}{output.visible(line)}".rstrip() + "\n" for line in lines))
    proven = [t("proven: {words}", words=output.visible(step.words)) for step in held.steps]
    output.write(joined("\n", ["", *proven, ""]))
    run.console.say("the tokens and the vault of this rehearsal are gone; the ceremony itself has not been held")
