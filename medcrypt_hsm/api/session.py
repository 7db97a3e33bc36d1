"""Starting a session: an agent keeps the vault's token open for a working day.

In: what ``Vault.open`` takes, and how long. Out: an agent that runs, recorded in the vault's log. Not here: the agent
(tokens/session/), and how the vault is opened over it (vault/opening.py).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import closing

from medcrypt_hsm.errors import SessionEnded
from medcrypt_hsm.lifecycle import settle
from medcrypt_hsm.tokens import PinPrompt, TokenInfo
from medcrypt_hsm.tokens.access import TokenAccess
from medcrypt_hsm.tokens.session import client, start
from medcrypt_hsm.tokens.session.deadlines import IDLE, LASTING, check_times
from medcrypt_hsm.vault import session_end
from medcrypt_hsm.vault.audit.actions import SESSION_START
from medcrypt_hsm.vault.choosing import choose_token, peek, uri_to_open
from medcrypt_hsm.vault.clock import Clock, system_clock
from medcrypt_hsm.vault.opening import noted, open_vault, this_user
from medcrypt_hsm.vault.store.rows import Location, Named
from medcrypt_hsm.vault.store.store import open_store
from medcrypt_hsm.vault.store.surroundings import surroundings_of


def start_session(
    path: Named,
    pin: PinPrompt | TokenAccess,
    token: str | None = None,
    *,
    idle: int = IDLE,
    lasting: int = LASTING,
    without: Collection[str] = (),
    actor: str | None = None,
    clock: Clock = system_clock,
) -> bool:
    """A session for the vault at ``path``, which is verified and recorded through it; False where one runs already.

    ``idle`` and ``lasting`` in seconds; ``without``: environment variables that hold secrets.
    """
    check_times(idle, lasting)
    access, vault = TokenAccess.of(pin), Location.parse(path).absolute()
    who = actor or this_user()
    file = open_store(vault)
    with closing(file):
        state = peek(file)
    registered = choose_token(state, token, access.modules)
    session_end.note_killed(vault, who, clock)
    with noted(vault, registered.name, clock):
        started = start.start(
            str(vault),
            surroundings_of(vault),
            state.vault_id,
            registered.name,
            uri_to_open(registered, token),
            access.named(registered.name),
            actor=who,
            idle=idle,
            lasting=lasting,
            finger=registered.touch != "never",
            without=without,
        )
    if not started:
        return False

    def nobody(info: TokenInfo) -> str:
        raise SessionEnded("the session has ended as soon as it began", "run the command again")

    try:
        unlocked, _ = open_vault(
            vault,
            access._replace(pin=nobody, last_try=False),
            registered.name,
            actor=who,
            clock=clock,
            session=True,
            settle=settle.settle,
        )
        with closing(unlocked.file):
            try:
                unlocked.record(SESSION_START, registered.name, {"idle": idle, "for": lasting})
            finally:
                unlocked.lock()
    except BaseException:
        client.lock(surroundings_of(vault), "failed")
        raise
    return True
