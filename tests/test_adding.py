"""``vault add-token`` below the command line: what it refuses, and what is left wherever it stops."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pkcs11 import Attribute, KeyType, ObjectClass
from pkcs11.util.ec import encode_named_curve_parameters

from medcrypt_hsm import adding
from medcrypt_hsm.audit import parse_anchor
from medcrypt_hsm.errors import (
    MonthsBehind,
    NotAuthentic,
    Refused,
    TokenError,
    TokenRemoved,
    TokenUnfit,
    UsageError,
    VaultBusy,
    VaultError,
    VaultRolledBack,
    WrongPin,
)
from medcrypt_hsm.inspection import status_of_file
from medcrypt_hsm.registering import Wish
from medcrypt_hsm.secret import Secret
from medcrypt_hsm.tokens import TOUCH_POLICIES, Token, open_token
from medcrypt_hsm.unlock import unlock
from medcrypt_hsm.unlocked import anchor_name, audit_key_name
from medcrypt_hsm.vault import VaultFile, alone
from tests.support import USER_PIN, WRONG_PIN, SoftHsm
from tests.support_practice import Practice, pin, rows, unlocked
from tests.support_tokens import WatchedToken
from tests.test_spare_tokens import put_back

BOTH = pytest.mark.parametrize("new_profile", ["aes-kw", "p256-hpke"])


@pytest.fixture(scope="module")
def spare_uri(softhsm: SoftHsm, token_uri: str) -> str:
    return softhsm.make_token()


def vault_id(practice: Practice) -> bytes:
    return bytes.fromhex(status_of_file(practice.path).vault_id)


def on_token(practice: Practice, uri: str) -> list[str]:
    """What the token holds of this vault, as the words between "medcrypt" and the vault's id."""
    with open_token(uri, pin) as token:
        return [name.split()[1] for name in token.names() if vault_id(practice).hex() in name]


def told(practice: Practice, using: str = "doctor") -> list[tuple[str, str]]:
    """Action and outcome of every entry."""
    with practice.open(token=using) as vault:
        return [(entry.action, entry.outcome) for _, entry in vault.audit_entries()]


WHOLE = ["anchor", "audit", "kek"]


class Pulled:
    """A real token that is pulled out at its ``at``-th call, and cannot be reached from then on."""

    def __init__(self, token: Token, at: int | None = None) -> None:
        self._token, self._at = token, at
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._token, name)
        if not callable(found) or name == "close":
            return found

        def passed_on(*arguments: Any, **more: Any) -> Any:
            self.calls.append(name)
            if self._at is not None and len(self.calls) >= self._at:
                raise TokenRemoved("the token was removed")
            return found(*arguments, **more)

        return passed_on


