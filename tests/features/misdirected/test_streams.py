import itertools
from typing import Any

from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.features.misdirected import frames
from tests.features.misdirected.frames import DATA, HEADERS, PING, SETTINGS, Speaker, asked
from txmux.features.misdirected.streams import Streams, TooManyError
from txmux.wire.http2_opening import PREFACE, frame

_MINE, _OTHER = "a.example", "b.example"
_ANSWER = [(":status", "421")]
_FIELD = st.tuples(st.sampled_from(["x", "cookie"]), st.text("ab", max_size=30))
_MORE = st.lists(_FIELD, max_size=3)
_REQUESTS = st.lists(
    st.fixed_dictionaries(
        {
            "host": st.sampled_from([_MINE, _OTHER]), "more": _MORE,
            "body": st.none() | st.binary(max_size=40), "trailers": st.booleans(),
            "how": st.fixed_dictionaries(
                {"cut": st.integers(1, 50), "padding": st.integers(0, 9), "priority": st.booleans()}
            ),
            "after": st.sets(st.sampled_from([frames.PRIORITY, frames.RST_STREAM, frames.WINDOW_UPDATE])),
        }
    ),
    max_size=6,
)  # fmt: skip
_CUTS = st.lists(st.integers(0, 400), max_size=12)


def streams() -> Streams:
    return Streams(lambda fields: (b":authority", _OTHER.encode()) in fields)


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = [0, *sorted(min(one, len(data)) for one in at), len(data)]
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


