"""Ids that look like the recorded ones: unique, and the same again under one seed."""

from __future__ import annotations

import hashlib
import itertools
import secrets

HEX_CHARS = {"conv": 48, "resp": 50, "msg": 50, "rs": 50, "fc": 50, "cmp": 50, "req": 32, "vs": 32}
ALNUM_CHARS = 24
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
MAX_ID_CHARS = 64


class IdSource:
    """Issue ids; two sources with different seeds never meet."""

    def __init__(self, seed: str | None = None) -> None:
        self.seed = secrets.token_hex(8) if seed is None else seed
        self._count = itertools.count(1)

    def hexed(self, prefix: str) -> str:
        """Return an id of the newer kind, such as `resp_` and fifty hex digits."""
        return f"{prefix}_{self._digest(prefix)[: HEX_CHARS.get(prefix, 50)]}"

    def short(self, prefix: str) -> str:
        """Return an id of the older kind, such as `thread_` and 24 letters and digits."""
        number = int(self._digest(prefix), 16)
        letters = []
        for _ in range(ALNUM_CHARS):
            number, rest = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[rest])
        return f"{prefix}_{''.join(letters)}"

    def _digest(self, prefix: str) -> str:
        told = f"{self.seed}:{prefix}:{next(self._count)}"
        return hashlib.sha256(told.encode()).hexdigest()
