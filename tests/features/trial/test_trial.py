import json
import os
import random
import sys
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import Clock
from twisted.internet.utils import getProcessOutputAndValue
from twisted.logger import capturedLogs
from twisted.trial.unittest import TestCase as AsyncTestCase

from tests.support.changes import change_constants, change_environment
from tests.support.kit import AdminCase, Talker, VirtualTime, authority, turn
from tests.support.peers import Peer, PeerFactory, listen
from tests.support.secure import SecurePeer, client_context, connect_tls
from tests.wire.hello_builder import PADDING, client_hello, extension, records, server_name
from txmux.client.parts import ServingContext
from txmux.detection.explain import excluded_by
from txmux.errors import MuxError
from txmux.features.trial.memory import ClientMemory
from txmux.features.trial.trial import Trial
from txmux.net import turns
from txmux.net.turns import in_thread
from txmux.processes import service
from txmux.processes.watching import current_digest, loaded_digest
from txmux.rules.packing import pack
from txmux.rules.reading.parser import parse
from txmux.telemetry.events import Events

SECRET = b"Authorization: Basic c2VjcmV0OnNlY3JldA==\r\n"


def request(host: str) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (host.encode(), SECRET)


def hello(name: str) -> bytes:
    """Return a hello of a browser, whose key is post-quantum and stands before the name."""
    return records(client_hello(extension(PADDING, bytes(1700)), server_name(name)))


