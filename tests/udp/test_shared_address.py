from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.udp.test_migration import answer
from tests.wire.quic_builder import SOURCE, initial
from txmux.udp.connection_ids import HEAD, ConnectionIds
from txmux.udp.shared_address import RECENT, SharedAddress

_PATIENCE = 0.03


class OneFlow:
    """A flow, of QUIC if its name, of which its IDs are made, is a small letter."""

    answer_timeout = _PATIENCE

    def __init__(self, name: str, length: int = 8) -> None:
        self.name = name
        self.is_shut = False
        self.shared_address: Any = None
        self.ids: ConnectionIds | None = None
        self.first = name.encode() * 8
        self.served = name.upper().encode() * length
        if name.islower():
            self.ids = ConnectionIds.from_first(initial(b"\1", destination=self.first))

    def port_is_shut(self) -> None:
        self.is_shut = True

    def short(self, name: bytes | None = None) -> bytes:
        return (b"\x41" + (self.served if name is None else name)).ljust(HEAD, b"\xa5")

    def answer(self, shared: SharedAddress[OneFlow], **options: Any) -> None:
        assert self.ids is not None
        self.ids.learn(answer(self.served, **options))
        shared.learn(self)
        shared.answered(self)

    def finished(self) -> bytes:
        return answer(SOURCE, destination=self.served)[:HEAD]


class SharedAddressTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1000)
        self.shared: SharedAddress[OneFlow] = SharedAddress(self.clock.seconds)

    def begin(self, names: str, length: int = 8) -> list[OneFlow]:
        flows = [OneFlow(name, length) for name in names]
        for flow in flows:
            self.shared.add(flow)
        return flows

    def connect(self, names: str, length: int = 8) -> list[OneFlow]:
        flows = self.begin(names, length)
        for flow in flows:
            flow.answer(self.shared)
            self.clock.advance(0.001)
            self.assertIs(self.shared.find(flow.finished()), flow)
        return flows

    def whose(self, head: bytes) -> str:
        return (self.shared.find(head) or self.shared.flow_for_unknown_id(head)).name

    def test_repeated_initial_is_known_and_a_new_id_is_nobodys(self) -> None:
        self.begin("ab")
        for name in "ab":
            self.assertEqual(self.whose(initial(b"\1", destination=name.encode() * 8)[:HEAD]), name)
        other = initial(b"\1", destination=b"c" * 8)
        self.assertIsNone(self.shared.find(other[:HEAD]))
        self.assertTrue(self.shared.may_open(other))

    def test_ids_of_servers_have_any_lengths(self) -> None:
        flows = [
            *self.connect("a", 8), *self.connect("b", 20), *self.connect("c", 4),
            *self.connect("d", 1),
        ]  # fmt: skip
        for flow in flows:
            self.assertIs(self.shared.find(flow.short()), flow)
            self.assertIs(self.shared.find(flow.finished()), flow)

    def test_unknown_id_goes_to_the_newest_flow_without_ids(self) -> None:
        self.connect("a")
        [_, z] = self.connect("yz", 0)
        self.assertEqual(self.whose(z.short(b"anything")), "z")
        self.assertEqual(self.whose(z.finished()), "z")
        self.assertEqual(self.whose(OneFlow("a").short()), "a")

    def test_shared_id_belongs_to_the_last_flow_until_it_ends(self) -> None:
        a, b = self.begin("ab")
        for flow in (a, b):
            flow.served = b"same"
            flow.answer(self.shared)
            self.assertIs(self.shared.find(flow.finished()), flow)
        self.connect("c")
        self.assertIs(self.shared.find(a.short()), b)
        self.shared.remove(b)
        self.assertIs(self.shared.find(a.short()), a)

    def test_other_datagrams_go_to_the_flow_without_quic(self) -> None:
        self.begin("W")
        a, _ = self.connect("ab")
        for head in (b"\4\0\0\0" + bytes(30), b"\x16\xfe\xfd", b"\x80" + bytes(30), b"", b"\xc0"):
            self.assertEqual(self.whose(head[:HEAD]), "W", head)
        self.assertEqual(self.whose(a.short()), "a")
        self.assertFalse(self.shared.may_open(b"\x80" + bytes(1400)))

    def test_unknown_long_header_goes_to_the_latest_connection(self) -> None:
        a, _ = self.connect("ab")
        self.shared.find(a.short())
        self.assertEqual(self.whose(answer(SOURCE, destination=b"unknown")[:HEAD]), "a")
        flows = self.begin("abW")  # port is shut reaches all flows
        self.shared.port_is_shut()
        self.assertTrue(all(flow.is_shut for flow in flows))

    def test_ended_flow_leaves_nothing(self) -> None:
        flows = self.connect("abc")
        self.whose(flows[0].short(b"changed!"))
        for flow in flows:
            self.assertIs(flow.shared_address, self.shared)
            self.shared.remove(flow)
            self.assertIsNone(flow.shared_address)
        shared = self.shared
        left = (shared.names, shared.lengths, shared.used_at, shared.guesses, shared.guessed)
        self.assertEqual((left, len(shared), shared.flows), (({}, {}, {}, {}, {}), 0, []))

    def says(
        self, flow: OneFlow, name: bytes, *, after: float = 0.001, answers: bool = True
    ) -> str:
        """Have a client say something by an ID; if its server gets that, it answers, which the client acknowledges."""
        self.clock.advance(after)
        got = self.whose(flow.short(name))
        if answers and got == flow.name:
            for step in (lambda: self.shared.answered(flow), lambda: self.whose(flow.short(name))):
                self.clock.advance(0.001)
                step()
        return got

    def test_forged_initials_get_no_unknown_id(self) -> None:
        [a] = self.connect("a")
        for flow in self.begin("bcd"):
            flow.answer(self.shared)
        for number in range(20):
            self.assertEqual(self.says(a, b"%08d" % number, after=0.2, answers=False), "a")

    def test_new_connection_changes_before_an_old_one(self) -> None:
        [a] = self.connect("a")
        self.says(a, b"another1")
        [b] = self.connect("b")
        self.assertEqual(self.says(b, b"another2"), "b")
        self.assertEqual(self.says(a, b"another1"), "a")

    def test_late_datagram_with_the_old_id_is_no_evidence(self) -> None:
        a, b = self.connect("ab")
        self.clock.advance(RECENT)
        self.whose(b.short())
        self.whose(a.short())
        self.clock.advance(RECENT)
        self.assertEqual(self.says(a, b"changed!"), "a")
        self.whose(a.short())
        self.assertEqual(self.says(a, b"changed!", after=0.1), "a")

    def test_silent_server_is_evidence_against_its_flow(self) -> None:
        flows = self.connect("abc")
        self.clock.advance(2 * RECENT)
        for flow in flows:  # the last one is taken first
            tries = [self.says(flow, flow.name.encode() * 7 + b"1", after=0.3) for _ in range(4)]
            self.assertEqual(tries[-1], flow.name, tries)

    def test_each_server_is_tried_once_while_a_client_repeats_itself(self) -> None:
        """A client waits twice as long each time, so its connection is idle for too long after a few repetitions."""
        names = "abcd"
        for asking, just_answered in itertools.permutations(names, 2):
            self.setUp()
            flows = dict(zip(names, self.connect(names), strict=True))
            self.clock.advance(2 * RECENT)
            for _ in range(3):
                self.shared.answered(flows[just_answered])
                self.whose(flows[just_answered].short())
            new, after = flows[asking].short(b"changed!"), 0.001
            tries: list[str] = []
            while asking not in tries and len(tries) < 20:
                self.clock.advance(after)
                # As the other server has just answered, the first ones may be acknowledgements.
                tries.append([self.whose(new) for _ in range(2)][-1])
                after = max(2 * after, 0.25)
            self.assertLessEqual(len(tries), 1 + len(names), (asking, just_answered, tries))

    def test_servers_own_repetitions_do_not_settle_a_wrong_guess(self) -> None:
        """What the server of one says again, as its client's answers go to the other, is no answer to that one."""
        a, b = self.connect("ab")
        self.clock.advance(2 * RECENT)
        for just_answered, asking in ((a, b), (b, a)):
            self.clock.advance(0.2)
            self.shared.answered(just_answered)
            self.clock.advance(0.001)
            found = self.whose(asking.short(b"changed" + asking.name.encode()))
            self.assertEqual(found, just_answered.name)
        for number in range(12):
            if self.says(a, b"changeda", after=0.3) == "a":
                break
            self.clock.advance(0.02 if number < 4 else 0.2)  # by chance, it may seem to be one
            self.shared.answered(b)
            self.says(b, b"changedb")
        self.assertEqual(self.says(a, b"changeda", after=0.4), "a")
        self.assertEqual(self.says(b, b"changedb", after=0.4), "b")

    def test_lost_datagrams_are_no_evidence_forever(self) -> None:
        a, b = self.connect("ab")
        self.clock.advance(2 * RECENT)
        got = [self.says(a, b"changed!", after=0.3, answers=False) for _ in range(8)]
        self.assertGreaterEqual(got.count("a"), 3)
        self.assertGreaterEqual(got.count("b"), 3)
        while self.says(a, b"changed!", after=0.3) != "a":
            pass
        self.assertEqual(self.says(a, b"changed!", after=0.3), "a")
        self.assertEqual(self.says(b, b.served), "b")

    def test_datagram_may_need_no_answer(self) -> None:
        a, _ = self.connect("ab")
        for after in (0.001, 5):
            self.assertEqual(self.says(a, b"changed!", after=after), "a")
        for _ in range(10):
            self.assertEqual(self.says(a, b"changed!", after=5, answers=False), "a")
            self.assertEqual(self.says(a, b"changed!", after=5), "a")

    def test_distant_client_has_more_time_to_answer(self) -> None:
        a, b = self.begin("ab")
        for flow in (a, b):
            flow.answer(self.shared)
        self.clock.advance(0.3)
        for flow in (a, b):
            self.shared.find(flow.finished())
        self.assertEqual(self.says(a, b"alphanew"), "a")
        self.assertEqual(self.says(b, b"beta new"), "b")
        for _ in range(20):
            for flow, name in ((a, b"alphanew"), (b, b"beta new")):
                self.clock.advance(0.1)
                self.shared.answered(flow)
                self.clock.advance(0.2)
                self.assertEqual(self.whose(flow.short(name)), flow.name)

    def test_guess_settles_and_later_changes_are_found(self) -> None:
        a, b = self.connect("ab")
        for name in (b"changed1", b"changed2", b"changed3"):
            for _ in range(30):
                self.says(b, b.served, after=0.1)
                last = self.says(a, name, after=0.1)
            self.assertEqual(last, "a")
            self.assertIs(self.shared.find(a.short(name)), a)
            assert a.ids is not None
            self.assertEqual(a.ids.current, name)
        self.assertIsNone(self.shared.find(a.short(b"changed2")))

    def test_repeated_id_is_no_payload_for_a_server_without_ids(self) -> None:
        a, b = self.connect("ab")
        [z] = self.connect("z", 0)
        chance = random.Random(1)
        for number in range(40):
            for _ in range(20):
                name = chance.randbytes(HEAD)
                self.assertEqual(self.says(z, name, after=0.001, answers=False), "z")
                self.shared.answered(z)
            got = [self.says(flow, flow.name.encode() * 7 + b"1", after=0.1) for flow in (a, b)]
            if number > 20:
                self.assertEqual(got, ["a", "b"])

    def test_ended_connection_takes_no_id_of_another(self) -> None:
        a, b, c = self.connect("abc")
        self.clock.advance(RECENT)
        while self.shared.find(b.short(b"changed!")) is None:
            self.whose(a.short())
            self.whose(c.short())
            self.says(b, b"changed!", after=0.1)
        self.shared.remove(a)
        for _ in range(30):
            self.says(c, c.served, after=0.1)
            self.says(b, b"changed!", after=0.05)
            self.whose(a.short())
        self.assertIs(self.shared.find(b.short(b"changed!")), b)

    def test_servers_ids_may_differ_in_length(self) -> None:
        [a], [b] = self.connect("a", 20), self.connect("b", 4)
        for flow, name in ((a, b"changed!" * 2 + b"1234"), (b, b"anot")):
            self.assertEqual(self.says(flow, name), flow.name)
        for _ in range(30):
            self.says(a, b"changed!" * 2 + b"1234", after=0.1)
            self.says(b, b"anot", after=0.1)
        for flow, name in ((a, b"changed!" * 2 + b"1234"), (b, b"anot")):
            self.assertIs(self.shared.find(flow.short(name)), flow)

    def test_flow_that_began_with_a_short_header_keeps_its_datagrams(self) -> None:
        [m] = self.begin("M")
        [a] = self.connect("a")
        m.served = b"unknown!"
        for _ in range(30):
            self.assertEqual(self.says(a, a.served, after=0.1), "a")
            last = self.says(m, m.served, after=0.1)
        self.assertEqual(last, "M")

    def test_remembers_few_of_many_ids(self) -> None:
        self.connect("abcdef")
        for number in range(500):
            self.clock.advance(0.0001)
            self.whose(b"\x41" + number.to_bytes(8, "big") + bytes(30))
        self.assertLessEqual(len(self.shared.guesses), 64)
        self.assertLessEqual(len(self.shared.guessed), 6)
        self.assertLessEqual(len(self.shared.names), 6 * 5)

    @given(st.randoms(use_true_random=False), st.integers(2, 5))
    def test_any_order_of_changes_ends_well(self, chance: random.Random, count: int) -> None:
        self.setUp()
        flows = self.connect("abcde"[:count])
        self.clock.advance(chance.choice([0.0, 0.5, 5.0]))
        for flow in flows:
            if chance.random() < 0.7:
                flow.served = flow.name.encode() * 7 + b"1"
        for _ in range(25):
            for flow in chance.sample(flows, count):
                self.says(flow, flow.served, after=chance.choice([0.05, 0.2, 1.0]))
        for flow in flows:
            self.assertEqual(self.says(flow, flow.served, after=0.1), flow.name)

    @given(st.lists(st.tuples(st.sampled_from("abW"), st.binary(max_size=HEAD)), max_size=40))
    def test_any_bytes_from_either_side(self, events: Sequence[tuple[str, bytes]]) -> None:
        self.setUp()
        flows = {flow.name: flow for flow in self.begin("abW")}
        for name, data in events:
            flow = flows[name]
            self.whose(data)
            self.shared.answered(flow)
            if flow.ids is not None:
                flow.ids.learn(answer(data[:20]))
                self.shared.learn(flow)
        for flow in flows.values():
            self.shared.remove(flow)
        self.assertEqual((self.shared.names, self.shared.lengths), ({}, {}))
