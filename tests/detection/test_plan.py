"""Short cuts: they cost no route its chance, and make thousands of routes cost little more than ten."""

from ipaddress import ip_network
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.detection.test_detector import decide
from tests.support.examples import scaled
from tests.wire.hello_builder import alpn, client_hello, records, server_name
from txmux.detection.detector import Detector
from txmux.detection.plan import beginnings, can_begin
from txmux.rules.embedding import route
from txmux.rules.model.networks import Clients, NetworkSet
from txmux.testing import calls_in

NAMES = ["a.test", "b.test", "x.a.test", "y.x.a.test", "test", "c.other", "other", "~a.*"]
MATCHES = st.sampled_from(
    ["tls sni=", "tls alpn=h2 sni=", "not tls sni=", "http host=", "http method=POST host=", "minecraft host="]
)  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    " ": {},
    "d": {"dry_run": True},
    "e": {"clients": Clients(NetworkSet([ip_network("10.0.0.0/8")]))},
}
PATTERNS = [*NAMES, "*.test", "*.a.test", ".a.test", "?.test", "*", "b*.test", "*.other,b.test"]


def hello(name: str) -> bytes:
    return records(client_hello(*([server_name(name)] if name else []), alpn(b"h2")))


LINES = st.builds(str.__add__, MATCHES, st.sampled_from(PATTERNS))


class PlanTests(SynchronousTestCase):
    @settings(max_examples=scaled(200), deadline=None)
    @given(
        lines=st.lists(st.lists(LINES, min_size=1, max_size=3), min_size=8, max_size=30),
        kinds=st.text("  de", min_size=30, max_size=30),
        name=st.sampled_from(["", *NAMES, "b.a.test", "none.such", ".test", "a..test"]),
        http=st.booleans(),
        cut=st.integers(0, 60),
    )
    def test_same_winner(
        self, lines: list[list[str]], kinds: str, name: str, *, http: bool, cut: int
    ) -> None:
        made = [route(match, "close", name=str(n)) for n, match in enumerate(lines)]
        routes = [attrs.evolve(one, **KINDS[kind]) for one, kind in zip(made, kinds, strict=False)]
        data = f"GET / HTTP/1.1\r\nHost: {name}\r\n\r\n".encode() if http else hello(name)
        data = data[: max(1, len(data) - cut)]
        expected = next((r.name for r in routes if not r.dry_run and decide([r], [data])), None)
        self.assertEqual(decide(routes, [data]), expected)
        self.assertEqual(decide(routes, (bytes([byte]) for byte in data)), expected)
        earliest, at_most = (
            next((n for n in range(1, len(data)) if few.start_detection().feed(data[:n])), 0)
            for few in (Detector(routes[:7]), Detector(routes[:7] * 2))
        )
        self.assertEqual(earliest, at_most, "an index decides later")

    def test_look_ups_are_bound_by_the_labels_of_routes(self) -> None:
        detector = Detector([route(f"tls sni=*.h{n}.example.com", "close") for n in range(20)])
        usual = calls_in(lambda: detector.start_detection().feed(hello("a.h3.example.com")))
        long = calls_in(
            lambda: detector.start_detection().feed(hello("a." * 8000 + "h3.example.com"))
        )
        self.assertLess(long, usual + 50)

    def test_shared(self) -> None:
        """First bytes that leave the same routes share what is known of them: a client that tries all of them costs no memory."""
        detector = Detector([route(f"tls sni=h{n}.example.com", "close") for n in range(20)])
        self.assertEqual(len({id(detector.plan(byte)) for byte in range(256)}), 2)

    def test_first_byte_leaves_out_only_what_cannot_begin_so(self) -> None:
        for lines, byte, can in [
            ("ssh", b"S", True), ("ssh", b"G", False), (["ssh", "http"], b"G", True),
            ("not ssh", b"G", True), ("any", b"\0", True), ("payload offset=1 text=x", b"G", True),
            ("payload hex=40 mask=c0", b"G", True), ("payload hex=80 mask=c0", b"G", False),
            ("regex pattern=[^G]", b"G", False), ("redis", b"p", True), ("tls", b"\x16", True),
        ]:  # fmt: skip
            made = route(lines, "close")
            begins = frozenset(some for some in beginnings(made) if byte[0] in some)
            self.assertEqual(can_begin(made, begins), can, lines)
