"""A transcript for people: one HTML file that needs nothing else, and does nothing but search in itself.

In: ``Read`` values. Out: pieces of HTML. Every text of a message or chat is hostile: it is escaped, it is isolated in
its reading direction, and characters that steer or hide are shown by their code. The page's policy allows this module's
own style and script by their hash, and nothing else: no other script, no picture, no address.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import unicodedata
from collections.abc import Iterable, Iterator

from medcrypt_hsm.messages.chats import written
from medcrypt_hsm.messages.chats.conversation import Read, Summary
from medcrypt_hsm.sentences import joined, t

_STYLE = """
body { font: 16px/1.45 sans-serif; max-width: 50em; margin: 0 auto; padding: 1em; color: #111; background: #fff }
header { position: sticky; top: 0; background: #fff; padding: .5em 0; border-bottom: 1px solid #999 }
input { font: inherit; width: 100%; box-sizing: border-box }
article { border-bottom: 1px solid #ddd; padding: .6em 0 }
.head { color: #555; font-size: 85%; margin: 0 }
.text { margin: .2em 0 0; white-space: pre-wrap; overflow-wrap: anywhere }
.bad { border-left: 4px solid #b00; padding-left: .6em }
.code { font: 75% monospace; border: 1px solid #999; padding: 0 .2em }
@media print { header { position: static } }
"""
_SCRIPT = """
"use strict";
const box = document.getElementById("search"), said = document.getElementById("said");
const all = Array.from(document.getElementsByTagName("article"));
const texts = all.map(one => one.textContent.toLowerCase());
box.addEventListener("input", () => {
  const wanted = box.value.toLowerCase();
  let found = 0;
  all.forEach((one, at) => {
    one.hidden = !texts[at].includes(wanted);
    if (!one.hidden) found += 1;
  });
  said.textContent = wanted ? found + " of " + all.length : "";
});
"""


def _hashed(content: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


_POLICY = (
    f"default-src 'none'; script-src {_hashed(_SCRIPT)}; style-src {_hashed(_STYLE)}; base-uri 'none'; "
    "form-action 'none'"
)
_HEAD = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="referrer" content="no-referrer">
<meta name="viewport" content="width=device-width">
<title>Conversation</title>
<style>{_STYLE}</style>
</head>
<body>
<header><input id="search" type="search" placeholder="Search" autocomplete="off"> <span id="said"></span></header>
<main>
"""
_SENDERS = {"d": t("from the doctor"), "p": t("from the patient")}
_UNUSUAL = re.compile(r"[^ -~\n\t¡-¬®-ɏ]")  # what is to be looked at; all else stands for itself
_JOINERS = "\u200c\u200d"  # inside words of some scripts and emoji; they move nothing


def transcript(batches: Iterable[list[Read]], summary: Summary) -> Iterator[str]:
    """The file's text in pieces; ``summary`` is looked at after the last batch."""
    yield _HEAD
    for batch in batches:
        yield "".join(map(_article, batch))
    yield f"</main>\n<footer><p>{_words(summary)}</p></footer>\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def shown(text: str) -> str:
    """Escaped, and no character acts: those that steer, hide or break lines are named by their code."""
    return _UNUSUAL.sub(_coded, html.escape(text.replace("\r\n", "\n")))


def _coded(match: re.Match[str]) -> str:
    character = match[0]
    category = unicodedata.category(character)
    if category in ("Cc", "Zl", "Zp", "Cs", "Cn", "Co") or (category == "Cf" and character not in _JOINERS):
        return f'<span class="code">U+{ord(character):04X}</span>'
    return character


def _article(read: Read) -> str:
    opened, origin = read.opened, read.origin
    claims = [_isolated(written(origin.when) or ""), _isolated(origin.sender), _isolated(origin.chat)]
    if origin.edited is not None:
        claims.append(t("edited"))
    if opened.error is not None:
        head = " · ".join(filter(None, [f"{read.number}", *claims]))
        text = t("NOT READ ({name}): {message}", name=shown(opened.error.name), message=shown(opened.error.message))
        return f'<article class="bad"><p class="head">{head}</p><p class="text" dir="auto">{text}</p></article>\n'
    known = [_isolated(opened.patient), opened.month, _SENDERS.get(opened.sender, t("sender unknown"))]
    if opened.part != "1.1":
        known.append(opened.part)
    head = " · ".join(filter(None, [f"{read.number}", *claims, *known]))
    text = shown(opened.text or "")
    return f'<article><p class="head">{head}</p><p class="text" dir="auto">{text}</p></article>\n'


def _isolated(text: str) -> str:
    return f"<bdi>{shown(text)}</bdi>" if text else ""


def _words(summary: Summary) -> str:
    read = summary.ok + summary.seen
    bad = ", ".join(f"{many:,} {name}" for name, many in summary.bad.items())
    if bad:
        first = t("{count:,} messages read; not read: {bad}.", count=read, bad=bad)
    else:
        first = t("{count:,} messages read.", count=read)
    sentences = [
        first,
        t("{others:,} other messages of the chat are not shown.", others=summary.without),
        t("Date, name and chat are what the export says; nobody has proven them."),
    ]
    if summary.ambiguous:
        sentences.append(t("The dates fit both orders; they were read {order}.", order=summary.date_order))
    return shown(joined(" ", sentences))
