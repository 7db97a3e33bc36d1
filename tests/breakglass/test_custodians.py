"""A new break-glass key on custodians' tokens, within what will commit it: whole and proven, or nothing of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from medcrypt_hsm.breakglass.custodians import Candidate, Wanted, check_names, made
from medcrypt_hsm.crypto import shamir, xwing
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.lifecycle import shares
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.tokens.names import kek_name
from medcrypt_hsm.vault.audit.rules import BreakGlassRefused
from medcrypt_hsm.vault.audit.trust_custody import MOST
from medcrypt_hsm.vault.unlocked import Unlocked
from tests.support.breakglass import CUSTODIANS, Circle
from tests.support.practice import pin, unlocked


@contextmanager
def candidates(circle: Circle) -> Iterator[tuple[Unlocked, list[Candidate]]]:
    """The vault, and the custodians' tokens, open."""
    with circle.practice.open() as vault, ExitStack() as stack:
        yield (
            unlocked(vault),
            [Candidate(who, stack.enter_context(open_token(circle.uris[who], pin))) for who in CUSTODIANS],
        )


def test_the_shares_on_the_tokens_are_the_seed_and_go_with_a_ceremony_that_comes_to_nothing(circle: Circle) -> None:
    def interrupted(vault: Unlocked, people: Sequence[Candidate]) -> None:
        with made(vault, Wanted(people, 2)) as custody, ExitStack() as opened:
            assert [(one.name, one.x) for one in custody.custodians] == [("ana", 1), ("berta", 2), ("carla", 3)]
            assert xwing.public_key(custody.seed.value) == custody.key
            found = {}
            for one, told in zip(people, custody.custodians, strict=True):
                record = shares.read_record(one.token, vault.state.vault_id, custody.ceremony)
                found[record.x] = opened.enter_context(shares.open_share(one.token, record, told.commitment)).value
            for pair in itertools.combinations(found, 2):
                with shamir.combine({x: found[x] for x in pair}) as seed:
                    assert seed.value == custody.seed.value
            raise KeyboardInterrupt

    with candidates(circle) as (vault, people):
        before = [one.token.names() for one in people]
        with pytest.raises(KeyboardInterrupt):
            interrupted(vault, people)
        assert [one.token.names() for one in people] == before


def test_a_token_that_holds_a_root_key_of_the_vault_gets_no_share(circle: Circle) -> None:
    """BG-1 by what is on it: it may be a spare whose row was taken away, and a serial is only a claim."""
    with candidates(circle) as (vault, people):
        kek = kek_name(vault.state.vault_id, 7)
        people[1].token.make_kek(kek, "aes-kw")
        try:
            refused = pytest.raises(BreakGlassRefused, match="the token for berta holds keys of this vault")
            with refused as caught, made(vault, Wanted(people, 2)):
                pass
            assert caught.value.hint == "use another token"
        finally:
            people[1].token.destroy(kek)


def test_as_many_as_a_log_can_name() -> None:
    names = [f"custodian-{number}" for number in range(MOST + 1)]
    check_names(names[:MOST], MOST)
    with pytest.raises(UsageError) as refused:
        check_names(names, 2)
    assert refused.value.message == "2 of 17 custodians cannot be"
    assert refused.value.hint.endswith("at most the number of custodians, which is at most 16")
