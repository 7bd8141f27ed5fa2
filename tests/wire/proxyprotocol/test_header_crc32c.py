from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.proxyprotocol.header import crc32c


class Crc32cTests(SynchronousTestCase):
    def test_check_value(self) -> None:
        """It has the check value that identifies CRC32C among the 32-bit checksums."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_it_agrees_with_the_examples_of_rfc_3720_appendix_b_4(self) -> None:
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)

    def test_of_no_bytes_it_is_zero(self) -> None:
        self.assertEqual(crc32c(b""), 0)
