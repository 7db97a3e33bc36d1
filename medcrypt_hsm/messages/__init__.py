"""Messages, files and patients (docs/spec/messages.md, docs/spec/files.md, docs/spec/imports.md).

    wire/, chats/   strangers' text, parsed: they import no vault
    decrypt.py      the main path: plan.py (which key, and may it be read), record.py (intent before plaintext), open
    encrypt.py      a text becomes wire text
    files.py        the same for files, whose content is too long for memory; filenames.py
    patients.py     pairings: how keys come to be shared, and how that ends
    months.py       the months in which keys live
    gc_pause.py     the garbage collector, put off while thousands of messages are read

In: strangers' text and files, and an unlocked vault. Out: opened messages and files; a text as wire text. It never
imports the life of the vault as a whole (lifecycle/), nor anything above.
"""
