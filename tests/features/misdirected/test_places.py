import contextlib
import ssl

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.features.misdirected.places import names_of, with_name
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.cursor import MalformedError
from txmux.wire.hello.records import records, take_hello


def hello(name: str | None) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_HELLO, _WITHOUT = hello("a.example"), hello(None)


class PlacesTest(SynchronousTestCase):
    @given(st.text("abc.-", min_size=1, max_size=255), st.integers(40, 600))
    def test_all_but_the_name_stays(self, name: str, cut: int) -> None:
        """However long it is, and however the records were cut."""
        message, _ = take_hello(_HELLO)
        pieces = (message[at : at + cut] for at in range(0, len(message), cut))
        made = with_name(b"".join(records(one, b"\3\1") for one in pieces), name)
        found, own = parse_client_hello(made, None), parse_client_hello(_HELLO, None)
        self.assertEqual((found.sni, found.alpn), (name.removesuffix("."), ("h2",)))
        self.assertEqual((found.version, found.ja4()), (own.version, own.ja4()))
        self.assertEqual(with_name(made, "a.example"), _HELLO)
        self.assertEqual(with_name(_WITHOUT, name), _WITHOUT)  # it gets none

    def test_names_of_requests(self) -> None:
        path, host = (b":path", b"/"), (b"host", b"b.example")
        for fields, names in (
            ([(b":authority", b"A.Example.:8443"), path, host], ["a.example", "b.example"]),
            ([host, path, (b":authority", b"b.example:443"), host], ["b.example"]),
            ([path, host], ["b.example"]),
            ([(b":authority", b""), path, host], ["b.example"]),
            ([(b":authority", b"[::1]:443"), path], ["::1"]),
            ([(b":authority", b"a.example:22")], ()),  # of a tunnel
        ):
            self.assertEqual(names_of(fields), names)
        for name in (
            b"a" * 256, b"", b"x@b.example", b"a.example:443@b.example", b"a.example b.example",
            b"a.example,b.example", b"%61.example", b"\xe4.example", b"b.example/", b"[::1",
        ):  # fmt: skip
            with self.subTest(name):
                self.assertRaises(MalformedError, names_of, [(b":authority", name), path])