class StreamsTest(SynchronousTestCase):
    @given(_REQUESTS, _CUTS, _CUTS)
    def test_any(self, requests: list[dict[str, Any]], cuts: list[int], others: list[int]) -> None:
        """However it is cut, the server understands all that is for it, and the client every answer."""
        client, server = Speaker(), Speaker()
        expected: list[tuple[int, int, object]] = [(SETTINGS, 0, b"")]
        said, returned = frame(SETTINGS, 0, 0), 0
        for stream, one in zip(range(1, 99, 2), requests, strict=False):
            fields = asked(one["host"], "POST", *one["more"])
            data = client.headers(
                stream, fields, frames.END_STREAM * (one["body"] is None), **one["how"]
            )
            kept: list[tuple[int, int, object]] = [(HEADERS, stream, fields)]
            if one["body"] is not None:
                data += frame(DATA, 0, stream, one["body"])
                kept.append((DATA, stream, one["body"]))
                trailers = [("t", "u"), *one["more"]] if one["trailers"] else []
                end = client.headers(stream, trailers) if trailers else frame(DATA, 1, stream)
                data += end
                kept.append((HEADERS, stream, trailers) if trailers else (DATA, stream, b""))
                returned += len(one["body"]) * (one["host"] == _OTHER)
            for kind in one["after"]:
                data += frame(kind, 0, stream, bytes(5 if kind == frames.PRIORITY else 4))
                kept.append((kind, stream, bytes(5 if kind == frames.PRIORITY else 4)))
            said += data + frame(PING, 0, 0, bytes(8))
            expected += [*(kept if one["host"] == _MINE else []), (PING, 0, bytes(8))]
        its, got, answers = streams(), b"", b""
        for piece in cut(PREFACE + said, cuts):
            got += its.from_client(piece)
            answers += its.answers()
        self.assertEqual(got[: len(PREFACE)], PREFACE)
        self.assertEqual(server.read(got[len(PREFACE) :]), expected)
        refused = [2 * n + 1 for n, one in enumerate(requests) if one["host"] == _OTHER]
        if not refused:
            self.assertEqual(got, PREFACE + said)
        fields = [(":status", "200"), ("x", "y")]
        own = b"".join(server.headers(number, fields, cut=3) for number in (1, 3))
        for piece in cut(frame(SETTINGS, 0, 0) + own + frame(DATA, 1, 1, b"body"), others):
            answers += its.from_server(piece)
        read = client.read(answers)
        self.assertEqual([stream for kind, stream, fields in read if fields == _ANSWER], refused)
        sizes: list[Any] = [size for kind, _, size in read if kind == frames.WINDOW_UPDATE]
        self.assertEqual(sum(int.from_bytes(size, "big") for size in sizes), returned)
        self.assertEqual(read[0][0], SETTINGS)
        whole = [(SETTINGS, 0, b"")] * (1 + bool(refused))
        self.assertEqual([one for one in read if one[0] == SETTINGS], whole)

    def test_answer_waits_for_the_end_of_a_header_section(self) -> None:
        its, client, server = streams(), Speaker(), Speaker()
        self.assertEqual(its.from_client(PREFACE + frame(SETTINGS, 0, 0))[:24], PREFACE)
        section = frames.frames_of(server.headers(1, [(":status", "200")] * 9, cut=4))
        first, *rest = [frame(one.kind, one.flags, one.stream, one.payload) for one in section]
        begun = frame(SETTINGS, 0, 0) + first
        self.assertEqual(its.from_server(begun), begun)
        self.assertEqual(its.from_client(client.headers(1, asked(_OTHER), 0)), b"")
        self.assertEqual(its.answers(), b"")
        out = its.from_server(b"".join(rest) + frame(PING, 0, 0, bytes(8)))
        kinds = [(kind, stream) for kind, stream, _ in client.read(first + out)]
        self.assertEqual(kinds, [(HEADERS, 1), (HEADERS, 1), (frames.RST_STREAM, 1), (PING, 0)])
        # The server gets that of its own, which come later.
        for more in ("", "000200000000 000100010000"):  # with a larger table
            its, client = streams(), Speaker()
            settings = frame(SETTINGS, 0, 0, bytes.fromhex(more))
            its.from_client(PREFACE + settings + client.headers(1, asked(_OTHER)))
            answered = [one.kind for one in frames.frames_of(its.answers())]
            self.assertEqual(answered, [SETTINGS, HEADERS])
        acknowledged = frame(SETTINGS, frames.ACK, 0)
        self.assertEqual(its.from_client(acknowledged), b"")
        self.assertEqual(its.from_client(acknowledged), acknowledged)

    def test_what_is_passed_on_stays_valid(self) -> None:
        """A server whose SETTINGS have made the table smaller awaits that each section empties it (RFC 7541, section 4.2); a field that must not be indexed is written again as such (section 7.1.3)."""
        its, client = streams(), Speaker()
        its.from_client(PREFACE + client.headers(1, asked(_OTHER), 0))
        other = frame(DATA, 0, 1 + (1 << 24), b"x")
        self.assertEqual(its.from_client(frame(DATA, 0, 1, b"x") + other), other)
        its, client = streams(), Speaker()
        its.from_client(PREFACE + client.headers(1, asked(_OTHER)))
        first, second = frame(SETTINGS, 0, 0, bytes(6)), frame(PING, 0, 0, bytes(8))
        got = its.from_server(first[:3]) + its.from_server(first[3:] + second)
        self.assertEqual([one.kind for one in frames.frames_of(got)], [SETTINGS, HEADERS, PING])
        its, client = streams(), Speaker()
        its.from_client(PREFACE + client.headers(1, asked(_OTHER)))
        for stream in (3, 5):
            self.assertEqual(its.from_client(client.headers(stream, asked(_MINE)))[9], 0x20)
        its, encoder = streams(), Encoder()
        its.from_client(PREFACE + frame(HEADERS, 5, 1, encoder.encode(asked(_OTHER))))
        section = encoder.encode([*asked(_MINE), ("key", "hidden", True)], huffman=False)
        got = its.from_client(frame(HEADERS, 5, 3, section))
        self.assertIn(b"\x10", got[got.index(b":method"[:0]) :])
        self.assertEqual(got[9], 0x20)  # the table is emptied before

    def test_what_cannot_be_read_or_is_no_http2_is_for_the_server_to_judge(self) -> None:
        """As long as it has seen all; after that, the connection is ended."""
        for said in (b"GET / HTTP/1.1\r\n", PREFACE[:9] + b"x", b"SSH-2.0-x"):
            its = streams()
            got = b"".join(its.from_client(bytes([byte])) for byte in said * 2)
            self.assertEqual(got, said * 2)
        head = frame(HEADERS, 4, 5, b"\xff\xff\xff\xff\xff\xff")
        ping = frame(PING, 0, 0, bytes(8))
        long = frame(HEADERS, 4, 5, bytes((1 << 16) + 1))
        pushed = frame(HEADERS, 0, 5, b"x") + ping
        for bad in (
            head, long, pushed, frame(HEADERS, 8, 5, b"\x09"),
            frame(HEADERS, 4, 5, b"\x20\x20\x20\x82"),  # many of them take very long
            b"\xff\xff\xff\1\4\0\0\0\1",
        ):  # fmt: skip
            its = streams()
            said = PREFACE + bad + ping
            self.assertEqual(b"".join(map(its.from_client, cut(said, [*range(len(said))]))), said)
            its, client = streams(), Speaker()
            its.from_client(PREFACE + client.headers(1, asked(_OTHER)))
            self.assertRaises(TooManyError, its.from_client, bad)
            strict = Streams(lambda _: False, lambda: False)
            strict.from_client(PREFACE)
            self.assertRaises(TooManyError, strict.from_client, bad)
        for said in (b"GET / HTTP/1.1\r\n", PREFACE[:9] + b"x"):
            strict = Streams(lambda _: False, lambda: False)
            self.assertRaises(TooManyError, strict.from_client, said)

    def test_smaller_tables_are_announced_and_all_is_bounded(self) -> None:
        """Answers announce it, as a client awaits it, before and behind those of the server; once there were requests, it is too late."""
        for size in (0, 30, 31, 158, 159, 4000, 4095):
            its, client, server = streams(), Speaker(), Speaker()
            settings = frame(SETTINGS, 0, 0, b"\0\1" + size.to_bytes(4, "big"))
            client.decoder.max_allowed_table_size = size
            server.encoder.header_table_size = size
            said = PREFACE + settings + client.headers(1, asked(_OTHER))
            self.assertEqual(its.from_client(said), PREFACE + settings)
            read = client.read(its.answers())
            self.assertEqual(read, [(SETTINGS, 0, b""), (HEADERS, 1, _ANSWER)])
            its.from_client(client.headers(3, asked(_MINE)))
            fields = [(":status", "200"), ("x", "y")]
            for answers in ([], [(HEADERS, 5, _ANSWER)]):
                self.assertEqual(client.read(its.answers()), answers)
                served = server.headers(3, fields)
                self.assertEqual(client.read(its.from_server(served)), [(HEADERS, 3, fields)])
                if not answers:
                    its.from_client(client.headers(5, asked(_OTHER)))
            its, client = Streams(lambda _: False, lambda: False), Speaker()
            its.from_client(PREFACE + client.headers(1, asked(_MINE)))
            self.assertRaises(TooManyError, its.from_client, settings)
        # The client may send no body beyond its window while it reads nothing, so that there is an end to what is returned.
        its, client = streams(), Speaker()
        its.from_client(PREFACE)
        for stream in range(1, 2001, 2):
            its.from_client(client.headers(stream, asked(_OTHER)))
        self.assertRaises(TooManyError, its.from_client, client.headers(2001, asked(_OTHER)))
        its, client = streams(), Speaker()
        its.from_client(PREFACE + client.headers(1, asked(_OTHER), 0))
        its.from_server(bytes(5))
        largest = b"\xff\xff\xff" + frame(DATA, 0, 1)[3:] + bytes((1 << 24) - 1)
        for _ in range(128):
            its.from_client(largest)
        self.assertRaises(TooManyError, its.from_client, largest)