def add(
    practice: Practice,
    present: Token,
    new: Token,
    name: str = "spare",
    wish: Wish = Wish(),  # noqa: B008 - frozen
) -> None:
    """The library's ``add_token`` with tokens of the test's own."""
    file = VaultFile.open(practice.path)
    try:
        adding.add(unlock(file, present, "doctor", actor="mara", clock=practice.clock), name, new, wish)
    finally:
        file.close()


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

    def calls(self, practice: Practice, uri: str, wish: Wish) -> dict[str, range]:
        """The calls that a whole add makes, of the present token once it is unlocked, and of the new one."""
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare:
            present, new = Pulled(token), Pulled(spare)
            file = VaultFile.open(practice.path)
            opened = unlock(file, present, "doctor", actor="mara", clock=practice.clock)  # type: ignore[arg-type]
            before = len(present.calls)
            adding.add(opened, "spare", new, wish)  # type: ignore[arg-type]
            file.close()
        return {"present": range(before + 1, len(present.calls) + 1), "new": range(1, len(new.calls) + 1)}

    @BOTH
    @pytest.mark.parametrize(("which", "least"), [("present", 5), ("new", 12)])
    def test_the_present_token_works_on_and_the_next_run_completes_it(
        self, fresh: Callable[[], Practice], spare_uri: str, new_profile: str, which: str, least: int
    ) -> None:
        wish = Wish(new_profile)
        points = self.calls(fresh(), spare_uri, wish)[which]
        assert len(points) >= least
        for at in points:
            practice = fresh()
            with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
                present = Pulled(token, at if which == "present" else None)
                new = Pulled(spare, at if which == "new" else None)
                with pytest.raises(TokenRemoved):
                    add(practice, present, new, wish=wish)  # type: ignore[arg-type]
            status = status_of_file(practice.path)
            done = [token.name for token in status.tokens] == ["doctor", "spare"]
            begun = any("adding token spare (serial" in problem for problem in status.problems)
            assert not (done and begun)
            assert begun or done or on_token(practice, spare_uri) == [], "objects that the file does not tell of"
            with practice.open(token="doctor") as vault:
                vault.verify()
            if done:  # only the present token's anchor was left
                with pytest.raises(UsageError, match="called spare"):
                    practice.add("spare", spare_uri, using="doctor", wish=wish)
            else:
                practice.add("spare", spare_uri, using="doctor", wish=wish)
            assert status_of_file(practice.path).problems == ()
            assert on_token(practice, spare_uri) == WHOLE
            for name in ("spare", "doctor"):
                with practice.open(token=name) as vault:
                    vault.verify()


