"""Modules loaded, tokens found, flags looked at, PINs given.

In: a ``TokenUri`` and a PIN prompt. Out: a ``SlotToken`` (a token in its slot, nobody logged in) and from it a
logged-in python-pkcs11 session. A token is looked for first, its flags are read, then the PIN is asked for, then it is
sent once.

SoftHSM2 rewrites a token's own file at every login, and for that moment every other process finds no token there. So
the short steps of finding and logging in take turns between processes (``one_at_a_time``), by an advisory lock on the
module's file, which needs no file of ours. Nobody waits for a person: the lock is not held while a PIN is asked for.

Not here: what is done in the session (token.py) and where modules are (discovery.py).
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

import pkcs11
from pkcs11 import PKCS11Error, TokenFlag

from medcrypt_hsm.errors import (
    LastTry,
    MedcryptError,
    PinLocked,
    PinNeeded,
    TokenAbsent,
    TokenError,
    TokenRemoved,
    TokenUnfit,
    WrongPin,
)
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import PinPrompt, TokenInfo, may_hold_readers
from medcrypt_hsm.tokens.pkcs11 import cryptoki
from medcrypt_hsm.tokens.pkcs11.errors import LOCK, NO_PIN_HINT, token_errors, translate, words
from medcrypt_hsm.tokens.uri import TokenUri, format_uri

_FLAGS = {
    TokenFlag.USER_PIN_COUNT_LOW: "count-low",
    TokenFlag.USER_PIN_FINAL_TRY: "final-try",
    TokenFlag.USER_PIN_LOCKED: "locked",
    TokenFlag.SO_PIN_COUNT_LOW: "so-count-low",
    TokenFlag.SO_PIN_FINAL_TRY: "so-final-try",
    TokenFlag.SO_PIN_LOCKED: "so-locked",
}
_BLANK_HINT = "give it a label and PINs with 'medcrypt token init'"


PATIENCE = 10.0  # seconds; a lock that somebody keeps for longer is not ours, and is passed by
_PAUSE = 0.005
_held: set[str] = set()  # by this process; every caller holds the one lock of all PKCS#11 calls


@contextlib.contextmanager
def one_at_a_time(paths: Sequence[str]) -> Iterator[None]:
    """Hold the doors of the modules at ``paths``. Never fails: without the lock things are as they would be anyway."""
    with contextlib.ExitStack() as stack:
        for path in sorted({os.path.realpath(path) for path in paths} - _held):
            with contextlib.suppress(OSError):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                _lock(fd)
                _held.add(path)
                stack.callback(_held.discard, path)
        yield


def _lock(fd: int) -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(_PAUSE)


class Module:
    """One loaded library. ``in_use`` holds the slots that have a session of ours."""

    def __init__(self, path: str) -> None:
        self.named = path
        # PKCS#11 is initialised once in a process: a program that uses python-pkcs11 itself may have done so already,
        # by another name of the same file.
        real = os.path.realpath(path)
        self.path = next((known for known in pkcs11._loaded if os.path.realpath(known) == real), path)
        self.in_use: set[int] = set()
        self._process = os.getpid()
        self.fresh = True  # loaded for the search that is under way
        try:
            self.lib = pkcs11.lib(self.path)
        except PKCS11Error as exc:
            raise self.unusable(exc) from exc

    def unusable(self, exc: PKCS11Error) -> TokenError:
        hint = "check the path of the module, and that what it needs (its daemon, its configuration) is there"
        return TokenError(
            t("the PKCS#11 module {module} cannot be used ({reason})", module=self.named, reason=words(exc)), hint
        )

    def refresh(self) -> bool:
        """Look at the machine anew: a token made by another process, or put back, is invisible without it.

        False if it cannot be done (a session is open and would be cut off) or need not be (just loaded).
        """
        if (self.in_use or self.fresh) and not self.forked:
            return False
        with contextlib.suppress(PKCS11Error):  # a forked child has nothing to finalise in some modules
            self.lib.finalize()
        self.in_use.clear()
        self._process = os.getpid()
        self.ready()
        return True

    def ready(self) -> None:
        try:
            self.lib.initialize()  # does nothing when it is
        except PKCS11Error as exc:
            raise self.unusable(exc) from exc

    @property
    def forked(self) -> bool:
        return self._process != os.getpid()

    def tokens(self) -> Iterator[SlotToken]:
        try:
            slots = self.lib.get_slots(token_present=True)
        except PKCS11Error as exc:
            raise self.unusable(exc) from exc
        for slot in slots:
            # One reader that fails must not hide the tokens in the others.
            with contextlib.suppress(PKCS11Error):
                yield SlotToken(self, slot.get_token())


_modules: dict[str, Module] = {}


def load(path: str) -> Module:
    """The module at ``path``, loaded once in a process. Call with the lock held. Raises TokenError."""
    real = os.path.realpath(path)
    if real not in _modules:
        _modules[real] = Module(path)
    module = _modules[real]
    if module.forked:
        module.refresh()
    module.ready()
    return module


def any_loaded() -> bool:
    """Has this process loaded a PKCS#11 module, by us or by a program's own use of python-pkcs11?"""
    return bool(pkcs11._loaded)


