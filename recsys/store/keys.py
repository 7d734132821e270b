"""Keys of LMDB from ids: the id's own bytes, or a hash where it is longer than LMDB takes."""

import hashlib

LONGEST = 400  # bytes; LMDB takes 511, and letters and numbers stand before and after
HASHED = b"\xff#"  # no UTF-8 text begins so


def key_of(text: str) -> bytes:
    """The key of an id; equal for equal ids alone, but for a collision of 256 bits."""
    key = text.encode("utf-8", "surrogatepass")
    return key if 0 < len(key) <= LONGEST else HASHED + hashlib.blake2b(key, digest_size=32).digest()
