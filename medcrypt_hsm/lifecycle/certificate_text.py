"""The certificate of a re-key in words, for people and for their files.

In: the JSON value that certificate.py makes. Out: Markdown in which no value from outside can end a line or be taken
for markup. Not here: the signature under it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from medcrypt_hsm.crypto.words import words
from medcrypt_hsm.sentences import t
from medcrypt_hsm.vault.audit.actions import ACTIONS


def markdown(value: Mapping[str, Any], digest: str) -> str:
    """``digest`` is that of the JSON document, in hex."""
    action = ACTIONS.get(value["action"])
    title = value["action"] if action is None else action.title or value["action"]
    lines = [
        f"# {title}: {_plain(value['subject'])}",
        "",
        t(
            "Vault {vault}, new keyset {keyset}, committed by audit entry {entry}.",
            vault=value["vault"],
            keyset=value["generation"],
            entry=value["entry"],
        ),
        t("Entry hash: {hash}", hash=value["hash"]),
        t(
            "Ordered by {actor} at {ordered}; certified at {time}.",
            actor=_plain(value["actor"]),
            ordered=value["intended"],
            time=value["time"],
        ),
        t("JSON with the same content, SHA-256: {hash}", hash=digest),
        "",
        "## Old root keys",
        "",
    ]
    for token in value["tokens"]:
        which = t(
            "- token {token} (serial {serial}), root key {key}",
            token=_plain(token["name"]),
            serial=_plain(token["serial"]),
            key=token["kek"],
        )
        if token["destroyed"]:
            lines.append(t("{key}: destroyed; its use was tried afterwards and failed", key=which))
        else:
            lines.append(
                t("{key}: NOT DESTROYED, the token was not used. With its PIN it opens older copies", key=which)
            )
    lines += ["", "## Backups", ""]
    for backup in value["backups"]:
        fate = t("opens with no token of this practice any more")
        if backup["deleted"]:
            fate = t("deleted: it was the program's own, made at the re-key before")
        elif backup["opened_by"] or backup["ceremony"]:
            by, ceremony = ", ".join(map(_plain, backup["opened_by"])), backup["ceremony"]
            if by and ceremony:
                fate = t(
                    "STILL OPENS with token {tokens} and with the break-glass key of ceremony {ceremony}: destroy this "
                    "copy",
                    tokens=by,
                    ceremony=ceremony,
                )
            elif by:
                fate = t("STILL OPENS with token {tokens}: destroy this copy", tokens=by)
            else:
                fate = t(
                    "STILL OPENS with the break-glass key of ceremony {ceremony}: destroy this copy", ceremony=ceremony
                )
        lines.append(t("- {backup} of {time}: {fate}", backup=_plain(backup["name"]), time=backup["time"], fate=fate))
    if not value["backups"]:
        lines.append("- none was made by the program; copies of the file that somebody made fare like backups")
    lines += _custody_lines(value) if value["custody"] else []
    lines += ["", "## What is left", "", t("- break-glass escrow: {escrow}", escrow=value["escrow"])]
    lines += [
        t(
            "- old share of {custodian} (serial {serial}), ceremony {ceremony}: NOT DESTROYED, the token was not used",
            custodian=_plain(share["name"]),
            serial=_plain(share["serial"]),
            ceremony=share["ceremony"],
        )
        for share in value["old_shares"]
        if not share["destroyed"]
    ]
    if value["v1_secrets"]:
        lines.append(
            t(
                "- secrets of version 1 pairings that the vault keeps: {count}. The patient has it too; it "
                "derives every month's key; this program refuses to do it for a shredded month, another would not",
                count=value["v1_secrets"],
            )
        )
    lines += [f"- {outside['words']}" for outside in value["outside"]]
    if all(token["destroyed"] for token in value["tokens"]):
        lines.append("- old blocks of the disk that held the vault: what they hold is under the destroyed root keys")
    else:
        lines.append("- old blocks of the disk that held the vault: what they hold fares like a backup of that time")
    return "\n".join(lines) + "\n"


def _custody_lines(value: Mapping[str, Any]) -> Iterator[str]:
    """Who holds what: the part that is read aloud, and compared with what each custodian wrote down."""
    custody = value["custody"]
    yield from ("", "## Custodians", "")
    yield t(
        "Ceremony {ceremony}: any {threshold} of {count} open the vault.",
        ceremony=custody["ceremony"],
        threshold=custody["threshold"],
        count=len(custody["custodians"]),
    )
    yield t("Break-glass key: {words}", words=words(bytes.fromhex(custody["key"])))
    yield ""
    for custodian in custody["custodians"]:
        approval = words(sha256(bytes.fromhex(custodian["approval_key"])).digest())
        yield (
            t(
                "- {number}: {name}, {model}, serial {serial}, {profile}, {attestation}",
                number=custodian["x"],
                name=_plain(custodian["name"]),
                model=_plain(custodian["model"]),
                serial=_plain(custodian["serial"]),
                profile=custodian["profile"],
                attestation=custodian["attestation"],
            )
        )
        yield t("  - approval key: {approval}", approval=approval)
        yield t("  - commitment: {commitment}", commitment=custodian["commitment"])
    for share in value["old_shares"]:
        if share["destroyed"]:
            yield t(
                "- old share of {custodian}, ceremony {ceremony}: destroyed, and proven so",
                custodian=_plain(share["name"]),
                ceremony=share["ceremony"],
            )


def _plain(text: str) -> str:
    """For a line of a signed note: without what ends the line, or means something to Markdown or a terminal."""
    return "".join(c if c.isprintable() and c not in "`*_<>[]|\\#" else f"\\u{ord(c):04x}" for c in text)
