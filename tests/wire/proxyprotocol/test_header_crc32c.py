from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.proxyprotocol.header import crc32c


class Crc32cTests(SynchronousTestCase):
    def test_check_value(self) -> None:
        """It has the check value that identifies CRC32C among the 32-bit checksums."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_published_vectors(self) -> None:
        """It agrees with the examples of RFC 3720, appendix B.4."""
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)

    def test_nothing(self) -> None:
        """Of no bytes it is zero."""
        self.assertEqual(crc32c(b""), 0)
