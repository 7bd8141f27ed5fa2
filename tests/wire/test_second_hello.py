from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.hello_builder import alpn, client_hello, extension, records, server_name, versions
from txmux.wire.client_hello import ClientHello, read_hello
from txmux.wire.cursor import IllegalHelloError
from txmux.wire.hello.second import SecondHello, is_not_read

_CHANGED, _EARLY = b"\x14\3\3\0\1\1", b"\x17\3\3\0\3abc"
_ECH = extension(0xFE0D, b"\1")


def message(*more: bytes, name: str = "a.test", version: int = 0x0304) -> bytes:
    return client_hello(server_name(name), versions(version), *more)


def first(*more: bytes) -> ClientHello | None:
    return read_hello(message(*more))


class SecondHelloTest(SynchronousTestCase):
    @given(
        st.lists(st.sampled_from([_CHANGED, _EARLY]), max_size=3),
        st.integers(1, 400),
        st.lists(st.integers(1, 40), max_size=30),
        st.sampled_from([b"", b"more", records(message(name="vip.test"))]),
    )
    def test_the_same_passes_whole(
        self, before: list[bytes], size: int, cuts: list[int], after: bytes
    ) -> None:
        stream = b"".join(before) + records(message(name="A.test"), size) + after
        second, passed, rest = SecondHello(first()), b"", stream
        for cut in (*cuts, len(stream)):
            passed += rest[:cut] if second.is_over else second.receive(rest[:cut])
            rest = rest[cut:]
        self.assertEqual((passed, second.is_over, second.rest), (stream, True, b""))
        self.assertFalse(second.is_opened)

    @given(st.integers(1, 400), st.lists(st.integers(1, 40), max_size=30))
    def test_no_byte_of_another_passes(self, size: int, cuts: list[int]) -> None:
        for before, other, what in (
            ((), message(name="vip.test"), "other server name than"),
            ((), message(alpn(b"x")), "other application protocols than"),
            ((alpn(b"x"),), message(), "other application protocols than"),
            ((), message(version=0x0303), "other versions than"),
            ((_ECH,), message(), "other encrypted hellos than"),
            ((), message(server_name("vip.test")), "is malformed"),
            ((), b"\x0b" + message()[1:], "is malformed"),
        ):
            second, passed = SecondHello(first(*before)), b""
            rest = _CHANGED + records(other, size)
            with self.assertRaises(IllegalHelloError) as raised:
                for cut in (*cuts, len(rest)):
                    passed += second.receive(rest[:cut])
                    rest = rest[cut:]
            self.assertIn(passed, {b"", _CHANGED})
            self.assertEqual(raised.exception.alert, bytes.fromhex("1503030002022f"))
            self.assertIn(what, str(raised.exception))

    def test_what_follows_no_hello_is_the_servers(self) -> None:
        second = SecondHello(first())
        self.assertEqual(second.receive(b"\x15\3\3\0\2\2\x2f"), b"\x15\3\3\0\2\2\x2f")
        self.assertFalse(second.is_over)
        self.assertEqual(second.receive(b"\x18\3\3"), b"\x18\3\3")
        self.assertTrue(second.is_over)
        self.assertRaises(IllegalHelloError, SecondHello(None).receive, records(message()))

    def test_what_a_server_may_read(self) -> None:
        whole = records(message())
        for data, expected in (
            (whole, False), (whole + b"more", False), (whole[:-1], True), (whole[:2], True),
            (b"\x16", True), (whole[:2] + b"\x09" + whole[3:], True),
            (b"\x16\x02" + whole[2:], True),  # Java, Go
            (b"\x16\xff", True),
            (b"\x16\3\1\0\0" + whole, True),  # OpenSSL, Java
            (b"\x15\3\1\0\2\1\x64" + whole, True),  # Go
            (b"\x15\0\0\0", True),
            (_CHANGED + whole, True),  # GnuTLS
            (b"\x14", True), (b"\x16\3\1\0\5\2", False), (b"\x16\3\1\0\0\1", False),
            (b"\x15\3\1\0\3", False),
            (b"\x14\3\1\0\0" + whole, True),  # OpenSSL
            (b"\x16\3\1\0\0\x14\3\1\0\0" + whole, True), (b"\x14\3\1\1\0", False),
            (b"\x17\3\3\0\3", False), (b"", False), (b"SSH-2.0-x", False),
        ):  # fmt: skip
            self.assertEqual(is_not_read(data), expected, data)
