"""The messages of `cairn.v1`, generated of proto/ by `scripts/generate.py`."""
