"""No secret in what the library says: logs at DEBUG, the repr of every object, every error with all that is chained.

Every key that is ever in host memory passes through ``Secret``; this test keeps a copy of each, searches for all of
them, and sees that each was wiped.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import logging
import traceback
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pkcs11
import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.messages.wire.pairing import PairingPayload
from tests.support.practice import Phone, Practice, forge, unlocked
from tests.support.secret_search import Secrets, tree
from tests.support.softhsm import USER_PIN, WRONG_PIN

ANA, BENITO = "EXP-ANA-7781930", "EXP-BENITO-4410277"
V1_SECRET = "clave-compartida-nunca-dicha-77"
TEXT = "Carga viral indetectable; continuar con bictegravir y control en seis meses"
NOT_UTF8 = b"metotrexato 15 mg semanal \xff\xfe y acido folico"


class Remembered:
    """Every ``Secret`` that was made, with a copy of its bytes.

    One that was made empty, for a token to fill, is remembered as it was before it was wiped.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[tuple[Secret, bytes]] = []
        self.empty: list[Secret] = []
        init, wipe = Secret.__init__, Secret.wipe

        def remembering(secret: Secret, value: bytes) -> None:
            init(secret, value)
            if any(value):
                self.made.append((secret, bytes(bytearray(value))))
            else:
                self.empty.append(secret)

        def wiping(secret: Secret) -> None:
            if any(secret._value) and any(secret is empty for empty in self.empty):
                self.made.append((secret, bytes(bytearray(secret._value))))
            wipe(secret)

        monkeypatch.setattr(Secret, "__init__", remembering)
        monkeypatch.setattr(Secret, "wipe", wiping)


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> Remembered:
    return Remembered(monkeypatch)


