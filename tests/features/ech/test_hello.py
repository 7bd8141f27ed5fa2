"""Hidden hellos are opened as RFC 9849 says, and nothing else is."""

from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.features.ech import client as clients
from tests.features.ech.client import HIDDEN, INNER, MadeKey, Sealer, inner, outer_extensions
from tests.support.examples import scaled
from tests.wire import hello_builder
from tests.wire.hello_builder import client_hello, extension, records, server_name, sized, versions
from txmux.features.ech.hello import EchKey, EchReader, SecondInnerHello, open_hello, read_configs
from txmux.features.ech.hpke import AES_256_GCM, CHACHA20_POLY1305
from txmux.wire.client_hello import parse_client_hello
from txmux.wire.cursor import IllegalHelloError, MalformedError
from txmux.wire.hello.records import asks_again, before_hello
from txmux.wire.preamble import InnerHello

_MADE = MadeKey()
_KEYS = {7: _MADE.key}
_LIMIT = 32768


def _read(stream: bytes, keys: dict[int, EchKey] = _KEYS) -> InnerHello:
    hello = EchReader(keys, _LIMIT).read(stream, last=True)
    assert hello is not None
    return hello


class _Counting:
    def __init__(self, private: X25519PrivateKey) -> None:
        self.exchanges, self._private = 0, private

    def exchange(self, public: Any) -> bytes:
        self.exchanges += 1
        return self._private.exchange(public)

    def public_key(self) -> Any:
        return self._private.public_key()


