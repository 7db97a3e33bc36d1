"""Every error of the program: one tree, one exit code and one name each."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from medcrypt_hsm import errors
from medcrypt_hsm.errors import AuditBroken, MedcryptError, TokenAbsent, VaultDamaged, WrongPin

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedcryptError)]


def drawn() -> Iterator[tuple[str, int]]:
    """The tree in the module's docstring: each error, and the code of the branch that it is on."""
    code = 0
    for line in (errors.__doc__ or "").partition("Each carries")[0].splitlines()[2:]:
        words = re.match(r"[\s│├└─]*((?:[A-Z]\w+(?:, )?)+)", line)
        if words is None:
            continue
        code = int(found[1]) if (found := re.search(r"exit (\d)", line)) else code
        yield from ((name, code) for name in words[1].split(", "))


def test_the_tree_is_as_it_is_drawn() -> None:
    assert dict(drawn()) == {kind.__name__: kind.exit_code for kind in KINDS}


def test_each_has_a_name_of_its_own_for_scripts() -> None:
    names = [kind.name for kind in KINDS if kind is not errors.Failed]  # which is called as the root is
    assert len(names) == len(set(names))
    assert all(re.fullmatch("[a-z-]+", name) for name in names)


def test_it_says_what_happened_and_what_to_do() -> None:
    error = TokenAbsent("no token is called doctor")
    assert (str(error), error.message) == ("no token is called doctor",) * 2
    assert error.hint == "plug the token in, or see 'medcrypt token list'"
    assert TokenAbsent("no token is called doctor", "look under the table").hint == "look under the table"
    assert TokenAbsent.hint == "plug the token in, or see 'medcrypt token list'"


@pytest.mark.parametrize(
    ("error", "told"), [(WrongPin("wrong", tries_left=2), "tries_left"), (AuditBroken("altered", at=2), "at")]
)
def test_two_carry_a_number_or_none(error: MedcryptError, told: str) -> None:
    assert getattr(error, told) == 2
    assert getattr(type(error)("nobody can say"), told) is None


def test_errors_are_caught_by_one_name() -> None:
    assert issubclass(VaultDamaged, MedcryptError)
