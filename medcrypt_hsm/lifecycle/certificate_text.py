"""The certificate of a re-key in words, for people and for their files.

In: the JSON value that certificate.py makes. Out: Markdown in which no value of anybody's can end a line, or mean
anything. Not here: the signature under it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from medcrypt_hsm.crypto.words import words
from medcrypt_hsm.vault.audit.actions import ACTIONS


def markdown(value: Mapping[str, Any], digest: str) -> str:
    """``digest`` is that of the JSON document, in hex."""
    action = ACTIONS.get(value["action"])
    title = value["action"] if action is None else action.title or value["action"]
    lines = [
        f"# {title}: {_plain(value['subject'])}",
        "",
        f"Vault {value['vault']}, new keyset {value['generation']}, committed by audit entry {value['entry']}.",
        f"Entry hash: {value['hash']}",
        f"Ordered by {_plain(value['actor'])} at {value['intended']}; certified at {value['time']}.",
        f"JSON with the same content, SHA-256: {digest}",
        "",
        "## Old root keys",
        "",
    ]
    for token in value["tokens"]:
        which = f"- token {_plain(token['name'])} (serial {_plain(token['serial'])}), root key {token['kek']}"
        if token["destroyed"]:
            lines.append(f"{which}: destroyed; its use was tried afterwards and failed")
        else:
            lines.append(f"{which}: NOT DESTROYED, the token was not used. With its PIN it opens older copies")
    lines += ["", "## Backups", ""]
    for backup in value["backups"]:
        fate = "opens with no token of this practice any more"
        if backup["deleted"]:
            fate = "deleted: it was the program's own, made at the re-key before"
        elif backup["opened_by"] or backup["ceremony"]:
            who = [f"token {', '.join(map(_plain, backup['opened_by']))}"] if backup["opened_by"] else []
            who += [f"the break-glass key of ceremony {backup['ceremony']}"] if backup["ceremony"] else []
            fate = f"STILL OPENS with {' and with '.join(who)}: destroy this copy"
        lines.append(f"- {_plain(backup['name'])} of {backup['time']}: {fate}")
    if not value["backups"]:
        lines.append("- none was made by the program; copies of the file that somebody made fare like backups")
    lines += _custody_lines(value) if value["custody"] else []
    lines += ["", "## What is left", "", f"- break-glass escrow: {value['escrow']}"]
    lines += [
        f"- old share of {_plain(share['name'])} (serial {_plain(share['serial'])}), ceremony {share['ceremony']}: NOT "
        "DESTROYED, the token was not used"
        for share in value["old_shares"]
        if not share["destroyed"]
    ]
    if value["v1_secrets"]:
        lines.append(
            f"- secrets of version 1 pairings that the vault keeps: {value['v1_secrets']}. The patient has it too; it "
            "derives every month's key; this program refuses to do it for a shredded month, another would not"
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
    yield f"Ceremony {custody['ceremony']}: any {custody['threshold']} of {len(custody['custodians'])} open the vault."
    yield f"Break-glass key: {words(bytes.fromhex(custody['key']))}"
    yield ""
    for custodian in custody["custodians"]:
        approval = words(sha256(bytes.fromhex(custodian["approval_key"])).digest())
        yield (
            f"- {custodian['x']}: {_plain(custodian['name'])}, {_plain(custodian['model'])}, serial "
            f"{_plain(custodian['serial'])}, {custodian['profile']}, {custodian['attestation']}"
        )
        yield f"  - approval key: {approval}"
        yield f"  - commitment: {custodian['commitment']}"
    for share in value["old_shares"]:
        if share["destroyed"]:
            yield f"- old share of {_plain(share['name'])}, ceremony {share['ceremony']}: destroyed, and proven so"


def _plain(text: str) -> str:
    """For a line of a signed note: nothing that ends the line, or means something to Markdown or a terminal."""
    return "".join(c if c.isprintable() and c not in "`*_<>[]|\\#" else f"\\u{ord(c):04x}" for c in text)
