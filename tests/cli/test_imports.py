"""``medcrypt import``: what goes to stdout, what into a file, and that a transcript is safe to open."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.clinic import PIN_LINE, V2_PATIENT, Clinic, assert_fields_documented

HOSTILE = "año <script>alert(1)</script> \"'& </p></article>\n\u202eevil\u2066 \x1b[31m \x00 \u2028 fin \u200dok"
NAME = "Luz <b onclick=x>\u202e\x1b“"


def forged(text: str) -> str:
    head, tag = text[:-1].rsplit(":", 1)
    return f"{head}:{'B' if tag[0] != 'B' else 'C'}{tag[1:]}]"


@pytest.fixture
def chat(clinic: Clinic) -> Path:
    one, two = clinic.encrypt(HOSTILE).strip(), clinic.encrypt("dos").strip()
    lines = ["hola", one, forged(one), f"con {two} en medio"]
    file = clinic.directory / "_chat.txt"
    file.write_text("".join(f"22/11/26, 9:1{n} - {NAME}: {line}\n" for n, line in enumerate(lines)), newline="")
    return file


def test_text_on_stdout(clinic: Clinic, chat: Path) -> None:
    done = clinic.run("import", "whatsapp", chat, code=5)
    lines = done.stdout.split("\n")
    name = r"Luz <b onclick=x>\x1b“"  # marks are stripped in headers
    assert (
        lines[0]
        == f"── {V2_PATIENT} · 2026-11 · from the doctor (d) · message 1 · in the chat: 2026-11-22T09:11:00, {name}"
    )
    assert lines[1].startswith("│ año <script>")
    assert [line for line in lines if line.startswith("── ")][1] == (
        f"── message 2 · NOT READ · in the chat: 2026-11-22T09:12:00, {name}"
    )
    assert lines[-2:] == ["│ dos", ""]
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", done.stdout)
    assert "2 read; not read: 1 not-authentic; 4 chat messages, 1 without" in done.stderr
    assert "1 of 3 messages could not be read" in done.stderr


def test_json_on_stdout(clinic: Clinic, chat: Path) -> None:
    done = clinic.run("--json", "import", "whatsapp", chat, code=5)
    document = done.json
    assert [message["status"] for message in document["messages"]] == ["ok", "not-authentic", "ok"]
    assert (document["schema"], document["messages"][0]["text"]) == (1, HOSTILE)
    assert document["messages"][0]["from"] == "Luz <b onclick=x>\x1b“"
    assert document["summary"] == {
        "chats": 1,
        "chat_messages": 4,
        "without": 1,
        "messages": 3,
        "ok": 2,
        "seen": 0,
        "bad": {"not-authentic": 1},
        "date_order": "day-first",
        "ambiguous_dates": False,
    }
    document["summary"]["bad"] = {}
    assert_fields_documented("import whatsapp", document)
    assert_fields_documented("import telegram", document)


def test_json_lines(clinic: Clinic, chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "chat.jsonl"
    done = clinic.run("--json", "import", "whatsapp", chat, "--out", out, code=5)
    assert_fields_documented("import whatsapp", done.json | {"summary": {}})
    assert (done.json["out"], done.json["summary"]["messages"]) == (str(out), 3)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    messages = [json.loads(line) for line in out.read_text(encoding="ascii").splitlines()]
    assert [message["text"] for message in messages] == [HOSTILE, None, "dos"]
    refused = clinic.run("import", "whatsapp", chat, "--out", out, code=2)
    assert "exists already" in refused.stderr


class Page(HTMLParser):
    """What a browser would see: elements with attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "input"):
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "elements are closed in order"

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self._open[-1] if self._open else "", []).append(data)


def test_a_transcript_is_safe_to_open(clinic: Clinic, chat: Path, tmp_path: Path) -> None:
    out = tmp_path / "conversation.html"
    done = clinic.run("import", "whatsapp", chat, "--out", out, code=5)
    assert done.stdout.splitlines()[0].startswith("2 read; not read: 1 not-authentic")
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    text = out.read_text(encoding="utf-8")
    page = Page(text)
    tags = [tag for tag, _ in page.elements]
    assert set(tags) == {
        "html", "head", "meta", "title", "style", "body", "header", "input", "span", "main", "article", "p", "bdi",
        "footer", "script",
    }  # fmt: skip
    assert (tags.count("script"), tags.count("style"), tags.count("article")) == (1, 1, 3)
    names = {name for _, attributes in page.elements for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "href", "style")}
    policy = next(a["content"] or "" for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256("".join(page.texts[tag]).encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert {a.get("dir") for tag, a in page.elements if tag == "p" and a.get("class") == "text"} == {"auto"}
    assert not re.search("[\x00-\x09\x0b-\x1f\u202a-\u202e\u2066-\u2069\u2028]", text)
    said = "".join(page.texts["p"] + page.texts["span"] + page.texts["bdi"])
    for shown in (
        "<script>alert(1)</script>",
        "U+202E",
        "U+001B",
        "U+0000",
        "U+2028",
        "ok",
        "Luz <b onclick=x>",
        "dos",
    ):
        assert shown in said
    assert "NOT READ (not-authentic)" in text
    assert "://" not in text


def test_nothing_is_written_unless_asked(clinic: Clinic, chat: Path) -> None:
    def files() -> set[Path]:
        return {path for path in clinic.directory.rglob("*") if path.is_file() and "softhsm" not in path.parts}

    before = files()
    clinic.run("import", "whatsapp", chat, code=5)
    assert files() == before
    done = clinic.run("import", "whatsapp", chat, "--out", clinic.directory / "chat.txt", code=2)
    assert ".jsonl or .html" in done.stderr
    assert files() == before


def test_an_ambiguous_order_is_said(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "_chat.txt"
    file.write_text(f"3/4/26, 9:15 - Ana: {clinic.encrypt('hola').strip()}\n")
    done = clinic.run("--json", "import", "whatsapp", file)
    assert "warning: the dates do not tell" in done.stderr
    assert (done.json["messages"][0]["date"], done.json["summary"]["ambiguous_dates"]) == ("2026-04-03T09:15:00", True)
    told = clinic.run("--json", "import", "whatsapp", file, "--date-order", "month-first")
    assert (told.json["messages"][0]["date"], told.stderr) == ("2026-03-04T09:15:00", "")


def test_telegram_and_no_message_at_all(clinic: Clinic, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    message = {"type": "message", "date_unixtime": "1795341600", "from": None, "text": ["a ", clinic.encrypt("hola")]}
    file.write_text(json.dumps({"name": None, "messages": [message]}))
    done = clinic.run("import", "telegram", file)
    assert done.stdout.splitlines()[0].endswith("in the chat: 2026-11-22T10:00:00Z, no name")
    file.write_text('{"name": null, "messages": []}')
    nothing = clinic.run(
        "--json", "--non-interactive", "import", "telegram", file, code=5, env={"MEDCRYPT_PIN_SOURCE": ""}
    )
    assert "no MedCrypt message" in nothing.error["message"]


def test_at_a_terminal(clinic: Clinic, chat: Path) -> None:
    terminal = clinic.terminal("import", "whatsapp", chat, env={"MEDCRYPT_PIN_SOURCE": "prompt"}, columns=60)
    terminal.expect("PIN")
    terminal.type(PIN_LINE)
    terminal.expect("1 not-authentic")
    assert terminal.finish() == 5
    shown = [line for line in terminal.lines if line.startswith(("│", "┆", "──"))]
    assert any(line.startswith("┆ ") for line in shown)
