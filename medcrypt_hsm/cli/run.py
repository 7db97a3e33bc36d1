"""One run of one command: ``Run``, made of the global options, is what every command works with.

Where the vault is, where PINs come from, who is spoken to and where results go. How options are parsed is not here:
options.py and plain.py.
"""

from __future__ import annotations

import contextlib
import functools
import os

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.config import Config, load, own_directory
from medcrypt_hsm.cli.console import Console
from medcrypt_hsm.errors import Failed, MedcryptError, PinNeeded, UsageError
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Any

    from medcrypt_hsm import (
        Location,
        Month,
        MonthsOpened,
        Patients,
        SessionVault,
        Surroundings,
        TokenAccess,
        TokenInfo,
        Touch,
        Vault,
    )
    from medcrypt_hsm.cli.pins import Pins
    from medcrypt_hsm.session.client import Line
    from medcrypt_hsm.session.remote import Pairer

VAULT_VARIABLE = "MEDCRYPT_VAULT"
PIN_SOURCE_VARIABLE = "MEDCRYPT_PIN_SOURCE"
NO_SESSION_VARIABLE = "MEDCRYPT_NO_SESSION"
JOURNAL_VARIABLE = "MEDCRYPT_JOURNAL"


class Run:
    """One run of one command: its options, its person, its results. Made of every global option, by its name.

    Long because each way to a vault, in its session or with its PIN, is here.
    """

    def __init__(
        self,
        *,
        vault: str | None,
        token: str | None,
        pin_source: Sequence[str],
        so_pin_source: Sequence[str],
        puk_source: Sequence[str],
        secret_source: Sequence[str],
        no_session: bool,
        non_interactive: bool,
        yes: bool,
        last_try: bool,
        quiet: bool,
        verbose: bool,
        json: bool,
    ) -> None:
        """Wide because each global option is one, by its name (options.py)."""
        self.token = token
        self.yes = yes
        self.last_try = last_try
        self.json = json
        self.so_pin_source = so_pin_source
        self.puk_source = puk_source
        self.secret_source = secret_source
        self.months_opened: list[MonthsOpened] = []
        self.console = Console(quiet=quiet, verbose=verbose, may_ask=not non_interactive)
        self._vault = vault
        self._pin_source = pin_source
        self._no_session = no_session or os.environ.get(NO_SESSION_VARIABLE, "") not in ("", "0")

    # What was configured

    @functools.cached_property
    def config(self) -> Config:
        return load()

    @property
    def modules(self) -> tuple[str, ...]:
        return self.config.pkcs11_modules

    @functools.cached_property
    def vault_named(self) -> str:
        """The vault that is meant, as it was named."""
        named = self._vault or os.environ.get(VAULT_VARIABLE) or self.config.vault
        return named or os.path.join(_data_directory(), "vault.db")

    @functools.cached_property
    def location(self) -> Location:
        """The vault that is meant."""
        from medcrypt_hsm import Location

        return Location.parse(self.vault_named)

    @functools.cached_property
    def surroundings(self) -> Surroundings:
        from medcrypt_hsm import surroundings_of

        return surroundings_of(self.location)

    @property
    def journal_path(self) -> Path:
        """Where requester and custodian keep what their tokens signed, on their own machine."""
        from pathlib import Path

        return Path(os.environ.get(JOURNAL_VARIABLE) or os.path.join(_data_directory(), "journal"))

    @functools.cached_property
    def pin_source(self) -> Sequence[str]:
        if self._pin_source:
            return self._pin_source
        if from_environment := os.environ.get(PIN_SOURCE_VARIABLE, ""):
            from medcrypt_hsm.cli.pins import split_sources

            return split_sources(from_environment)
        return [self.config.pin_source] if self.config.pin_source else []

    # The token and the vault

    @functools.cached_property
    def pins(self) -> Pins:
        from medcrypt_hsm.cli.pins import Pins

        return Pins(self.console)

    def pin_prompt(self, *names: str) -> Callable[[TokenInfo], str]:
        """``names``: what the token is called here, beside its label, its serial and its name in the vault."""
        return self.pins.prompt(self.pin_source, "--pin-source", names=names)

    def access(self, *names: str) -> TokenAccess:
        """How this run reaches its token."""
        from medcrypt_hsm import TokenAccess

        return TokenAccess(self.pin_prompt(*names), self.last_try, self.modules, self.touch_prompt)

    def access_to_others(self) -> TokenAccess:
        """The same for the vault's other tokens."""
        return self.access()._replace(pin=self.other_pins())

    def other_pins(self) -> Callable[[TokenInfo], str]:
        """For the vault's other tokens: from sources that name one alone, since another's PIN would cost it a try."""
        prompt = self.pins.prompt(self._named_sources, "--pin-source")

        def ask(info: TokenInfo) -> str:
            try:
                return prompt(info)
            except PinNeeded as exc:
                exc.hint = "give it with '--pin-source NAME=…', or leave that token out with '--without NAME'"
                raise

        return ask

    def custodian_pins(self) -> Callable[[str], Callable[[TokenInfo], str]]:
        """The same for custodians, by name: each has a token and a PIN of their own."""

        def of(name: str) -> Callable[[TokenInfo], str]:
            prompt = self.pins.prompt(
                self._named_sources, "--pin-source", whose=t("custodian {custodian}", custodian=name), names=(name,)
            )

            def ask(info: TokenInfo) -> str:
                try:
                    return prompt(info)
                except PinNeeded as exc:
                    exc.hint = t("give it with '--pin-source {custodian}=…', or run at a terminal", custodian=name)
                    raise

            return ask

        return of

    @property
    def _named_sources(self) -> list[str]:
        from medcrypt_hsm.cli.pins import parse_source

        return [text for text in self.pin_source if parse_source(text, "--pin-source").name]

    @property
    def touch_prompt(self) -> Touch:
        return lambda info: self.console.waiting_for_touch(info.label)

    def unblocking(self, info: TokenInfo) -> tuple[Sequence[str], str, str]:
        """Where the secret comes from that sets this token's PIN anew, the option for it, and what it is called."""
        if info.unblocked_by == "puk":
            return self.puk_source, "--puk-source", t("PUK")
        return self.so_pin_source, "--so-pin-source", t("security officer's PIN")

    @contextlib.contextmanager
    def open_for_work(self, doing: str, *, archive: bool = False) -> Iterator[Vault | SessionVault]:
        """The vault that this terminal's session keeps unlocked; where none does, as ``open_vault``.

        For what a session offers. ``archive``: archived months are wanted, for which not every session was started.
        """
        line = self.in_session(archive=archive)
        if line is None:
            with self.open_vault(doing) as vault:
                yield vault
            return
        from medcrypt_hsm import SessionVault

        with self.console.working(doing), SessionVault(line) as found:
            yield found

    @contextlib.contextmanager
    def open_for_pairing(self, doing: str) -> Iterator[Patients | Pairer]:
        """What makes and confirms pairings: with the PIN in any case.

        A token that serves one program at a time is the agent's while a session runs: it gets the PIN, and does it.
        """
        line = self.in_session()
        if line is not None and line.exclusive:
            from medcrypt_hsm.session.remote import SessionVault, token_in_use

            if (info := token_in_use(self.vault_named, line.token)) is not None:
                with SessionVault(line) as found:
                    pin = self.access().pin(info)
                    with self.console.working(doing):
                        yield found.pairing(pin)
                return
        if line is not None:
            line.close()
        with self.open_vault(doing) as vault:
            yield vault.patients

    def in_session(self, *, archive: bool = False) -> Line | None:
        """The session that serves this command without a PIN; None where none does."""
        if self._no_session:
            return None
        from medcrypt_hsm.session import client

        try:
            line = client.find(self.vault_named)
        except Failed as exc:
            self.console.warn(exc.message)
            return None
        if line is None:
            return None
        if said := client.said_elsewhere(line.told):
            self.console.warn(said)
        if not (line.serves and self._is_named(line.token)) or (archive and not line.archive):
            line.close()
            return None
        line.on_opened, line.touch = self._month_opened, self.console.waiting_for_touch
        self.console.detail(t("vault {vault}", vault=self.vault_named))
        self.console.detail(t("in the session, with token {token}", token=line.token))
        return line

    def _is_named(self, token: str) -> bool:
        """Is the session's token the one that is meant?"""
        if self.token is None or self.token == token:
            return True
        if ":" not in self.token:
            return False
        from medcrypt_hsm import token_on_record

        try:
            return token_on_record(self.location, self.token).name == token
        except MedcryptError:
            return False

    @contextlib.contextmanager
    def open_vault(self, doing: str) -> Iterator[Vault]:
        """The vault, verified and unlocked with its PIN; leaving locks it. ``doing`` is said if that takes long."""
        from medcrypt_hsm import Vault

        self.make_way()
        self.console.detail(t("vault {vault}", vault=self.location))
        with self.console.working(doing):
            vault = Vault.open(
                self.location,
                pin=self.access(),
                token=self.token,
                on_month_opened=self._month_opened,
                end_session=self.end_session,
            )
            with vault:
                self.console.detail(t("unlocked with token {token}", token=vault.token_name))
                if (made := vault.finished) is not None:
                    what = f"{made.value['action']} {made.value['subject']}"
                    self.console.say(
                        t(
                            "finished what was interrupted: {action}; its certificate is {path}",
                            action=what,
                            path=made.files[1],
                        )
                    )
                yield vault

    def make_way(self) -> None:
        """End the vault's session if its token serves one program at a time; note one that was killed."""
        from medcrypt_hsm.session import client, place

        try:
            running = client.find(self.vault_named)
        except Failed as exc:
            self.console.warn(exc.message)
            return
        if running is None:
            if place.clear_dead(self.vault_named):
                from medcrypt_hsm.session.start import note_killed

                note_killed(self.location)
            return
        with running:
            exclusive = running.exclusive
            if said := client.said_elsewhere(running.told):
                self.console.warn(said)
        if exclusive and client.lock(self.vault_named, "exclusive"):
            self.console.say("locked the session: this needs the token itself, which serves one program at a time")

    def end_session(self) -> None:
        """A re-key begins, or old keys go: nobody keeps the vault unlocked meanwhile."""
        from medcrypt_hsm.session import client

        client.lock(self.vault_named, "rekey")

    def secret_variables(self) -> set[str]:
        """The environment variables that hold secrets, as far as the sources tell."""
        from medcrypt_hsm.cli.pins import parse_source

        texts = [*self.pin_source, *self.so_pin_source, *self.puk_source, *self.secret_source]
        sources = [parse_source(text, "--pin-source") for text in texts]
        return {source.where for source in sources if source.kind == "env"}

    # Results

    def result(self, document: dict[str, Any], text: str = "") -> None:
        """One JSON document, or words: ``text`` goes to stdout as it is."""
        if self.json:
            output.write_document(document)
        else:
            output.write(text)

    def _month_opened(self, opened: MonthsOpened) -> None:
        """A month opened by itself: its checkpoint is said at once, whatever becomes of the command."""
        self.months_opened.append(opened)
        months = ", ".join(map(str, opened.months))
        self.console.say(
            t(
                "opened {months} for {pairings} pairings; keep this checkpoint elsewhere:",
                months=months,
                pairings=opened.pairings,
            )
        )
        self.console.say_lines(opened.checkpoint)

    @property
    def month_opened(self) -> dict[str, Any]:
        """The month that opened by itself, if one did, as it stands in JSON beside the result."""
        if not self.months_opened:
            return {}
        opened = self.months_opened[-1]
        months = [str(month) for month in opened.months]
        return {
            "month_opened": {"months": months, "pairings": opened.pairings, "checkpoint": opened.checkpoint},
        }


def _data_directory() -> str:
    return own_directory("XDG_DATA_HOME", ".local/share")


def parse_month(text: str | None) -> Month | None:
    """Raises UsageError."""
    if text is None:
        return None
    from medcrypt_hsm import Month

    try:
        return Month.parse(text)
    except ValueError as exc:
        raise UsageError(t("{text!r} is not a month", text=text), str(exc)) from exc
