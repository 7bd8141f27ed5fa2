"""The checksum of version 2 headers."""

from __future__ import annotations

_POLYNOMIAL = 0x82F63B78  # 0x1EDC6F41 with its bits reversed


def _entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (_POLYNOMIAL if index & 1 else 0)
    return index


_TABLE = tuple(map(_entry, range(256)))


def crc32c(data: bytes) -> int:
    """Compute the CRC32C (Castagnoli) checksum of some bytes: RFC 9260, Appendix A (RFC 4960, Appendix B).

    Returns:
        32 bits; ``0xE3069283`` for ``b"123456789"``.
    """
    remainder = 0xFFFFFFFF
    for byte in data:
        remainder = remainder >> 8 ^ _TABLE[(remainder ^ byte) & 0xFF]
    return remainder ^ 0xFFFFFFFF