class WorkerTests(AsyncTestCase):
    """What a worker may do to a trial, of rules that the service has."""

    rules = parse("[listen x]\nendpoint = :1\n", "r")

    def trial(self, answer: object, limit: str = "0%", *, is_late: bool = False) -> Trial:
        ask = {"ask": lambda *_, **__: succeed(answer)}
        worker: Any = SimpleNamespace(number=1, is_late=is_late, **ask)
        trial = Trial(lambda: [worker])
        settings = "remember = 9\n" + (f"watch_rules_limit = {limit}\n" if limit else "")
        trial.commit(parse(f"[txmux]\n{settings}[listen x]\nendpoint = :1\n", "r"))
        return trial

    async def test_limit(self) -> None:
        """Rules may move as large a share as it says, and who may move counts, too; each source has one vote, however often it connects; whom rules shut out on purpose has none, and is told apart."""
        stays, moves, unknown, often = [1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [8, 8, 0, 0]
        elsewhere = "{} of the last {} clients would go elsewhere"
        for limit, votes, share, changes in (
            ("", [moves, stays], 50, elsewhere.format(1, 2)),
            ("50%", [moves, stays], 50, elsewhere.format(1, 2)),
            ("49.99%", [moves, stays], 50, elsewhere.format(1, 2)),
            ("99%", [unknown] * 2, 100, f"{elsewhere.format('none', 2)}, and of 2 it is not known"),
            ("25%", [often, *[stays] * 3], 25, elsewhere.format(8, 11)),
            ("25%", [often, moves, *[stays] * 2], 50, elsewhere.format(9, 11)),
            ("25%", [[8, 0, 0, 0], *[moves] * 3], 75, elsewhere.format(3, 11)),
            ("25%", [[8, 0, 0, 8], *[stays] * 3], 0,
             f"{elsewhere.format('none', 11)}, and 8 are shut out by 'deny' or 'not_from'"),
        ):  # fmt: skip
            sources = [[f"192.0.2.{number}", *its] for number, its in enumerate(votes)]
            trial = self.trial([7.0, [], [], sources], limit)
            found = await trial.compare(self.rules)
            self.assertEqual((found["share"], found["changes"]), (share, changes))
            if limit and share > float(limit[:-1]):
                with self.assertRaisesRegex(MuxError, f"^{changes}: by source {share}%, more than"):
                    await trial.check_change(self.rules)
            else:
                await trial.check_change(self.rules)

    async def test_late(self) -> None:
        """Rules that come by themselves are refused while a worker does not answer."""
        why = "'watch_rules_limit' cannot be checked: worker 1: does not answer;"
        with self.assertRaisesRegex(MuxError, why):
            await self.trial(None, is_late=True).check_change(self.rules)

    async def test_misshapen(self) -> None:
        """What a worker that is compromised answers instead is not taken for harmless."""
        move = ["x", "now", "then", None, 1, "192.0.2.1:5", None, 7.0]
        source = ["192.0.2.1", 2, 1, 1, 0]
        good = [7.0, [move], [["x", "why", 1]], [source]]
        wrong_counts = (-1, 10_001, 1e9, "1", True, None)
        rows: Sequence[tuple[Any, bool]] = (
            (good, True),
            (None, True),
            *(([7.0, [[*move[:4], count, *move[5:]]], [], []], False) for count in wrong_counts),
            *(([7.0, [], [["x", "why", count]], []], False) for count in wrong_counts),
            *(([7.0, [], [], [[*source[:4], count]]], False) for count in wrong_counts),
            ([7.0, [], [], [["192.0.2.1", 2, 1, 1, 1]]], False),
            ([7.0, [move], [], [["192.0.2.1", 2, 1, 1, 1]]], False),
            ([7], False),
            ([*good, 1], False),
            ([7.0, [move[:7]], [], []], False),
            ([7.0, [[*move[:3], "allow", *move[4:]]], [], []], False),
            ([7.0, [7], [], []], False),
            *(([time, [], [], []], False) for time in (float("inf"), float("nan"), 1e300, -1)),
            ([None, [], [], [source[:4]]], False),
            ([None, [], [], [[*source[:4], "many"]]], False),
            ([None, [], [], [[*source[:4], 1e400]]], False),
        )
        for answer, is_read in rows:
            found = await self.trial(answer).compare(self.rules)
            wrong = [] if is_read else ["worker 1: its answer cannot be read"]
            self.assertEqual(found["incomplete"], wrong, answer)

    async def test_who_is_excluded_counts_if_many(self) -> None:
        """Up to a twentieth of the sources has no vote, and of a source that is excluded in part its other clients have one."""
        for excluded, sources, share in (
            ([2], 1, 100.0), ([2], 2, 0.0), ([1, 1], 2, 0.0), ([2, 2], 39, 5.128205),
            ([2, 2], 40, 0.0), ([2, 2, 1], 40, 6.25),
        ):  # fmt: skip
            counts = enumerate(excluded + [0] * (sources - len(excluded)))
            votes = [[f"192.0.2.{number}", 2, 0, 0, count] for number, count in counts]
            found = await self.trial([7.0, [], [], votes]).compare(self.rules)
            self.assertEqual((found["share"], found["incomplete"]), (share, []), excluded)


class MemoryTests(AsyncTestCase):
    def setUp(self) -> None:
        self.events = Events(Clock())
        serving = SimpleNamespace(runtime=SimpleNamespace(events=self.events))
        self.memory = ClientMemory(ServingContext(None, serving=serving))

    def decide(self, client: str, listener: str = "x", time: float = 0.0, **more: Any) -> Any:
        record = SimpleNamespace(time=time, client=client, local="192.0.2.9:1", listener=listener)
        its = {"outer": (), "seen": b"", "granted": {}, "agreed_tls": None, **more}
        self.events.decided(session := SimpleNamespace(record=record, **its))
        return session

    def test_places(self) -> None:
        """Of each source the last four are remembered, and of all sources those that were seen last, also over a reload."""
        text = "[txmux]\nremember = {}\n[listen x]\nendpoint = :1\n"

        def come(*clients: str) -> list[str]:
            for client in clients:
                self.decide(client)
            return sorted(one.client for one in self.memory._clients["x"])

        self.memory.commit(parse(text.format(7), "r"))
        first = [f"192.0.2.1:{n}" for n in range(9)]
        self.assertEqual(come(*first), first[5:])
        six = [f"[2001:db8::{n}]:1" for n in range(1, 6)]  # of one /64
        self.assertEqual(come(*six), first[6:] + six[1:])
        seen = come("unix:/x", "unix:/y", "192.0.2.1:9")
        self.assertEqual(seen[:3], ["192.0.2.1:8", "192.0.2.1:9", six[2]])
        self.memory.commit(parse(text.format(3), "r"))
        self.assertEqual(come(), ["192.0.2.1:8", "192.0.2.1:9", "unix:/y"])

    async def test_bounds(self) -> None:
        """What a connection keeps of itself for this is let go of when it is decided; an answer has few rows, and counts all."""
        text = "[txmux]\nremember = 2000\n[listen x]\nendpoint = :1\n[listen y]\nendpoint = :2\nremember = 0\n"
        named = "[route n]\nunder = *\nmatch = tls\nbackend = named\n[backend named]\nserver = {sni}:443\nallow_names = *.test\n"
        self.memory.commit(parse(text, "rules.ini"))
        for number in range(1500):
            client, said = f"10.0.{number >> 8}.{number & 255}:1", (hello(f"{number}.test"),)
            for listener in ("x", "y"):
                session = self.decide(client, listener, number, outer=said, seen=bytes(3000))
                self.assertEqual(session.outer, ())
        [(name, count, size)] = self.memory.remembered()
        self.assertEqual((name, count), ("x", 1500))
        self.assertLess(size, 1500 * 4400)
        since, moves, unknown, sources = await self.received(text + named)
        self.assertEqual((since, len(moves), unknown), (0.0, 1000, []))
        self.assertEqual((sources[7], len(sources)), (["10.0.0.7", 1, 1, 0, 0], 1500))
        self.memory.commit(parse(text + named, "rules.ini"))
        denied = (text + named).replace(" = :1\n", " = :1\ndeny = 10.0.0.7\n")
        _, [move], _, sources = await self.received(denied)
        found = (move[3:6], sources[7])
        self.assertEqual(found, (["deny", 1, "10.0.0.7:1"], ["10.0.0.7", 1, 0, 0, 1]))

    async def received(self, text: str) -> Any:
        packed = b64encode(pack(parse(text, "rules.ini"))).decode()
        answering = self.memory.receive({"rules": packed})
        assert answering is not None
        return await answering


_UNIT_SETTINGS = "include = units/*.ini\nwatch_rules_limit = 50%\nwatch_rules = 10s\n"
_BY_UNITS = "[listen x]\nendpoint = 127.0.0.1:0\nroutes_from = *\ndefault = {}\n"
_LISTENER = "[listen {0}]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:1\n"


class TrialTests(AdminCase):
    settings = "workers = 2\nremember = 100\n"
    sources = 0

    def setUp(self) -> None:
        super().setUp()
        self.first, self.second = PeerFactory(), PeerFactory()
        self.a, self.b = (f"127.0.0.1:{listen(self, one)}" for one in (self.first, self.second))

    def rules(self, web: str, *more: str) -> str:
        listener = "[listen x]\nendpoint = 127.0.0.1:0\n[listen u]\nendpoint = udp:127.0.0.1:0\n"
        routes = f"[route web]\nunder = *\nmatch = http\nbackend = {web}\n[route ssh]\nunder = *\nmatch = ssh\nbackend = {self.a}\n"
        return listener + "".join(more) + routes

    async def served(self, *firsts: bytes, of: str = "") -> None:
        for first in firsts:
            before = len(self.first.peers) + len(self.second.peers)
            self.sources += not of
            source = of or f"127.0.1.{self.sources}"
            endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, bindAddress=(source, 0))
            client: Peer = await connectProtocol(endpoint, Peer())
            self.addCleanup(client.reset)
            client.send(first)
            while len(self.first.peers) + len(self.second.peers) == before:
                await turn()

    async def tried(self, rules: str, settings: str = "") -> Mapping[str, Any]:
        self.write_rules(settings or self.settings, rules)
        told = await self.post("/api/reload/try")
        self.assertEqual(told.status, 200, told.body)
        self.assertNotIn(b"c2VjcmV0", told.body)
        found: Mapping[str, Any] = told.json
        return found

    def key(self) -> Path:
        key = self.folder / "key"
        key.write_text("x")
        key.chmod(0o600)
        return key

    @staticmethod
    def moves(found: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        keys = ("count", "listener", "now", "then", "name")
        return [tuple(row[key] for key in keys) for row in found["moves"]]

    async def test_streams(self) -> None:
        """Clients of all workers are looked at, and those that a reload would lead elsewhere are told of."""
        rules = self.rules(self.a)
        await self.start(self.settings, rules)
        await self.served(*(request("a.test"), request("b.test")) * 3, b"SSH-2.0-x\r\n")
        # What a client takes does not grow with the routes.
        of = "[route r{0}]\nunder = *\nmatch = http host=h{0}.test\nbackend = 127.0.0.1:9\n".format
        with patch("txmux.detection.explain.excluded_by", wraps=excluded_by) as asked:
            self.assertEqual(
                (await self.tried(self.rules(self.a, *map(of, range(500)))))["moved"], 0
            )
        self.assertLessEqual(asked.call_count, 14)
        # Networks that only the new rules name are not known yet.
        deny = rules.replace("[listen u]", "deny = crowdsec:http://127.0.0.1:1\n[listen u]")
        found = await self.tried(deny, f"{self.settings}crowdsec_key = {self.key()}\n")
        self.assertIn("crowdsec:", found["incomplete"][0])
        self.assertEqual(found["moved"], 0)
        same = await self.tried(rules)
        self.assertEqual((same["clients"], same["moved"], same["moves"]), (7, 0, []))
        self.assertEqual(same["changes"], "none of the last 7 clients would go elsewhere")
        new = f"[route b]\nunder = *\nmatch = http host=b.test\nbackend = {self.b}\n"
        found = await self.tried(self.rules(self.a, new))
        now, then = f"route web, to {self.a}", f"route b, to {self.b}"
        self.assertEqual(self.moves(found), [(3, "x", now, then, "b.test")])
        self.assertRegex(found["moves"][0]["client"], r"^127\.0\.1\.\d+:\d+$")
        self.assertEqual(found["changes"], "3 of the last 7 clients would go elsewhere")
        # Addresses count, and the reload changes what is there now.
        near = f"[route b]\nunder = *\nmatch = any\nfrom = 127.0.1.0/24\nbackend = {self.b}\n"
        await self.tried(self.rules(self.a, near))
        self.assertEqual((await self.running.reload()).errors, ())
        found = await self.tried(self.rules(self.a))
        self.assertEqual((found["clients"], found["moved"]), (7, 7))

    async def test_datagrams_and_silent_clients(self) -> None:
        talkers = [Talker.listening(self, answer=lambda data: data) for _ in range(2)]
        c, d = (f"udp:127.0.0.1:{one.port}" for one in talkers)
        route = f"[route dns]\nunder = *\nmatch = payload text=q\nbackend = {c}\n"
        listener = "[listen x]\nendpoint = 127.0.0.1:0\nsilent = {silent}\nfirst = {first}\ndefault = {silent}\n[listen u]\nendpoint = udp:127.0.0.1:0\n"
        rules = listener.format(silent=self.a, first="server") + route
        await self.start(self.settings, rules)
        port = self.ports()[1]
        client = Talker.listening(self)
        client.say(b"query", port)
        while not client.heard:
            await turn()
        await self.served(b"")
        after = listener.format(silent=self.b, first="server") + route.replace(c, d)
        moves = sorted(self.moves(await self.tried(after)))
        u, x = (1, "u", f"route dns, to {c}", f"route dns, to {d}", None), f"default, to {self.a}"
        self.assertEqual(moves, [u, (1, "x", x, f"default, to {self.b}", None)])
        # What such a client would have said is not known.
        rules += "[route y]\nunder = *\nmatch = ssh\nbackend = close\n"
        waits = await self.tried(rules.replace("first = server", "first = client"))
        [unknown] = waits["unknowns"]
        self.assertEqual((waits["moved"], waits["unknown"], unknown["listener"]), (0, 1, "x"))

    async def test_tls(self) -> None:
        """What is inside TLS that ends here counts, and a hello with a post-quantum key is remembered as a whole."""
        certificate = authority().issue("a.test").write(self.folder / "a.pem", key=True)
        ca = authority().write(self.folder / "ca.pem")
        tls = f"[route tls]\nunder = *\nmatch = tls sni=a.test\nterminate_tls = {certificate}\nbackend = {self.a}\n"
        inner = "[route in]\nunder = tls\nmatch = http path=/*\nbackend = {}\n"
        passed = f"[route pass]\nunder = *\nmatch = tls sni=*.test\nbackend = {self.a}\n"
        await self.start(self.settings, self.rules(self.a, tls, inner.format(self.b), passed))
        await self.served(hello("b.test"))
        peer = SecurePeer((client_context(ca), "a.test"))
        await (await connect_tls(self, self.port, peer)).ready()
        peer.send(request("a.test"))
        while not self.second.peers:
            await turn()
        more = tls, inner.format(self.a), passed.replace(self.a, self.b)
        found = await self.tried(self.rules(self.a, *more))
        self.assertEqual(sorted(self.moves(found)), [
            (1, "x", f"route pass, to {self.a}", f"route pass, to {self.b}", "b.test"),
            (1, "x", f"route tls > in, to {self.b}", f"route tls > in, to {self.a}", "a.test"),
        ])  # fmt: skip

    async def test_what_is_kept(self) -> None:
        """A listener has its own number; a reload keeps those that have room; what nobody remembers is refused; errors are told."""
        rules = self.rules(self.a)
        one = "workers = 1\n"
        await self.start(one, rules)
        told = await self.post("/api/reload/try")
        self.assertEqual(told.status, 409)
        why = "no client is remembered, so nothing can be tried: set 'remember = 1000'"
        self.assertIn(why, told.error)
        few = rules.replace("[listen u]", "remember = 3\n[listen u]")
        self.write_rules(one, few)
        self.assertEqual((await self.running.reload()).errors, ())
        await self.served(*[request("a.test")] * 5)
        self.assertEqual((await self.tried(few, one))["clients"], 3)
        listeners: Any = (await self.running.control.status())["listeners"]
        x, u = listeners
        size = 3 * len(request("a.test"))
        self.assertEqual(x["remembered"], {"clients": 3, "bytes": size})
        self.assertNotIn("remembered", u)
        metrics = (await self.get("/metrics")).body.decode()
        self.assertIn('txmux_remembered_clients{listener="x"} 3.0\n', metrics)
        self.assertIn(f'txmux_remembered_bytes{{listener="x"}} {size}.0\n', metrics)
        self.assertNotIn('remembered_bytes{listener="u"}', metrics)
        self.write_rules(one, few.replace("remember = 3", "remember = 2"))
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertEqual((await self.tried(few, one))["clients"], 2)
        lacks = {
            "[what]\n": "rules.ini",
            f"{few}terminate_tls = gone.pem\n": r"rules.ini:\d+: \[route ssh\] terminate_tls: .*gone.pem",
            f"{few.replace(self.a, 'y')}[backend y]\nserver = {self.a}\ntls = yes\ntls_ca = gone.pem\n": r"\[backend y\] tls_ca: .*gone.pem",
        }  # fmt: skip
        for wrong, why in lacks.items():
            self.write_rules(one, wrong)
            told = await self.post("/api/reload/try")
            self.assertEqual(told.status, 422)
            self.assertRegex(told.json["errors"][0], why)
        told = await self.post("/api/reload/try", {"files": "eJw="})
        self.assertEqual(told.status, 422)
        # What the service may read, who sends rules must not.
        listener = "[listen x]\nendpoint = :1\n"
        unsent = "it is not among the files that were sent"
        change_environment(self, SECRET="c2VjcmV0")
        for line, why in {
            "default = ${SECRET}": "SECRET",
            "deny = @/etc/passwd": f"cannot read '/etc/passwd': {unsent}",
            "[txmux]\ninclude = gone.ini": f"cannot read 'gone.ini': {unsent}",
        }.items():
            texts = json.dumps({"texts": {"a.ini": f"{listener}{line}\n"}}).encode()
            packed = b64encode(zlib.compress(texts)).decode()
            told = await self.post("/api/reload/try", {"files": packed})
            self.assertEqual(told.status, 422)
            self.assertNotIn(b"c2VjcmV0", told.body)
            self.assertIn(why, told.json["errors"][0])

    async def test_reload_that_begins_meanwhile(self) -> None:
        """Files for TLS are read in turns, and a reload reads its own after them."""
        change_constants(self, turns, _PIECE=0.0)
        certificate = authority().issue("a.test").write(self.folder / "a.pem", key=True)
        rules = self.rules(self.a)
        await self.start(self.settings, rules)
        for number in range(20):
            rules += f"[route r{number}]\nunder = *\nmatch = tls\nterminate_tls = {certificate}\nbackend = {self.a}\n"
        reading = self.supervisor.reading_files
        await reading.acquire()
        tried = Deferred.fromCoroutine(self.tried(rules))
        while not reading.waiting:
            await turn()
        reloaded = Deferred.fromCoroutine(self.running.reload())
        while len(reading.waiting) < 2:
            await turn()
        reading.release()
        self.assertEqual((await tried)["clients"], 0)
        self.assertEqual((await reloaded).errors, ())
        self.assertEqual(len(self.supervisor.terminators.shown()), 20)

    async def test_failed_reload(self) -> None:
        """Where the reload failed that would have had clients remembered, none are."""
        no_key = authority().issue("a.test").write(self.folder / "a.pem")
        await self.start("workers = 2\n", self.rules(self.a))
        tls = f"[route tls]\nunder = *\nmatch = tls\nbackend = close\nterminate_tls = {no_key}\n"
        self.write_rules(self.settings, self.rules(self.a, tls))
        [error] = (await self.running.reload()).errors
        self.assertIn("no private key", error)
        told = await self.post("/api/reload/try")
        self.assertEqual(told.status, 409, told.body)

    async def test_rights(self) -> None:
        """Who may only read, or steer, gets nothing of it."""
        tokens = self.folder / "tokens"
        secrets = "the-secret-of-the-viewer", "the-secret-of-the-other"
        tokens.write_text("viewer read {}\nsteers steer {}\n".format(*secrets))
        tokens.chmod(0o600)
        settings = f"{self.settings}admin = 127.0.0.1:0\nadmin_tokens = {tokens}"
        await self.start(settings, self.rules(self.a))
        port = self.port_of("admin")
        for secret in secrets:
            headers = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"}
            told = await self.ask("POST", "/api/reload/try", headers, "{}", to=port)
            self.assertEqual(told.status, 403)

    async def txmux(self, *words: str) -> tuple[str, str, int]:
        environ = {"TXMUX_ADMIN": str(f"unix:{self.socket}"), "PATH": "/usr/bin:/bin"}
        program = sys.executable, ["-m", "txmux", *words], environ
        out, err, code = await getProcessOutputAndValue(*program)
        return out.decode(), err.decode(), code

    async def test_commands(self) -> None:
        await self.start(f"{self.settings}include = units/*.ini\n", self.rules(self.a))
        none = "no client is remembered yet: try again when clients have come\n"
        self.assertEqual(await self.txmux("reload", "--try"), (none, "", 1))
        await self.served(request("a.test"))
        other, text = self.folder / "other.ini", self.file.read_text()
        other.write_text(text.replace(f"http\nbackend = {self.a}", f"http\nbackend = {self.b}"))
        out, err, code = await self.txmux("check", str(other), "--against", "running")
        self.assertEqual((err, code), ("", 4))
        head = r"clients +listener +now +then +example\n"
        first = r"other.ini: OK, .*\n1 of the last 1 client would go elsewhere, since \S+ \S+\n\n"
        row = rf" +1 +x +route web, to {self.a} +route web, to {self.b} +127\.0\.1\.1:\d+ for"
        self.assertRegex(out, rf"{first}{head}{row} a\.test at \S+ \S+\n$")
        against = "--against", f"unix:{self.socket}", "--json"
        out, _, code = await self.txmux("check", str(other), *against)
        self.assertEqual((code, json.loads(out)["against"]["moved"]), (4, 1))
        self.assertEqual((await self.txmux("check", str(self.file), "--against", "running"))[2], 0)
        words = random.Random(1).randbytes(60_000).hex()
        large = self.folder / "large.ini"
        large.write_text(f"{other.read_text()}# {words}\n")
        _, err, code = await self.txmux("check", str(large), "--against", "running")
        self.assertIn("too large to be sent to the service", err)
        self.assertEqual(code, 2)
        other.rename(self.file)
        out, err, code = await self.txmux("reload", "--try", "--json")
        self.assertEqual((json.loads(out)["moved"], err, code), (1, "", 4))
        (self.folder / "units").mkdir()
        (self.folder / "units/a.ini").write_text("[who]\n")
        out, _, code = await self.txmux("reload", "--try")
        self.assertRegex(out, r"\n\S+/units/a.ini would not be taken: \S+/units/a.ini:1: \[who\]")
        self.assertEqual(code, 4)
        self.file.write_text("[what]\n")
        _, err, code = await self.txmux("reload", "--try")
        self.assertEqual(code, 1)
        self.assertIn("[what]", err)

    async def test_watched_rules(self) -> None:
        """Rules that move too many are refused, told of, and applied by hand; others are applied."""
        self.settings += "watch_rules = 10s\nwatch_rules_limit = 50%\n"
        time = VirtualTime()
        self.addCleanup(time.advance, 0)
        await self.start(self.settings, self.rules(self.a), use=time)

        async def look() -> None:
            for _ in range(22):
                time.advance(0.5)
                await self.running.control.missing()
                await self.looked()
            await self.reloading.wait_until_idle()

        await self.served(request("a.test"), request("b.test"), request("c.test"))
        new = f"[route b]\nunder = *\nmatch = http host=b.test\nbackend = {self.b}\n"
        few = self.rules(self.a, new)
        self.write_rules(self.settings, few)
        await look()
        self.assertEqual(len(self.running.control.rules.routes), 3)
        self.write_rules(self.settings, self.rules(self.b))
        with capturedLogs() as events:
            await look()
        self.assertEqual(len(self.running.control.rules.routes), 3)
        why = "2 of the last 3 clients would go elsewhere: by source 66.6667%, more than 'watch_rules_limit = 50%' allows"
        self.assertTrue(any(why in str(event.get("errors")) for event in events))
        # What cannot be checked is not taken for harmless.
        deny = "deny = crowdsec:http://127.0.0.1:1\n[listen u]"
        settings = f"{self.settings}crowdsec_key = {self.key()}\n"
        self.write_rules(settings, few.replace("[listen u]", deny))
        with capturedLogs() as events:
            await look()
        cause = "'watch_rules_limit' cannot be checked: crowdsec:"
        self.assertTrue(any(cause in str(event.get("errors")) for event in events))
        self.write_rules(self.settings, self.rules(self.b))
        await look()
        attention = (await self.running.control.status())["attention"]
        [item] = [one for one in attention if one["what"] == "reload"]
        self.assertIn(why, item["cause"])
        self.assertEqual(item["do"], "txmux reload --try, then txmux reload")
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertEqual(len(self.running.control.rules.routes), 2)

    async def start_with_units(self) -> Path:
        """Serve two clients by rules that take units; return the folder of these."""
        ssh = f"[route ssh]\nmatch = ssh\nbackend = {self.a}\n"
        self.operators = _BY_UNITS.format(self.a)
        self.unit_settings = self.settings + _UNIT_SETTINGS
        await self.start(self.unit_settings, self.operators + ssh)
        await self.served(request("a.test"), request("b.test"))
        units = self.folder / "units"
        units.mkdir()
        return units

    async def test_unit_that_moves_too_many_waits_alone(self) -> None:
        units = await self.start_with_units()
        route = f"[unit b]\n[route greedy]\nmatch = http\nbackend = {self.b}\n"
        # A unit may have several parts.
        for name, text in (("a", _LISTENER), ("b", f"{route}[unit b]\n# more"), ("c", _LISTENER)):
            (units / f"{name}.ini").write_text(text.format(name))
        report = await self.reloading.request()
        self.assertEqual(report.errors, ())
        self.assertIn("3 of 4 units taken", report.changes)
        pattern = r"/b\.ini \[unit b\] is not taken, .*: 2 of the last 2 clients would go"
        self.assertRegex(report.changes, pattern)
        names = [one.name for one in self.running.control.rules.listeners]
        self.assertEqual(names, ["x", "a", "c"])
        # Yours are refused as before.
        self.write_rules(self.unit_settings, self.operators.replace(self.a, self.b))
        report = await self.reloading.request()
        self.assertIn("2 of the last 2 clients would go", str(report.errors))
        self.write_rules(self.unit_settings, self.operators)
        self.assertEqual((await self.running.reload()).errors, ())
        self.assertEqual([one.name for one in self.running.control.rules.routes], ["greedy"])

    async def test_unit_that_is_gone_moves_too_many(self) -> None:
        """It stays in force, a file as well as a part of one, until a reload is asked for; what others change is taken, and so is what moves nobody."""
        units = self.folder / "units"
        units.mkdir()
        route = f"[route greedy]\nmatch = http\nbackend = {self.a}\n"
        idle = f"[unit idle]\n{_LISTENER.format('idle')}"
        for is_part in (False, True):
            gone = units / "gone.ini"
            gone.write_text(f"{idle}[unit gone]\n{route}" if is_part else route)
            await self.start(self.settings + _UNIT_SETTINGS, _BY_UNITS.format("close"))
            await self.served(request("a.test"), request("b.test"))
            gone.write_text("") if is_part else gone.unlink()
            for name in ("b", "c"):  # what is gone stays so at the next look, too
                (units / f"{name}.ini").write_text(_LISTENER.format(name))
                report = await self.reloading.request()
                self.assertEqual(report.errors, ())
                stays = r"gone\.ini.* is not taken, what was in force for it stays: .*gone\.ini: "
                gone_too = f"{stays}is gone, and 2 of the last 2 clients would go"
                self.assertRegex(report.changes, gone_too)
                rules = self.running.control.rules
                listeners = [one.name for one in rules.listeners]
                self.assertEqual((name in listeners, "idle" in listeners), (True, False))
                self.assertEqual([one.name for one in rules.routes], ["greedy"])
                current = await in_thread(current_digest, Path.cwd(), rules.files)
                self.assertEqual(current, loaded_digest(rules.files))
            self.assertNotIn("taken", (await self.running.reload()).changes)
            self.assertEqual(self.running.control.rules.routes, ())
            await self.stop()
            for file in units.iterdir():
                file.unlink()

    async def test_units_of_one_author_are_tried_so_often(self) -> None:
        """Those that are left then are refused; others are tried all the same."""
        if os.geteuid():
            raise SkipTest("only root can write files of other users")
        units = await self.start_with_units()
        route = f"[route greedy]\nmatch = http\nbackend = {self.b}\n"
        for name, text, author in zip(
            "abc", (_LISTENER, route, _LISTENER), (12345, 12345, 0), strict=True
        ):
            (units / f"{name}.ini").write_text(text.format(name))
            os.chown(units / f"{name}.ini", author, -1)
        for most, expected in ((1, ["x", "c"]), (2, ["x", "a", "c"])):
            change_constants(self, service, _MOST_TRIES=most)
            await self.reloading.request()
            self.assertEqual([one.name for one in self.running.control.rules.listeners], expected)