def let_go() -> None:
    """Finalise every module that has no session open: as long as it is initialised, one like OpenSC holds all readers.

    The next search initialises it again.
    """
    with LOCK:
        for module in _modules.values():
            if not (module.in_use or module.forked):
                with contextlib.suppress(PKCS11Error):
                    module.lib.finalize()


may_hold_readers(let_go)


@atexit.register
def _take_leave() -> None:
    """A module may keep something outside of this process that C_Finalize gives back. Waits for nobody: another thread
    may wait for a finger, or have held the lock when this process was forked."""
    if LOCK.acquire(blocking=False):
        let_go()
        LOCK.release()


class SlotToken:
    """A token in its slot, with nobody logged in."""

    def __init__(self, module: Module, token: pkcs11.Token) -> None:
        self.module = module
        self.token = token
        self.closed = False

    def __repr__(self) -> str:
        return f"SlotToken({self.title})"

    @property
    def title(self) -> str:
        name = self.token.label or _text(self.token.serial)
        return t("token {name!r}", name=name) if name else t("the blank token")

    @property
    def info(self) -> TokenInfo:
        token = self.token
        label, serial, flags = token.label, _text(token.serial), token.flags
        initialized = bool(flags & TokenFlag.TOKEN_INITIALIZED)
        named = label if initialized else ""
        uri = TokenUri(token=named or None, serial=serial or None, module_path=self.module.named)
        return TokenInfo(
            uri=format_uri(uri),
            label=label,
            serial=serial,
            model=token.model,
            manufacturer=token.manufacturer_id,
            initialized=initialized,
            user_pin_set=bool(flags & TokenFlag.USER_PIN_INITIALIZED),
            # Those of a blank token mean nothing: SoftHSM2 shows its empty slot with a locked SO PIN.
            pin_flags=frozenset(name for flag, name in _FLAGS.items() if flags & flag and initialized),
            problem=t("a YubiKey: use {uri}", uri=self.yubikey_uri) if self.yubikey_uri else "",
        )

    @property
    def yubikey_uri(self) -> str:
        """How a YubiKey that ykcs11 or OpenSC shows is to be named; empty for any other token.

        ykcs11 has no data objects and leaves keys where they are told to be destroyed, OpenSC makes none in a PIV
        application: so they are no backends. OpenSC does not know the serial number.
        """
        if self.token.manufacturer_id == "piv_II" and "YubiKey" in self.token.slot.slot_description:
            return "yubikey:SERIAL"
        is_one = self.token.manufacturer_id.startswith("Yubico") and self.token.model.startswith("YubiKey")
        return f"yubikey:{_text(self.token.serial)}" if is_one else ""

    @property
    def slot_id(self) -> int:
        return self.token.slot.slot_id

    def matches(self, uri: TokenUri) -> bool:
        token = self.token
        return uri.matches(
            label=token.label, serial=_text(token.serial), manufacturer=token.manufacturer_id, model=token.model
        )

    def present(self) -> bool:
        """Whether this very token is still in its slot."""
        try:
            with LOCK, one_at_a_time([self.module.path]):
                now = self.token.slot.get_token()
        except PKCS11Error:
            return False
        return now.serial == self.token.serial and now.label == self.token.label

    def reread(self) -> TokenInfo:
        """Its flags as they are now. Raises TokenRemoved if it, or another in its place, is there no longer."""
        with token_errors(self, t("looking at it")):
            now = self.token.slot.get_token()
        if now.serial != self.token.serial or now.label != self.token.label:
            raise TokenRemoved(t("{token} was removed; another token is in its place", token=self.title))
        self.token = now
        return self.info

    def login(self, prompt: PinPrompt, *, so: bool = False, last_try: bool = False) -> tuple[pkcs11.Session, str]:
        """A read-write session with the user, or the security officer, logged in, and the PIN that opened it.

        The PIN is asked for once, with no lock held, and sent once. Raises PinError, TokenRemoved or TokenError.
        """
        who = t("security officer's PIN") if so else t("PIN")
        info = self.info
        with LOCK:
            if self.slot_id in self.module.in_use:
                raise TokenError(t("{token} is already open in this program", token=self.title), "close it there first")
        refuse_risky_pin(info, self.title, so, last_try)
        pin = prompt(info)
        if not pin:
            # Some modules read an empty PIN as a request for their own PIN pad.
            raise PinNeeded(t("no {secret} was given for {token}", secret=who, token=self.title))
        with LOCK, one_at_a_time([self.module.path]):
            if self.slot_id in self.module.in_use:  # opened meanwhile: a second login would end that session
                raise TokenError(t("{token} is already open in this program", token=self.title), "close it there first")
            # An hour may have passed at the prompt: the PIN goes to no other token, and not to a last try.
            refuse_risky_pin(self.reread(), self.title, so, last_try)
            try:
                session = self.token.open(rw=True, so_pin=pin) if so else self.token.open(rw=True, user_pin=pin)
            except PKCS11Error as exc:
                # Its session stays open without a handle, and would block C_InitToken and the officer's login.
                with contextlib.suppress(PKCS11Error):
                    cryptoki.close_all_sessions(self.module.path, self.slot_id)
                raise self._after_failed_login(exc, so) from exc
            self.module.in_use.add(self.slot_id)
            return session, pin

    def _after_failed_login(self, exc: PKCS11Error, so: bool) -> MedcryptError:
        error = translate(exc, self, t("logging in"))
        if not isinstance(error, WrongPin):
            return PinLocked(error.message, _locked_hint(so)) if isinstance(error, PinLocked) else error
        with contextlib.suppress(MedcryptError):
            flags = self.reread().pin_flags
            prefix = "so-" if so else ""
            if prefix + "locked" in flags:
                return PinLocked(
                    t("{message}, and that was the last try: it is locked now", message=error.message), _locked_hint(so)
                )
            if prefix + "final-try" in flags:
                return WrongPin(t("{message}; one try is left", message=error.message), LastTry.hint, tries_left=1)
        return error

    def logout(self, session: pkcs11.Session) -> None:
        """Log out and close; a token that is gone needs neither."""
        with LOCK:
            self.closed = True
            self.module.in_use.discard(self.slot_id)
            try:
                session.close()
            except PKCS11Error:
                with contextlib.suppress(PKCS11Error):
                    cryptoki.close_all_sessions(self.module.path, self.slot_id)


