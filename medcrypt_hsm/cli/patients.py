"""``medcrypt patient list`` and ``patient show``, which run all day; the other commands are in commands/patient.py."""

from __future__ import annotations

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.sentences import t

TYPE_CHECKING = False  # as typing has it, which takes 5 ms to load; type checkers know the name
if TYPE_CHECKING:
    from typing import Any

    from medcrypt_hsm import Pairing


def list_all(run: Run) -> None:
    pairings = _pairings(run, None)
    if not pairings:
        run.console.say("no patients yet: 'medcrypt patient add ID'")
    run.result({"patients": [document(pairing) for pairing in pairings]}, _table(pairings))


def show(run: Run, patient_id: str) -> None:
    pairings = _pairings(run, patient_id)
    text = "\n".join(_fields(pairing) for pairing in pairings)
    run.result({"patient": patient_id, "pairings": [document(pairing) for pairing in pairings]}, text)


def _pairings(run: Run, patient_id: str | None) -> list[Pairing]:
    """Every patient's, or all of one."""
    if (line := run.in_session()) is not None:
        from medcrypt_hsm.session.client import Work

        with run.console.working("reading"), Work(line) as work:
            return work.pairings(patient_id)
    with run.open_vault("reading") as vault:
        return vault.patients.list() if patient_id is None else vault.patients.show(patient_id)


def document(pairing: Pairing) -> dict[str, Any]:
    return {
        "patient": pairing.id,
        "pairing": pairing.pairing.hex(),
        "label": pairing.label,
        "protocol": pairing.protocol,
        "state": pairing.state,
        "confirmed": pairing.confirmed,
        "since": pairing.added,
        "first_month": pairing.first,
        "replaces": pairing.replaces,
        "compromised": pairing.compromised,
    }


def _state(pairing: Pairing) -> str:
    """The state in words."""
    state = t("active, unconfirmed") if pairing.state == "active" and not pairing.confirmed else pairing.state
    return t("{state}, COMPROMISED", state=state) if pairing.compromised else state


def _table(pairings: list[Pairing]) -> str:
    if not pairings:
        return ""
    heads = ("ID", "LABEL", "PROTOCOL", "STATE", "SINCE", "FIRST MONTH")
    return output.table(heads, [(p.id, p.label, p.protocol, _state(p), p.added, p.first) for p in pairings])


def _fields(pairing: Pairing) -> str:
    return output.fields(
        [
            ("id", pairing.id),
            ("label", pairing.label),
            ("pairing", pairing.pairing.hex()),
            ("protocol", pairing.protocol),
            ("state", _state(pairing)),
            ("since", pairing.added),
            ("first month", pairing.first),
            ("replaces", pairing.replaces or "-"),
        ]
    )
