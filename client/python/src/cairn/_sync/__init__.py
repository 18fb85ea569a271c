"""The synchronous client. Generated of `_aio` by `scripts/generate.py`."""
