"""The plan of a ceremony, as people agree on it beforehand: CEREMONY.toml, and what the command line adds.

    threshold = 2
    place = "Consulta Ejemplo, sala 2"
    witnesses = ["Notaria Ejemplo"]

    [[custodian]]
    name = "ana"
    person = "Ana Ejemplo"
    token = "yubikey:12345678"

In: bytes of the file, and options. Out: a frozen ``Plan`` without contradictions. Persons, place and witnesses are for
people: nothing here is believed, and the vault keeps none of it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcrypt_hsm.breakglass.custodians import check_names
from medcrypt_hsm.errors import UsageError
from medcrypt_hsm.given import read_given
from medcrypt_hsm.sentences import t

LARGEST = 1 << 16  # bytes of a file
THRESHOLD = 2
_HINT = (
    "it may say threshold, place, witnesses, and for each custodian a table [[custodian]] with name, person and token"
)


@dataclass(frozen=True, slots=True)
class Planned:
    """Who is to hold a share. ``person`` and ``token`` are empty where nobody said."""

    name: str
    person: str = ""
    token: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    custodians: tuple[Planned, ...]
    threshold: int = THRESHOLD
    place: str = ""
    witnesses: tuple[str, ...] = ()

    @property
    def shares(self) -> dict[str, str]:
        """Name → token's URI. Raises UsageError where one is missing."""
        if bare := [planned.name for planned in self.custodians if not planned.token]:
            raise UsageError(
                t("no token is named for {custodians}", custodians=", ".join(bare)),
                t("add --share-token {custodian}=URI, or say it in the ceremony's file", custodian=bare[0]),
            )
        return {planned.name: planned.token for planned in self.custodians}


def read_plan(file: Path | None, shares: Mapping[str, str], threshold: int | None) -> Plan:
    """From CEREMONY.toml, if one is given, and options. Raises UsageError."""
    if file is None:
        return planned(None, shares, threshold)
    try:
        return planned(read_given(file, LARGEST), shares, threshold)
    except OSError as exc:
        raise UsageError(
            t("{file} cannot be read: {reason}", file=file, reason=exc.strerror), "name the ceremony's file"
        ) from exc


def planned(given: bytes | None, shares: Mapping[str, str], threshold: int | None) -> Plan:
    """The file's plan, if there is one, and the options', which may fill gaps but not contradict. Raises UsageError."""
    if given is None:
        plan = Plan(tuple(Planned(name, token=uri) for name, uri in shares.items()))
    else:
        plan, said = parse(given)
        plan = _filled(plan, shares)
        if threshold is not None and said is not None and threshold != said:
            raise _contradiction(
                t(
                    "the threshold is {planned} in the ceremony's file, and {threshold} in the options",
                    planned=said,
                    threshold=threshold,
                )
            )
    if threshold is not None:
        plan = replace(plan, threshold=threshold)
    if not plan.custodians:
        raise UsageError(
            "nobody is named who is to hold a share",
            "add --share-token NAME=URI for each custodian, or --file CEREMONY.toml",
        )
    check_names([custodian.name for custodian in plan.custodians], plan.threshold)
    return plan


def _filled(plan: Plan, shares: Mapping[str, str]) -> Plan:
    known = {custodian.name: custodian for custodian in plan.custodians}
    if unknown := [name for name in shares if name not in known]:
        raise _contradiction(t("{name!r} is no custodian in the ceremony's file", name=unknown[0]))
    for name, uri in shares.items():
        if known[name].token not in ("", uri):
            raise _contradiction(
                t("the token of {custodian} is another in the ceremony's file than in the options", custodian=name)
            )
    custodians = (replace(one, token=one.token or shares.get(one.name, "")) for one in plan.custodians)
    return replace(plan, custodians=tuple(custodians))


def _contradiction(what: str) -> UsageError:
    return UsageError(what, "correct the file, or leave the option out: they may not contradict each other")


def parse(data: bytes) -> tuple[Plan, int | None]:
    """The plan in a file, and the threshold where it says one. Raises UsageError for anything unknown in it."""
    if len(data) > LARGEST:
        raise UsageError(t("the ceremony's file has more than {most} bytes", most=LARGEST), _HINT)
    try:
        said = tomllib.loads(data.decode())
    except RecursionError:
        raise UsageError("the ceremony's file is nested too deeply", _HINT) from None
    except ValueError as exc:  # tomllib's and UTF-8's errors are both
        raise UsageError(t("the ceremony's file is not TOML: {reason}", reason=exc), _HINT) from exc
    _check_keys(said, ("threshold", "place", "witnesses", "custodian"), t("the ceremony's file"))
    threshold = said.get("threshold")
    if threshold is not None and type(threshold) is not int:  # type(): true is an int to isinstance
        raise _mistyped("threshold", t("a number"))
    witnesses = said.get("witnesses", [])
    if not isinstance(witnesses, list) or not all(isinstance(witness, str) for witness in witnesses):
        raise _mistyped("witnesses", t("a list of texts"))
    custodians = said.get("custodian", [])
    if not isinstance(custodians, list) or not all(isinstance(custodian, dict) for custodian in custodians):
        raise _mistyped("custodian", t("a table for each: [[custodian]]"))
    found = Plan(tuple(map(_custodian, custodians)), witnesses=tuple(witnesses), place=_text(said, "place"))
    return (found if threshold is None else replace(found, threshold=threshold)), threshold


def _custodian(said: Mapping[str, Any]) -> Planned:
    _check_keys(said, ("name", "person", "token"), t("a custodian in the ceremony's file"))
    found = Planned(_text(said, "name"), _text(said, "person"), _text(said, "token"))
    if not found.name:
        raise UsageError("a custodian in the ceremony's file has no name", 'give each one: name = "ana"')
    return found


def _check_keys(said: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    if unknown := sorted(set(said) - set(known)):
        raise UsageError(t("{place} says {name!a}, which means nothing", place=where, name=unknown[0]), _HINT)


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key, "")
    if not isinstance(value, str):
        raise _mistyped(key, t("a text"))
    return value


def _mistyped(key: str, what: str) -> UsageError:
    return UsageError(t("{key} in the ceremony's file must be {kind}", key=key, kind=what), _HINT)
