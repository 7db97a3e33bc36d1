"""``Vault.custodians``: what the practice does about its custodians, with one of its own tokens.

In: an open vault, tokens by URI, PIN callbacks. Out: certificates and names. What needs none of the vault's tokens
(request, approve, decrypt, recover, a custodian's own drill) is breakglass/emergency.py; how a ceremony goes,
breakglass/ceremony.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcrypt_hsm.api.base import Part
from medcrypt_hsm.breakglass import ceremony, drill
from medcrypt_hsm.breakglass.ceremony import Convened, PinOf
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OtherTokens, yes
from medcrypt_hsm.vault.audit.actions import CEREMONY, REPLACE, ROTATE
from medcrypt_hsm.vault.audit.statements import Drill, Signed
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass


class Custodians(Part):
    """The custodians of an open vault. Calls take turns with the vault's own."""

    @property
    def present(self) -> BreakGlass | None:
        """The present ceremony, with who holds its shares; None if there was none yet."""
        return self._vault.unlocked.state.breakglass

    def ceremony(
        self,
        shares: Mapping[str, str],
        threshold: int,
        pin_of: PinOf,
        others: OtherTokens = NO_OTHERS,
        *,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """The first custodians: name → URI of each one's token. The certificate is the ceremony's transcript."""
        with self._vault.working(anchor=False) as unlocked:
            convened = Convened(CEREMONY, shares, threshold, ", ".join(shares))
            return ceremony.convene(unlocked, convened, pin_of, others, agree=agree, transcript=transcript)

    def rotate(
        self,
        pin_of: PinOf,
        others: OtherTokens = NO_OTHERS,
        *,
        instead: Mapping[str, str] | None = None,
        threshold: int | None = None,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """A new break-glass key for the same custodians. ``instead``: tokens in place of theirs."""
        with self._vault.working(anchor=False) as unlocked:
            shares = ceremony.present_ones(unlocked.state, instead or {})
            convened = Convened(ROTATE, shares, threshold, ", ".join(shares))
            return ceremony.convene(unlocked, convened, pin_of, others, agree=agree, transcript=transcript)

    def replace(
        self,
        gone: str,
        name: str,
        uri: str,
        pin_of: PinOf,
        others: OtherTokens = NO_OTHERS,
        *,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """A new break-glass key, with custodian ``gone`` exchanged for ``name``, who has the token at ``uri``."""
        with self._vault.working(anchor=False) as unlocked:
            shares = ceremony.replaced(unlocked.state, gone, name, uri)
            convened = Convened(REPLACE, shares, None, f"{gone}, {name}")
            return ceremony.convene(unlocked, convened, pin_of, others, agree=agree, transcript=transcript)

    def drill(self, results: Sequence[Signed[Drill]]) -> list[str]:
        """Enter what custodians proved alone; their names."""
        with self._vault.working(anchor=False) as unlocked:
            drill.present(unlocked)
            return drill.record(unlocked, results)

    def reconstruct(
        self, shares: Mapping[str, str], pin_of: PinOf, others: OtherTokens = NO_OTHERS
    ) -> list[tuple[str, ...]]:
        """Put every t of these shares together and open the escrow with each; nothing is kept. Which sets they were."""
        with self._vault.working(anchor=False) as unlocked:
            drill.present(unlocked)
            with ceremony.opened(unlocked, shares, pin_of, others) as candidates:
                return drill.reconstruct(unlocked, candidates)