class Said:
    """Everything that objects say of themselves."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.errors: list[MedcryptError] = []

    def look_at(self, where: str, *roots: object) -> None:
        for value in reachable(roots):
            if isinstance(value, BaseException):
                self.error(where, value)
            name = f"{where}: {type(value).__module__}.{type(value).__qualname__} {id(value)}"
            with contextlib.suppress(pkcs11.PKCS11Error):  # the binding asks the token, which has forgotten dead keys
                self.texts[name] = f"{value!r} {value!s} {value}"

    def leaks(self, known: Secrets) -> list[tuple[str, str]]:
        """Where something was said that must not be, and what. Many objects say the same."""
        once = {text: where for where, text in self.texts.items()}
        return [(where, leak) for text, where in once.items() for leak in known.found_in(text.encode())]

    def error(self, where: str, exc: BaseException) -> None:
        self.texts[f"{where}: {type(exc).__name__} {id(exc)}"] = "".join(
            [*traceback.format_exception(exc), *(f"{e!r} {e.args!r} {vars(e)!r}" for e in chained(exc))]
        )


def chained(exc: BaseException | None) -> Iterator[BaseException]:
    """An error with its causes and contexts, also those that a traceback leaves out."""
    while exc is not None:
        yield exc
        if exc.__cause__ is not None and exc.__context__ is not exc.__cause__:
            yield from chained(exc.__cause__)
        exc = exc.__context__


def reachable(roots: tuple[object, ...]) -> Iterator[object]:
    """Objects of the package and of the PKCS#11 binding that lead from these. Plain values in them have no repr of
    their own: whoever holds them asked for a field by its name."""
    seen: set[int] = set()
    left = list(roots)
    while left:
        value = left.pop()
        if id(value) in seen or isinstance(value, type):
            continue
        seen.add(id(value))
        if isinstance(value, (list, tuple, set, frozenset)):
            left += value
        elif isinstance(value, dict):
            left += [*value, *value.values()]
        if not str(type(value).__module__).startswith(("medcrypt_hsm", "pkcs11")):
            continue
        yield value
        left += getattr(value, "__dict__", {}).values()
        for kind in type(value).__mro__:
            slots = kind.__dict__.get("__slots__", ())
            left += [getattr(value, slot, None) for slot in ((slots,) if isinstance(slots, str) else slots)]


def test_nothing_that_the_library_says_holds_a_secret(
    practice: Practice,
    remembered: Remembered,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG)
    older = made_before()
    said, known, payloads = Said(), Secrets(), []

    def failing(call: Any, *args: Any, **more: Any) -> None:
        with pytest.raises(MedcryptError) as caught:
            call(*args, **more)
        said.error(getattr(call, "__name__", "call"), caught.value)

    created = Practice(tmp_path / "second" / "vault.db", practice.uri)
    created.create().close()  # its keyset too goes through host memory
    with practice.open() as vault:
        new = vault.patients.add(ANA, label="Ana Sofía Quetzalcóatl")
        payloads.append(new.payload)
        phone = Phone.scan(new.payload, practice.clock)
        said.look_at("pairing", vault, new, PairingPayload.parse(new.payload), vault.patients.qr(ANA))
        failing(vault.patients.confirm, ANA, f"{(int(phone.check_code) + 1) % 10**6:06}")
        failing(PairingPayload.parse, new.payload[:-1])
        failing(PairingPayload.parse, new.payload[:-1] + "B")
        failing(vault.patients.add, BENITO, secret=V1_SECRET)
        vault.patients.confirm(ANA, phone.check_code)
        weak = vault.patients.add(BENITO, protocol="v1", secret=V1_SECRET)
        failing(vault.patients.add, BENITO, protocol="v1", secret=V1_SECRET)
        texts = [*vault.encrypt(ANA, TEXT), *vault.encrypt(BENITO, TEXT), *phone.write(TEXT)]
        chat = "\n".join([*texts, forge(texts[0]), forge(texts[1]), _not_utf8(phone)])
        opened = vault.decrypt(chat)
        assert [message.text for message in opened].count(TEXT) == 3
        said.look_at("reading", vault, weak, opened, [m.error for m in opened], vault.status(), vault.patients.list())
        for error in (message.error for message in opened):
            if error is not None:
                said.error("reading", error)
                assert not _frames_hold(error, TEXT), "an error that is handed out holds other messages"
        assert _frames_hold(_raised(TEXT), TEXT), "the search is blind"
        failing(vault.encrypt, "nobody", TEXT)
        failing(vault.encrypt, ANA, TEXT * 60_000)
        practice.clock.set("2026-12-02")
        vault.encrypt(ANA, TEXT)
        said.look_at(
            "month", practice.months_opened, vault, vault.log.entries(), vault.log.verify(), vault.tokens.evidence()
        )
        payloads.append(vault.patients.repair(ANA).payload)
        vault.backup(tmp_path / "backup.db")
        said.look_at("handles", *_all_of_the_package(older))
    said.look_at("closed", vault, unlocked(vault))
    failing(Vault.open, practice.path, pin=lambda _: WRONG_PIN, clock=practice.clock)
    failing(Vault.open, tmp_path / "nowhere", pin=lambda _: USER_PIN)

    for number, payload in enumerate(payloads):
        known.add_pairing(f"pairing {number}", payload, "2026-12")
    for number, (_, key) in enumerate(remembered.made):
        known.add_key(f"secret {number}", key)
    for name, word in (("PIN", USER_PIN), ("wrong PIN", WRONG_PIN), ("v1 secret", V1_SECRET)):
        known.add_word(name, word)
    known.add_text("plaintext", TEXT)
    known.add_text("not text", NOT_UTF8[:26].decode())

    assert len(remembered.made) >= 10  # 3 of the keyset, log key, chain and message keys, v1
    assert len(said.texts) > 40
    assert said.leaks(known) == []
    assert known.found_in(caplog.text.encode()) == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    for name, content in tree(tmp_path).items():
        assert known.found_in(content) == [], name
    assert [number for number, (secret, _) in enumerate(remembered.made) if any(secret._value)] == [], "not wiped"


def _frames_hold(error: BaseException, text: str) -> bool:
    """Would a crash reporter, which sends along every frame's local variables, send this text?"""
    known = Secrets()
    known.add_text("text", text)
    for exc in chained(error):
        for frame, _ in traceback.walk_tb(exc.__traceback__):
            for value in frame.f_locals.values():
                with contextlib.suppress(pkcs11.PKCS11Error):
                    if known.found_in(repr(value).encode()):
                        return True
    return False


def _raised(text: str) -> BaseException:
    try:
        raise ValueError("nothing of it here")
    except ValueError as exc:
        return exc


def _not_utf8(phone: Phone) -> str:
    """Authentic, and no text: its content must not come along with the error."""
    from scripts.standalone import patient

    month = patient.Month.of(phone.clock.now)
    key = phone.state.message_keys[month]
    return patient.seal(key, phone.state.pairing, month, "p", "1.1", NOT_UTF8, b"m" * 12)


def _all_of_the_package(older: Container[int] = ()) -> list[object]:
    """Every living object of the package, reachable from somewhere or not, but for those that are ``older``."""
    return [
        value
        for value in gc.get_objects()
        if str(type(value).__module__).startswith("medcrypt_hsm")
        and not isinstance(value, type)
        and id(value) not in older
    ]


def made_before() -> dict[int, object]:
    """Rows and sentences of other tests: what cannot change holds no secret that was made later. They are kept alive,
    so that nothing new gets their number. There are tens of thousands once every test has been collected."""
    return {id(value): value for value in _all_of_the_package() if isinstance(value, (str, tuple))}


def test_a_key_has_no_text_form() -> None:
    with Secret(b"0123456789abcdef" * 2) as key:
        assert repr(key) == str(key) == f"{key}" == "Secret(…)"
        assert not dataclasses.is_dataclass(key)
        assert not hasattr(key, "__dict__")
