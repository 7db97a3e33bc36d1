"""What somebody can try with the file and one of several tokens, or by exchanging a token: each check by itself."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from medcrypt_hsm.errors import AuditBroken, MonthsBehind, TokenRemoved, TokenUnfit, VaultError, VaultRolledBack
from medcrypt_hsm.lifecycle import create
from medcrypt_hsm.lifecycle.enroll import TokenOptions
from medcrypt_hsm.month import Month
from medcrypt_hsm.tokens import TokenInfo
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import audit_key_name
from medcrypt_hsm.tokens.provision import initialize
from medcrypt_hsm.vault.audit.actions import VAULT_RESTORE
from medcrypt_hsm.vault.audit.entries import Entry, clear_entry
from medcrypt_hsm.vault.audit.trust import Policy
from medcrypt_hsm.vault.inspection import verify_file
from medcrypt_hsm.vault.store.rows import Location
from medcrypt_hsm.vault.store.store import create_store
from medcrypt_hsm.vault.unlock import unlock
from tests.support.added_token import on_token, vault_id
from tests.support.practice import Practice, pin, unlocked
from tests.support.softhsm import SO_PIN, USER_PIN, SoftHsm
from tests.support.store import by_hand, open_at, rows
from tests.support.vault_builder import VaultBuilder, canonical, ctx, sha256, u64
from tests.support.watched_token import WatchedToken
from tests.vault.test_anchoring import put_back


@dataclass
class Uris:
    spare: str
    third: str


@pytest.fixture(scope="module")
def uris(softhsm: SoftHsm, token_uri: str) -> Uris:
    return Uris(softhsm.make_token(), softhsm.make_token())


@pytest.fixture
def two(practice: Practice, uris: Uris) -> Practice:
    practice.add("spare", uris.spare)
    with practice.open(token="doctor") as vault:
        practice.pair(vault, "EXP-1")
    return practice


def append(practice: Practice, stored: bytes, signer: bytes, uri: str) -> None:
    """One more entry in the name of ``signer``, its head signed by the audit key on the token at ``uri``."""
    builder = VaultBuilder(vault=vault_id(practice))
    builder.trust = {(kind, name): value for kind, name, value in rows(practice.path, "trust")}
    before, trust = rows(practice.path, "entries")[-1], builder.trust_digest()
    hash_ = sha256(ctx("medcrypt/audit/entry", before[2], u64(before[0] + 1), trust, signer, stored))
    with open_token(uri, pin) as token:
        head = ctx("medcrypt/head", builder.vault, u64(before[0] + 1), hash_, trust)
        signature = token.sign(audit_key_name(builder.vault), head)
    with by_hand(practice.path) as db:
        row = (before[0] + 1, stored, hash_, trust, signer, signature)
        db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)


def restore_entry(token: str, abandoned: tuple[int, bytes]) -> bytes:
    detail = {"abandoned_sequence": abandoned[0], "abandoned_hash": abandoned[1].hex()}
    return clear_entry(Entry("2026-11-22T12:00:00Z", "mara", token, VAULT_RESTORE, token, "done", detail))


class TestRestoreEntry:
    """The spare token's holder puts an older file before the doctor's token, with a restore in the doctor's name."""

    @pytest.mark.parametrize("honest", [False, True])
    def test_its_own_head_must_be_the_doctors(self, two: Practice, uris: Uris, honest: bool) -> None:
        old = two.copy("old.db")
        with two.open(token="doctor") as vault:
            vault.encrypt("EXP-1", "x")
            vault.log.anchor()
        newest = rows(two.path, "entries")[-1]
        ids = {token.name: token.id for token in two.status().tokens}
        put_back(two, old)
        append(two, restore_entry("doctor", (newest[0], newest[2])), ids["doctor"], two.uri if honest else uris.spare)
        append(two, restore_entry("spare", (1, bytes(32))), ids["spare"], uris.spare)  # a head that verifies
        if honest:  # the same steps with the doctor's own signature are an interrupted restore
            two.open(token="doctor").close()
        else:
            with pytest.raises(AuditBroken, match="does not verify"):
                two.open(token="doctor")


class TestKeysetRows:
    def test_a_keyset_that_is_signed_for_another_token_is_not_unwrapped(self, two: Practice, uris: Uris) -> None:
        with two.open(token="doctor") as vault:
            state = unlocked(vault).state
            with unlocked(vault).change("test") as change:
                owner = {"token": state.tokens["doctor"].id.hex()}
                change.put_trust("keyset", "1:spare", state.keysets["1:spare"].value() | owner)
        with WatchedToken.open(uris.spare) as token:
            file = open_at(two.path)
            with pytest.raises(AuditBroken, match="the keyset on record is another token's"):
                unlock(file, token, "spare", actor="mara", clock=two.clock)
            file.close()
        assert "unwrap_keyset" not in token.calls

    def test_it_is_found_by_verifying_too(self, two: Practice) -> None:
        with two.open(token="doctor") as vault:
            keys = [token.audit_key for token in vault.status().tokens]
            with unlocked(vault).change("test") as change:
                change.put_trust("keyset", "1:spare", unlocked(vault).state.keysets["1:doctor"].value())
            with pytest.raises(AuditBroken, match="wrapped for no token of that name"):
                vault.log.verify()
        with pytest.raises(AuditBroken, match="wrapped for no token of that name"):
            verify_file(two.path, keys)

    @pytest.mark.parametrize("kek", ["", "00" * 91])
    @pytest.mark.parametrize("profile_on_record", ["aes-kw", "p256-hpke", "rot13"])
    def test_a_kek_that_cannot_be_the_tokens(self, two: Practice, kek: str, profile_on_record: str) -> None:
        with two.open(token="doctor") as vault:
            row = unlocked(vault).state.tokens["spare"].value()
            with unlocked(vault).change("test") as change:
                change.put_trust("token", "spare", row | {"kek": kek, "profile": profile_on_record})
            if (kek, profile_on_record) == ("", "aes-kw"):
                vault.log.verify()
            else:
                with pytest.raises(AuditBroken, match="token spare is on record otherwise"):
                    vault.log.verify()

    def test_a_token_without_one(self, two: Practice) -> None:
        with two.open(token="doctor") as vault, unlocked(vault).change("test") as change:
            change.delete_trust("keyset", "1:spare")
        with pytest.raises(TokenUnfit, match="was not there when the vault was re-keyed"):
            two.open(token="spare")


