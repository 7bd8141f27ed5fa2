"""All matchers on one port, in the order of the reference, and the first flights of public captures."""

import functools
import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.all_samples import for_streams
from tests.matchers.searching import order
from tests.matchers.test_collisions import matched
from tests.support.mux import MuxTestCase
from txmux.detection.ambiguities import AMBIGUITIES
from txmux.detection.detector import Decision, Detector
from txmux.interfaces import Verdict
from txmux.rules.embedding import route
from txmux.rules.model import Refusal, Route

_TESTS = Path(__file__).parent.parent
_CONFIGURED = {"payload", "regex", "silent"}
"""These match what their line says, not a protocol."""
_TAKES_ALL = {"random", "any"}

# The labels of streams that nothing took when they were collected, and the matchers that came later.
_CAME_LATER = {
    "unclaimed:AJP": "ajp", "unclaimed:ajp13": "ajp", "unclaimed:FastCGI": "fastcgi",
    "unclaimed:JSON-RPC": "jsonrpc", "unclaimed:Mining": "jsonrpc", "unclaimed:Zabbix": "zabbix",
    "unclaimed:dcerpc": "dcerpc", "unclaimed:dnp3": "dnp3",
    "unclaimed:elasticsearch": "elasticsearch",
    "unclaimed:Radmin": "mysqlx",  # whose shortest message begins Radmin's
}  # fmt: skip
_GRPC = "suricata-verify@10a45e4b:tests/http2-errorcode/input.pcap"
"""Where the HTTP/2 is gRPC, which its label does not say: its content-type does."""


@functools.cache
def streams() -> tuple[dict[str, Any], ...]:
    found = json.loads((_TESTS / "corpus/streams.json").read_text())["streams"]
    return tuple({**stream, "data": bytes.fromhex(stream["hex"])} for stream in found)


def routes() -> list[Route]:
    return [route(name, Refusal.CLOSE, name=name) for name in order()]


def expected(stream: dict[str, Any]) -> set[str]:
    names = set(stream["expect"])
    if not names:
        names = _TAKES_ALL | {_CAME_LATER.get(stream["label"], "any")}
    return names | ({"grpc"} if stream["source"].endswith(_GRPC) else set())


def taker(decision: Decision[Route]) -> str:
    assert decision.route is not None
    return decision.route.name


class OrderTests(SynchronousTestCase):
    def test_every_matcher_for_tcp_once_and_what_takes_all_at_the_end(self) -> None:
        duty = "each matcher has its place in the order under *Ambiguities* of docs/reference/matchers.md"
        self.assertEqual(sorted(order()), sorted(for_streams().keys() - _CONFIGURED), duty)
        self.assertEqual(order()[-2:], ("random", "any"))

    def test_of_two_that_share_clients_the_one_that_has_to_comes_first(self) -> None:
        for pair in AMBIGUITIES:
            self.assertLess(order().index(pair.first), order().index(pair.second), pair)

    def test_nobody_waits(self) -> None:
        """No matcher takes or holds a client whose own comes later, but for the ambiguities."""
        ambiguous = {(pair.first, pair.second) for pair in AMBIGUITIES}
        for (before, protocol), verdict in matched().items():
            if (before, protocol) in ambiguous or not {before, protocol} <= {*order()}:
                continue
            if order().index(before) < order().index(protocol):
                self.assertIs(verdict, Verdict.NO, (before, protocol))

    def test_whole_and_cut(self) -> None:
        """Each stream, in one piece, is taken by one of those that it is for, or else by what takes all; byte by byte, by the same one."""
        detector = Detector(routes())
        self.assertEqual(len(streams()), 406)
        for stream in streams():
            data, source = stream["data"], stream["source"]
            whole, cut = detector.start_detection(), detector.start_detection()
            found = taker(whole.feed(data) or whole.finish())
            self.assertIn(found, expected(stream), source)
            feeds = (cut.feed(data[:length]) for length in range(1, len(data) + 1))
            decision = next(filter(None, feeds), None) or cut.finish()
            self.assertEqual(taker(decision), found, source)


class PortTests(MuxTestCase):
    async def test_whole(self) -> None:
        """Every client that sends its stream and finishes is led to a route that it is for."""
        port = self.mux(routes())
        for stream in streams():
            client = await self.connect(port, stream["data"])
            client.finish()
            self.assertIn((await self.logged()).route, expected(stream), stream["source"])
            await client.is_lost()
            self.records.clear()