def _paths(module_path: str | None, configured: Sequence[str]) -> list[str]:
    """Those to look into; a stored URI names one, and nothing has to be searched."""
    if module_path is not None:
        return [module_path]
    from medcrypt_hsm.tokens.pkcs11.module_paths import module_paths

    return module_paths(None, configured)


def find(uri: TokenUri, configured: Sequence[str] = (), *, blank: bool = False) -> SlotToken:
    """The one token that ``uri`` names. Raises TokenAbsent, TokenUnfit (blank, or ykcs11's), TokenError for two.

    ``blank``: blank tokens are wanted too, and a URI that names a module alone means its one blank token.
    """
    problems: list[str] = []
    paths = _paths(uri.module_path, configured)
    with LOCK, one_at_a_time(paths):
        modules = []
        for path in paths:
            try:
                modules.append(load(path))
            except TokenError as exc:
                if uri.module_path is not None:
                    raise
                problems.append(exc.message)
        found = _search(modules, uri, blank)
        if not found:
            with contextlib.suppress(TokenError):
                found = _search([module for module in modules if module.refresh()], uri, blank)
        for module in modules:
            module.fresh = False
    return _the_one(found, uri, blank, problems, bool(modules))


def list_infos(configured: Sequence[str] = ()) -> list[TokenInfo]:
    """Every token in every module; a module that fails is one entry with its ``problem``."""
    infos: list[TokenInfo] = []
    paths = _paths(None, configured)
    with LOCK, one_at_a_time(paths):
        for path in paths:
            try:
                module = load(path)
                module.refresh()
                module.fresh = False
                infos += [token.info for token in module.tokens()]
            except TokenError as exc:
                uri = format_uri(TokenUri(module_path=path))
                infos.append(TokenInfo(uri, "", "", "", "", False, False, frozenset(), exc.message))
    return infos


