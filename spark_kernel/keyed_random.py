"""Random draws keyed by what they are for, never by the order of calls.

Every draw is keyed by (seed, purpose, round, task, sample), so that evaluation, another batch size or a resumed
run change nothing. There is no global generator anywhere in this package.
"""

from __future__ import annotations

import hashlib
import random


def derive_seed(seed: int, purpose: str, *key: int | str) -> int:
    """A 63-bit seed for one purpose and key; equal arguments give equal seeds on every machine.

    Parts are joined with an unambiguous separator and hashed (BLAKE2b), so ("a", "bc") and ("ab", "c") differ.
    """
    text = "\x1f".join([str(seed), purpose, *(f"{type(part).__name__}:{part}" for part in key)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def keyed_random(seed: int, purpose: str, *key: int | str) -> random.Random:
    """A fresh generator for one purpose and key."""
    return random.Random(derive_seed(seed, purpose, *key))


def content_hash(*parts: object, length: int = 12) -> str:
    """A short hexadecimal digest of the parts, for ids that depend on content only."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()[:length]
