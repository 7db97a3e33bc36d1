"""``vault add-token`` below the command line: what it refuses, and what is left wherever it stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medcrypt_hsm.errors import (
    NotAuthentic,
    Refused,
    TokenRemoved,
    TokenUnfit,
    UsageError,
    VaultBusy,
    WrongPin,
)
from medcrypt_hsm.lifecycle import add_token
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.tokens import TOUCH_POLICIES
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name
from medcrypt_hsm.vault.anchoring import parse_anchor
from medcrypt_hsm.vault.unlock import unlock
from tests.support.added_token import WHOLE, Pulled, add, on_token, told, vault_id
from tests.support.checkout import FULL
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import USER_PIN, WRONG_PIN, SoftHsm
from tests.support.store import beside, open_at, rows

BOTH = pytest.mark.parametrize("new_profile", ["aes-kw", "p256-hpke"])


class TestPulledAtEveryCall:
    @pytest.fixture
    def fresh(self, tmp_path: Path, practice: Practice) -> Callable[[], Practice]:
        """A vault of its own for each point: a token that knows one file is not to be shown an older one."""

        def make() -> Practice:
            number = len(list(tmp_path.glob("vault-*")))
            made = Practice(tmp_path / f"vault-{number}" / "vault.db", practice.uri, practice.clock)
            made.create().close()
            return made

        return make

    def calls(self, practice: Practice, uri: str, wish: TokenOptions) -> dict[str, range]:
        """The calls that a whole add makes, of the present token once it is unlocked, and of the new one."""
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare:
            present, new = Pulled(token), Pulled(spare)
            file = open_at(practice.path)
            opened = unlock(file, present, "doctor", actor="mara", clock=practice.clock)  # type: ignore[arg-type]
            before = len(present.calls)
            add_token.add(opened, "spare", new, wish)  # type: ignore[arg-type]
            file.close()
        return {"present": range(before + 1, len(present.calls) + 1), "new": range(1, len(new.calls) + 1)}

    @BOTH
    @pytest.mark.parametrize(("which", "least"), [("present", 5), ("new", 12)])
    def test_the_present_token_works_on_and_the_next_run_completes_it(
        self, fresh: Callable[[], Practice], spare_uri: str, new_profile: str, which: str, least: int
    ) -> None:
        wish = TokenOptions(new_profile)
        points = self.calls(fresh(), spare_uri, wish)[which]
        assert len(points) >= least
        for at in points if FULL else points[::4]:
            practice = fresh()
            with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
                present = Pulled(token, at if which == "present" else None)
                new = Pulled(spare, at if which == "new" else None)
                with pytest.raises(TokenRemoved):
                    add(practice, present, new, wish=wish)  # type: ignore[arg-type]
            status = practice.status()
            done = [token.name for token in status.tokens] == ["doctor", "spare"]
            begun = any("adding token spare (serial" in problem for problem in status.problems)
            assert not (done and begun)
            assert begun or done or on_token(practice, spare_uri) == [], "objects that the file does not tell of"
            with practice.open(token="doctor") as vault:
                vault.log.verify()
            if done:  # only the present token's anchor was left
                with pytest.raises(UsageError, match="called spare"):
                    practice.add("spare", spare_uri, using="doctor", options=wish)
            else:
                practice.add("spare", spare_uri, using="doctor", options=wish)
            assert practice.status().problems == ()
            assert on_token(practice, spare_uri) == WHOLE
            for name in ("spare", "doctor"):
                with practice.open(token=name) as vault:
                    vault.log.verify()


class TestRefused:
    @pytest.mark.parametrize("name", ["doctor", "", "a b", "x=y", "x" * 33])
    def test_names(self, practice: Practice, spare_uri: str, name: str) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.tokens.add(name, spare_uri, pin=no_pin)

    def test_a_name_that_a_token_had_once(self, practice: Practice, spare_uri: str, softhsm: SoftHsm) -> None:
        practice.add("spare", spare_uri)
        with practice.open() as vault:
            with unlocked(vault).change("token.remove", "spare") as change:  # as a later version will
                change.delete_trust("token", "spare")
                change.delete_trust("keyset", "1:spare")
            with pytest.raises(UsageError, match="has, or had, a token called spare"):
                vault.tokens.add("spare", spare_uri, pin=no_pin)

    def test_the_token_that_is_open(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="registered already: it is doctor"):
            vault.tokens.add("again", practice.uri, pin=no_pin)

    def test_a_token_that_is_registered(self, practice: Practice, spare_uri: str) -> None:
        practice.add("spare", spare_uri)
        with practice.open(token="doctor") as vault, pytest.raises(UsageError, match="registered already: it is spare"):
            vault.tokens.add("again", spare_uri, pin=pin)
        with practice.open(token="spare") as vault:
            vault.log.verify()

    def test_a_wrong_pin_begins_nothing(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault:
            with pytest.raises(WrongPin):
                vault.tokens.add("spare", spare_uri, pin=lambda info: WRONG_PIN)
            assert practice.status().problems == ()
            failed = [entry.outcome for _, entry in vault.log.entries() if entry.action == "token.add"]
        assert failed == ["pin-wrong"]
        assert on_token(practice, spare_uri) == []

    @pytest.mark.parametrize("wish", [TokenOptions("rot13"), TokenOptions(touch="often")])
    def test_wishes_that_nobody_has(self, practice: Practice, spare_uri: str, wish: TokenOptions) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.tokens.add("spare", spare_uri, pin=no_pin, options=wish)

    @pytest.mark.parametrize("touch", [policy for policy in TOUCH_POLICIES if policy != "never"])
    def test_a_touch_that_the_token_does_not_know_leaves_nothing(
        self, practice: Practice, spare_uri: str, touch: str
    ) -> None:
        with practice.open() as vault, pytest.raises(TokenUnfit):
            vault.tokens.add("spare", spare_uri, pin=pin, options=TokenOptions(touch=touch))
        assert on_token(practice, spare_uri) == []
        assert practice.status().problems == ()
        told_of_it = [outcome for action, outcome in told(practice) if action == "token.add"]
        assert told_of_it == ["intended", "token-unfit"]

    def test_a_name_that_was_taken_while_the_pin_was_asked_for(
        self, practice: Practice, spare_uri: str, third_uri: str
    ) -> None:
        def ask(info: object) -> str:
            practice.elsewhere(f"vault.tokens.add('spare', {third_uri!r}, pin=lambda info: {USER_PIN!r})")
            return USER_PIN

        with practice.open() as vault, pytest.raises(UsageError, match="called spare"):
            vault.tokens.add("spare", spare_uri, pin=ask)
        assert on_token(practice, spare_uri) == []
        with practice.open(token="spare") as vault:
            assert vault.log.verify().keys == ("doctor", "spare")

    def test_while_another_one_adds(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault, beside(practice.path).alone(), pytest.raises(VaultBusy):
            vault.tokens.add("spare", spare_uri, pin=pin)

    def test_below_the_policy_leaves_nothing(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault:
            vault.set_policy(require_attestation="device-attested")
            with pytest.raises(Refused, match="device-attested, and this one is token-claimed"):
                vault.tokens.add("spare", spare_uri, pin=pin)
            vault.log.verify()
            entries = [(entry.action, entry.outcome) for _, entry in vault.log.entries()]
        assert ("token.add", "refused") in entries
        assert on_token(practice, spare_uri) == []
        assert not any("interrupted" in problem for problem in practice.status().problems)

    def test_below_a_policy_that_was_raised_meanwhile(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:

            class Slow(Pulled):
                def unwrap_keyset(self, *arguments: Any) -> Any:
                    practice.elsewhere("vault.set_policy(require_attestation='device-attested')")
                    return spare.unwrap_keyset(*arguments)

            with pytest.raises(Refused, match="device-attested, and this one is token-claimed"):
                add(practice, token, Slow(spare))  # type: ignore[arg-type]
        assert on_token(practice, spare_uri) == []
        assert [token.name for token in practice.status().tokens] == ["doctor"]
        with practice.open() as vault:
            vault.log.verify()


def no_pin(info: object) -> str:
    raise AssertionError("nobody should have been asked for a PIN")


class TestIntroducing:
    def test_the_present_token_remembers_it_at_once(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            add(practice, token, spare)
            (value,) = token.read_objects(anchor_name(vault_id(practice)))
            anchor = parse_anchor(value, token.public_key(audit_key_name(vault_id(practice))))
        ids = sorted(token.id for token in practice.status().tokens)
        assert len(ids) == 2
        assert (anchor.sequence, list(anchor.audit_keys)) == (len(rows(practice.path, "entries")), ids)

    def test_no_entry_in_the_clear_tells_of_a_failure(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:

            class Refusing(Pulled):
                def put_object(self, *arguments: Any) -> None:
                    raise NotAuthentic("no")

            with pytest.raises(NotAuthentic):
                add(practice, token, Refusing(spare))  # type: ignore[arg-type]
        told_of_it = [entry for entry in told(practice) if entry[0].startswith("token.")]
        assert told_of_it == [("token.introduce", "done"), ("token.add", "intended"), ("token.add", "not-authentic")]
        with practice.open() as vault:
            vault.log.verify()


class TestRemove:
    def test_a_refusal_is_recorded(self, practice: Practice, spare_uri: str) -> None:
        """The one in use, and the last one; how others are removed: test_sync.py."""
        with practice.open() as vault, pytest.raises(Refused, match="the vault's only token"):
            vault.tokens.remove("doctor")
        practice.add("spare", spare_uri)
        with practice.open(token="doctor") as vault, pytest.raises(Refused, match="the token in use"):
            vault.tokens.remove("doctor")
        assert told(practice).count(("token.remove", "refused")) == 2
        with practice.open(token="spare") as vault:
            vault.log.verify()

    def test_an_unknown_name(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="no token nobody"):
            vault.tokens.remove("nobody")
