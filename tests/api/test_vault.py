"""``from medcrypt_hsm import Vault`` as a clinic's own program uses it: nothing printed, nothing global, errors that
say what to do, and a vault that is locked when it is left."""

from __future__ import annotations

import inspect
import json
import logging
import os
import subprocess
import sys
import typing
from pathlib import Path

import pkcs11
import pytest
from pkcs11 import Attribute

import medcrypt_hsm
from medcrypt_hsm import Vault
from medcrypt_hsm.errors import (
    Malformed,
    MedcryptError,
    PinError,
    Refused,
    TokenAbsent,
    TokenError,
    UsageError,
    VaultError,
    VaultMissing,
    WrongPin,
)
from medcrypt_hsm.tokens import TokenInfo
from tests.support.checkout import ROOT
from tests.support.practice import Practice, unlocked
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm, softhsm_module

BOTH_PROFILES = True


def test_it_prints_nothing_and_logs_nothing(
    practice: Practice, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        assert phone.read(*vault.encrypt("EXP-1", "hola")) == ["hola"]
        practice.clock.set("2026-12-01")
        assert [message.text for message in vault.decrypt("\n".join(phone.write("adiós")))] == ["adiós"]
        assert [str(opened.months[0]) for opened in practice.months_opened] == ["2026-12"]  # told, and not said
        vault.log.verify()
        vault.status()
    with pytest.raises(VaultMissing):
        Vault.open(practice.path.with_name("none.db"), pin=lambda _: USER_PIN)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.text) == ("", "", "")


def test_two_practices_at_once_in_one_process(softhsm: SoftHsm, tmp_path: Path) -> None:
    uris = softhsm.make_token(), softhsm.make_token()
    here, there = (Practice(tmp_path / name / "vault.db", uri) for name, uri in zip("ab", uris, strict=True))
    with here.create() as first, there.create() as second:
        phones = here.pair(first, "EXP-1"), there.pair(second, "EXP-1")
        there.clock.set("2026-12-03")  # each has the clock that it was given
        texts = first.encrypt("EXP-1", "de la primera"), second.encrypt("EXP-1", "de la segunda")
        assert phones[0].read(*texts[0]) == ["de la primera"]
        assert phones[1].read(*texts[1]) == ["de la segunda"]
        assert [m.status for m in first.decrypt("\n".join(texts[1]))] == ["unknown-pairing"]
        assert [m.status for m in second.decrypt("\n".join(texts[0]))] == ["unknown-pairing"]
        first.close()
        assert second.decrypt("\n".join(phones[1].write("sigo aquí")))[0].text == "sigo aquí"
        second.log.verify()
    with here.open() as vault:
        assert [month for month, _ in vault.status().months] == ["2026-11"]
        vault.log.verify()


def test_two_vaults_on_one_token_one_after_the_other(practice: Practice, tmp_path: Path) -> None:
    other = Practice(tmp_path / "other" / "vault.db", practice.uri)
    with other.create() as vault:
        phone = other.pair(vault, "EXP-1")
        text = vault.encrypt("EXP-1", "hola")
    with practice.open() as vault:
        assert [m.status for m in vault.decrypt("\n".join(text))] == ["unknown-pairing"]
    with other.open() as vault:
        assert phone.read(*vault.encrypt("EXP-1", "otra vez")) == ["otra vez"]


GONE = f"pkcs11:token=gone?module-path={softhsm_module()}"


def _create(path: Path, uri: str) -> Vault:
    return Vault.create(path, token="doctor", uri=uri, pin=lambda _: USER_PIN)


