from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.proxyprotocol.header import crc32c


class Crc32cTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """The check value that identifies it, those of RFC 3720, appendix B.4, and that of no bytes."""
        for data, value in (
            (b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43),
            (bytes(range(32)), 0x46DD794E), (b"", 0),
        ):  # fmt: skip
            self.assertEqual(crc32c(data), value, data)
