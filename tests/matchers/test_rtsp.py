from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.rtsp import rtsp
from txmux.testing import calls_in, in_pieces

# The first is recorded from curl 7.88.1; the others are the examples of RFC 2326, section 10.2, and RFC 7826, 13.1.
SAMPLES = (
    b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: curl/7.88.1\r\n\r\n",
    b"DESCRIBE rtsp://server.example.com/fizzle/foo RTSP/1.0\r\nCSeq: 312\r\n\r\n",
    b"OPTIONS rtsp://server.example.com RTSP/2.0\r\nCSeq: 1\r\nUser-Agent: PhonyClient/1.2\r\n\r\n",
)
LINE = SAMPLES[1][: SAMPLES[1].index(b"\n")]
FITS = b"PLAY " + b"a" * (8192 - 16) + b" RTSP/1.0\r\n"
# Its LF is a match, whatever follows.
DECIDED_AT = tuple(sample.index(b"\n") + 1 for sample in SAMPLES)
MATCHED = (
    (b"SET_PARAMETER rtsp://a/\xe9 RTSP/1.0\n\0", 34),
    # A line ends within 8 KiB.
    (FITS, 8192),
)
REFUSED = (
    (b"OPTIONS / HTTP/1.1\r\n", 11), (b"OPTIONS sip:a@example.com SIP/2.0\r\n", 27), (b"GET rtsp://a RTSP/1.0\r\n", 4),
    (b"PLAY  rtsp://a RTSP/1.0\r\n", 6), (b"PLAY rtsp://a RTSP/3.0\r\n", 20), (b"PLAY rtsp://a RTSP/1.1\r\n", 22),
    (b"PLAY rtsp://a RTSP/1.0 \r\n", 23), (b"PLAY rtsp://a\r\n", 14), (b"PLAY rtsp://a\x00 RTSP/1.0\r\n", 14),
    (b"play rtsp://a RTSP/1.0\r\n", 1), (b"POST / HTTP/1.1\r\n", 2), (b"\r\nPLAY", 1), b"PLAY " + b"a" * 9000,
)  # fmt: skip


class CostTests(SynchronousTestCase):
    def test_a_long_line_costs_the_same_for_each_byte_as_a_short_one(self) -> None:
        predicate = rtsp.predicate({})

        def cost(size: int) -> float:
            data = b"PLAY " + b"a" * size
            return calls_in(lambda: in_pieces(predicate, data, range(1, len(data)))) / size

        cost(400)  # The pattern is compiled when it is first asked for.
        self.assertLess(cost(4000), 1.1 * cost(400))
