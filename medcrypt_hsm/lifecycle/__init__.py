"""The life of a vault as a whole (docs/spec/rekey.md; docs/spec/vault.md, "Several tokens").

    create.py, enroll.py        a vault and its first token; what registering a token takes
    add_token.py, others.py     a spare token; all of the vault's other tokens, opened
    sync.py                     those that were away, brought up to date
    backup.py, restore.py       a copy, and putting it back
    shred.py, holds.py          what is destroyed for good: months, a patient, a token; and what must not be
    rekey.py                    how it goes: commit.py, settle.py; new_keks.py, old_keks.py
    certificate.py, certificate_text.py      what was destroyed, and the fate of every copy
    shares.py, escrow.py, custody_upkeep.py  what a re-key owes the custodians, and shares on their tokens

In: an open vault and its other tokens. Out: a vault made, backed up, restored, re-keyed; a certificate. It never
imports break-glass: new custodians come in through the re-key's purpose.
"""
