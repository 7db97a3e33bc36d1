"""``check_token``: prove a KEK profile with real operations, since a mechanism list can lie.

In: an open token, and the names of keys that a vault keeps on it. Out: ``CheckReport``, one step for each thing that
the profile rests on, and what the token claims of the named keys. Everything is made on the token's ``trial()`` and
destroyed again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from medcrypt_hsm.crypto.handles import KeysetHandles, KeysetSecret
from medcrypt_hsm.errors import MedcryptError, NotAuthentic, TokenError, TokenRemoved
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, Evidence, Token

NO_PROFILE = "none"
"""``CheckReport.profile`` of a token that offers none: what is missing is said for each."""
_KEK = "medcrypt trial kek"
_SIGNER = "medcrypt trial signing key"
_OBJECT = "medcrypt trial object"
_NO_KEK = t("no KEK could be made")


class TrialToken(Token, Protocol):
    """A token whose operations can be tried without leaving anything on it."""

    def trial(self) -> Token:
        """The same token for throw-away keys and objects: in the session alone, or in free places that it clears."""
        ...


@dataclass(frozen=True, slots=True)
class CheckStep:
    """One thing tried. ``words`` say what went wrong or is missing; empty when ``ok``."""

    name: str
    ok: bool
    words: str = ""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """``missing``: mechanisms not offered, in words; ``steps``: what was tried; ``evidence``: of keys asked about."""

    profile: str
    missing: tuple[str, ...]
    steps: tuple[CheckStep, ...]
    evidence: tuple[Evidence, ...]

    @property
    def ok(self) -> bool:
        return not self.missing and all(step.ok for step in self.steps) and not any(e.problems for e in self.evidence)


def check_token(
    token: TrialToken,
    names: Sequence[str] = (),
    *,
    profile: str | None = None,
    random: Callable[[int], bytes] = os.urandom,
) -> CheckReport:
    """Try everything that ``profile``, or the best that the token promises, needs on throw-away keys.

    Raises TokenRemoved; what fails otherwise is a step.
    """
    chosen = profile or next(iter(token.profiles()), NO_PROFILE)
    steps = _Steps()
    with token.trial() as trial:
        secret = random(32), random(32), random(32)
        if chosen == AES_KW:
            _aes_kw_steps(steps, trial, secret, random)
        elif chosen == P256_HPKE:
            _p256_hpke_steps(steps, trial, secret, random)
        _signing_step(steps, trial, random(32))
        _object_step(steps, trial, random(32))
    if chosen == NO_PROFILE:
        missing = [
            t("for {profile}: {missing}", profile=each, missing=words)
            for each in (AES_KW, P256_HPKE)
            for words in token.missing(each)
        ]
    else:
        missing = list(token.missing(chosen))
    return CheckReport(chosen, tuple(missing), tuple(steps.done), tuple(_evidence(token, name) for name in names))


class _Steps:
    """Collects steps: a failure of one is written down, and does not stop those that can do without it."""

    def __init__(self) -> None:
        self.done: list[CheckStep] = []

    def step(self, name: str) -> _Step:
        return _Step(self, name)

    def untried(self, names: Sequence[str], why: str) -> None:
        self.done += [CheckStep(name, False, t("not tried: {reason}", reason=why)) for name in names]


class _Step:
    """Runs one step and keeps its failure; only a removed token and this program's own faults are raised further."""

    def __init__(self, steps: _Steps, name: str) -> None:
        self._steps = steps
        self._name = name

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> bool:
        match exc:
            case None:
                words = ""
            case TokenRemoved():
                return False
            case MedcryptError():
                words = _words(exc)
            case _Unmet():
                words = str(exc)
            case KeyError():
                words = t("{key!r} was made but is not found again", key=exc.args[0])
            case _:
                return False
        self._steps.done.append(CheckStep(self._name, exc is None, words))
        return True


def _words(exc: MedcryptError) -> str:
    """What happened and what to do about it, without the hint of the error's class, which is for other commands."""
    return exc.message if exc.hint == type(exc).hint else joined("; ", (exc.message, exc.hint))


class _Unmet(Exception):
    """What a step asks of the token did not hold."""


def _require(held: bool, otherwise: str) -> None:
    if not held:
        raise _Unmet(otherwise)


def _refused(forged: Callable[[], object], what: str) -> None:
    try:
        forged()
    except NotAuthentic:
        return
    raise _Unmet(t("accepted {forgery}", forgery=what))


