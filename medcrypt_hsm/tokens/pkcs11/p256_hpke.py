"""Profile ``p256-hpke`` on PKCS#11: the KEK is a P-256 pair, of which the token does one ECDH (CKM_ECDH1_DERIVE).

Functions over a session and handles. The caller holds the lock and translates foreign errors, which pass through.
"""

from __future__ import annotations

import contextlib
import hmac

from pkcs11 import KDF, KeyType, Mechanism, PrivateKey, PublicKey, Session

from medcrypt_hsm.crypto.secret import Secret
from medcrypt_hsm.errors import TokenError, TokenUnfit
from medcrypt_hsm.sentences import t
from medcrypt_hsm.tokens.pkcs11 import p256
from medcrypt_hsm.tokens.pkcs11.keys import DERIVING, NO_USE, READABLE, generate_pair, read_secret
from medcrypt_hsm.tokens.pkcs11.modules import SlotToken

NEEDED = {
    Mechanism.EC_KEY_PAIR_GEN: "generating P-256 key pairs (CKM_EC_KEY_PAIR_GEN)",
    Mechanism.ECDH1_DERIVE: "ECDH on P-256 (CKM_ECDH1_DERIVE)",
}


def make_kek(session: Session, name: str, *, stored: bool) -> tuple[PublicKey, PrivateKey]:
    return generate_pair(session, name, DERIVING, stored=stored)


def ecdh(place: SlotToken, session: Session, private: PrivateKey, point: bytes) -> Secret:
    """The 32-byte x-coordinate of ``private`` times ``point``, 65 bytes that are known to be on the curve."""
    agreed = private.derive_key(  # type: ignore[attr-defined]
        KeyType.GENERIC_SECRET, 256, store=False, capabilities=NO_USE, template=READABLE,
        mechanism=Mechanism.ECDH1_DERIVE, mechanism_param=(KDF.NULL, None, point),
    )  # fmt: skip
    return read_secret(place, session, agreed, 32)


def prove_public(place: SlotToken, session: Session, private: PrivateKey, point: bytes) -> None:
    """Prove that the public half belongs to this private key: the key times the generator has the half's x-coordinate.

    Whoever reaches the token can exchange a public object without a PIN, and what is then sealed to it is lost to its
    owner. ECDH does not show the sign of y, but a wrong sign is of no use to anybody. Raises TokenError.
    """
    with ecdh(place, session, private, p256.GENERATOR) as x:
        if not hmac.compare_digest(x.value, point[1:33]):
            raise TokenError(
                t("the public key on {token} does not belong to the private key beside it", token=place.title),
                "somebody exchanged it: do not use this token, and find out who had it",
            )


def still_works(place: SlotToken, session: Session, private: PrivateKey) -> None:
    """Use the KEK. Raises PKCS11Error where it is gone."""
    with contextlib.suppress(TokenUnfit):  # an agreement whose result cannot be read also shows that the KEK is there
        ecdh(place, session, private, p256.GENERATOR).wipe()
