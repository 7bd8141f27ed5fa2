from twisted.trial.unittest import SynchronousTestCase

from tests.wire.hello_builder import byte_by_byte, sslv2_hello
from txmux.wire.client_hello import ClientHello, parse_client_hello

HELLO = sslv2_hello()


class HelloTests(SynchronousTestCase):
    def test_version(self) -> None:
        """The version is read at its end; there is no name, and no protocol."""
        for version, name in ((0x0002, "ssl2"), (0x0300, "ssl3"), (0x0301, "1.0"), (0x0303, "1.2")):
            data = sslv2_hello(version=version)
            reader, at = byte_by_byte(data + b"\x16\x03")
            self.assertEqual((reader.hello, at), (ClientHello(None, (), name), len(data)))
            self.assertIsNone(reader.ja4())

    def test_session_id_and_challenge_have_the_sizes_of_their_own(self) -> None:
        for data in (
            sslv2_hello(session_id=bytes(16)),
            sslv2_hello(challenge=bytes(32)),
            sslv2_hello(cipher_suites=bytes(3 * 150)),
        ):
            self.assertIsNotNone(parse_client_hello(data, None).hello)

    def test_the_byte_that_rules_it_out_is_the_one_that_shows_it(self) -> None:
        for change, at in (
            ({0: 0x82}, 0), ({1: 27}, 1), ({2: 0}, 2), ({2: 2}, 2), ({3: 1}, 3), ({3: 4}, 3),
            ({3: 0}, 4), ({4: 5}, 4), ({5: 1}, 5), ({6: 0}, 6), ({6: 20}, 6), ({6: 24}, 6),
            ({6: 3}, 8), ({7: 1}, 7), ({8: 1}, 8), ({8: 16}, 8), ({9: 1}, 9), ({10: 15}, 10),
        ):  # fmt: skip
            bad = bytearray(HELLO)
            for index, value in change.items():
                bad[index] = value
            reader, length = byte_by_byte(bytes(bad))
            self.assertTrue(reader.malformed, change)
            self.assertEqual(length, at + 1, change)
