from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.wire.hello_builder import client_hello, records, server_name, sslv2_hello, versions
from tests.wire.http2_builder import frame, request
from txmux.interfaces import Peeked
from txmux.rules.installed import STAGES
from txmux.rules.optional import named
from txmux.tcp.answers import RejectionAnswer, answer_to
from txmux.wire.http2_opening import PREFACE

_MAKERS = [named(stage.maker) for stage in STAGES["route"]]
NOTHING = RejectionAnswer(b"", complete=True)
NOT_YET = RejectionAnswer(b"", complete=False)
HELLO = records(client_hello(server_name("a.example"), versions(0x0304)))
ALERT = bytes.fromhex("15 0303 0002 0270")
GET = b"GET / HTTP/1.1\r\n"
REQUEST = b"\x82\x84\x86"  # ``GET / http`` by the static table of HPACK
HTTP2 = PREFACE + frame(4) + request(REQUEST, stream=3)
SSH = b"SSH-2.0-x\r\n"
SPEAKING = (
    HELLO, sslv2_hello(), GET, b"HEAD / HTTP/1.0\r\n", HTTP2, SSH, b"PING\r\n", b"*1\r\n$4\r\n",
)  # fmt: skip


def answer(said: bytes, *, unavailable: bool = False, **more: Any) -> RejectionAnswer:
    return answer_to(Peeked(said), unavailable=unavailable, **more)


class AnswerTests(SynchronousTestCase):
    def test_alert_comes_with_the_hello_in_its_record_version(self) -> None:
        """So it does with one of SSL 2.0 that offers TLS."""
        self.assertEqual(answer(HELLO), RejectionAnswer(ALERT, complete=True))
        self.assertEqual(answer(HELLO, unavailable=True), RejectionAnswer(ALERT, complete=True))
        self.assertEqual((answer(records(HELLO[5:], 1)).data, answer(HELLO[:-1])), (ALERT, NOT_YET))
        for version in (0x0300, 0x0301, 0x0302, 0x0303):
            hello = records(client_hello(legacy_version=version))
            self.assertEqual(answer(hello).data[1:3], version.to_bytes(2, "big"))
        self.assertEqual(answer(sslv2_hello()).data[:3], b"\x15\x03\x01")

    def ssh_packet(self, *, unavailable: bool) -> bytes:
        reported = answer(SSH, unavailable=unavailable)
        self.assertTrue(reported.complete)
        line, _, ssh_packet = reported.data.partition(b"\r\n")
        self.assertEqual(line, b"SSH-2.0-txmux")
        size, padding = int.from_bytes(ssh_packet[:4], "big"), ssh_packet[4]
        self.assertEqual((4 + size, len(ssh_packet) % 8), (len(ssh_packet), 0))
        self.assertGreaterEqual(padding, 4)
        return ssh_packet[5:-padding]

    def test_disconnect_of_ssh_has_a_reason_of_rfc_4253_and_words(self) -> None:
        rows = (False, 1, b"not allowed here"), (True, 7, b"no server can be reached")
        for unavailable, reason, words in rows:
            ssh_packet = b"\1\0\0\0%c\0\0\0%c%s\0\0\0\0" % (reason, len(words), words)
            self.assertEqual(self.ssh_packet(unavailable=unavailable), ssh_packet)

    def test_response_of_http_1_comes_with_the_request_line_and_closes(self) -> None:
        """That to HEAD has no body, and none comes without a request."""
        reported = answer(GET).data
        head, _, body = reported.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"HTTP/1.1 403 Forbidden")
        self.assertIn(b"Connection: close", lines)
        self.assertIn(b"Content-Length: %d" % len(body), lines)
        self.assertEqual((body, answer(GET[:-2])), (b"403 Forbidden\n", NOT_YET))
        self.assertEqual(answer(b"HEAD / HTTP/1.1\r\n").data, head + b"\r\n\r\n")
        reported = answer(GET, unavailable=True).data
        self.assertTrue(reported.startswith(b"HTTP/1.1 503 Service Unavailable\r\n"))

    def test_response_of_http_2_closes_the_stream_and_the_connection(self) -> None:
        """Settings come at once; an opening without a request gets no more."""
        self.assertEqual(answer(PREFACE[:10]), NOT_YET)
        for begun in (PREFACE, HTTP2[:-1]):
            self.assertEqual(answer(begun), RejectionAnswer(frame(4), complete=False))
        for unavailable, status in ((False, b"403"), (True, b"503")):
            response = request(b"\x08\x03" + status, stream=3)
            end = frame(7, b"\x00\x00\x00\x03\x00\x00\x00\x00")
            whole = RejectionAnswer(frame(4) + frame(4, flags=1) + response + end, complete=True)
            self.assertEqual(answer(HTTP2, unavailable=unavailable), whole)
        nothing = RejectionAnswer(frame(4), complete=True)
        self.assertEqual(answer(PREFACE + frame(0, stream=1)), nothing)

    def test_every_form_of_a_redis_command_gets_a_simple_error(self) -> None:
        error = RejectionAnswer(b"-ERR not allowed here\r\n", complete=True)
        for command in (b"PING\r\n", b"*1\r\n$4\r\n"):
            self.assertEqual(answer(command), error)
            unavailable = answer(command, unavailable=True).data
            self.assertEqual(unavailable, b"-ERR no server can be reached\r\n")

    def test_other_protocols_and_garbage_get_no_answer(self) -> None:
        garbage, rtsp = b"\x16\x03\x01\x00\x20\x01" + bytes(40), b"GET / RTSP/1.0\r\n"
        others = sslv2_hello(version=2), b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\xff", b"howdy\r\n"
        for said in (garbage, rtsp, *others):
            self.assertEqual(answer(said), NOTHING, said)

    @given(st.sampled_from(SPEAKING) | st.binary(min_size=1, max_size=30), st.data())
    def test_answer_only_grows(self, said: bytes, data: st.DataObject) -> None:
        before, peeked = NOT_YET, None
        first = st.sampled_from([(), *(make.answers for make in _MAKERS)])
        flags = dict.fromkeys(("unavailable", "rejects"), st.booleans())
        options = data.draw(st.fixed_dictionaries({**flags, "first": first}))
        for length in range(1, len(said) + 1):
            peeked = Peeked(said[:length], peeked)
            now = answer_to(peeked, **options)
            self.assertEqual(now, answer(said[:length], **options))
            self.assertTrue(now.data.startswith(before.data))
            if before.complete:
                self.assertEqual(now, before)
            before = now
