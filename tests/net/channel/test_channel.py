import errno
import json
import os
import resource
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from inspect import signature
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.held import held_by
from tests.support.kit import change_constants, reactor
from tests.support.limits import lowered
from tests.support.messages import made_up
from txmux.errors import MuxError
from txmux.net.channel.channel import Channel, ChannelError, PeerGoneError, attach
from txmux.net.channel.message import NOTHING, Message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=5,
)


def nothing(*_: object) -> None:
    """Do nothing."""


KNOWN = made_up("known", "x")
TEXT = made_up("text", "text")
X = made_up("x")
NO_ROWS: Mapping[Message, Callable[..., object]] = {}


def channel(
    rows: Mapping[Message, Callable[..., object]] = NO_ROWS, **handlers: Callable[..., object]
) -> Channel:
    by_kind = {made_up(kind, *signature(does).parameters): does for kind, does in handlers.items()}
    made = Channel({**rows, **by_kind}, nothing, Clock())
    made.makeConnection(_Transport())
    return made


class _Transport(StringTransport):
    def read_rest(self) -> None:
        """Do nothing: all that has come was given to the channel."""


class FramingTest(SynchronousTestCase):
    @given(st.lists(JSON, max_size=5), st.data())
    def test_any_cut(self, values: list[Any], data: st.DataObject) -> None:
        """However the stream is cut, each message arrives once and in its order."""
        sender = channel()
        for value in values:
            sender.send(made_up("told"), value=value)
        received: list[Any] = []

        receiver = channel(told=lambda value: received.append(value))  # noqa: PLW0108 - by its name
        stream = sender.transport.value()
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            receiver.dataReceived(stream[start:end])
        self.assertEqual(received, values)

    def test_unknown_kind(self) -> None:
        """Questions cannot be answered unread: the other process may be a hostile worker."""
        received: list[int] = []
        receiver = channel(known=received.append)
        receiver.dataReceived(b'{"kind":"other","x":1}\n')
        receiver.dataReceived(b'{"kind":"%b","ask":1}\n' % (b"other" * 10_000))
        self.assertEqual(received, [])
        self.assertLess(len(receiver.transport.value()), 200)
        sender = channel()
        for _ in range(10):
            sender.ask(X)
        asked = [json.loads(line)["ask"] for line in sender.transport.value().splitlines()]
        self.assertGreater(max(asked), 2**32)

    def test_no_message(self) -> None:
        """What is not a message closes the channel, and what comes after it is not heard; nothing is raised."""
        for line in (
            *(b"", b"x", b"\xff", b"[" * 100_000, b"null", b"[]", b"3", b"{}", b'{"kind":[]}'),
            *(b'{"kind":"known","ask":"1"}', b'{"kind":"known","descriptors":"1"}'),
            *(b'{"kind":"known","descriptors":-1}', b'{"kind":"known","descriptors":1}'),
            b'{"kind":"known","descriptors":1%b}' % (b"0" * 30),
            *(b'{"kind":"answer"}', b'{"kind":"answer","to":[]}'),
        ):
            received: list[int] = []
            known = channel(known=lambda x, received=received: received.append(x))
            known.dataReceived(line + b'\n{"kind":"known","x":1}\n')
            self.assertTrue(known.transport.disconnected, line)
            known.dataReceived(b'{"kind":"known","x":1}\n')
            self.assertEqual(received, [])

    def test_too_long(self) -> None:
        """Nor is a line without an end, of which nothing is kept; what belongs to lines before it does not count."""
        change_constants(self, sys.modules[Channel.__module__], _SHORT=50)
        heard: list[str] = []
        known = channel({made_up("known", "x", longest=100): lambda x: heard.append(x)})  # noqa: PLW0108
        half, rest = b'{"kind":"known","x":"%b' % (b"x" * 50), b'"}\n'
        for _ in range(3):
            known.dataReceived(half)
            known.dataReceived(rest)
        self.assertEqual(heard, ["x" * 50] * 3)
        known.dataReceived(b'{"kind":"unknown"}\n' + half)
        known.dataReceived(b"x" * (100 - len(half)))
        self.assertFalse(known.transport.disconnected)
        known.dataReceived(b"x")
        self.assertTrue(known.transport.disconnected)
        before = held_by(known)
        known.dataReceived(half)
        self.assertEqual(held_by(known), before)

    def test_late_and_long(self) -> None:
        """An answer that nobody waits for any more may be as long as it might have been in time: a slow process is not lost by that."""
        change_constants(self, sys.modules[Channel.__module__], _SHORT=100)
        asking = channel()
        clock: Any = asking.clock
        answered = asking.ask(attrs.evolve(X, longest_answer=300), seconds=1)
        clock.advance(2)
        self.failureResultOf(answered, ChannelError)
        number = json.loads(asking.transport.value())["ask"]
        asking.dataReceived(b'{"kind":"answer","to":%d,"value":"' % number)
        asking.dataReceived(b"x" * 150)
        self.assertFalse(asking.transport.disconnected)
        asking.dataReceived(b'"}\n')
        asking.dataReceived(b'{"kind":"answer","to":%d,"value":"' % number)
        asking.dataReceived(b"x" * 150)
        self.assertTrue(asking.transport.disconnected)

    def test_failure(self) -> None:
        """What cannot be done with a message is logged; the next one is heard all the same, without unknown fields."""
        received: list[int] = []

        known = channel(known=lambda x: received.append(1 // x))
        known.dataReceived(
            b'{"kind":"known","x":0}\n{"kind":"known"}\n{"kind":"known","x":1,"y":2}\n'
        )
        self.assertEqual((received, len(self.flushLoggedErrors(ZeroDivisionError))), ([1], 1))

    def test_long_answer(self) -> None:
        """What the other process would close the channel for is not sent, but an error; nor is what says nothing."""
        told = attrs.evolve(made_up("told", "x"), longest_answer=99)
        done = attrs.evolve(made_up("told", "x"), answer=NOTHING)
        for message, does, expected in (
            (told, lambda _: "x" * 64, {"value": "x" * 64}),
            (told, lambda _: "x" * 65, {"error": "told: an answer of 100 bytes is too long"}),
            (done, object, {"value": None}),
        ):
            asked = channel({message: lambda x, does=does: does() if does is object else does(x)})
            asked.dataReceived(b'{"kind":"told","ask":7,"x":1}\n')
            answer = json.loads(asked.transport.value())
            self.assertEqual(answer, {"kind": "answer", "to": 7, **expected})

    def test_unknown_answer(self) -> None:
        """So is an answer to what nobody has asked, or has waited for long enough."""
        asking = channel()
        answer = asking.ask(X, seconds=3)
        clock: Any = asking.clock
        clock.advance(2.9)
        self.assertNoResult(answer)
        clock.advance(0.1)
        self.assertEqual(clock.getDelayedCalls(), [])
        failed = self.failureResultOf(answer, ChannelError)
        self.assertEqual(failed.getErrorMessage(), "no answer to 'x' in 3 s")
        asking.dataReceived(b'{"kind":"answer","to":1,"value":2}\n{"kind":"answer","to":7}\n')
        asking.dataReceived(b'{"kind":"answer","to":7,"size":1,"self":2}\n')

    def test_answer_to_a_question_that_was_given_up(self) -> None:
        """Nor is one to a question that was cancelled, alone or by the failure of another one."""
        asking = channel()
        first, second = asking.ask(X, seconds=3), asking.ask(X)
        first.addErrback(lambda _: second.cancel())
        second.addErrback(lambda _: None)
        third = asking.ask(X)
        third.addErrback(lambda _: None)
        third.cancel()
        number = json.loads(asking.transport.value().splitlines()[-1])["ask"]
        asking.dataReceived(b'{"kind":"answer","to":%d,"value":2}\n' % number)
        asking.connectionLost()
        self.successResultOf(second)


class PairTest(TestCase):
    def setUp(self) -> None:
        self.heard: list[Any] = []
        self.is_lost: Deferred[None] = Deferred()
        one, other = socket.socketpair()
        self.here = Channel({}, lambda: self.is_lost.callback(None), reactor)
        self.there = Channel({}, nothing, reactor)
        attach(reactor, self.here, one)
        attach(reactor, self.there, other)
        self.addCleanup(self.here.close)
        self.addCleanup(self.there.close)

    async def test_no_memory(self) -> None:
        """An end that has no memory for what has come takes it later; nothing is lost."""
        stream: Any = self.there.transport
        real, came = stream.socket, Deferred[int]()
        number = made_up("number", "value")
        self.there.handlers[number] = lambda value: came.callback(value)  # noqa: PLW0108 - by its name

        class NoMemory:
            def recvmsg(self, *_: object) -> object:
                stream.socket = real
                raise MemoryError

        stream.socket = NoMemory()
        self.here.send(number, value=7)
        self.assertEqual(await came, 7)

    async def test_other_end_closes(self) -> None:
        """All that was sent before arrives; then the loss is told, and nothing more can be sent."""
        self.here.handlers[TEXT] = lambda text: self.heard.append(text)  # noqa: PLW0108 - by its name
        self.there.handlers[X] = Deferred
        asked = self.here.ask(X, seconds=20)
        self.there.send(TEXT, text="x" * 2**20)
        self.there.close()
        await self.is_lost
        self.failureResultOf(asked, PeerGoneError)
        self.assertEqual([len(text) for text in self.heard], [2**20])
        self.assertFalse(self.here.is_open)
        self.assertFalse(self.here.transport.connected)
        self.here.send(X)
        self.here.close()
        self.failureResultOf(self.here.ask(X), PeerGoneError)

    async def test_no_room_for_descriptors(self) -> None:
        """As long as the system has none for those on their way, they wait; any other error ends the connection."""
        stream: Any = self.here.transport
        send_now, problems = stream.send_now, [errno.ETOOMANYREFS] * 3
        held_up: list[bool] = []

        def fail_at_first(*given: Any) -> int:
            if problems:
                held_up.append(stream.is_held_up)
                raise OSError(problems.pop(), "")
            return int(send_now(*given))

        stream.send_now = fail_at_first
        one = made_up("one", descriptors=1)
        self.there.handlers[one] = self.counted
        memory = os.memfd_create("test")
        self.addCleanup(os.close, memory)
        self.assertEqual(await self.here.ask(one, descriptors=[memory]), 1)
        self.assertEqual((held_up, stream.is_held_up), ([False, False, True], False))
        problems += [errno.EIO] * 2
        lost = self.here.ask(one, descriptors=[memory])
        await self.is_lost
        self.failureResultOf(lost, PeerGoneError)

    async def test_answers(self) -> None:
        """Each question gets its own answer, in whatever order these come."""
        waiting: dict[int, Deferred[int]] = {}
        slow, fast = made_up("double", "number"), made_up("triple", "number")
        self.there.handlers[slow] = lambda number: waiting.setdefault(number, Deferred())
        self.there.handlers[fast] = lambda number: deferLater(reactor, 0, int, 3 * number)
        first, second = (self.here.ask(slow, number=number, seconds=20) for number in (1, 2))
        self.assertEqual(await self.here.ask(fast, number=5), 15)
        for number, answer in ((2, second), (1, first)):
            waiting[number].callback(2 * number)
            self.assertEqual(await answer, 2 * number)

    async def test_refusals(self) -> None:
        """Who asks hears why not, and that nobody knows what it means."""
        said = {
            "refuse": (MuxError("not today"), "not today"),
            "fail": (ZeroDivisionError("oh"), "oh"),
            "lack": (OSError(errno.EMFILE, "Too many"), "[Errno 24] Too many"),
            "give_up": (CancelledError(), "CancelledError"),
        }
        expected = {KNOWN: "known: 'x' is missing", X: "'x' is not known here"}
        self.there.handlers[KNOWN] = nothing
        for kind, (problem, why) in said.items():
            message = made_up(kind)
            self.there.handlers[message] = Mock(side_effect=problem)
            expected[message] = why
        self.here.send(message)  # without an answer, nobody hears of it
        for message, why in expected.items():
            with self.assertRaises(ChannelError) as caught:
                await self.here.ask(message)
            self.assertEqual(str(caught.exception), why)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_rest_is_heard_when_the_end_is_known_first(self) -> None:
        """A question that waits then fails."""
        self.here.handlers[TEXT] = lambda text: self.heard.append(text)  # noqa: PLW0108 - by its name
        self.there.handlers[X] = Deferred
        answer = self.here.ask(X, seconds=20)
        for number in range(3):
            self.there.send(TEXT, text=number)
        self.here.finish()
        self.assertEqual(self.heard, [0, 1, 2])
        await self.is_lost
        self.failureResultOf(answer, PeerGoneError)

    async def test_descriptors(self) -> None:
        """Descriptors arrive with their message, more than one system call takes, too; no others are left open."""

        def read(descriptors: Sequence[int]) -> list[str]:
            texts = []
            for descriptor in descriptors:
                self.assertFalse(os.get_inheritable(descriptor))
                with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor
                    texts.append(os.pread(file.fileno(), 100, 0).decode())
            return texts

        reads, ignores = made_up("read", descriptors=300), made_up("ignore")
        self.there.handlers.update({reads: read, ignores: lambda: None})
        files = []
        for number in range(300):
            memory = os.memfd_create("test")
            os.write(memory, b"%d" % number)
            files.append(memory)
        answer = self.here.ask(reads, descriptors=files)
        ignored = self.here.ask(ignores, descriptors=files[:3])
        unknown = self.here.ask(X, descriptors=files[:3])
        again = self.here.ask(reads, descriptors=files[7:8])
        for memory in files:
            os.close(memory)
        self.assertEqual(await answer, [str(number) for number in range(300)])
        await ignored
        with self.assertRaises(ChannelError):
            await unknown
        self.assertEqual((await again, open_files()), (["7"], []))

    async def test_unsent_descriptors_are_closed_with_the_channel(self) -> None:
        """So are those that come with an answer, or with a message that tells of more."""
        memory = os.memfd_create("test")
        self.here.send(X, text="x" * 2**20)
        answer = self.here.ask(X, descriptors=[memory, memory])
        os.close(memory)
        self.assertEqual(len(open_files()), 2)
        self.here.break_off()
        self.assertNotIn(self.here.transport, reactor.getWriters())
        await self.is_lost
        self.failureResultOf(answer, PeerGoneError)
        self.assertEqual(open_files(), [])
        self.setUp()
        memory = os.memfd_create("test")
        self.there.transport.send(b'{"kind":"answer","to":1,"descriptors":1}\n', [memory])
        self.there.transport.send(b'{"kind":"x","descriptors":300}\n', [memory])
        os.close(memory)
        await self.is_lost
        self.assertEqual(open_files(), [])

    async def test_descriptors_too_many(self) -> None:
        """Who may not have so many descriptors is not given a part of them; the next message has its own."""
        count = made_up("count", descriptors=300)
        self.there.handlers[count] = self.counted
        memory = os.memfd_create("test")
        self.addCleanup(os.close, memory)
        with self.at_most(50):
            with self.assertRaisesRegex(ChannelError, "not all descriptors have arrived"):
                await self.here.ask(count, descriptors=[memory] * 300)
            self.assertEqual(len(open_files()), 1)
            self.assertEqual(await self.here.ask(count, descriptors=[memory] * 9), 9)

    def counted(self, descriptors: Sequence[int]) -> int:
        for descriptor in descriptors:
            os.close(descriptor)
        return len(descriptors)

    def at_most(self, more: int) -> AbstractContextManager[None]:
        # Others may have some in between.
        free = [os.dup(0) for _ in range(more + 1)]
        for probe in free:
            os.close(probe)
        return lowered(resource.RLIMIT_NOFILE, free[-1])

    async def test_answer_of_a_halted_time(self) -> None:
        """An answer that came while this process was halted is in time, even if the time is over first."""
        clock: Any = Clock()
        self.here.clock = clock
        self.there.handlers[X] = lambda: 7
        answer = self.here.ask(X, seconds=3)
        self.there.transport.doRead()
        clock.advance(3)
        self.assertEqual((self.successResultOf(answer), clock.getDelayedCalls()), (7, []))

    async def test_last_words(self) -> None:
        """What the other process has said before its end is heard, though it takes nothing any more."""

        def hear(text: str) -> None:
            self.heard.append(text)
            self.here.send(X)

        self.here.handlers[TEXT] = hear
        for _ in range(3):
            self.there.send(TEXT, text="x" * 2**16)
        self.there.close()
        await self.is_lost
        self.assertEqual(len(self.heard), 3)

    async def test_cut_off(self) -> None:
        """For want of descriptors, something cannot be sent: what was to be sent before arrives, and what comes later is not taken for sent."""
        arrived: Deferred[str] = Deferred()
        self.there.handlers[TEXT] = lambda text: arrived.callback(text)  # noqa: PLW0108 - by its name
        self.here.send(TEXT, text="x" * 2**20)
        memory = os.memfd_create("test")
        self.addCleanup(os.close, memory)
        with self.at_most(0):
            answer = self.here.ask(X, descriptors=[memory, memory])
        self.assertFalse(self.here.is_open)
        self.failureResultOf(self.here.ask(X), PeerGoneError)
        await self.is_lost
        self.failureResultOf(answer, PeerGoneError)
        self.assertEqual((len(await arrived), len(open_files())), (2**20, 1))


def open_files() -> list[str]:
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    return [link for link in links if "memfd:test" in link]
