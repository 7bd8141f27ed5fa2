"""The `sip` matcher."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txmux.matchers.sip import sip
from txmux.testing import check_matcher

# The examples of RFC 3261, sections 24.1 and 24.2, and of RFC 5626, section 9.1; one begins with a ping; the last is the
# beginning of what sipsak 0.9.8.1 sends.
SAMPLES = (
    b"REGISTER sip:registrar.biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP bobspc.biloxi.com:5060\r\n",
    b"INVITE sip:bob@biloxi.com SIP/2.0\r\nVia: SIP/2.0/TCP pc33.atlanta.com\r\n",
    b"\r\n\r\nOPTIONS sips:example.com;transport=tcp SIP/2.0\r\n",
    b"OPTIONS sip:alice@127.0.0.1:3827 SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1:39063;branch=z9hG4bK.1821e0f9;rport;alias\r\n",
)


class ContractTests(SynchronousTestCase):
    """The first request line decides."""

    def test_contract(self) -> None:
        """What begins like this, and at which byte it is decided."""
        fits = b"INVITE sip:" + b"a" * (8192 - 21) + b" SIP/2.0\r\n"
        check_matcher(
            sip,
            samples=[
                # Its LF is a match, whatever follows, with up to two empty lines before it.
                *((sample, sample.index(b"SIP/2.0\r\n") + 9) for sample in SAMPLES),
                (b"\r\nMESSAGE tel:+1-201-555 SIP/2.0\n", 33),
                # All of it ends within 8 KiB.
                (fits, 8192),
            ],
            not_samples=[
                # The first byte off the grammar is a no.
                (b"OPTIONS / HTTP/1.1\r\n", 9),
                (b"OPTIONS * RTSP/1.0\r\n", 9),
                (b"OPTIONS rtsp://example.com RTSP/1.0\r\n", 28),
                (b"SUBSCRIBE /event HTTP/1.1\r\n", 11),
                (b"INVITE sip: SIP/2.0\r\n", 12),
                (b"INVITE bob SIP/2.0\r\n", 11),
                (b"INVITE sip:bob SIP/3.0\r\n", 20),
                (b"INVITE sip:bob SIP/2.0 \r\n", 23),
                (b"INVITE  sip:bob SIP/2.0\r\n", 8),
                (b"invite sip:bob SIP/2.0\r\n", 1),
                (b"\r\n\r\n\r\nINVITE", 5),
                (b"\r\n\r\n\x00\r\nQUIT\n", 5),
                (b"INFO\r\n", 5),
                # All of it ends within 8 KiB.
                b"\r\n" + fits,
            ],
            undecided=[
                *(b"\r\n\r\n", b"INVITE sip:bob@biloxi.com SIP/2.0\r"),
            ],
        )
