"""What happens to a vault as a whole: made, backed up, restored, given tokens, re-keyed (docs/spec/rekey.md;
docs/spec/vault.md, "Several tokens").

In: an open vault and its other tokens. Out: a vault file, a backup, a certificate of what was destroyed. ``rekey.py``
is the way through a re-key; ``settle.py`` ends what an interrupted one left.

Never imported here: breakglass. New custodians come in through the re-key's ``Purpose``.
"""
