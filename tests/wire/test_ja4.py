from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire import hello_builder
from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name, versions
from txmux.wire.client_hello import parse_client_hello

# The example of FoxIO's description, technical_details/JA4.md.
CIPHER_SUITES = "1301 1302 1303 c02b c02f c02c c030 cca9 cca8 c013 c014 009c 009d 002f 0035"
EXTENSIONS = "001b 0000 0033 0010 4469 0017 002d 000d 0005 0023 0012 002b ff01 000b 000a 0015"
ALGORITHMS = "0403 0804 0401 0503 0805 0501 0806 0601"
EXAMPLE = "t13d1516h2_8daaf6152771_e5627efa2ab1"

KNOWN = {
    "0000": server_name("www.example.com"),
    "0010": alpn(b"h2", b"http/1.1"),
    "002b": versions(0x0304, 0x0303),
}


def extensions(algorithms: str = ALGORITHMS) -> list[bytes]:
    known = {**KNOWN, "000d": extension(13, hello_builder.sized(2, bytes.fromhex(algorithms)))}
    return [
        known.get(number, extension(int(number, 16), b"\x01\x02\x03"))
        for number in EXTENSIONS.split()
    ]


def ja4(*parts: bytes, cipher_suites: str = "1301", legacy_version: int = 0x0303) -> str:
    hello = client_hello(
        *parts, cipher_suites=bytes.fromhex(cipher_suites), legacy_version=legacy_version
    )
    return str(parse_client_hello(records(hello), None).ja4())


class FingerprintTests(SynchronousTestCase):
    def test_fingerprints(self) -> None:
        """So is the last part of it without signature algorithms."""
        self.assertEqual(ja4(*extensions(), cipher_suites=CIPHER_SUITES), EXAMPLE)
        for algorithms in ("", "5a5a"):
            found = ja4(*extensions(algorithms), cipher_suites=CIPHER_SUITES)
            self.assertEqual(found, "t13d1516h2_8daaf6152771_6d807ffa2a79")
        # The order of cipher suites and extensions does not count; that of the algorithms does.
        reverse = " ".join(reversed(CIPHER_SUITES.split()))
        self.assertEqual(ja4(*reversed(extensions()), cipher_suites=reverse), EXAMPLE)
        other = ja4(*extensions("0804 0403"), cipher_suites=CIPHER_SUITES)
        self.assertNotIn(other[-13:], ("_e5627efa2ab1", "None"))
        parts = [
            extension(0x2A2A, b""), *extensions(f"{ALGORITHMS} 6a6a"), extension(0xDADA, b"\0"),
        ]  # fmt: skip
        parts[parts.index(KNOWN["002b"])] = versions(0xFAFA, 0x0304)
        parts[parts.index(KNOWN["0010"])] = alpn(b"\x1a\x1a", b"h2")
        self.assertEqual(ja4(*parts, cipher_suites=f"0a0a {CIPHER_SUITES}"), EXAMPLE)
        # The hash of nothing is all zeros; a hello that is not there in full has no fingerprint; one without a list of extensions has.
        nothing = "000000000000"
        self.assertEqual(ja4(cipher_suites="1a1a"), f"t12i000000_{nothing}_{nothing}")
        only = ja4(KNOWN["0000"], KNOWN["0010"], cipher_suites="1a1a")
        self.assertEqual(only, f"t12d0002h2_{nothing}_{nothing}")
        self.assertIsNone(parse_client_hello(records(client_hello())[:-1], None).ja4())
        self.assertIsNone(parse_client_hello(b"\x16\x02", None).ja4())
        without = parse_client_hello(records(client_hello(with_extensions=False)), None).ja4()
        self.assertEqual(without, "t12i010000_0f2cb44170f4_000000000000")

    @settings(max_examples=scaled(100), deadline=None)
    @given(
        st.binary(min_size=1, max_size=9).map(lambda data: data * 2),
        st.lists(st.builds(extension, st.sampled_from([13, 21, 0x0A0A]), st.binary(max_size=9))),
    )
    def test_property_any(self, cipher_suites: bytes, parts: list[bytes]) -> None:
        """The fingerprint has its form."""
        found = ja4(*parts, cipher_suites=cipher_suites.hex())
        self.assertRegex(found, "^t12i[0-9]{4}00_[0-9a-f]{12}_[0-9a-f]{12}$")

    def beginning(self, *parts: bytes, **more: Any) -> str:
        return ja4(*parts, **more).partition("_")[0]

    def test_parts(self) -> None:
        """The version is the highest of the extension, else that of the hello; 00 if there is none such. With a server name there is ``d``, else ``i``; cipher suites and extensions are counted up to 99. Of the first protocol the ends are shown, in hex if one of them is no letter or digit."""
        for number, name in ((0x0300, "s3"), (0x0301, "10"), (0x0302, "11"), (0x0303, "12")):
            self.assertEqual(self.beginning(legacy_version=number)[1:3], name)
        self.assertEqual(self.beginning(versions(0x0303, 0x0304, 0x0302))[1:3], "13")
        self.assertEqual(self.beginning(versions(0x0002))[1:3], "s2")
        self.assertEqual(self.beginning(versions(0x7F1C, 0x0304))[1:3], "00")
        self.assertEqual(self.beginning(versions(0x1A1A))[1:3], "00")
        self.assertEqual((self.beginning(KNOWN["0000"])[3], self.beginning()[3:8]), ("d", "i0100"))
        many = [extension(0x1000 + number, b"") for number in range(120)]
        self.assertEqual(self.beginning(*many, cipher_suites="00ff" * 120)[4:8], "9999")
        for protocol, ends in (
            (b"h2", "h2"), (b"http/1.1", "h1"), (b"x", "xx"), (b"\xab", "ab"), (b"\xab\xcd", "ad"),
            (b"0\xab", "3b"), (b"01\xab\xcd", "3d"), (b"0\xab\xcd1", "01"),
        ):  # fmt: skip
            self.assertEqual(self.beginning(alpn(protocol))[8:], ends)
        self.assertEqual(self.beginning()[8:], "00")
