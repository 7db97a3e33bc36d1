"""``Vault.breakglass``: what the practice does about its custodians, with one of its own tokens.

In: an unlocked vault, tokens by URI, PIN callbacks. Out: certificates and names. What needs none of the vault's tokens
(request, approve, decrypt, recover, a custodian's own drill) is in the package's other modules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from medcrypt_hsm.api.base import Desk, one_at_a_time
from medcrypt_hsm.breakglass import ceremony, drill
from medcrypt_hsm.breakglass import custodians as newcustody
from medcrypt_hsm.breakglass.ceremony import PinOf
from medcrypt_hsm.breakglass.custodians import Wanted
from medcrypt_hsm.lifecycle.certificate import Certificate
from medcrypt_hsm.lifecycle.certificate import base_of as certificate_base
from medcrypt_hsm.lifecycle.others import NO_OTHERS, Agree, OtherTokens, gather, yes
from medcrypt_hsm.vault.audit.actions import CEREMONY, REPLACE, ROTATE
from medcrypt_hsm.vault.audit.statements import Drill, Signed
from medcrypt_hsm.vault.audit.trust_custody import BreakGlass


class BreakGlassDesk(Desk):
    """The custodians of an unlocked vault. Calls take turns with the vault's own."""

    @property
    def custodians(self) -> BreakGlass | None:
        """The present ceremony; None if there was none yet."""
        return self._unlocked.state.breakglass

    @one_at_a_time
    def hold_ceremony(
        self,
        shares: Mapping[str, str],
        threshold: int,
        pin_of: PinOf,
        company: OtherTokens = NO_OTHERS,
        *,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """The first custodians: name → URI of each one's token. The certificate is the ceremony's transcript."""
        return self._hold(CEREMONY, shares, threshold, pin_of, company, ", ".join(shares), transcript, agree)

    @one_at_a_time
    def rotate(
        self,
        pin_of: PinOf,
        company: OtherTokens = NO_OTHERS,
        *,
        instead: Mapping[str, str] | None = None,
        threshold: int | None = None,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """A new break-glass key for the same custodians. ``instead``: tokens in place of theirs."""
        shares = ceremony.present_ones(self._unlocked.state, instead or {})
        return self._hold(ROTATE, shares, threshold, pin_of, company, ", ".join(shares), transcript, agree)

    @one_at_a_time
    def replace(
        self,
        gone: str,
        name: str,
        uri: str,
        pin_of: PinOf,
        company: OtherTokens = NO_OTHERS,
        *,
        transcript: Path | None = None,
        agree: Agree = yes,
    ) -> Certificate:
        """A new break-glass key, with custodian ``gone`` exchanged for ``name``, who has the token at ``uri``."""
        shares = ceremony.replaced(self._unlocked.state, gone, name, uri)
        return self._hold(REPLACE, shares, None, pin_of, company, f"{gone}, {name}", transcript, agree)

    def _hold(
        self,
        reason: str,
        shares: Mapping[str, str],
        threshold: int | None,
        pin_of: PinOf,
        company: OtherTokens,
        subject: str,
        transcript: Path | None,
        agree: Agree,
    ) -> Certificate:
        unlocked, to = self._unlocked, certificate_base(transcript)
        present = unlocked.state.breakglass
        before = 2 if present is None else present.threshold
        wanted_threshold = before if threshold is None else threshold

        def check() -> None:
            newcustody.check_names(list(shares), wanted_threshold)
            ceremony.check(unlocked.state, reason)

        ceremony.refusing(unlocked, reason, subject, check)
        agree()
        with (
            gather(unlocked, company, list(unlocked.state.tokens.values())) as others,
            ceremony.opened(unlocked, shares, pin_of, company) as candidates,
            ceremony.former(unlocked, candidates, pin_of, company) as old,
        ):
            wanted = Wanted(candidates, wanted_threshold, company.roots, company.pins)
            ceremony.refusing(
                unlocked, reason, subject, lambda: newcustody.check_candidates(unlocked.state, candidates)
            )
            return ceremony.hold(unlocked, reason, subject, wanted, others, company, old, to)

    @one_at_a_time
    def record_drills(self, results: Sequence[Signed[Drill]]) -> list[str]:
        """Enter what custodians proved alone; their names."""
        drill.present(self._unlocked)
        return drill.record(self._unlocked, results)

    @one_at_a_time
    def reconstruct(
        self, shares: Mapping[str, str], pin_of: PinOf, company: OtherTokens = NO_OTHERS
    ) -> list[tuple[str, ...]]:
        """Put every t of these shares together and open the escrow with each; nothing is kept. Which sets they were."""
        drill.present(self._unlocked)
        with ceremony.opened(self._unlocked, shares, pin_of, company) as candidates:
            return drill.reconstruct(self._unlocked, candidates)
