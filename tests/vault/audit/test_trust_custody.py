"""Who can open the practice in an emergency, as its rows say: one whole ceremony, or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from medcrypt_hsm.notation import canonical
from medcrypt_hsm.vault.audit import trust_custody
from medcrypt_hsm.vault.audit.trust_custody import CUSTODIAN_TOLD, FIELDS, BreakGlass
from tests.support.two_readers_breakglass import Emergency

Kinds = dict[str, dict[str, Any]]


def kinds(log: Emergency) -> Kinds:
    found: Kinds = {kind: {} for kind in FIELDS}
    for (kind, name), value in log.trust.items():
        if kind in found:
            found[kind][name] = json.loads(value)
    return found


@pytest.fixture(scope="module")
def rotated() -> Kinds:
    """A second ceremony, after a use for one patient."""
    return kinds(Emergency().ready().noted().rotated())


def test_what_is_read_is_written_again(rotated: Kinds) -> None:
    breakglass, old_shares, uses = trust_custody.parse(rotated)
    assert breakglass is not None
    assert [custodian.name for custodian in breakglass.in_order()] == ["anna", "ben", "carla"]
    assert (len(old_shares), [use.scope for use in uses]) == (3, ["patient"])
    assert uses[0].answered == breakglass.since
    written: Kinds = {kind: {} for kind in FIELDS}
    for kind, name, told in trust_custody.rows(breakglass, old_shares, uses):
        written[kind][name] = FIELDS[kind].value(told)
    assert canonical(written) == canonical(rotated)


def test_before_the_first_ceremony_there_is_none() -> None:
    assert trust_custody.parse({kind: {} for kind in FIELDS}) == (None, (), ())


@pytest.mark.parametrize(
    "change",
    [
        lambda kinds: kinds["escrow"].clear(),
        lambda kinds: kinds["custodian"].clear(),
        lambda kinds: kinds["breakglass"].clear(),
        lambda kinds: kinds["breakglass"][""].update(threshold=1),
        lambda kinds: kinds["breakglass"][""].update(threshold=4),
        lambda kinds: kinds["breakglass"].update(other=kinds["breakglass"].pop("")),
    ],
    ids=["no escrow", "no custodians", "no ceremony", "one alone", "more than there are", "another name"],
)
def test_no_half_of_one(rotated: Kinds, change: Callable[[Kinds], object]) -> None:
    found: Kinds = json.loads(canonical(rotated))
    change(found)
    with pytest.raises(ValueError):
        trust_custody.parse(found)


def test_the_log_is_told_no_address_of_a_custodians_token(rotated: Kinds) -> None:
    breakglass, *_ = trust_custody.parse(rotated)
    assert isinstance(breakglass, BreakGlass)
    told = breakglass.custodians["ben"].told()
    assert set(told) == set(CUSTODIAN_TOLD)
    assert not {"uri", "label", "drilled"} & set(told)
