from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import MATCH, NEED_MORE, NO, Facts
from tests.support.examples import scaled
from tests.wire.dtls_builder import V10, V12, V13, dtls_body, fragment, hello_datagrams, record
from tests.wire.hello_builder import alpn, extension, server_name, versions
from txmux.interfaces import Datagrams, Verdict
from txmux.matchers.dtls import dtls
from txmux.testing import flow_decided, steps_in

BODY = dtls_body(server_name("www.Example.com"), alpn(b"coap"), extension(21, bytes(40)))
(WHOLE,) = hello_datagrams(BODY)
(WITH_COOKIE,) = hello_datagrams(
    dtls_body(server_name("www.example.com"), cookie=b"c" * 255), message=1
)
CUT = tuple(hello_datagrams(BODY, 20, 80))
DATAGRAMS = (WHOLE, WITH_COOKIE, CUT[0])
ANOTHER = dtls_body(server_name("www.Another.com"), alpn(b"coap"), extension(21, bytes(40)))
NAMELESS = hello_datagrams(dtls_body(extension(21, b"")))
# One datagram is enough, also with a fragment from the middle.
MATCHED_DATAGRAMS = (CUT[1], CUT, (WHOLE, b"x"))
REFUSED_DATAGRAMS = (
    b"\x16\xfe\xff", b"\x16\x03\x01\0\x20\1\0\0\x1c" + bytes(40), record(fragment(BODY, 0, 50), kind=23),
    record(fragment(BODY, 0, 50), version=0x0303), record(fragment(BODY, 0, 50), epoch=1),
    record(fragment(BODY, 0, 50), number=1 << 32), record(fragment(BODY, 0, 50, message=2)),
    record(b"\2" + fragment(BODY, 0, 50)[1:]), record(fragment(BODY, 0, 50, length=20_000)),
    record(fragment(BODY, 0, 50, length=49)), record(fragment(BODY, 0, 0)), record(fragment(b"\3\3" + BODY[2:], 0, 50)),
    record(fragment(BODY, 0, 50))[:-1],
)  # fmt: skip
OTHER_NAME = hello_datagrams(dtls_body(server_name("www.example.org")))
VERSIONS = (
    ("1.0", "1.2,1.3", dtls_body(version=V10)), ("1.2", "1.0,1.3", dtls_body()),
    ("1.2", "1.0,1.3", dtls_body(versions(V12, V10))), ("1.3", "1.0,1.2", dtls_body(versions(0x0A0A, V13, V12))),
)  # fmt: skip
DATAGRAM_VERDICTS = (
    # With a name the whole hello is needed.
    *(
        ("sni=*.example.com", flow, MATCH)
        for flow in (WHOLE, WITH_COOKIE, CUT, CUT[::-1], b"".join(CUT))
    ),
    ("sni=*.example.com", OTHER_NAME, NO), ("sni=*.example.com", CUT[:2], NEED_MORE),
    ("sni=*.example.com", CUT[1:], NEED_MORE), ("sni=none", WHOLE, NO),
    ("sni=none", NAMELESS, MATCH), ("alpn=coap", WHOLE, MATCH), ("alpn=webrtc", WHOLE, NO),
    # Several fragments may be in one record.
    ("sni=*.example.com", record(fragment(BODY, 0, 30) + fragment(BODY, 30, len(BODY))), MATCH),
    # What does not belong to it is left out; what contradicts it is a no.
    *(
        ("sni=*.example.com", (CUT[0], stray, *CUT[1:]), MATCH)
        for stray in (b"", b"x", record(b"\1", kind=21), record(fragment(BODY, 9, 20, message=1)))
    ),
    (
        "sni=*",
        (record(fragment(BODY, 0, 75)), record(fragment(ANOTHER, 60, len(ANOTHER)))),
        NO,
    ),
    # What is not whole in four datagrams is a no.
    ("sni=*", hello_datagrams(BODY, 20, 40, 60, 80), NO),
    # The version is the highest that is offered, by its name in DTLS.
    *((f"version={name}", hello_datagrams(body), MATCH) for name, _, body in VERSIONS),
    *((f"version={others}", hello_datagrams(body), NO) for _, others, body in VERSIONS),
)  # fmt: skip
DATAGRAM_KEYS = (
    ("sni=a.example,*.b.example", WHOLE, "www.example.com"),
    ("sni=a.example,*.b.example", b"\x16", ""), ("sni=a.example,*.b.example", CUT[:1], None),
)  # fmt: skip
INSIDE = {"sni": "www.example.com", "alpn": "coap", "tls": "1.2"}
DATAGRAM_FACTS: Facts = (("", WHOLE, INSIDE), ("", CUT, INSIDE), ("", CUT[1], {}))


def verdict(*datagrams: bytes, **options: str) -> Verdict:
    return flow_decided(dtls.predicate(options), datagrams).verdict


class FragmentTests(SynchronousTestCase):
    @settings(max_examples=scaled(60))
    @given(st.data())
    def test_cut(self, data: st.DataObject) -> None:
        """Fragments are put together in any order, twice, over records and datagrams."""
        body = dtls_body(server_name("www.example.com"), cookie=data.draw(st.binary(max_size=40)))
        cuts = sorted(data.draw(st.sets(st.integers(1, len(body) - 1), max_size=8)))
        records = hello_datagrams(body, *cuts)
        records += data.draw(st.lists(st.sampled_from(records), max_size=3))
        records = data.draw(st.permutations(records))
        part = data.draw(st.integers(0, len(records)))
        flow = [one for one in (b"".join(records[:part]), b"".join(records[part:])) if one]
        self.assertIs(verdict(*flow, sni="www.example.com"), MATCH)
        self.assertIs(verdict(*flow, sni="www.example.org"), NO)

    def test_hundreds_of_small_fragments_in_one_record_or_in_many_cost_little(self) -> None:
        predicate = dtls.predicate({"sni": "*.example.com"})
        small = [fragment(BODY, n % 90, n % 90 + 1) for n in range(2000)]
        for flow in (record(b"".join(small)), b"".join(map(record, small))):
            self.assertLess(steps_in(lambda: predicate(Datagrams((flow,)))), 4_000)  # noqa: B023
            self.assertIs(verdict(flow, sni="*"), NO)
