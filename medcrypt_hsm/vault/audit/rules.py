"""The rules of break-glass, by name: the same text in docs/spec/breakglass.md, in errors, in the log and in tests."""

from __future__ import annotations

from enum import Enum

from medcrypt_hsm.errors import Refused
from medcrypt_hsm.sentences import t


class Rule(Enum):
    BG_1 = t("each share is on a token of its own, and none of these is a doctor's or the requester's")
    BG_2 = t("as many approvals as the threshold, each of another custodian, none from the requester's token")
    BG_3 = t("an approval is for one request alone, by a custodian of the ceremony that it names")
    BG_4 = t("a request ends: at most three days after it was made")
    BG_5 = t("a request is used once")
    BG_6 = t("no share counts before it was read back from its token and matched its commitment")
    BG_7 = t("a custodian's token is as well attested as the vault's policy asks")
    BG_8 = t("break-glass that was used is made anew: until then the status is red")
    BG_9 = t("a request for one patient opens nothing of another")

    def __str__(self) -> str:
        return t("{rule}: {sentence}", rule=self.name.replace("_", "-"), sentence=self.value)


_NEW_REQUEST = "make a new request: 'medcrypt breakglass request'"
_HINTS = {
    Rule.BG_1: "use another token",
    Rule.BG_2: "have another custodian approve it, and use it with the token that it was made with",
    Rule.BG_3: "have the present custodians approve this very request",
    Rule.BG_4: _NEW_REQUEST,
    Rule.BG_5: _NEW_REQUEST,
    Rule.BG_6: "tell the security officer: this custodian's share has to be made anew",
    Rule.BG_7: "use a better attested token, or give the vendor's certificates with --roots",
    Rule.BG_8: "run 'medcrypt breakglass rotate'",
    Rule.BG_9: "make a request for that patient: 'medcrypt breakglass request'",
}


class BreakGlassRefused(Refused):
    """``rule`` says which; ``why`` what was found. The rule's own hint stands where there is no better one."""

    name = "breakglass-refused"

    def __init__(self, rule: Rule, why: str, hint: str | None = None) -> None:
        super().__init__(t("{reason} ({rule})", reason=why, rule=rule), hint or _HINTS[rule])
        self.rule = rule
