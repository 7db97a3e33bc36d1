"""The vault's policy: shown, changed, recorded, and obeyed where tokens are registered and months are read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medcrypt_hsm import Vault
from medcrypt_hsm.errors import Refused, UsageError
from medcrypt_hsm.tokens.access import open_token
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit.trust import Policy
from tests.support.practice import Practice, pin, statuses
from tests.support.store import rows


def last_change(vault: Vault) -> Any:
    return [entry.detail for _, entry in vault.log.entries() if entry.action == "vault.policy"][-1]


class TestChange:
    def test_it_is_recorded_with_old_and_new_and_survives(self, practice: Practice) -> None:
        with practice.open() as vault:
            assert vault.policy == Policy(7, 60, "none")
            vault.set_policy(grace_days=3, retain_months=120)
            assert last_change(vault) == {
                "old": {"grace_days": 7, "retain_months": 60, "require_attestation": "none"},
                "new": {"grace_days": 3, "retain_months": 120, "require_attestation": "none"},
            }
        with practice.open() as vault:
            assert vault.policy == Policy(3, 120, "none")
            vault.set_policy(require_attestation="token-claimed")
            assert vault.policy == Policy(3, 120, "token-claimed")
            vault.log.verify()
        assert practice.status().policy == Policy(3, 120, "token-claimed")

    def test_no_difference_writes_nothing(self, practice: Practice) -> None:
        before = rows(practice.path, "entries")
        with practice.open() as vault:
            vault.set_policy(grace_days=7)
            vault.set_policy()
        assert rows(practice.path, "entries") == before

    @pytest.mark.parametrize(
        "change",
        [
            {"grace_days": -1},
            {"grace_days": 29},
            {"retain_months": 0},
            {"retain_months": 1201},
            {"require_attestation": "not-attested"},
            {"require_attestation": "certainly"},
        ],
    )
    def test_out_of_bounds(self, practice: Practice, change: dict[str, Any]) -> None:
        before = rows(practice.path, "entries")
        with practice.open() as vault, pytest.raises(UsageError):
            vault.set_policy(**change)
        assert rows(practice.path, "entries") == before
        with pytest.raises(UsageError):
            policy.check(Policy(**change))

    def test_of_two_sessions_the_later_builds_on_the_earlier(self, practice: Practice) -> None:
        with practice.open() as vault:
            practice.elsewhere("vault.set_policy(grace_days=5)")
            assert vault.set_policy(retain_months=72) == Policy(5, 72, "none")


class TestGraceDays:
    @pytest.mark.parametrize(("days", "last"), [(0, None), (1, "2026-12-01"), (7, "2026-12-07"), (28, "2026-12-28")])
    def test_they_are_what_reading_and_status_go_by(self, practice: Practice, days: int, last: str | None) -> None:
        with practice.open() as vault:
            vault.set_policy(grace_days=days)
            phone = practice.pair(vault, "EXP-1")
            texts = phone.write("uno") + phone.write("dos")
            for day, text, expected in (
                (last, texts[0], "ok"),
                ((last or "2026-12-00")[:8] + f"{days + 1:02}", texts[1], "month-stale"),
            ):
                if day is not None:
                    practice.clock.set(day)
                    assert statuses(vault.decrypt(text)) == [expected]
                    assert dict(vault.status().months)["2026-11"] == ("grace" if expected == "ok" else "archived")


class TestRequiredGrade:
    def test_order(self) -> None:
        grades = ("not-attested", "token-claimed", "device-attested")
        allowed = {
            required: [grade for grade in grades if policy.meets(Policy(require_attestation=required), grade)]
            for required in policy.requirements()
        }
        assert allowed == {
            "none": list(grades),
            "token-claimed": ["token-claimed", "device-attested"],
            "device-attested": ["device-attested"],
        }
        assert not policy.meets(Policy(require_attestation="token-claimed"), "of a later version")

    def test_a_vault_is_not_created_with_a_token_below_it(self, practice: Practice) -> None:
        other = Practice(practice.path.with_name("other.db"), practice.uri, practice.clock)
        with open_token(practice.uri, pin) as token:
            before = token.names()
        with pytest.raises(Refused, match="device-attested, and this one is token-claimed"):
            other.create(policy=Policy(require_attestation="device-attested"))
        with open_token(practice.uri, pin) as token:
            assert token.names() == before
        assert not other.path.exists()
        with other.create(policy=Policy(require_attestation="token-claimed")) as vault:
            assert vault.policy.require_attestation == "token-claimed"
            assert vault.status().tokens[0].attestation == "token-claimed"

    def test_status_names_tokens_that_are_below_it(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.set_policy(require_attestation="device-attested")
        (problem,) = practice.status().problems
        assert problem == "token doctor is token-claimed, below what the policy requires: device-attested"
        with practice.open() as vault:  # it goes on working
            practice.pair(vault, "EXP-1")
            vault.set_policy(require_attestation="token-claimed")
        assert practice.status().problems == ()

    def test_it_is_in_the_signed_trust_state(self, practice: Practice) -> None:
        with practice.open() as vault:
            vault.set_policy(require_attestation="token-claimed")
        (value,) = [value for kind, _, value in rows(practice.path, "trust") if kind == "policy"]
        assert json.loads(value) == {"grace_days": 7, "require_attestation": "token-claimed", "retain_months": 60}
