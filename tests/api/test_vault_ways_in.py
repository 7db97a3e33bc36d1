"""The ways into a vault: how a token is reached, who is asked for its PIN, and what is told to whoever is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from medcrypt_hsm import OtherTokens, TokenAccess, TokenInfo, Vault
from medcrypt_hsm.errors import UsageError
from tests.support.practice import Practice, pin
from tests.support.softhsm import SoftHsm


class Asked:
    """Who is asked for PINs, with what was said of each token."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, info: TokenInfo) -> str:
        self.names.append(info.name)
        return pin(info)


def touched(info: TokenInfo) -> AbstractContextManager[object]:
    return nullcontext()


class TestTokenAccess:
    def test_a_callback_alone_is_one(self) -> None:
        assert TokenAccess.of(pin) == TokenAccess(pin, last_try=False, modules=())
        given = TokenAccess(pin, last_try=True, modules=("/usr/lib/vendor.so",), touch=touched)
        assert TokenAccess.of(given) is given
        with pytest.raises(AttributeError):
            given.last_try = False  # type: ignore[misc]

    def test_whoever_is_asked_is_told_the_tokens_name(self, practice: Practice, softhsm: SoftHsm) -> None:
        asked, uri = Asked(), softhsm.make_token()
        with Vault.open(practice.path, pin=asked, clock=practice.clock) as vault:
            vault.tokens.add("spare", uri, pin=asked)
        with Vault.open(practice.path, pin=TokenAccess(asked), token="spare", clock=practice.clock) as vault:
            vault.tokens.sync(OtherTokens(asked))
        saved = practice.path.with_name("saved.db")
        with practice.open(token="spare") as vault:
            vault.backup(saved)
        Vault.restore(practice.path, saved, pin=asked, token="spare", agree=lambda loss: None).close()
        # A new token has no name in the vault yet; nothing was away at a re-key, and so nothing was synced.
        assert asked.names == ["doctor", "", "spare", "spare"]

    def test_the_others_are_named_too(self, practice: Practice, softhsm: SoftHsm) -> None:
        practice.add("spare", softhsm.make_token())
        asked = Asked()
        practice.clock.set("2027-01-05")
        with practice.open(token="doctor") as vault:
            vault.months.open(vault.months.due()[-1])
            vault.set_policy(retain_months=1)
            vault.months.shred(vault.months.past_retention()[0], OtherTokens(TokenAccess(asked)))
        assert asked.names == ["spare"]


@pytest.mark.parametrize(
    "way",
    [
        lambda path: Vault.open(path, pin=pin, wish=None),  # type: ignore[call-arg]
        lambda path: Vault.create(path, token="doctor", uri="pkcs11:token=x", pin=pin, rules=None),  # type: ignore[call-arg]
        lambda path: Vault.restore(path, path, pin=pin, agree=print, modules=()),  # type: ignore[call-arg]
    ],
)
def test_a_way_in_takes_no_option_that_it_does_not_know(tmp_path: Path, way: Callable[[Path], object]) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        way(tmp_path / "vault.db")


def test_an_export_tells_its_program_by_its_ending(practice: Practice, tmp_path: Path) -> None:
    with practice.open() as vault:
        (text,) = practice.pair(vault, "EXP-1").write("hola")
        message = {"type": "message", "date_unixtime": "1795348800", "from": "Luz", "text": text}
        (telegram := tmp_path / "result.json").write_text(json.dumps({"name": "Luz", "messages": [message]}))
        (whatsapp := tmp_path / "_chat.txt").write_text(f"[22/11/26, 12:00:00] Luz: {text}\n")
        for export, again in ((telegram, False), (whatsapp, True)):
            chat = vault.chats.open(export)
            assert [(read.opened.text, read.opened.seen) for batch in chat.read() for read in batch] == [
                ("hola", again)
            ]
            assert chat.summary.messages == 1
        (unknown := tmp_path / "chat.dat").write_text(text)
        with pytest.raises(UsageError, match="no chat program"):
            vault.chats.open(unknown)
