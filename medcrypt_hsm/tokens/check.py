"""``check_token``: prove the ``aes-kw`` profile with real operations, since a mechanism list can lie.

In: an open token, and the names of keys that a vault keeps on it. Out: ``CheckReport``, one step for each thing that
the profile rests on, and what the token claims of the named keys. Everything is made in the session and destroyed in
it: not one object is stored on the token.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from medcrypt_hsm.errors import MedcryptError, NotAuthentic, TokenError, TokenRemoved
from medcrypt_hsm.keys import KeysetHandles
from medcrypt_hsm.tokens import AES_KW, Evidence, Token

_KEK = "medcrypt trial kek"
_SIGNER = "medcrypt trial signing key"
_OBJECT = "medcrypt trial object"


class TrialToken(Token, Protocol):
    """A token whose operations can be tried without storing anything."""

    def trial(self) -> Token:
        """The same token, where everything that is made lives in the session alone."""
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
    token: TrialToken, names: Sequence[str] = (), *, random: Callable[[int], bytes] = os.urandom
) -> CheckReport:
    """Try everything that ``aes-kw`` needs on throw-away keys. Raises TokenRemoved; what fails otherwise is a step."""
    steps = _Steps()
    trial = token.trial()
    _key_steps(steps, trial, (random(32), random(32), random(32)), random)
    _signing_step(steps, trial, random(32))
    _object_step(steps, trial, random(32))
    return CheckReport(
        AES_KW, tuple(token.missing(AES_KW)), tuple(steps.done), tuple(_evidence(token, name) for name in names)
    )


class _Steps:
    """Collects steps: a failure of one is written down, and does not stop those that can do without it."""

    def __init__(self) -> None:
        self.done: list[CheckStep] = []

    def step(self, name: str) -> _Step:
        return _Step(self, name)

    def untried(self, names: Sequence[str], why: str) -> None:
        self.done += [CheckStep(name, False, f"not tried: {why}") for name in names]


class _Step:
    """Runs one step and swallows its failure, but for a token that is gone and for errors of this program."""

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
                words = exc.message
            case _Unmet():
                words = str(exc)
            case KeyError():
                words = f"{exc.args[0]!r} was made but is not found again"
            case _:
                return False
        self._steps.done.append(CheckStep(self._name, exc is None, words))
        return True


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
    raise _Unmet(f"accepted {what}")


_UNWRAPPED_STEPS = (
    "AES key wrap: a tampered key is refused",
    "record keys are wrapped and unwrapped",
    "AES-GCM: seals and opens with associated data",
    "AES-GCM: tampering is refused",
    "HMAC-SHA-256 equals the host's",
)


def _key_steps(steps: _Steps, trial: Token, secret: tuple[bytes, bytes, bytes], random: Callable[[int], bytes]) -> None:
    """The KEK and the keyset under it. Attributes are read back by the backend at every generation and unwrap."""
    with ExitStack() as cleanup:
        handles: KeysetHandles | None = None
        wrapped = b""
        with steps.step("a KEK is made: sensitive, not extractable, wraps and unwraps only"):
            trial.make_kek(_KEK, AES_KW)
            cleanup.callback(_quietly, trial.destroy, _KEK)
            found = trial.evidence(_KEK).problems
            _require(not found, "; ".join(found))
        with steps.step("AES key wrap: a keyset is wrapped, and unwrapped with the attributes asked for"):
            wrapped = trial.wrap_keyset(_KEK, secret, b"")
            handles = trial.unwrap_keyset(_KEK, wrapped, b"")
        if handles is None:
            steps.untried(_UNWRAPPED_STEPS, "no keyset could be unwrapped")
            return
        for handle in (handles.wrapping, handles.mac, handles.sealing):
            cleanup.callback(_quietly, handle.destroy)
        with steps.step(_UNWRAPPED_STEPS[0]):
            for at in range(0, len(wrapped), len(wrapped) // 3):
                _refused(lambda at=at: trial.unwrap_keyset(_KEK, _flip(wrapped, at), b""), "a tampered wrapped key")  # type: ignore[misc]
        with steps.step(_UNWRAPPED_STEPS[1]):
            aead_key, mac_key = random(32), random(32)
            aead = handles.wrapping.unwrap_aead(handles.wrapping.wrap(aead_key))
            cleanup.callback(_quietly, aead.destroy)
            mac = handles.wrapping.unwrap_mac(handles.wrapping.wrap(mac_key))
            cleanup.callback(_quietly, mac.destroy)
            _require(mac.mac(b"") == _hmac(mac_key, b""), "a record key's HMAC is not the host's")
            aead.open(bytes(12), aead.seal(bytes(12), b"", b"record"), b"record")
        nonce, text, aad = random(12), b"a message of thirty-one bytes..", b"associated data"
        sealing = handles.sealing
        sealed = b""
        with steps.step(_UNWRAPPED_STEPS[2]):
            sealed = sealing.seal(nonce, text, aad)
            _require(sealing.open(nonce, sealed, aad) == text, "what is opened is not what was sealed")
            _require(sealed == _host_gcm(secret[2], nonce, text, aad), "the result is not AES-256-GCM")
        if sealed:
            with steps.step(_UNWRAPPED_STEPS[3]):
                _refused(lambda: sealing.open(nonce, _flip(sealed, 0), aad), "a tampered ciphertext")
                _refused(lambda: sealing.open(nonce, _flip(sealed, len(sealed) - 1), aad), "a tampered tag")
                _refused(lambda: sealing.open(nonce, sealed, aad + b"."), "other associated data")
                _refused(lambda: sealing.open(_flip(nonce, 0), sealed, aad), "another nonce")
        else:
            steps.untried(_UNWRAPPED_STEPS[3:4], "nothing could be sealed")
        with steps.step(_UNWRAPPED_STEPS[4]):
            _require(handles.mac.mac(text) == _hmac(secret[1], text), "the result differs from the host's")


def _signing_step(steps: _Steps, trial: Token, data: bytes) -> None:
    with ExitStack() as cleanup, steps.step("ECDSA on P-256: a signature verifies on the host, and the key stays"):
        public = trial.make_signing_key(_SIGNER)
        cleanup.callback(_quietly, trial.destroy, _SIGNER)
        found = trial.evidence(_SIGNER).problems
        _require(not found, "; ".join(found))
        _require(_verifies(public, trial.sign(_SIGNER, data), data), "the signature does not verify on the host")
        _require(trial.public_key(_SIGNER) == public, "the public key reads back differently")


def _object_step(steps: _Steps, trial: Token, value: bytes) -> None:
    with ExitStack() as cleanup, steps.step("a private object is kept, replaced and destroyed"):
        cleanup.callback(_quietly, trial.destroy, _OBJECT)
        trial.put_object(_OBJECT, b"older")
        trial.put_object(_OBJECT, value)
        _require(list(trial.read_objects(_OBJECT)) == [value], "it reads back differently")
        trial.destroy(_OBJECT)
        _require(not trial.read_objects(_OBJECT), "it is still there after destroying it")


def _evidence(token: Token, name: str) -> Evidence:
    try:
        return token.evidence(name)
    except KeyError:
        return Evidence(name, {}, ("it is not on the token",))
    except TokenRemoved:
        raise
    except TokenError as exc:
        return Evidence(name, {}, (exc.message,))


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
