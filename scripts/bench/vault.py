"""Rows of scripts/bench about a vault as a whole: re-keying it, and ``status`` however much it holds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from scripts.bench.ratio import MODULE, Peak, at_most, in_turns, peak_of_command, report, session_key, timed

MONTHS = 12


def month_after(moment: datetime) -> datetime:
    """On its first day, which every month has."""
    month = moment.month % 12 + 1
    return moment.replace(year=moment.year + (month == 1), month=month, day=1)


def filled(vault: Any, patients: int) -> None:
    """That many pairings, made in one transaction."""
    from medcrypt_hsm.messages import patients as pairing

    unlocked = vault._unlocked
    with unlocked.change("bench") as change:
        for number in range(patients):
            options = pairing.PairingOptions(unconfirmed=True)
            pairing.make_pairing(unlocked, change, f"EXP-FULL-{number:05}", options, None, [])


def lengthen(vault: Any, count: int) -> None:
    """That many entries more, in one transaction."""
    from medcrypt_hsm.vault.change import Change, sign_entry

    unlocked = vault._unlocked
    with unlocked.file.transaction():
        unlocked.catch_up()
        for _ in range(count):
            change = Change(
                unlocked.file,
                unlocked.rows,
                unlocked.state.digest,
                unlocked.log.sequence + 1,
                unlocked.clock.newest_entry,
            )
            entry = change.entry("bench", "bench", unlocked.registered.name)
            stored = unlocked.log.stored(entry, change.sequence, unlocked.state.log_key)
            row = sign_entry(unlocked.token, unlocked.log.chain, unlocked.registered.id, stored, unlocked.state.digest)
            unlocked.file.append(row)
            unlocked.log.chain.extend(row, check_head=False)


def rekeying(create: Callable[..., Any], directory: Path, patients: int) -> None:
    """``shred`` of one month after the other, and what it must do at least (docs/spec/rekey.md).

    On the token a root KEK is made and an old one destroyed, and the anchor written three times. The whole vault is
    verified with the token before anything is made, and its fresh backup before anything is destroyed. So for each
    record that is kept two HMACs on the token, and in host memory two HMACs, an unwrap and a wrap; for each that is
    shredded the first HMAC; for each sealed row two GCM openings on the token, and in host memory an opening, a sealing
    and an HMAC; for each entry twice a hash, an ECDSA verification and an opening on the token, and one opening more to
    list the backups. An entry is as long as it is: those of whole months tell of every row that they wrote.

    The file is read to be verified. The commit, the new file (in the write-ahead log, and in its place) and the backup
    are written and synced, and the backup is read again. Each of the other entries, and either half of the certificate,
    is synced too.
    """
    import pkcs11
    from cryptography.hazmat.primitives import keywrap
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from pkcs11 import Attribute, GCMParams, KeyType, Mechanism, ObjectClass

    from medcrypt_hsm.month import Month

    moment = [datetime(2025, 1, 20, tzinfo=UTC)]
    with create(directory / "rekey.db", clock=lambda: moment[0]) as vault:
        filled(vault, patients)
        for month in range(2, MONTHS + 1):
            moment[0] = moment[0].replace(month=month)
            vault.months.open()
        file = vault._unlocked.file
        session = pkcs11.lib(MODULE).get_token(token_label="bench").open(rw=True)
        data, key, wrapping = b"x" * 130, os.urandom(32), os.urandom(32)
        wrapped = keywrap.aes_key_wrap(wrapping, key)
        on_token, sealing = session_key(session, SIGN=True), session_key(session, ENCRYPT=True, DECRYPT=True)
        nonce, body = bytes(12), b"x" * 160
        parameters = GCMParams(nonce, data)
        sealed = sealing.encrypt(body, mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
        written = directory / "written"
        signing = ec.generate_private_key(ec.SECP256R1())
        signature, public = signing.sign(data, ec.ECDSA(SHA256())), signing.public_key()

        def write_synced(content: bytes) -> None:
            with written.open("wb") as to:
                to.write(content)
                to.flush()
                os.fsync(to.fileno())

        def bare() -> float:
            """For as many rows as there are now, after a shredding."""
            records, rows = len(file.records()), len(file.all_sealed())
            lengths = [len(entry.stored) for entry in file.entries()]
            entries = [
                sealing.encrypt(bytes(length), mechanism=Mechanism.AES_GCM, mechanism_param=parameters)
                for length in lengths
            ]

            def loop() -> None:
                import hmac

                whole = Path(str(file.location)).read_bytes()
                for _ in range(4):  # the commit, the new file twice, the backup
                    write_synced(whole)
                written.read_bytes()
                for _ in range(6):  # four entries, two files of the certificate
                    write_synced(body)
                kek = session.generate_key(KeyType.AES, 256, label="bench new kek", store=True)
                for _ in range(3):
                    anchor = session.create_object(data_object)
                    anchor.destroy()
                kek.destroy()
                for _ in range(records):
                    hmac.digest(key, data, "sha256")
                    keywrap.aes_key_wrap(wrapping, keywrap.aes_key_unwrap(wrapping, wrapped))
                    hmac.digest(key, data, "sha256")
                    for _ in range(2):
                        on_token.sign(data, mechanism=Mechanism.SHA256_HMAC)
                for _ in range(patients):  # the month that is shredded
                    on_token.sign(data, mechanism=Mechanism.SHA256_HMAC)
                for _ in range(rows):
                    host = AESGCM(key).encrypt(nonce, body, data)
                    AESGCM(key).decrypt(nonce, host, data)
                    hmac.digest(key, data, "sha256")
                    for _ in range(2):
                        sealing.decrypt(sealed, mechanism=Mechanism.AES_GCM, mechanism_param=GCMParams(nonce, data))
                for entry in entries:
                    for _ in range(2):
                        hashlib.sha256(entry).digest()
                        public.verify(signature, data, ec.ECDSA(SHA256()))
                    for _ in range(3):
                        sealing.decrypt(
                            entry, buffer_size=len(entry), mechanism=Mechanism.AES_GCM, mechanism_param=parameters
                        )

            return timed(loop)

        data_object = {
            Attribute.CLASS: ObjectClass.DATA, Attribute.LABEL: "bench anchor", Attribute.PRIVATE: True,
            Attribute.TOKEN: True, Attribute.VALUE: bytes(400),
        }  # fmt: skip
        months, peak = iter(range(1, MONTHS - 2)), Peak()

        def ours() -> float:
            month = Month.parse(f"2025-{next(months):02}")
            return peak.timed(lambda: vault.months.shred([month]))

        our_time, bare_time = in_turns(5, ours, bare)
        what = f"re-key of {patients:,} patients x {MONTHS - 3} to {MONTHS} months"
        report(what, our_time, bare_time, at_most(2), peak.kib)


def status(
    create: Callable[..., Any], directory: Path, environment: dict[str, str], patients: int, entries: int
) -> None:
    """Whole processes: of a full vault, to that of an empty one."""
    full, empty = directory / "full" / "vault.db", directory / "empty" / "vault.db"
    with create(full) as vault:
        filled(vault, patients)
        lengthen(vault, entries)
        vault.log.anchor()
    create(empty).close()

    def run(path: Path, *options: str) -> float:
        command = [sys.executable, "-m", "medcrypt_hsm", "--vault", str(path), *options, "status"]
        return timed(lambda: subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL))

    chosen: tuple[tuple[str, ...], ...] = ((), ("--token", "bench"))
    for options in chosen:
        peak = peak_of_command(["--vault", str(full), *options, "status"], environment)  # and the file cache is warm
        ours, bare = in_turns(15, partial(run, full, *options), partial(run, empty, *options))
        what = f"{' '.join(('status', *options))}, {patients:,} patients, {entries:,} entries (bare: empty)"
        report(what, ours, bare, at_most(1.5), peak)