class TestTokensOnRecord:
    def test_one_that_was_introduced_and_is_not_on_record(self, two: Practice) -> None:
        with two.open(token="doctor") as vault:
            keys = [token.audit_key for token in vault.status().tokens]
            with unlocked(vault).change("test") as change:
                change.delete_trust("token", "spare")
            with pytest.raises(AuditBroken, match="tokens on record are not those that the log introduced"):
                vault.log.verify()
        with pytest.raises(AuditBroken, match="tokens on record are not those that the log introduced"):
            verify_file(two.path, keys)

    def test_one_under_another_name(self, two: Practice) -> None:
        with two.open(token="doctor") as vault:
            value = unlocked(vault).state.tokens["spare"].value()
            with unlocked(vault).change("test") as change:
                change.delete_trust("token", "spare")
                change.put_trust("token", "rescue", value)
            with pytest.raises(AuditBroken, match="tokens on record"):
                vault.log.verify()


class TestRestoringWithATokenThatMissedSomething:
    def test_a_token_that_it_never_heard_of_vouches_for_nothing(self, two: Practice, uris: Uris) -> None:
        old = two.copy("old.db")
        with two.open(token="spare") as vault:
            vault.encrypt("EXP-1", "x")
            vault.log.anchor()
        two.restore(old, token="doctor").close()
        two.add("third", uris.third, using="doctor")
        before = two.path.read_bytes()
        with pytest.raises(VaultRolledBack):
            two.open(token="spare")
        with pytest.raises(VaultError, match="does not remember as valid"):
            two.restore(two.path, token="spare")
        assert two.path.read_bytes() == before
        two.open(token="third").close()


class TestUnfinishedVaults:
    def begin(self, practice: Practice) -> Practice:
        """A creation that was interrupted when its token had all its objects."""
        made = Practice(practice.path.with_name("begun.db"), practice.uri, practice.clock)
        with WatchedToken.open(made.uri, unplugged_at="put_object") as token, pytest.raises(TokenRemoved):
            create.create(
                Location.parse(made.path),
                "doctor",
                token,
                options=TokenOptions(),
                rules=Policy(),
                actor="mara",
                clock=made.clock,
            )
        return made

    def held(self, begun: Practice) -> list[str]:
        (value,) = [value for _, _, value in rows(begun.path, "trust")]
        with open_token(begun.uri, pin) as token:
            return [name for name in token.names() if name.split()[2] in value.decode()]

    def test_only_the_token_that_began_it_clears_it(self, practice: Practice, uris: Uris) -> None:
        begun = self.begin(practice)
        before, held = begun.path.read_bytes(), self.held(begun)
        assert len(held) == 2
        with pytest.raises(VaultError, match="begun with another token"):
            Practice(begun.path, uris.spare, begun.clock).create()
        assert (begun.path.read_bytes(), self.held(begun)) == (before, held)
        begun.create().close()

    def test_a_token_that_has_used_the_vault_keeps_its_keys(self, two: Practice) -> None:
        """Somebody puts an unfinished file of a finished vault's id in its place, and has it 'finished'."""
        held = on_token(two, two.uri)
        genuine, id_ = two.copy("genuine.db"), vault_id(two)
        for beside in two.path.parent.glob("vault.db*"):
            beside.unlink()
        with open_token(two.uri, pin) as token:
            uri = token.info.uri
        create_store(Location.parse(two.path), ("vault", "", canonical({"id": id_.hex(), "unfinished": uri}))).close()
        with pytest.raises(VaultError, match="has used this vault already"):
            two.create()
        put_back(two, genuine)
        assert on_token(two, two.uri) == held
        two.open(token="doctor").close()


class TestClock:
    def test_nothing_is_entered_by_a_clock_that_is_months_ahead(self, practice: Practice) -> None:
        before = rows(practice.path, "entries")
        practice.clock.set("2027-03-01")
        with practice.open() as vault:
            hold = lambda: vault.holds.add("x", month=Month.parse("2026-11"))  # noqa: E731
            for act in (vault.log.anchor, lambda: vault.set_policy(grace_days=3), hold):
                with pytest.raises(MonthsBehind, match="the clock says 2027-03"):
                    act()
        assert rows(practice.path, "entries") == before
        practice.clock.set("2026-12-31")  # one month ahead opens by itself, and is no reason to refuse
        with practice.open() as vault:
            vault.log.anchor()


class TestExchangedAtThePrompt:
    def test_the_pin_goes_to_no_other_token(self, softhsm: SoftHsm) -> None:
        uri = softhsm.make_token()

        def exchange(info: TokenInfo) -> str:
            initialize(uri, "another", SO_PIN, USER_PIN, allow_reinit=True)
            return USER_PIN

        with pytest.raises(TokenRemoved, match="another token is in its place"):
            open_token(uri, exchange)
        softhsm.make_token()  # this process sees its tokens anew