_AES_KW_STEPS = (
    t("AES key wrap: a keyset is wrapped, and unwrapped with the attributes asked for"),
    t("AES key wrap: a tampered key is refused"),
    t("record keys are wrapped and unwrapped"),
    t("AES-GCM: seals and opens with associated data"),
    t("AES-GCM: tampering is refused"),
    t("HMAC-SHA-256 equals the host's"),
)


def _aes_kw_steps(steps: _Steps, trial: Token, secret: KeysetSecret, random: Callable[[int], bytes]) -> None:
    """The KEK and the keyset under it. Attributes are read back by the backend at every generation and unwrap."""
    with ExitStack() as cleanup:
        handles: KeysetHandles | None = None
        made, wrapped = False, b""
        with steps.step("a KEK is made: sensitive, not extractable, wraps and unwraps only"):
            trial.make_kek(_KEK, AES_KW)
            made = True
            cleanup.callback(_quietly, trial.destroy, _KEK)
            found = trial.evidence(_KEK).problems
            _require(not found, joined("; ", found))
        if not made:
            steps.untried(_AES_KW_STEPS, _NO_KEK)
            return
        with steps.step(_AES_KW_STEPS[0]):
            wrapped = trial.wrap_keyset(_KEK, secret, b"")
            handles = trial.unwrap_keyset(_KEK, wrapped, b"")
        if handles is None:
            steps.untried(_AES_KW_STEPS[1:], t("no keyset could be unwrapped"))
            return
        for handle in (handles.wrapping, handles.mac, handles.sealing):
            cleanup.callback(_quietly, handle.destroy)
        with steps.step(_AES_KW_STEPS[1]):
            for at in range(0, len(wrapped), len(wrapped) // 3):
                _refused(lambda at=at: trial.unwrap_keyset(_KEK, _flip(wrapped, at), b""), t("a tampered wrapped key"))  # type: ignore[misc]
        with steps.step(_AES_KW_STEPS[2]):
            aead_key, mac_key = random(32), random(32)
            aead = handles.wrapping.unwrap_aead(handles.wrapping.wrap(aead_key))
            cleanup.callback(_quietly, aead.destroy)
            mac = handles.wrapping.unwrap_mac(handles.wrapping.wrap(mac_key))
            cleanup.callback(_quietly, mac.destroy)
            _require(mac.mac(b"") == _hmac(mac_key, b""), t("a record key's HMAC is not the host's"))
            aead.open(bytes(12), aead.seal(bytes(12), b"", b"record"), b"record")
        nonce, text, aad = random(12), b"a message of thirty-one bytes..", b"associated data"
        sealing = handles.sealing
        sealed = b""
        with steps.step(_AES_KW_STEPS[3]):
            sealed = sealing.seal(nonce, text, aad)
            _require(sealing.open(nonce, sealed, aad) == text, t("what is opened is not what was sealed"))
            _require(sealed == _host_gcm(secret[2], nonce, text, aad), t("the result is not AES-256-GCM"))
        if sealed:
            with steps.step(_AES_KW_STEPS[4]):
                _refused(lambda: sealing.open(nonce, _flip(sealed, 0), aad), t("a tampered ciphertext"))
                _refused(lambda: sealing.open(nonce, _flip(sealed, len(sealed) - 1), aad), t("a tampered tag"))
                _refused(lambda: sealing.open(nonce, sealed, aad + b"."), t("other associated data"))
                _refused(lambda: sealing.open(_flip(nonce, 0), sealed, aad), t("another nonce"))
        else:
            steps.untried(_AES_KW_STEPS[4:5], t("nothing could be sealed"))
        with steps.step(_AES_KW_STEPS[5]):
            _require(handles.mac.mac(text) == _hmac(secret[1], text), t("the result differs from the host's"))


_P256_HPKE_STEPS = (
    t("ECDH on P-256: a keyset sealed to the KEK opens by it"),
    t("HPKE: what the host seals to the KEK's public key opens on the token"),
    t("HPKE: another context is refused"),
    t("HPKE: tampering with the point or the text is refused"),
    t("a destroyed KEK opens nothing"),
)


def _p256_hpke_steps(steps: _Steps, trial: Token, secret: KeysetSecret, random: Callable[[int], bytes]) -> None:
    """The KEK and the keyset sealed to it. What follows with the keyset is done by the host, not by the token."""
    info, text = random(16), random(31)
    with ExitStack() as cleanup:
        made, wrapped = False, b""

        def opens(sealed: bytes) -> None:
            handles = trial.unwrap_keyset(_KEK, sealed, info)
            for handle in (handles.wrapping, handles.mac, handles.sealing):
                cleanup.callback(handle.destroy)
            _require(handles.mac.mac(text) == _hmac(secret[1], text), t("what is opened is not what was sealed"))
            sealed_text = handles.sealing.seal(bytes(12), text, b"")
            _require(
                sealed_text == _host_gcm(secret[2], bytes(12), text, b""), t("what is opened is not what was sealed")
            )

        with steps.step("a KEK is made: sensitive, not extractable, agrees on secrets only"):
            trial.make_kek(_KEK, P256_HPKE)
            made = True
            cleanup.callback(_quietly, trial.destroy, _KEK)
            found = trial.evidence(_KEK).problems
            _require(not found, joined("; ", found))
        if not made:
            steps.untried(_P256_HPKE_STEPS, _NO_KEK)
            return
        with steps.step(_P256_HPKE_STEPS[0]):
            sealed = trial.wrap_keyset(_KEK, secret, info)
            opens(sealed)
            wrapped = sealed
        if not wrapped:
            steps.untried(_P256_HPKE_STEPS[1:], t("no keyset could be opened"))
            return
        with steps.step(_P256_HPKE_STEPS[1]):
            from medcrypt_hsm.tokens.p256_hpke import wrap_keyset  # a slow import, like the others below

            opens(wrap_keyset(trial.public_key(_KEK), secret, info))
        with steps.step(_P256_HPKE_STEPS[2]):
            _refused(lambda: trial.unwrap_keyset(_KEK, wrapped, info + b"."), t("another context"))
        with steps.step(_P256_HPKE_STEPS[3]):
            for at in (0, 1, 64, 65, len(wrapped) - 1):
                _refused(lambda at=at: trial.unwrap_keyset(_KEK, _flip(wrapped, at), info), t("a tampered keyset"))  # type: ignore[misc]
        with steps.step(_P256_HPKE_STEPS[4]):
            trial.destroy(_KEK)
            try:
                trial.unwrap_keyset(_KEK, wrapped, info)
            except KeyError:
                return
            raise _Unmet("it still opened a keyset")


def _signing_step(steps: _Steps, trial: Token, data: bytes) -> None:
    with ExitStack() as cleanup, steps.step("ECDSA on P-256: a signature verifies on the host, and the key stays"):
        public = trial.make_signing_key(_SIGNER)
        cleanup.callback(_quietly, trial.destroy, _SIGNER)
        found = trial.evidence(_SIGNER).problems
        _require(not found, joined("; ", found))
        _require(_verifies(public, trial.sign(_SIGNER, data), data), t("the signature does not verify on the host"))
        _require(trial.public_key(_SIGNER) == public, t("the public key reads back differently"))


def _object_step(steps: _Steps, trial: Token, value: bytes) -> None:
    with ExitStack() as cleanup, steps.step("a private object is kept, replaced and destroyed"):
        cleanup.callback(_quietly, trial.destroy, _OBJECT)
        trial.put_object(_OBJECT, b"older")
        trial.put_object(_OBJECT, value)
        _require(list(trial.read_objects(_OBJECT)) == [value], t("it reads back differently"))
        trial.destroy(_OBJECT)
        _require(not trial.read_objects(_OBJECT), t("it is still there after destroying it"))


def _evidence(token: Token, name: str) -> Evidence:
    try:
        return token.evidence(name)
    except KeyError:
        return Evidence(name, {}, ("it is not on the token",))
    except TokenRemoved:
        raise
    except TokenError as exc:
        return Evidence(name, {}, (_words(exc),))


def _quietly(destroy: Callable[..., None], *arguments: str) -> None:
    """A step has told of the failure already; session objects die with the session in any case."""
    try:
        destroy(*arguments)
    except TokenRemoved:
        raise
    except TokenError:
        return


def _flip(value: bytes, at: int) -> bytes:
    return value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def _host_gcm(key: bytes, nonce: bytes, text: bytes, aad: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # a slow import that only a check needs

    return AESGCM(key).encrypt(nonce, text, aad)


def _verifies(public: bytes, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = serialization.load_der_public_key(public)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