class TestRefused:
    @pytest.mark.parametrize("name", ["doctor", "", "a b", "x=y", "x" * 33])
    def test_names(self, practice: Practice, spare_uri: str, name: str) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.add_token(name, spare_uri, pin=no_pin)

    def test_a_name_that_a_token_had_once(self, practice: Practice, spare_uri: str, softhsm: SoftHsm) -> None:
        practice.add("spare", spare_uri)
        with practice.open() as vault:
            with unlocked(vault).change("token.remove", "spare") as change:  # as a later version will
                change.delete_trust("token", "spare")
                change.delete_trust("keyset", "1:spare")
            with pytest.raises(UsageError, match="has, or had, a token called spare"):
                vault.add_token("spare", spare_uri, pin=no_pin)

    def test_the_token_that_is_open(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="registered already: it is doctor"):
            vault.add_token("again", practice.uri, pin=no_pin)

    def test_a_token_that_is_registered(self, practice: Practice, spare_uri: str) -> None:
        practice.add("spare", spare_uri)
        with practice.open(token="doctor") as vault, pytest.raises(UsageError, match="registered already: it is spare"):
            vault.add_token("again", spare_uri, pin=pin)
        with practice.open(token="spare") as vault:
            vault.verify()

    def test_a_wrong_pin_begins_nothing(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault:
            with pytest.raises(WrongPin):
                vault.add_token("spare", spare_uri, pin=lambda info: WRONG_PIN)
            assert status_of_file(practice.path).problems == ()
            failed = [entry.outcome for _, entry in vault.audit_entries() if entry.action == "token.add"]
        assert failed == ["pin-wrong"]
        assert on_token(practice, spare_uri) == []

    @pytest.mark.parametrize("wish", [Wish("rot13"), Wish(touch="often")])
    def test_wishes_that_nobody_has(self, practice: Practice, spare_uri: str, wish: Wish) -> None:
        with practice.open() as vault, pytest.raises(UsageError):
            vault.add_token("spare", spare_uri, pin=no_pin, wish=wish)

    @pytest.mark.parametrize("touch", [policy for policy in TOUCH_POLICIES if policy != "never"])
    def test_a_touch_that_the_token_does_not_know_leaves_nothing(
        self, practice: Practice, spare_uri: str, touch: str
    ) -> None:
        with practice.open() as vault, pytest.raises(TokenUnfit):
            vault.add_token("spare", spare_uri, pin=pin, wish=Wish(touch=touch))
        assert on_token(practice, spare_uri) == []
        assert status_of_file(practice.path).problems == ()
        told_of_it = [outcome for action, outcome in told(practice) if action == "token.add"]
        assert told_of_it == ["intended", "token-unfit"]

    def test_a_name_that_was_taken_while_the_pin_was_asked_for(
        self, practice: Practice, spare_uri: str, third_uri: str
    ) -> None:
        def ask(info: object) -> str:
            practice.elsewhere(f"vault.add_token('spare', {third_uri!r}, pin=lambda info: {USER_PIN!r})")
            return USER_PIN

        with practice.open() as vault, pytest.raises(UsageError, match="called spare"):
            vault.add_token("spare", spare_uri, pin=ask)
        assert on_token(practice, spare_uri) == []
        with practice.open(token="spare") as vault:
            assert vault.verify().keys == ("doctor", "spare")

    def test_while_another_one_adds(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault, alone(practice.path.parent), pytest.raises(VaultBusy):
            vault.add_token("spare", spare_uri, pin=pin)

    def test_below_the_policy_leaves_nothing(self, practice: Practice, spare_uri: str) -> None:
        with practice.open() as vault:
            vault.set_policy(require_attestation="device-attested")
            with pytest.raises(Refused, match="device-attested, and this one is token-claimed"):
                vault.add_token("spare", spare_uri, pin=pin)
            vault.verify()
            entries = [(entry.action, entry.outcome) for _, entry in vault.audit_entries()]
        assert ("token.add", "refused") in entries
        assert on_token(practice, spare_uri) == []
        assert not any("interrupted" in problem for problem in status_of_file(practice.path).problems)

    def test_below_a_policy_that_was_raised_meanwhile(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:

            class Slow(Pulled):
                def unwrap_keyset(self, *arguments: Any) -> Any:
                    practice.elsewhere("vault.set_policy(require_attestation='device-attested')")
                    return spare.unwrap_keyset(*arguments)

            with pytest.raises(Refused, match="device-attested, and this one is token-claimed"):
                add(practice, token, Slow(spare))  # type: ignore[arg-type]
        assert on_token(practice, spare_uri) == []
        assert [token.name for token in status_of_file(practice.path).tokens] == ["doctor"]
        with practice.open() as vault:
            vault.verify()


def no_pin(info: object) -> str:
    raise AssertionError("nobody should have been asked for a PIN")


class TestLeftovers:
    def interrupt(self, practice: Practice, uri: str, at: int) -> None:
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare, pytest.raises(TokenRemoved):
            add(practice, token, Pulled(spare, at))  # type: ignore[arg-type]

    def interrupt_before_introducing(self, practice: Practice, uri: str) -> None:
        """Its anchor is written, and the entry is not: the present token goes when it is to sign that."""
        with open_token(practice.uri, pin) as token, open_token(uri, pin) as spare:
            new = Pulled(spare)
            present = WhenAnchored(token, new)
            with pytest.raises(TokenRemoved):
                add(practice, present, new)  # type: ignore[arg-type]
        assert on_token(practice, uri) == WHOLE

    def test_are_cleared_by_the_next_run(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        with open_token(spare_uri, pin) as token:
            old = token.public_key(audit_key_name(vault_id(practice)))
        practice.add("spare", spare_uri)
        with open_token(spare_uri, pin) as token:
            assert token.public_key(audit_key_name(vault_id(practice))) != old
        assert on_token(practice, spare_uri) == WHOLE

    def test_under_another_name_too(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        practice.add("reserve", spare_uri)
        assert status_of_file(practice.path).problems == ()

    def test_stay_where_the_file_is_older_than_they_are(self, practice: Practice, spare_uri: str) -> None:
        older = practice.copy("older.db")
        self.interrupt_before_introducing(practice, spare_uri)
        put_back(practice, older)
        with practice.open() as vault, pytest.raises(VaultRolledBack, match="history that this file does not have"):
            vault.add_token("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE
        assert ("token.add", "intended") not in told(practice)

    def test_stay_where_the_file_went_another_way_since(self, practice: Practice, spare_uri: str) -> None:
        older = practice.copy("older.db")
        self.interrupt_before_introducing(practice, spare_uri)
        put_back(practice, older)
        with practice.open() as vault:
            for _ in range(4):
                vault.audit_entries()  # each makes an entry
            with pytest.raises(VaultRolledBack, match="history that this file does not have"):
                vault.add_token("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE

    def test_stay_before_the_intent_is_signed(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        practice.clock.set("2027-03-01")
        with practice.open() as vault, pytest.raises(MonthsBehind):
            vault.add_token("spare", spare_uri, pin=pin)
        assert on_token(practice, spare_uri) == WHOLE

    def test_of_a_token_that_died_while_it_made_its_audit_key(self, practice: Practice, spare_uri: str) -> None:
        """What is left of it can be a public key that is none; here one of another curve stands for it."""
        name = audit_key_name(vault_id(practice))
        curve = {Attribute.EC_PARAMS: encode_named_curve_parameters("secp384r1")}
        self.interrupt(practice, spare_uri, 6)
        with WatchedToken.open(spare_uri) as token:
            token.destroy(name)
            domain = token._session.create_domain_parameters(KeyType.EC, curve, local=True)
            domain.generate_keypair(label=name, store=True)
            with pytest.raises(TokenUnfit):
                token.public_key(name)
        practice.add("spare", spare_uri)
        assert on_token(practice, spare_uri) == WHOLE

    def test_an_anchor_that_no_key_there_signed_is_no_leftover(self, practice: Practice, spare_uri: str) -> None:
        self.interrupt_before_introducing(practice, spare_uri)
        with open_token(spare_uri, pin) as token:
            token.destroy(audit_key_name(vault_id(practice)))
        held = on_token(practice, spare_uri)
        with pytest.raises(VaultError, match="no audit key that could have signed it"):
            practice.add("spare", spare_uri)
        assert on_token(practice, spare_uri) == held == ["anchor", "kek"]

    def test_an_exchanged_public_key_makes_no_leftover_of_a_registered_token(
        self, practice: Practice, spare_uri: str
    ) -> None:
        """A public key object can be exchanged without the PIN; what it hides must not be destroyed."""
        practice.add("spare", spare_uri)
        name = audit_key_name(vault_id(practice))
        point = ec.generate_private_key(ec.SECP256R1()).public_key()
        encoded = point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        mine = {
            Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.KEY_TYPE: KeyType.EC, Attribute.TOKEN: True,
            Attribute.LABEL: name, Attribute.EC_PARAMS: encode_named_curve_parameters("secp256r1"),
            Attribute.EC_POINT: b"\x04\x41" + encoded,
        }  # fmt: skip
        with WatchedToken.open(spare_uri) as token:
            public = {Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: name}
            for key in list(token._session.get_objects(public)):
                key.destroy()
            token._session.create_object(mine)
        with pytest.raises(VaultError, match="no audit key that could have signed it"):
            practice.add("again", spare_uri)
        assert on_token(practice, spare_uri) == WHOLE

    def test_of_another_vault_stay(self, practice: Practice, spare_uri: str) -> None:
        other = Practice(practice.path.with_name("other.db"), spare_uri, practice.clock)
        other.create().close()
        self.interrupt_before_introducing(practice, spare_uri)
        practice.add("spare", spare_uri)
        assert on_token(other, spare_uri) == WHOLE
        with other.open() as vault:
            vault.verify()

    def test_a_name_begun_with_another_token_says_so(self, practice: Practice, spare_uri: str, third_uri: str) -> None:
        self.interrupt(practice, spare_uri, 6)
        with pytest.raises(UsageError, match="was begun with another token") as caught:
            practice.add("spare", third_uri)
        assert "remove-token spare" in caught.value.hint
        with practice.open() as vault:
            vault.remove_token("spare")
        practice.add("spare", third_uri)
        assert status_of_file(practice.path).problems == ()


@pytest.fixture(scope="module")
def third_uri(softhsm: SoftHsm, spare_uri: str) -> str:
    return softhsm.make_token()


class WhenAnchored(Pulled):
    """Is pulled out as soon as the new token has its anchor."""

    def __init__(self, token: Token, new: Pulled) -> None:
        super().__init__(token)
        self._new = new

    def __getattr__(self, name: str) -> Any:
        if "put_object" in self._new.calls and name != "close":
            raise TokenRemoved("the token was removed")
        return super().__getattr__(name)


class TestIntroducing:
    def test_the_present_token_remembers_it_at_once(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            add(practice, token, spare)
            (value,) = token.read_objects(anchor_name(vault_id(practice)))
            anchor = parse_anchor(value, token.public_key(audit_key_name(vault_id(practice))))
        ids = sorted(token.id for token in status_of_file(practice.path).tokens)
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
            vault.verify()


class TestRemove:
    def test_a_registered_token_is_refused_and_the_refusal_recorded(self, practice: Practice, spare_uri: str) -> None:
        practice.add("spare", spare_uri)
        for name in ("spare", "doctor"):
            with practice.open(token="doctor") as vault, pytest.raises(Refused, match="until the vault is re-keyed"):
                vault.remove_token(name)
        assert told(practice).count(("token.remove", "refused")) == 2
        with practice.open(token="spare") as vault:
            vault.verify()

    def test_an_unknown_name(self, practice: Practice) -> None:
        with practice.open() as vault, pytest.raises(UsageError, match="no token nobody"):
            vault.remove_token("nobody")


class TestTheKeyset:
    def test_it_is_in_host_memory_for_the_wrapping_alone(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            seen: list[Secret] = []
            wiped_by: list[bool] = []

            class Watched(Pulled):
                def unwrap_keyset_to_host(self, *arguments: Any) -> Sequence[Secret]:
                    found = token.unwrap_keyset_to_host(*arguments)
                    seen.extend(found)
                    return found

            class New(Pulled):
                def sign(self, *arguments: Any) -> bytes:  # the anchor: the last thing before the introduction
                    wiped_by.extend(is_wiped(secret) for secret in seen)
                    return spare.sign(*arguments)

            add(practice, Watched(token), New(spare))  # type: ignore[arg-type]
        assert wiped_by == [True, True, True]

    def test_it_is_wiped_when_the_wrapping_fails(self, practice: Practice, spare_uri: str) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:
            seen: list[Secret] = []

            class Watched(Pulled):
                def unwrap_keyset_to_host(self, *arguments: Any) -> Sequence[Secret]:
                    found = token.unwrap_keyset_to_host(*arguments)
                    seen.extend(found)
                    return found

            class New(Pulled):
                def wrap_keyset(self, *arguments: Any) -> bytes:
                    raise TokenError("no")

            with pytest.raises(TokenError):
                add(practice, Watched(token), New(spare))  # type: ignore[arg-type]
        assert [is_wiped(secret) for secret in seen] == [True, True, True]

    @pytest.mark.parametrize("which", [0, 1, 2])
    def test_a_token_that_gives_another_one_back_is_unfit(self, practice: Practice, spare_uri: str, which: int) -> None:
        with open_token(practice.uri, pin) as token, open_token(spare_uri, pin) as spare:

            class Other(Pulled):
                def wrap_keyset(self, kek: str, keyset: tuple[bytes, bytes, bytes], info: bytes) -> bytes:
                    wrong = tuple(bytes(32) if at == which else key for at, key in enumerate(keyset))
                    return spare.wrap_keyset(kek, wrong, info)  # type: ignore[arg-type]

            with pytest.raises(TokenUnfit, match="came back"):
                add(practice, token, Other(spare))  # type: ignore[arg-type]
        assert on_token(practice, spare_uri) == []
        assert status_of_file(practice.path).problems == ()


def is_wiped(secret: Secret) -> bool:
    try:
        return not any(secret.value)
    except RuntimeError:
        return True
