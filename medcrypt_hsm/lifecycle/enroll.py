"""What registering a token takes, for a vault's first token as for a spare one.

In: an open token that holds nothing of this vault. Out: a KEK and an audit key on it, its row for the trust state, and
the keyset wrapped for it and proven to come back. ``take_back`` destroys all of it again. Not here: when that may be
done, and the entry that introduces the token (create.py, add_token.py).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from medcrypt_hsm.crypto.handles import KeysetSecret
from medcrypt_hsm.crypto.p256 import fingerprint
from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import NotAuthentic, TokenUnfit, UsageError, VaultDamaged
from medcrypt_hsm.sentences import joined, t
from medcrypt_hsm.tokens import AES_KW, P256_HPKE, TOUCH_POLICIES, Token
from medcrypt_hsm.tokens.attestation import grades
from medcrypt_hsm.tokens.attestation.vendor import PINNED
from medcrypt_hsm.tokens.names import anchor_name, audit_key_name, kek_name, kek_prefix
from medcrypt_hsm.vault import policy
from medcrypt_hsm.vault.audit.trust import Policy, RegisteredToken, WrappedKeyset
from medcrypt_hsm.vault.keyset import VaultKeyset, keyset_info
from medcrypt_hsm.vault.unlock import keyset_to_host
from medcrypt_hsm.vault.unlocked import Unlocked

PROFILES = (AES_KW, P256_HPKE)


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How a token is to serve. ``roots``: the vendor's certificates as DER, ``pins``: the fingerprints that count."""

    profile: str | None = None  # None: the token's best
    touch: str = "never"
    roots: Sequence[bytes] = ()
    pins: Mapping[bytes, str] | None = None  # None: those that the program knows

    def check(self) -> None:
        """Raises UsageError, before anybody is asked for a PIN."""
        if self.profile is not None and self.profile not in PROFILES:
            raise UsageError(
                t("{profile!r} is not a profile", profile=self.profile),
                t("the profiles are {profiles}", profiles=joined(t(" and "), PROFILES)),
            )
        if self.touch not in TOUCH_POLICIES:
            raise UsageError(
                t("{touch!r} is no touch policy", touch=self.touch),
                t("give one of {policies}", policies=", ".join(TOUCH_POLICIES)),
            )

    def profile_of(self, token: Token) -> str:
        """The profile that ``token`` will have. Raises TokenUnfit, naming what it lacks."""
        title = token.info.label or token.info.serial
        if self.profile is not None:
            if missing := token.missing(self.profile):
                raise TokenUnfit(
                    t(
                        "token {token} lacks what {profile} needs: {missing}",
                        token=title,
                        profile=self.profile,
                        missing=", ".join(missing),
                    )
                )
            return self.profile
        if offered := token.profiles():
            return offered[0]
        lacks = joined(
            "; ",
            (
                t("for {profile} {missing}", profile=profile, missing=joined(", ", token.missing(profile)))
                for profile in PROFILES
            ),
        )
        raise TokenUnfit(t("token {token} lacks what a vault needs: {missing}", token=title, missing=lacks))


def make_keys(
    token: Token, name: str, vault_id: bytes, generation: int, options: TokenOptions, rules: Policy
) -> RegisteredToken:
    """KEK and audit key, made on the token, and its row. Raises TokenUnfit; Refused for a grade below the policy."""
    profile = options.profile_of(token)
    kek, audit_key = keys = keys_of(vault_id, generation)
    token.make_kek(kek, profile, touch=options.touch)
    spki = token.make_signing_key(audit_key)
    found, reasons = grade(token, keys, options.touch, options.roots, options.pins)
    policy.check_grade(rules, found, reasons)
    info = token.info
    return RegisteredToken(
        name,
        fingerprint(spki),
        spki,
        info.uri,
        info.label,
        info.serial,
        info.model,
        profile,
        token.public_key(kek) if profile == P256_HPKE else b"",
        options.touch,
        found,
    )


def keys_of(vault_id: bytes, generation: int) -> tuple[str, str]:
    """A vault's two keys on each of its tokens: root KEK and audit key."""
    return kek_name(vault_id, generation), audit_key_name(vault_id)


def grade(
    token: Token, keys: tuple[str, str], touch: str, roots: Sequence[bytes], pins: Mapping[bytes, str] | None
) -> tuple[str, tuple[str, ...]]:
    """How well it is known that both keys were made on the token, and why no better. Raises TokenUnfit."""
    attested = grades.grade(token, keys, roots, PINNED if pins is None else pins)
    if attested[0].touch_policy not in ("", touch):
        raise TokenUnfit(
            t(
                "the KEK's certificate says touch {policy}, not {touch} as asked",
                policy=attested[0].touch_policy,
                touch=touch,
            )
        )
    return grades.together(attested)


def wrap_keyset(
    token: Token, registered: RegisteredToken, vault_id: bytes, generation: int, keyset: KeysetSecret
) -> tuple[WrappedKeyset, VaultKeyset]:
    """The keyset wrapped for this token, as the trust state has it, and as it unwraps there."""
    kek, context = kek_name(vault_id, generation), keyset_info(vault_id, generation, registered.id)
    wrapped = token.wrap_keyset(kek, keyset, context)
    made = VaultKeyset(token.unwrap_keyset(kek, wrapped, context), vault_id)
    check = made.check_of(generation, registered.id, wrapped) if registered.profile == AES_KW else b""
    return WrappedKeyset(registered.id, generation, wrapped, check), made


def prove_same(keyset: VaultKeyset, made: VaultKeyset) -> None:
    """Each of the three keys of ``made``, as a token unwraps them, opens what ``keyset`` made. Raises TokenUnfit."""
    try:
        with Secret(os.urandom(32)) as probe:
            made.aead_key(keyset.wrap("probe", b"", "", 0, probe)).destroy()
        made.open(keyset.seal("probe", b"", 0, {}))
    except (NotAuthentic, VaultDamaged) as exc:
        raise TokenUnfit("the vault keyset came back from the token as another", "use another token") from exc


def wrap_present_keyset(unlocked: Unlocked, token: Token, registered: RegisteredToken) -> WrappedKeyset:
    """The vault's present keyset, wrapped for another KEK and proven to come back from there. Raises TokenUnfit."""
    state = unlocked.state
    with ExitStack() as stack:
        wrapping, mac, sealing = (stack.enter_context(key) for key in keyset_to_host(unlocked))
        secret = (wrapping.value, mac.value, sealing.value)
        wrapped, keyset = wrap_keyset(token, registered, state.vault_id, state.generation, secret)
    try:
        prove_same(unlocked.keyset, keyset)
    finally:
        keyset.destroy()
    return wrapped


def take_back(token: Token, vault_id: bytes) -> None:
    """Destroy every object of this vault on the token; nothing of another vault."""
    kek = kek_prefix(vault_id)
    for name in token.names():
        if name in (anchor_name(vault_id), audit_key_name(vault_id)) or name.startswith(kek):
            token.destroy(name)
