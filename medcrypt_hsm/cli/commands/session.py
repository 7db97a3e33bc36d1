"""``medcrypt session``: the PIN is typed once, for a working day's commands."""

from __future__ import annotations

import re
from typing import Any

import typer

from medcrypt_hsm.cli import output
from medcrypt_hsm.cli.options import command, run_of
from medcrypt_hsm.cli.run import Run
from medcrypt_hsm.errors import Failed, UsageError
from medcrypt_hsm.sentences import t

_UNITS = {"s": 1, "m": 60, "h": 3600}
_ENDS = "it ends when it is not used, with its time, with the screen locked, or with the token taken out"


def register(app: typer.Typer) -> None:
    group = typer.Typer(help="Sessions: the PIN is typed once, for a working day's commands.")
    app.add_typer(group, name="session")

    @command(group, "start", shows=("token",))
    def start(
        context: typer.Context,
        idle: str | None = typer.Option(None, "--idle", metavar="TIME", help="End when unused so long. [default: 15m]"),
        lasting: str | None = typer.Option(None, "--for", metavar="TIME", help="End after this time. [default: 8h]"),
        archive: bool = typer.Option(False, "--archive", help="Archived months, imports and exports too."),
        anywhere: bool = typer.Option(False, "--anywhere", help="Serve every terminal of this user."),
    ) -> None:
        """Ask for the PIN once, and keep the vault unlocked for the commands that follow in this terminal."""
        _start(run_of(context), seconds(idle, "--idle"), seconds(lasting, "--for"), archive, anywhere)

    @command(group, "status")
    def status(context: typer.Context) -> None:
        """Whether a session runs for this vault, and until when."""
        from medcrypt_hsm.session import client

        run = run_of(context)
        _show(run, client.status(run.vault_named))

    @command(group, "lock")
    def lock(context: typer.Context) -> None:
        """End the session of this vault now. Where none runs there is nothing to do."""
        from medcrypt_hsm.session import client

        run = run_of(context)
        locked = client.lock(run.vault_named, "lock")
        run.result({"locked": locked}, "the session is locked\n" if locked else "no session runs for this vault\n")


def seconds(text: str | None, option: str) -> int | None:
    """Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})([smh])", text)
    if match is None:
        raise UsageError(
            t("{option} takes a time such as 90s, 15m or 8h", option=option), "write a number and s, m or h"
        )
    return int(match[1]) * _UNITS[match[2]]


def _start(run: Run, idle: int | None, lasting: int | None, archive: bool, anywhere: bool) -> None:
    from medcrypt_hsm import start_session
    from medcrypt_hsm.session import client
    from medcrypt_hsm.session.deadlines import IDLE, LASTING

    if (running := client.status(run.vault_named)) is not None:
        _refuse_others(run, running, idle, lasting, archive, anywhere)
        _show(run, running, "a session runs already, unchanged")
        return
    with run.console.working("starting the session"):
        started = start_session(
            run.location,
            run.access(),
            run.token,
            idle=IDLE if idle is None else idle,
            lasting=LASTING if lasting is None else lasting,
            archive=archive,
            anywhere=anywhere,
            without=run.secret_variables(),
        )
    now = client.status(run.vault_named)
    if now is None and not started:
        raise Failed("a session of another version of this program runs", "end it first: 'medcrypt session lock'")
    if now is None:
        raise Failed("the session has ended as soon as it began", "run the command again")
    _show(run, now, "the session has begun" if started else "a session runs already, unchanged")
    if started:
        run.console.say(_ENDS)
        if now["terminal"] is not None:
            run.console.say("it serves this terminal alone")
        if not now["screen_lock"]:
            run.console.warn("nothing tells here when the screen is locked: run 'medcrypt session lock' when you leave")


def _refuse_others(
    run: Run, running: dict[str, Any], idle: int | None, lasting: int | None, archive: bool, anywhere: bool
) -> None:
    """Times, a token or a width that are asked for and are not the running session's. Raises UsageError."""
    if (archive and not running["archive"]) or (anywhere and running["terminal"] is not None):
        raise UsageError("a session runs already, for less than that", "end it first: 'medcrypt session lock'")
    named = run.token if run.token is not None and ":" not in run.token else None
    if (idle, lasting, named) != (
        idle and running["idle"],
        lasting and running["for"],
        named and running["token"],
    ):
        raise UsageError(
            "a session runs already, with another token or other times", "end it first: 'medcrypt session lock'"
        )


_NOT_RUNNING = dict.fromkeys(
    ("token", "since", "idle", "idle_left", "for", "left", "ends", "process", "terminal", "archive", "memory_locked"),
)


def _show(run: Run, found: dict[str, Any] | None, said: str = "") -> None:
    if found is None:
        document: dict[str, Any] = {
            "running": False,
            "vault": str(run.location),
            **_NOT_RUNNING,
            "screen_lock": [],
            "operations": {},
            "last": [],
        }
        run.result(document, "no session runs for this vault\n")
        return
    if said:
        run.console.say(said)
    noticed = ", ".join(t("{bus} bus", bus=bus) for bus in found["screen_lock"])
    text = output.fields(
        [
            ("session", "runs"),
            ("vault", found["vault"]),
            ("token", found["token"]),
            ("since", found["since"]),
            (
                "unused",
                t(
                    "ends in {left}, after {idle} without a command",
                    left=_words(found["idle_left"]),
                    idle=_words(found["idle"]),
                ),
            ),
            ("ends", t("{time}, in {left}", time=found["ends"], left=_words(found["left"]))),
            (
                "screen lock",
                t("noticed ({buses})", buses=noticed) if noticed else "NOT noticed: nothing tells of it here",
            ),
            ("serves", "this user, everywhere" if found["terminal"] is None else "the terminal where it was started"),
            ("archive", "archived months, imports and exports too" if found["archive"] else "no"),
            ("memory", "locked" if found["memory_locked"] else "keys locked as far as this machine allows"),
            *(("last", _operation(one)) for one in found["last"]),
        ]
    )
    run.result(found, text)


def _operation(one: dict[str, Any]) -> str:
    values = {name: one[name] for name in ("time", "action", "program", "process")}
    if one["elsewhere"]:
        return t("{time} {action}, FROM ELSEWHERE: {program} ({process})", **values)
    return t("{time} {action}", **values)


def _words(time: int) -> str:
    """Seconds as a person says them."""
    hours, minutes = divmod(time // 60, 60)
    if hours and minutes:
        return t("{hours} h {minutes} min", hours=hours, minutes=minutes)
    if hours:
        return t("{hours} h", hours=hours)
    return t("{minutes} min", minutes=minutes) if minutes else t("{seconds} s", seconds=time)
