import random
import socket
from typing import NoReturn

import attrs
from twisted.trial.unittest import SynchronousTestCase

from campaign.budget import Budget
from campaign.bytes.beside import compare
from campaign.bytes.datagrams import decode, encode
from campaign.bytes.headers import address_of
from campaign.bytes.judging import judge
from campaign.bytes.loops import Loop
from campaign.bytes.part import Rounds, run, run_datagrams
from campaign.bytes.plans import PATIENCE, Mix, plan
from campaign.bytes.rounds import RELOAD, UPGRADE, WORKERS, choose
from campaign.bytes.streams import Header, Stream
from campaign.bytes.talks import SERVER, Seen, Talk
from campaign.bytes.troubles import Losses
from campaign.bytes.wires import Plain


class BytesTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        report = run(Budget(1, 1), trials=200)
        self.assertEqual(report.defects, [])
        self.assertNotEqual(report.figures["bytes looked at"], "0")

    def test_datagrams(self) -> None:
        self.assertEqual(run_datagrams(Budget(1, 1)).defects, [])

    def test_changes(self) -> None:
        """Reloads, upgrades and other numbers of workers cut nobody, and alter, lose and double no byte, datagram or line of the log."""
        for number, workers in enumerate((1, 3)):
            changes = (RELOAD, UPGRADE, WORKERS)[: 2 + number]
            its = attrs.evolve(choose(0, random.Random(4)), changes=changes, workers=workers)
            rounds = Rounds(Budget(12, number), lambda *_, its=its: its, trials=1000)

            def step(rounds: Rounds = rounds) -> None:
                rounds.try_streams()
                rounds.try_datagrams()

            self.assertEqual(rounds.go(step).defects, [])
            self.assertEqual(rounds.datagrams.moved, 0)
            self.assertTrue({*changes} <= {one for one, count in rounds.changes.items() if count})

    def test_beside(self) -> None:
        """Other proxies can be led the same connections, and none that comes through txmux is broken."""
        names = ("txmux, kernel", "txmux, portable", "nginx stream with proxy_half_close")
        outcomes = compare(1, 60, names, PATIENCE)
        self.assertEqual([outcomes[name].connections for name in names], [60] * 3)
        self.assertEqual([outcomes[name].broken for name in names[:2]], [0, 0])

    def test_rounds(self) -> None:
        """A round that fails is a defect, and others play clients and servers from then on; an interruption is told of."""
        rounds = Rounds(Budget(3600, 1))
        crew = rounds.crew
        said: list[str] = []

        def fail() -> NoReturn:
            raise OSError("no such service")

        def step() -> None:
            if said:
                raise KeyboardInterrupt
            rounds.attempt(fail, lambda _: None, said)
            self.assertIsNot(rounds.crew, crew)

        self.assertTrue(rounds.go(step).is_interrupted)
        self.assertEqual(said, ["OSError: no such service"])
        self.assertFalse(rounds.crew.folder.exists() or crew.folder.exists())

    def test_lost_doubled_altered_and_foreign_bytes(self) -> None:
        whole = Stream(1, 2, 0).take(1000)
        self.assertTrue(Stream(1, 2, 0).is_next(whole))
        wrong = whole[:500] + whole[501:], whole[:500] + whole[499:], whole[:-1] + b"x"
        others = Stream(1, 2, 1), Stream(1, 3, 0), Stream(2, 2, 0)
        for data in (*wrong, *(other.take(1000) for other in others)):
            self.assertFalse(Stream(1, 2, 0).is_next(data))

    def test_at_hand(self) -> None:
        """Whoever has read much in one go reads on, though the socket has nothing new to tell."""
        its = plan(1, 5, Mix(["plain"], "K", breaks=0))
        client = attrs.evolve(its.client, size=3 * 2**20)
        server = attrs.evolve(its.server, gulp=2**16, rest=0.0, stall=0.0)
        its = attrs.evolve(its, client=client, server=server)
        said = Stream(1, 5, 0, Header("K", 1, 5).encode())
        sent = b"".join(said.take(2**18) for _ in range(12))
        here, there = socket.socketpair()
        over: list[Seen] = []
        loop = Loop()
        self.addCleanup(loop.close)
        with there:
            here.setblocking(False)  # noqa: FBT003
            wire = Plain(here, sent)
            Talk(loop, wire, 1, its, SERVER, lambda _, seen: over.append(seen)).begin()
            for _ in range(20):
                loop.turn(0)
            self.assertFalse(wire.can_read())
            there.shutdown(socket.SHUT_WR)
            while not over:
                loop.turn()
        self.assertEqual((over[0].heard, over[0].received), ("end", 3 * 2**20))

    def test_waited_at_a_server_that_went(self) -> None:
        """A client of a UNIX socket is not told of a reset, and one may have left before."""
        line = {"reason": "server-reset", "backend": "P", "bytes_in": 0, "bytes_out": 0}
        log = [{**line, "client": f"{address_of(5)}:1"}]
        for form, heard, missed in (
            ("plain", "broken", 1),
            ("plain", "left", 1),
            ("plain", "end", 0),
            ("unix-v1", "end", 1),
        ):
            client = Seen(5, heard, 20, 0, finished=True)
            found = judge(1, Mix([form], "P", breaks=0), [client], [], log, Losses())
            self.assertEqual((found.missed, bool(found.defects)), (missed, not missed))

    def test_altered_cut_and_foreign_datagrams(self) -> None:
        whole = encode(1, 2, 3, 0, 100)
        self.assertEqual(decode(1, whole), (2, 3, 0))
        for data in (whole[:-1], whole + b"x", whole[:-1] + b"x", encode(2, 2, 3, 0, 100)):
            self.assertIsNone(decode(1, data))

    def test_missing_doubled_and_foreign_lines(self) -> None:
        mix = Mix(["plain"], "K", breaks=0)
        its = plan(1, 5, mix)
        sent, answered = its.client.size, its.server.size
        client = Seen(5, "end", sent, answered, finished=True)
        server = Seen(5, "end", answered, sent, finished=True)
        done = {"reason": "done", "backend": "K", "bytes_in": sent, "bytes_out": answered}
        line = {"client": f"{address_of(5)}:1", **done}
        nobodys = {**line, "client": f"{address_of(6)}:1"}
        cut, reset = {**line, "bytes_in": sent - 1}, {**line, "reason": "client-reset"}
        for servers, log, defects in (
            ([server], [line], 0), ([server], [], 1), ([server], [line, line], 1), ([server], [line, nobodys], 1),
            ([server], [cut], 1), ([server], [reset], 1), ([server, server], [line], 1), ([], [line], 1),
        ):  # fmt: skip
            found = judge(1, mix, [client], servers, log, Losses()).defects
            self.assertEqual(len(found), defects, (servers, log))

    def test_again(self) -> None:
        """A second connection from an address is noticed if it was served, or is not logged as what became of it."""
        mix = Mix(["few"], "K", breaks=0)
        its = plan(1, 5, mix)
        sent, answered = its.client.size, its.server.size
        server = Seen(5, "end", answered, sent, finished=True)
        at = {"client": f"{address_of(5)}:1"}
        own = {**at, "reason": "done", "backend": "K", "bytes_in": sent, "bytes_out": answered}
        second = {**at, "reason": "limit", "backend": None, "bytes_in": 0, "bytes_out": 0}
        gone = {**second, "reason": "client-gone"}

        def defects(again: str, *log: dict[str, object]) -> int:
            client = Seen(5, "end", sent, answered, finished=True, again=again)
            return len(judge(1, mix, [client], [server], log, Losses()).defects)

        for good in ("refused", own, second), ("unsure", own, gone), ("unsure", second, own):
            self.assertEqual(defects(*good), 0)
        for bad in ("served", own, second), ("refused", own), ("refused", own, gone):
            self.assertEqual(defects(*bad), 1)

    def test_cut(self) -> None:
        """Of a worker that was killed, connections may be cut that it had, but with TLS they must show it."""
        plain, secure, unix = (Mix([form], "K", breaks=0) for form in ("plain", "tls", "unix-v1"))
        cut = "an orderly end after 5 of 70 bytes"
        its, others = Losses({5}, times=[20.0]), Losses({6}, {7}, [20.0])
        ended = Losses(ended={5}, times=[20.0])
        for mix, problem, losses, over, defects in (
            (plain, cut, its, 20.5, 0), (plain, "broken off after 5 of 70 bytes", its, 20.5, 0),
            (plain, "a wrong byte before 5", its, 20.5, 1), (plain, cut, others, 20.5, 1), (plain, cut, its, 15.0, 0),
            (plain, cut, ended, 20.5, 0), (plain, cut, ended, 15.0, 1), (secure, cut, its, 20.5, 1),
            (unix, cut, others, 20.5, 0), (unix, cut, others, 15.0, 1), (plain, "", others, 20.5, 0), (plain, "", others, 15.0, 1),
        ):  # fmt: skip
            client = Seen(5, "end", 30, 5, finished=True, problem=problem, began=10.0, over=over)
            found = judge(1, mix, [client], [], [], losses).defects
            self.assertEqual(len(found), defects, (mix, problem, losses, over))

    def test_cut_after_the_client_has_left(self) -> None:
        """A server that still reads then sees it, too."""
        mix = Mix(["plain"], "K", breaks=0)
        losses = Losses(ended={5}, times=[20.0])
        client = Seen(5, "end", 70, 5, finished=True, began=10.0, over=15.0)
        cut = Seen(5, "end", 5, 30, finished=True, problem="an orderly end after 30 of 70 bytes")
        for over, defects in ((20.5, 0), (16.0, 1)):
            found = judge(1, mix, [client], [cut._replace(over=over)], [], losses).defects
            self.assertEqual(len(found), defects, over)