class HelloTest(SynchronousTestCase):
    def opened(self) -> tuple[Sealer, SecondInnerHello]:
        sealer = Sealer(_MADE)
        return sealer, open_hello(sealer.hello(inner()), _KEYS)[1]

    def test_illegal(self) -> None:
        plain = client_hello(server_name(HIDDEN), versions(0x0304))
        good = Sealer(_MADE).hello(inner())
        for alert, stream in (
            (109, records(plain)), (51, records(Sealer(_MADE).second(inner()))), (47, records(good)),
            (47, records(Sealer(_MADE).second(inner(), aead=3))),
            (47, records(Sealer(MadeKey(8)).second(inner()))),
            (47, records(Sealer(_MADE).second(inner()) + b"x")),
            (47, records(client_hello(server_name(HIDDEN), INNER, versions(0x0304)))),
            (47, b"\x16\3\1\0\0"), (None, records(plain)[:-1] + b"x" + records(b"x")),
        ):  # fmt: skip
            with self.assertRaises(IllegalHelloError) as caught:
                self.opened()[1].receive(stream)
            self.assertIn(alert, {caught.exception.alert[-1], None})
        name, tls13 = server_name(HIDDEN), versions(0x0304)
        for why, encoded in {
            "padding": inner(padding=b"\0\0\1"),
            "session": inner(session=b"x"),
            "no mark": inner(name, tls13),
            "mark with more": inner(name, tls13, extension(clients.ECH, b"\1\0")),
            "TLS 1.2, too": inner(name, INNER, versions(0x0304, 0x0303)),
            "no TLS 1.3": inner(name, INNER),
            "twice": inner(name, INNER, tls13, tls13),
            "twice, by reference": inner(name, INNER, tls13, outer_extensions(43)),
            "wrong order": inner(name, INNER, outer_extensions(hello_builder.KEY_SHARE, 43)),
            "reference twice": inner(name, INNER, outer_extensions(43, 43)),
            "no such extension": inner(name, INNER, tls13, outer_extensions(9)),
            "reference to ECH": inner(
                name, tls13, INNER, outer_extensions(hello_builder.KEY_SHARE, clients.ECH)
            ),
            "empty reference": inner(name, tls13, INNER, extension(0xFD00, b"\0")),
            "odd reference": inner(name, tls13, INNER, extension(0xFD00, b"\3\0\x2b\0")),
            "two names": inner(server_name("a.example", HIDDEN), INNER, tls13),
            "cut": inner()[:60],
            "empty": b"",
        }.items():
            with self.assertRaises(IllegalHelloError, msg=why) as caught:
                open_hello(Sealer(_MADE).hello(encoded), _KEYS)
            self.assertEqual(caught.exception.alert, bytes.fromhex("15 0303 0002 02 2f"))

    def test_second_hello_does_not_depend_on_cuts(self) -> None:
        """What comes before it is passed on, by whole records, and all that follows."""
        others, whole = b"\x14\3\3\0\1\1", b"\x17\3\3\0\2xx"
        for size in (1, 7, 1000):
            sealer, second = self.opened()
            stream, passed = others + whole + records(sealer.second(inner()), 100) + b"more", []
            for at in range(0, len(stream), size):
                piece = stream[at : at + size]
                passed.append(piece if second.is_over else second.receive(piece))
                if at + size < len(others + whole):
                    self.assertIn(passed[-1], {b"", others})
            got = b"".join(passed).removeprefix(others + whole)
            self.assertEqual(parse_client_hello(got, None).sni, HIDDEN)
            self.assertTrue(got.endswith(b"more"))
            self.assertEqual((second.is_opened, second.rest), (True, b""))

    def test_server_asks_again_and_what_comes_before_the_second_hello(self) -> None:
        """An alert is passed on, after which a hello may still follow, and so is whatever else is no hello."""
        for message, asks in (
            (hello_builder.server_hello(), True), (hello_builder.server_hello(bytes(32)), False), (hello_builder.server_hello(kind=1), False),
        ):  # fmt: skip
            for size in (16384, 1, 7):
                stream = records(message, size)
                answers = [asks_again(stream[:end]) for end in range(len(stream) + 1)]
                first = next(end for end, answer in enumerate(answers) if answer is not None)
                self.assertEqual((set(answers[:first]), set(answers[first:])), ({None}, {asks}))
        self.assertEqual(asks_again(b"\x15\3\3\0\2\2\x28"), False)
        changed, early = bytes.fromhex("140303000101"), b"\x17\3\3\0\2xx"
        for data, whole in (
            (b"", 0), (changed, 6), (changed + early + b"\x16\3\3", 13), (changed + early[:-1], 6),
            (b"\x16\3\3\0\1x", 0),
        ):  # fmt: skip
            self.assertEqual(before_hello(data), whole)
        for stream, is_over in ((b"\x15\3\3\0\2\1\x5a", False), (b"SSH", True)):
            _, second = self.opened()
            self.assertEqual(second.receive(stream), stream)
            self.assertEqual((second.is_over, second.is_opened), (is_over, False))

    def test_hidden_hello_is_restored(self) -> None:
        """It has the session ID and the referenced extensions of the outer one, in the place of the reference."""
        for aead in (1, CHACHA20_POLY1305):
            stream = records(Sealer(_MADE, aead).hello(inner())) + b"more"
            hello = _read(stream)
            share = extension(hello_builder.KEY_SHARE, sized(2, b"share"))
            parts = server_name(HIDDEN), INNER, versions(0x0304), share
            expected = client_hello(*parts, session_id=clients.SESSION)
            self.assertEqual(hello.stream, records(expected) + b"more")
            self.assertEqual(hello.end, len(records(expected)))
            self.assertEqual(hello.facts, {"ech": "inner", "outer_sni": clients.PUBLIC})
            self.assertEqual(hello.as_received(hello.stream + b" yet"), stream + b" yet")

    def test_decision_does_not_depend_on_cuts_and_costs_one_exchange(self) -> None:
        message = Sealer(_MADE).hello(inner())
        for stream in (records(message), records(message, 50)):
            counting: Any = _Counting(_MADE.private)
            reader = EchReader({7: EchKey(_MADE.key.config, counting)}, _LIMIT)
            answers = [reader.read(stream[:end]) for end in range(1, len(stream) + 1)]
            self.assertEqual(answers[:-1], [None] * (len(stream) - 1))
            assert answers[-1] is not None
            self.assertEqual((answers[-1].stream, counting.exchanges), (_read(stream).stream, 1))
        large = extension(0x1A1A, bytes(20_000))
        encoded = inner(server_name(HIDDEN), INNER, versions(0x0304), outer_extensions(0x1A1A))
        hello = _read(records(Sealer(_MADE).hello(encoded, more=(large,))))
        self.assertEqual(hello.facts["ech"], "inner")
        self.assertEqual(hello.stream[3:5], (1 << 14).to_bytes(2, "big"))
        restored = parse_client_hello(hello.stream, None)
        self.assertEqual((restored.sni, restored.malformed), (HIDDEN, False))

    def test_not_opened(self) -> None:
        """A hello for another key, or a changed one, stays as it is."""
        message = Sealer(_MADE).hello(inner())
        other = MadeKey(8)
        for why, (stream, keys) in {
            "other number": (records(message), {8: _MADE.key}),
            "other key": (records(message), {7: MadeKey().key}),
            "other suite": (records(Sealer(_MADE, AES_256_GCM).hello(inner())), _KEYS),
            "changed": (records(message[:-1] + bytes([message[-1] ^ 1])), _KEYS),
            "outer changed": (records(message.replace(b"share", b"shade")), _KEYS),
            "no point": (records(Sealer(_MADE).hello(inner(), encapsulated=bytes(32))), _KEYS),
            "with more in its record": (records(message + b"x"), _KEYS),
            "not sealed for this": (records(Sealer(other).hello(inner())), _KEYS),
        }.items():
            hello = _read(stream, keys)
            self.assertEqual((hello.stream, hello.facts), (stream, {"ech": "outer"}), why)
        for plain in (records(client_hello(server_name("a.example"))), b"SSH-2.0-x", b"\x16\3\1"):
            self.assertEqual((_read(plain).stream, _read(plain).facts), (plain, {}))

    @settings(max_examples=scaled(400))
    @given(st.data())
    def test_mutated(self, draw: st.DataObject) -> None:
        """Whatever is changed, nothing breaks, and the name is the hidden one or none."""
        size = draw.draw(st.sampled_from([16384, 60]))
        data = bytearray(records(Sealer(_MADE).hello(inner()), size))
        for _ in range(draw.draw(st.integers(0, 3))):
            at = draw.draw(st.integers(0, len(data) - 1))
            change = draw.draw(st.sampled_from(["byte", "cut", "insert"]))
            if change == "byte":
                data[at] = draw.draw(st.integers(0, 255))
            elif change == "cut":
                del data[at : at + draw.draw(st.integers(1, 40))]
            else:
                data[at:at] = draw.draw(st.binary(min_size=1, max_size=20))
            if not data:
                return
        try:
            hello = _read(bytes(data))
        except IllegalHelloError:
            self.fail("only who has sealed it can make it illegal")
        if hello.second is not None:
            self.assertEqual(parse_client_hello(hello.stream, None).sni, HIDDEN)
        else:
            self.assertEqual(hello.stream, bytes(data))

    def test_configurations(self) -> None:
        """Unknown ones are left out, and those that are damaged refused."""
        for name in (clients.PUBLIC, "a"):
            [config] = read_configs(MadeKey(public_name=name).configs)
            self.assertEqual((config.id, config.public_name), (7, name))
            self.assertEqual(config.suites, {(1, 1), (1, 3)})
        raw = _MADE.key.config.raw
        other_version = b"\xfe\x0a" + raw[2:]
        other_kem = raw[:5] + b"\0\x10" + raw[7:]
        mandatory = raw[:2] + sized(2, raw[4:-2] + sized(2, extension(0x8001, b"")))
        for unknown in (other_version, other_kem, mandatory):
            self.assertEqual([*read_configs(sized(2, unknown + raw))], [_MADE.key.config])
        whole = _MADE.configs
        for wrong in (b"", whole[:-1], whole + b"x", b"\0\4" + whole[2:6], b"\0\0"):
            with self.assertRaises(MalformedError):
                list(read_configs(wrong))
        with self.assertRaises(MalformedError):
            list(read_configs(MadeKey(public_name="").configs))
