"""The asynchronous client. `scripts/generate.py` makes `_sync` of this folder: change only what is here."""
