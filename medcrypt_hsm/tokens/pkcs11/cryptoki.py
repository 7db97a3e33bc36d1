"""The functions of a PKCS#11 module that python-pkcs11 does not offer, or not so, through ctypes on the same library.

The loader gives one copy of a library to a process, so these act on what python-pkcs11 has initialised already. Call
with the lock held; errors are python-pkcs11's own classes. Functions are taken from CK_FUNCTION_LIST by their place in
it (PKCS#11 v2.40, section 3.6).
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pkcs11
from pkcs11 import PKCS11Error

if TYPE_CHECKING:
    from medcrypt_hsm.crypto.secret import Secret


_OK = 0
_C_GET_TOKEN_INFO = 6
_C_INIT_TOKEN = 9
_C_CLOSE_ALL_SESSIONS = 14
_C_GET_ATTRIBUTE_VALUE = 24
_C_DECRYPT_INIT = 33
_C_DECRYPT = 34
_C_SIGN_INIT = 42
_C_SIGN = 43
_CKA_VALUE = 0x11
_CKM_SHA256_HMAC = 0x251
_CKM_AES_GCM = 0x1087
_ulong = ctypes.c_ulong
_text = ctypes.c_char_p


class _FunctionList(ctypes.Structure):
    _fields_ = (("version", ctypes.c_ubyte * 2), ("functions", ctypes.c_void_p * 68))


class _TokenInfo(ctypes.Structure):
    _fields_ = (
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", _ulong),
        ("sessions", _ulong * 4),
        ("max_pin", _ulong),
        ("min_pin", _ulong),
        ("memory", _ulong * 4),
        ("versions", ctypes.c_ubyte * 4),
        ("time", ctypes.c_char * 16),
    )


class _Attribute(ctypes.Structure):
    _fields_ = (("type", _ulong), ("value", ctypes.c_void_p), ("length", _ulong))


class _Mechanism(ctypes.Structure):
    _fields_ = (("type", _ulong), ("parameter", ctypes.c_void_p), ("length", _ulong))


class _GcmParameters(ctypes.Structure):
    _fields_ = (
        ("iv", _text),
        ("iv_length", _ulong),
        ("iv_bits", _ulong),
        ("aad", _text),
        ("aad_length", _ulong),
        ("tag_bits", _ulong),
    )


LONGEST = 4096  # bytes of a text that ``gcm_opener`` opens: a message's wire text has at most 4,000 characters
_ERRORS: dict[int, type[PKCS11Error]] = {
    0x05: pkcs11.GeneralError,
    0x06: pkcs11.FunctionFailed,
    0x03: pkcs11.SlotIDInvalid,
    0x11: pkcs11.AttributeSensitive,
    0x12: pkcs11.AttributeTypeInvalid,
    0x30: pkcs11.DeviceError,
    0x31: pkcs11.DeviceMemory,
    0x32: pkcs11.DeviceRemoved,
    0x54: pkcs11.FunctionNotSupported,
    0x82: pkcs11.ObjectHandleInvalid,
    0xA0: pkcs11.PinIncorrect,
    0xA1: pkcs11.PinInvalid,
    0xA2: pkcs11.PinLenRange,
    0xA4: pkcs11.PinLocked,
    0xB3: pkcs11.SessionHandleInvalid,
    0xB6: pkcs11.SessionExists,
    0xE0: pkcs11.TokenNotPresent,
    0xE1: pkcs11.TokenNotRecognised,
    0xE2: pkcs11.TokenWriteProtected,
    0x101: pkcs11.UserNotLoggedIn,
    0x150: pkcs11.DataLenRange,  # the value is longer than the buffer
}


def init_token(path: str, slot: int, so_pin: bytes, label: bytes) -> None:
    """C_InitToken: erases the token in ``slot`` and gives it ``label``."""
    call = _function(path, _C_INIT_TOKEN, _ulong, _text, _ulong, _text)
    _check(call(slot, so_pin, len(so_pin), label.ljust(32)))


def close_all_sessions(path: str, slot: int) -> None:
    """C_CloseAllSessions: also those that a failed login left behind without a handle."""
    _check(_function(path, _C_CLOSE_ALL_SESSIONS, _ulong)(slot))


def pin_lengths(path: str, slot: int) -> tuple[int, int]:
    """The least and greatest length of a PIN in bytes, as the token says."""
    info = _TokenInfo()
    _check(_function(path, _C_GET_TOKEN_INFO, _ulong, ctypes.POINTER(_TokenInfo))(slot, ctypes.byref(info)))
    return info.min_pin, info.max_pin


def read_value(path: str, session: int, key: int, into: Secret) -> int:
    """CKA_VALUE of a readable key, written into ``into``; its length. python-pkcs11 would leave copies behind."""
    attribute = _Attribute(_CKA_VALUE, into.address, len(into.value))
    call = _function(path, _C_GET_ATTRIBUTE_VALUE, _ulong, _ulong, ctypes.POINTER(_Attribute), _ulong)
    _check(call(session, key, ctypes.byref(attribute), 1))
    return int(attribute.length)


@contextmanager
def gcm_opener(path: str, session: int, key: int) -> Iterator[Callable[[bytes, bytes, bytes], bytes | None]]:
    """C_DecryptInit and C_Decrypt on one key, for thousands of short texts in a row: (nonce, sealed, aad) → plaintext.

    None for whatever the module refuses; python-pkcs11 can say why. That asks for every text's length first and makes
    half a dozen objects, so that it takes a fifth more time.
    """
    init = _function(path, _C_DECRYPT_INIT, _ulong, ctypes.c_void_p, _ulong)
    decrypt = _function(path, _C_DECRYPT, _ulong, _text, _ulong, ctypes.c_void_p, ctypes.c_void_p)
    parameters = _GcmParameters(iv_length=12, iv_bits=96, tag_bits=128)
    mechanism = _Mechanism(_CKM_AES_GCM, ctypes.addressof(parameters), ctypes.sizeof(parameters))
    room, length = (ctypes.c_char * LONGEST)(), _ulong()
    at_mechanism, at_room, at_length = map(ctypes.addressof, (mechanism, room, length))

    def open_(nonce: bytes, sealed: bytes, aad: bytes) -> bytes | None:
        parameters.iv, parameters.aad, parameters.aad_length = nonce, aad, len(aad)
        length.value = LONGEST
        try:
            if init(session, at_mechanism, key) or decrypt(session, sealed, len(sealed), at_room, at_length):
                return None
        except BaseException:  # an interrupt between the two: what was begun must end, or the session is of no more use
            decrypt(session, b"", 0, at_room, at_length)
            raise
        return room[: length.value]  # type: ignore[return-value]  # of characters a slice is bytes

    try:
        yield open_
    finally:
        ctypes.memset(room, 0, LONGEST)


@functools.cache
def sha256_hmac(path: str) -> Callable[[int, int, bytes], bytes | None]:
    """C_SignInit and C_Sign: (session, key, data) → 32 bytes. Call it with the lock held: its buffer serves all.

    None for whatever the module refuses; python-pkcs11 can say why, and takes a quarter more time. A re-key makes fifty
    thousand.
    """
    init = _function(path, _C_SIGN_INIT, _ulong, ctypes.POINTER(_Mechanism), _ulong)
    sign = _function(path, _C_SIGN, _ulong, _text, _ulong, ctypes.c_void_p, ctypes.POINTER(_ulong))
    mechanism, room, length = _Mechanism(_CKM_SHA256_HMAC, None, 0), (ctypes.c_char * 32)(), _ulong()
    nothing = bytes(32)

    def mac(session: int, key: int, data: bytes) -> bytes | None:
        length.value = 32
        try:
            if init(session, mechanism, key) or sign(session, data, len(data), room, length):
                return None
            return room[: length.value]  # type: ignore[return-value]
        except BaseException:  # as in ``gcm_opener``
            sign(session, b"", 0, room, length)
            raise
        finally:
            room.raw = nothing  # it may be a key

    return mac


@functools.cache
def _function(path: str, index: int, *arguments: type) -> ctypes._NamedFuncPointer:
    library = ctypes.CDLL(path)
    table = ctypes.POINTER(_FunctionList)()
    library.C_GetFunctionList.restype = _ulong
    _check(library.C_GetFunctionList(ctypes.byref(table)))
    pointer = table.contents.functions[index]
    if not pointer:
        raise pkcs11.FunctionNotSupported
    return ctypes.CFUNCTYPE(_ulong, *arguments)(pointer)  # type: ignore[return-value]


def _check(code: int) -> None:
    if code != _OK:
        raise _ERRORS.get(code, PKCS11Error)(f"return value {code:#x}")