class TestErrors:
    @pytest.mark.parametrize(
        ("kind", "code", "act"),
        [
            (UsageError, 2, lambda p, v: v.encrypt("nobody", "x")),
            (UsageError, 2, lambda p, v: p.open(token="nobody")),
            (TokenAbsent, 3, lambda p, v: _create(p.path.with_name("new.db"), GONE)),
            (WrongPin, 4, lambda p, v: Vault.open(p.path, pin=lambda _: WRONG_PIN, clock=p.clock)),
            (Malformed, 5, lambda p, v: v.decrypt("nothing of ours")),
            (Refused, 6, lambda p, v: v.patients.add("EXP-1")),
            (VaultMissing, 7, lambda p, v: p.open(p.path.with_name("none.db"))),
            (VaultError, 7, lambda p, v: _create(p.path, p.uri)),
        ],
    )
    def test_each_says_what_happened_and_what_to_do(
        self, practice: Practice, kind: type[MedcryptError], code: int, act: typing.Callable[..., object]
    ) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            if kind in (UsageError, Malformed, Refused):
                with pytest.raises(MedcryptError) as caught:
                    act(practice, vault)
        if kind not in (UsageError, Malformed, Refused):
            with pytest.raises(MedcryptError) as caught:
                act(practice, None)
        error = caught.value
        assert isinstance(error, kind)
        assert (error.exit_code, bool(error.message), bool(error.hint)) == (code, True, True)
        assert str(error) == error.message
        assert error.name not in ("", "failed")
        assert "CKR_" not in error.message + error.hint

    def test_a_message_that_cannot_be_read_is_a_value_not_an_exception(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            good = phone.write("bien")[0]
            opened = vault.decrypt(f"{good} [MEDCRYPT:v2:nonsense] {good}")
        assert [message.status for message in opened] == ["ok", "malformed", "seen"]
        assert isinstance(opened[1].error, Malformed)
        assert opened[1].text is None

    def test_a_refused_message_is_in_the_log_and_the_log_still_verifies(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.pair(vault, "EXP-1")
            with pytest.raises(MedcryptError):
                vault.encrypt("EXP-1", "x" * 4_000_000)  # more parts than there may be
            assert vault.encrypt("EXP-1", "short")
            entries = [entry for _, entry in vault.log.entries() if entry.action == "message.encrypt"]
            assert [entry.outcome for entry in entries] == [entries[0].outcome, "done"]
            assert entries[0].outcome != "done"
            vault.log.verify()


def test_a_wrong_pin_leaves_a_note_for_the_next_who_opens(practice: Practice) -> None:
    asked: list[TokenInfo] = []

    def wrong(info: TokenInfo) -> str:
        asked.append(info)
        return WRONG_PIN

    for _ in range(2):
        with pytest.raises(PinError):
            Vault.open(practice.path, pin=wrong, actor="mara", clock=practice.clock)
    assert len(asked) == 2, "a PIN was tried twice"
    notes = practice.path.with_name("vault.db-notes")
    assert [json.loads(line)["what"] for line in notes.read_text().splitlines()] == ["pin-wrong"] * 2
    with practice.open() as vault:
        assert not notes.exists()
        entries = [entry for _, entry in vault.log.entries() if entry.action == "notes"]
        assert [note["what"] for entry in entries for note in entry.detail["notes"]] == ["pin-wrong", "pin-wrong"]
        vault.log.verify()
    assert not list(practice.path.parent.glob("*-notes*"))


class TestLocking:
    def test_leaving_locks_and_logs_out(self, practice: Practice) -> None:
        with practice.open() as vault:
            phone = practice.pair(vault, "EXP-1")
            text = phone.write("hola")[0]
            keyset, token = unlocked(vault).keyset, unlocked(vault).token
        for use in (
            lambda: vault.decrypt(text),
            lambda: vault.encrypt("EXP-1", "x"),
            lambda: vault.patients.list(),
            lambda: vault.log.checkpoint(),
            lambda: keyset.lookup("EXP-1"),
            lambda: token.sign(token.names()[0], b"x"),
        ):
            with pytest.raises((MedcryptError, RuntimeError)):
                use()
        assert self.private_objects_without_pin(practice) == []

    def test_an_exception_inside_locks_too(self, practice: Practice) -> None:
        with pytest.raises(ZeroDivisionError), practice.open() as vault:
            1 / 0  # noqa: B018
        with pytest.raises((MedcryptError, RuntimeError)):
            vault.patients.list()
        assert self.private_objects_without_pin(practice) == []

    def test_a_failed_open_leaves_nobody_logged_in(self, practice: Practice) -> None:
        damaged = practice.copy("damaged.db")
        with practice.open() as vault:
            vault.log.anchor()  # the copy is now older than the token remembers
        with pytest.raises(VaultError):
            practice.open(damaged)
        assert self.private_objects_without_pin(practice) == []
        practice.open().close()

    def test_closing_twice_is_nothing(self, practice: Practice) -> None:
        vault = practice.open()
        vault.close()
        vault.close()
        with practice.open():
            pass

    @staticmethod
    def private_objects_without_pin(practice: Practice) -> list[str]:
        """What this very process sees in a session of its own that gives no PIN: login is shared by a process."""
        label = practice.uri.split("=")[1].split("?")[0]
        with pkcs11.lib(str(softhsm_module())).get_token(token_label=label).open() as session:
            found = [item[Attribute.LABEL] for item in list(session.get_objects({Attribute.PRIVATE: True}))]
            assert list(session.get_objects({Attribute.PRIVATE: False})), "it does see the public keys"
        return found


class TestImports:
    def test_importing_the_package_is_light(self) -> None:
        program = (
            "import sys, medcrypt_hsm;"
            "heavy = {'pkcs11', 'cryptography', 'sqlite3', 'typer', 'rich', 'qrcode', 'logging'};"
            "print(sorted(heavy & set(sys.modules))); print(medcrypt_hsm.__version__)"
        )
        assert self.run(program) == ["[]", medcrypt_hsm.__version__]

    def test_the_library_never_loads_the_command_line(self) -> None:
        program = (
            "import sys; from medcrypt_hsm import Vault;"
            "print([m for m in sys.modules if m.startswith(('medcrypt_hsm.cli', 'typer', 'rich', 'click', 'qrcode'))])"
        )
        assert self.run(program) == ["[]"]

    def test_importing_changes_nothing_in_the_process(self) -> None:
        program = (
            "import os, signal, resource, locale, threading, sys;"
            "look = lambda: (dict(os.environ), [signal.getsignal(s) for s in signal.valid_signals()],"
            " resource.getrlimit(resource.RLIMIT_CORE), locale.setlocale(locale.LC_ALL), threading.active_count(),"
            " sys.excepthook, os.getcwd());"
            "before = look(); from medcrypt_hsm import Vault; print(before == look())"
        )
        assert self.run(program) == ["True"]

    @staticmethod
    def run(program: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()


def test_it_is_typed_and_documented() -> None:
    """Every public method has types that resolve; the marker tells type checkers to believe them."""
    assert (Path(medcrypt_hsm.__file__).parent / "py.typed").is_file()
    late = {
        name: getattr(medcrypt_hsm, name) for name in medcrypt_hsm.__all__
    }  # what it imports for type checkers alone
    for name, member in inspect.getmembers(Vault):
        if name.startswith("_") or not (inspect.isfunction(member) or inspect.ismethod(member)):
            continue
        hints = typing.get_type_hints(inspect.unwrap(member), localns=late)
        parameters = set(inspect.signature(member).parameters) - {"self", "cls"}
        assert parameters | {"return"} <= set(hints), name


def test_after_much_work_the_token_remembers_the_log(practice: Practice) -> None:
    """Every unlock reads what stands after the anchor: that stays little, within a day too."""
    with practice.open() as vault:
        phone = practice.pair(vault, "EXP-1")
        vault.log.anchor()
        for _ in range(3):
            vault.decrypt("\n".join(phone.write("Hola")))
        few = vault.status()
        assert few.anchor == few.entries - 3, "little work moves it once a day"
        vault.decrypt("\n".join(phone.write("x" * 900_000)))  # in some four hundred parts
        assert vault.status().anchor == few.anchor
        while (now := vault.status()).anchor == few.anchor:
            assert unlocked(vault).file.stored_after(now.anchor) < 1 << 17
            vault.decrypt("\n".join(phone.write("x" * 900_000)))
        assert now.anchor == now.entries


def test_token_errors_are_ours(practice: Practice) -> None:
    """A token that is taken away while the vault is open: no error of the binding comes through."""
    with practice.open() as vault:
        pkcs11.lib(str(softhsm_module())).reinitialize()
        with pytest.raises(TokenError):
            vault.encrypt("EXP-1", "x")
        with pytest.raises(TokenError):
            vault.log.checkpoint()
    practice.open().close()
