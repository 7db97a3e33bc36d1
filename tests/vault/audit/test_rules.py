"""The rules of break-glass: one text in the spec, in errors and in the log."""

from __future__ import annotations

import pytest

from medcrypt_hsm.vault.audit.rules import BreakGlassRefused, Rule
from tests.support.checkout import ROOT

SPEC = (ROOT / "docs" / "spec" / "breakglass.md").read_text()


@pytest.mark.parametrize("rule", Rule)
def test_the_spec_has_it_in_the_same_words(rule: Rule) -> None:
    name, _, sentence = str(rule).partition(": ")
    assert f"| {name} | {sentence} |" in SPEC


@pytest.mark.parametrize("rule", Rule)
def test_a_refusal_names_it_and_says_what_to_do(rule: Rule) -> None:
    refused = BreakGlassRefused(rule, "the request ended at noon")
    assert refused.message == f"the request ended at noon ({rule})"
    assert refused.hint
    assert (refused.rule, refused.exit_code, refused.name) == (rule, 6, "breakglass-refused")


def test_a_better_hint_stands_instead_of_the_rules_own() -> None:
    assert BreakGlassRefused(Rule.BG_5, "it was used", "ask again").hint == "ask again"
