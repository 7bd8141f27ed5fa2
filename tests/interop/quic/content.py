"""What the servers of these tests give, so that clients can tell from which one it is, and whether it is whole."""

import hashlib


def content(name: str, count: int) -> bytes:
    """Give the bytes of a server; those of another one, or at another place, are others."""
    return hashlib.shake_128(name.encode()).hexdigest(count).encode()[:count]
