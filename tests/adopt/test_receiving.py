import json
import math
import os
import resource
import socket
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.limits import lowered
from txmux.adopt.receiving import HandedOver, NotGivenError, read, receive
from txmux.net.sockets.handoff import MOST

MESSAGE: dict[str, Any] = {
    "version": 1, "id": "5a9d7143-3", "time": 1750000000.5, "listener": "public", "route": "ssh",
    "client": ["192.0.2.1", 40000], "local": ["2001:db8::1", 443],
    "facts": {"software": "OpenSSH_9.2p1"}, "later": "more",
}  # fmt: skip
TOLD = HandedOver(
    "5a9d7143-3", 1750000000.5, "public", "ssh", ("192.0.2.1", 40000), ("2001:db8::1", 443),
    {"software": "OpenSSH_9.2p1"},
)  # fmt: skip
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
_PLACES = st.tuples(st.ip_addresses().map(str), st.integers(0, 2**16 - 1))


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def without_descriptors() -> AbstractContextManager[None]:
    free = os.dup(0)
    os.close(free)
    return lowered(resource.RLIMIT_NOFILE, free)


class ReceiveTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.giver, self.taker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.client = socket.create_connection(server.getsockname())
            self.accepted, _ = server.accept()
        for one in (self.giver, self.taker, self.client, self.accepted):
            self.addCleanup(one.close)
        self.before = descriptors()

    def give(self, message: bytes, *given: int) -> None:
        socket.send_fds(self.giver, [message], given)

    def refused(self, why: str) -> None:
        self.assertRaisesRegex(NotGivenError, why, receive, self.taker)
        self.assertEqual(descriptors(), self.before)

    def test_received(self) -> None:
        """The client's own socket comes, which no program that is started inherits and which does not block."""
        self.client.sendall(b"hello")
        self.give(json.dumps(MESSAGE).encode(), self.accepted.fileno())
        client, told = receive(self.taker)
        with client:
            self.assertEqual(told, TOLD)
            self.assertEqual(client.getpeername(), self.client.getsockname())
            self.assertFalse(os.get_inheritable(client.fileno()))
            self.assertFalse(client.getblocking())
            self.assertEqual(client.recv(9), b"hello")

    def test_other_than_one_descriptor_and_no_message(self) -> None:
        message, accepted = json.dumps(MESSAGE).encode(), self.accepted.fileno()
        self.give(message)
        self.refused("has 0 descriptors, not one")
        self.give(message, accepted, self.client.fileno())
        self.refused("has 2 descriptors, not one")
        self.give(message, *[accepted] * 253)
        self.refused("has 253 descriptors, not one")
        self.taker.settimeout(0)
        self.assertRaises(BlockingIOError, receive, self.taker)
        self.giver.close()
        self.before -= 1
        self.refused("was closed without a message")

    def test_other_than_a_tcp_connection(self) -> None:
        message = json.dumps(MESSAGE).encode()
        with (
            Path("/dev/zero").open("rb") as file,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.create_server(("127.0.0.1", 0)) as listening,
        ):
            self.before = descriptors()
            self.give(message, file.fileno())
            self.refused("is not a socket")
            for other in (datagrams, listening, self.giver):
                self.give(message, other.fileno())
                self.refused("is not a connected TCP socket")

    def test_messages(self) -> None:
        """A message that cannot be read, or is too long, has its descriptor closed."""
        for message in (b"", b"{", b"[" * 60000, b"\xff", b"{}", b"null"):
            self.give(message, self.accepted.fileno())
            self.refused("cannot be read")
        self.giver.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        self.give(b" " * (MOST + 1), self.accepted.fileno())
        self.refused(f"has more than {MOST} bytes")

    def test_no_room_for_descriptors(self) -> None:
        self.give(json.dumps(MESSAGE).encode(), self.accepted.fileno())
        with without_descriptors():
            why = "is the limit of open files reached"
            self.assertRaisesRegex(NotGivenError, why, receive, self.taker)
        self.assertEqual(descriptors(), self.before)

    def test_senders(self) -> None:
        """Processes of other users may send nothing; what they have sent is not even looked at."""
        self.give(json.dumps(MESSAGE).encode(), self.accepted.fileno())
        told = f"process {os.getpid()} of user {os.geteuid()} may not send sockets here"
        self.assertRaisesRegex(NotGivenError, told, receive, self.taker, {os.geteuid() + 1})
        client, _ = receive(self.taker, {os.geteuid()})
        client.close()

    def test_known_facts_are_read(self) -> None:
        """Another version, no time, and facts that are missing are refused."""
        self.assertEqual(read(json.dumps(MESSAGE).encode()), TOLD)
        told = read(json.dumps({**MESSAGE, "route": None, "facts": {}}).encode())
        self.assertEqual((told.route, told.facts), (None, {}))
        wrong: dict[str, Any] = {"version": 2, "time": math.inf, "id": 5, "client": ["::1", 65536]}
        for key, value in (*wrong.items(), ("local", ["::1", True])):
            self.assertRaises(NotGivenError, read, json.dumps({**MESSAGE, key: value}).encode())
        for key in MESSAGE.keys() - {"later"}:
            cut = {name: value for name, value in MESSAGE.items() if name != key}
            self.assertRaises(NotGivenError, read, json.dumps(cut).encode())

    @given(st.binary())
    def test_any_bytes_are_refused(self, data: bytes) -> None:
        self.assertRaises(NotGivenError, read, data)

    @given(
        st.one_of(
            st.tuples(st.sampled_from(sorted(MESSAGE.keys() - {"later"})), _JSON),
            st.tuples(st.just("time"), st.floats(0, 2**40)),
            st.tuples(st.just("route"), st.none() | st.text()),
            st.tuples(st.sampled_from(("client", "local")), _PLACES),
            st.tuples(st.just("facts"), st.dictionaries(st.text(), st.text())),
        )
    )
    def test_invalid_values_are_refused(self, case: tuple[str, Any]) -> None:
        key, value = case
        try:
            told = read(json.dumps({**MESSAGE, key: value}).encode())
        except NotGivenError:
            return
        for pair in (told.client, told.local):
            self.assertEqual([type(part) for part in pair], [str, int])
        self.assertIs(type(told.time), float)
        self.assertLess({type(name) for name in told.facts}, {str, bytes})