def _search(modules: Sequence[Module], uri: TokenUri, blank: bool) -> list[SlotToken]:
    found = [token for module in modules for token in module.tokens() if token.matches(uri)]
    set_up = [token for token in found if token.info.initialized]
    if blank and uri.names_a_token:
        return found
    if blank:
        return [token for token in found if token not in set_up]
    # A module alone, or a model, also fits the empty slot that some modules always show.
    return set_up or (found if uri.names_a_token else [])


def _the_one(
    found: list[SlotToken], uri: TokenUri, blank: bool, problems: Sequence[str], any_module: bool
) -> SlotToken:
    blanks = blank and not uri.names_a_token
    found = [token for token in found if not token.yubikey_uri] or found
    if len(found) > 1:
        values = {
            "count": len(found),
            "uri": uri,
            "serials": ", ".join(_text(token.token.serial) or "none" for token in found),
        }
        if blanks:
            many = t("{count} blank tokens fit '{uri}' (serials: {serials})", **values)
        else:
            many = t("{count} tokens fit '{uri}' (serials: {serials})", **values)
        raise TokenError(many, "add ';serial=' of the one you mean")
    if not found:
        if not any_module:
            from medcrypt_hsm.tokens.pkcs11.module_paths import VARIABLE

            hint = t("name its module with '?module-path=/…' or {variable}", variable=VARIABLE)
            none = t("no PKCS#11 module to look for '{uri}' in", uri=uri)
            raise TokenAbsent(joined("; ", (none, *problems)), hint)
        none = t("no blank token fits '{uri}'", uri=uri) if blanks else t("no token fits '{uri}'", uri=uri)
        raise TokenAbsent(joined("; ", (none, *problems)))
    if wanted := found[0].yubikey_uri:
        raise TokenUnfit(
            t("{token} is a YubiKey, which is not used by its PKCS#11 module", token=found[0].title),
            t("use '{uri}'", uri=wanted),
        )
    if not blank and not found[0].info.initialized:
        raise TokenUnfit(t("{token} is blank", token=found[0].title), _BLANK_HINT)
    return found[0]


def refuse_risky_pin(info: TokenInfo, title: str, so: bool, last_try: bool) -> None:
    prefix, who = ("so-", t("security officer's PIN")) if so else ("", t("PIN"))
    if prefix + "locked" in info.pin_flags:
        raise PinLocked(t("the {secret} of {token} is locked", secret=who, token=title), _locked_hint(so))
    if not so and not info.user_pin_set:
        raise TokenUnfit(t("{token} has no user PIN yet", token=title), NO_PIN_HINT)
    if prefix + "final-try" in info.pin_flags and not last_try:
        raise LastTry(t("one try is left for the {secret} of {token}", secret=who, token=title))


def _locked_hint(so: bool) -> str:
    return "only initialising it anew helps, which erases it: 'medcrypt token init'" if so else PinLocked.hint


def _text(serial: bytes) -> str:
    return serial.rstrip(b"\0 ").decode("utf-8", "replace")
