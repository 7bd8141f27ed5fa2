import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.peers import reactor
from tests.support.steps import counts_of
from tests.support.supervised import SupervisedTestCase, note_questions
from tests.support.taker import Taker
from txmux.backends.health.observer import ObservedServer
from txmux.backends.pool.server_health import MemberState
from txmux.client.overrides import Overrides
from txmux.control import documents
from txmux.control.gauges import Gauges
from txmux.control.rates import Rates
from txmux.control.rules_index import RulesIndex
from txmux.control.steering import set_server
from txmux.detection.ranked import finish
from txmux.net.channel import messages
from txmux.rules.model import Refusal
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counter_groups import SERVER, ServerTotals
from txmux.telemetry.counting.counters import Counters

DRY = "[route dry]\nmatch = ssh\ndry_run = yes\nbackend = b\n[route web]\nmatch = http\nbackend = close\n"


class DocumentsTest(SupervisedTestCase):
    async def test_routes_in_order_with_counts_and_text(self) -> None:
        client = await self.live.client(await self.live.begin(DRY))
        server = await self.live.backend.heard(11)
        server.send(b"answer")
        await client.has(6)
        dry, web, ssh = (await self.running.control.routes())[0]
        names = "name", "matches", "dry_run_matches", "active"
        rows = [[one[name] for name in names] for one in (dry, web, ssh)]  # type: ignore[literal-required]
        self.assertEqual(rows, [["dry", 0, 1, 0], ["web", 0, 0, 0], ["ssh", 1, 0, 1]])
        self.assertEqual((ssh["bytes_in"], ssh["bytes_out"]), (11, 6))
        self.assertLess(abs(time.time() - (ssh["last_match"] or 0)), 60)
        self.assertEqual((web["last_match"], web["backend"], ssh["backend"]), (None, "close", "b"))
        (only,) = ssh["listeners"]
        self.assertEqual((only["listener"], only["matches"]), ("public", 1))
        self.assertTrue(ssh["rule"].startswith("[route ssh]\nmatch = ssh"), ssh["rule"])
        self.assertEqual(ssh["file"], str(self.file))
        self.assertEqual(self.file.read_text().splitlines()[(ssh["line"] or 0) - 1], "[route ssh]")

    async def turn(self) -> None:
        await deferLater(reactor, 0)

    async def test_handed_over_client_is_a_match_without_bytes(self) -> None:
        taker = Taker(self, self.turn)
        port = await self.live.begin(f"[route h]\nmatch = ssh\nbackend = {taker.outcome}\n")
        await self.live.client(port)
        given, told = await taker.taken()
        self.assertEqual(await taker.heard(given, 11), b"SSH-2.0-a\r\n")
        await self.live.logged(1, "handed-over")
        route = next((await self.running.control.routes())[0])
        self.assertEqual((route["name"], route["backend"]), (told["route"], taker.outcome))
        found = (route["matches"], route["active"], route["bytes_in"], route["bytes_out"])
        self.assertEqual(found, (1, 0, 0, 0))

    async def begin_checked(self, check: str = "check = tcp interval=2s\n") -> int:
        """Start with a backend whose server is checked, and one of which nobody listens."""
        (port,) = await self.run_service(
            "[txmux]\naccess_log = LOG\n[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route ssh]\nmatch = ssh\nbackend = b\n"
            f"[backend b]\nserver =\n  127.0.0.1:{self.live.server}\n  127.0.0.1:1 weight=3\n{check}",
            use=self.time,
        )
        return port

    async def servers(self) -> list[Any]:
        (backend,) = await self.running.control.backends()
        self.assertEqual(backend["name"], "b")
        return backend["servers"]

    async def test_results_of_checks(self) -> None:
        with capturedLogs():
            await self.begin_checked()
            up, down = await self.servers()
            while not up["check"] or down["state"] != "down":
                self.time.advance(0.5)
                await deferLater(reactor, 0)
                up, down = await self.servers()
        counts = await self.running.control.counts()
        failed = [server.checks_failed for server in counts.servers]
        self.assertEqual((failed[0], failed[1] > 0), (0, True))
        self.assertEqual((up["state"], up["check"]["ok"]), ("up", True))
        self.assertEqual(up["check"]["result"], "healthy")
        self.assertTrue(all(up["check"]["history"]))
        self.assertEqual((down["weight"], down["check"]["ok"]), (3, False))
        self.assertIn("connection refused", down["check"]["result"])
        self.assertIn("1 check failed", down["why"])
        self.assertEqual(down["addresses"][0]["address"], "127.0.0.1:1")
        self.assertLess(abs(time.time() - down["since"]), 60)
        with capturedLogs():
            while "1 check failed" in down["why"]:
                self.time.advance(0.5)
                await deferLater(reactor, 0)
                _, down = await self.servers()
        self.assertIn(" checks failed; last: connection refused", down["why"])

    async def test_connections_rate_and_bytes_and_what_an_operator_changes(self) -> None:
        port = await self.begin_checked("eject = off\n")
        await self.running.control.sample()
        with capturedLogs():
            clients = [await self.live.client(port) for _ in range(4)]
            servers = [await self.live.backend.peer(number) for number in range(4)]
        for server in servers:
            await server.has(11)
            server.send(b"answer")
        for client in clients:
            await client.has(6)
        self.time.advance(0.5)
        good, bad = await self.servers()
        names = "active", "total", "failed", "rate", "bytes_in", "bytes_out"
        self.assertEqual([good[name] for name in names], [4, 4, 0, 8.0, 44, 24])
        self.assertGreater(good["first_byte_ms"], 0)
        self.assertEqual((bad["active"], bad["total"]), (0, 0))
        self.assertEqual(bad["failures"], {"connect-refused": bad["failed"]})
        self.assertGreater(bad["failed"], 0)
        found = (good["check"], good["last_failure"], bad["first_byte_ms"])
        self.assertEqual(found, (None, None, None))
        self.assertEqual(bad["last_failure"]["cause"], "connection refused")
        self.assertLess(abs(time.time() - bad["last_failure"]["time"]), 60)
        name = f"127.0.0.1:{self.live.server}"
        for state, weight, why in (("drain", 9, "drained by an operator"), ("ready", None, "")):
            with capturedLogs():
                await set_server(self.running.control, "b", name, state=state, weight=weight)  # type: ignore[arg-type]
            good, bad = await self.servers()
            shown = {"drain": "drain", "ready": "up"}[state], why, 9
            self.assertEqual((good["state"], good["why"], good["weight"]), shown)
            self.assertLess(abs(time.time() - good["since"]), 60)
            self.time.advance(1)

    async def test_asks_all_at_once(self) -> None:
        """A worker that hangs delays the status once."""
        await self.live.begin()
        asked = note_questions(self)
        Deferred.fromCoroutine(self.running.control.status()).addErrback(lambda _: None).cancel()
        kinds = sorted(message.kind for message, _ in asked)
        self.assertEqual(kinds, ["count", "missing", "status"])

    async def test_asks_only_for_addresses_of_backends_with_a_server_that_is_not_up(self) -> None:
        """There may be thousands, of which each answer takes a while."""
        text = "[listen public]\nendpoint = 127.0.0.1:0\ndefault = b\n[route ssh]\nmatch = ssh\nbackend = c\n"
        servers = "[backend {}]\nserver = 127.0.0.1:1\n    127.0.0.1:2\n"
        await self.run_service(text + servers.format("b") + servers.format("c"))
        control, questions = self.running.control, note_questions(self)

        def asked() -> list[object]:
            return [its.get("backends") for what, its in questions if what is messages.ADDRESSES]

        self.assertEqual((await control.status())["attention"], [])
        await control.look()
        self.assertEqual(asked(), [])
        with capturedLogs():
            await set_server(control, "c", "127.0.0.1:1", state="drain")
            await set_server(control, "c", "127.0.0.1:2", state="drain")
        questions.clear()
        [item] = (await control.status())["attention"]
        self.assertEqual(item["text"].partition(":")[0], "backend c")
        self.assertEqual({*map(str, asked())}, {"['c']"})
        self.assertEqual(len(await control.backends()), 2)
        self.assertEqual(asked()[-1], None)


class WorkersTest(SupervisedTestCase):
    workers = 2

    async def test_sums_of_workers_and_checks_of_the_supervisor(self) -> None:
        clients = await self.live.spread(await self.live.begin(backend="check = tcp interval=1s\n"))
        server: Any = {"check": None}
        while server["check"] is None:
            await deferLater(reactor, 0.05)
            ((server,),) = (its["servers"] for its in await self.running.control.backends())
        found = server["active"], server["state"], server["check"]["ok"]
        self.assertEqual(found, (len(clients), "up", True))
        (route,) = (await self.running.control.routes())[0]
        self.assertEqual((route["matches"], route["bytes_in"]), (len(clients), 11 * len(clients)))


_ADDRESS = {"why": "", "since": 5.0, "weight": 2, "effective_weight": 1, "check": None}


def address(server: str, where: str, state: str = "up", **more: Any) -> Any:
    return {"backend": "b", "server": server, "address": where, "state": state, **_ADDRESS, **more}


class ViewsTest(SynchronousTestCase):
    """What each document says of one service with some of everything."""

    def setUp(self) -> None:
        text = (
            "[listen x]\nendpoint = 127.0.0.1:1\nsilent = close\n[listen y]\nendpoint = 127.0.0.1:2\ndefault = c\n"
            "[route r]\nunder = x\nmatch = any\nbackend = b\n"
            "[backend b]\nserver = one:80\n    two:80 weight=3 backup\n    10.0.0.3:80 down\ncheck = tcp\nhold = 9s\n"
            "[backend c]\nserver = 127.0.0.1:9\n"
        )
        self.rules = parse(text, Path("/etc/x.ini"))

    def backends(self, *given: Any, only: Sequence[str] | None = None) -> Any:
        make, rates = cast("Any", documents.backends_document), Rates(Clock().seconds)
        return finish(make(RulesIndex(self.rules), *given, rates, only))

    def test_backends(self) -> None:
        cells = {
            "connected": 7, "released": 2, "bytes in": 3, "bytes out": 4, "failed tls-failed": 2,
            "failed reset": 1, "answered": 1, "answer time": 5000, "last failure": 0,
        }  # fmt: skip
        totals = ServerTotals(("b", "one:80"), [cells.get(name, 0) for name in SERVER.names])
        check = {"ok": False, "last": 1.0, "result": "x", "duration_ms": 1.0, "history": [False]}
        first = address("one:80", "10.0.0.1:80", "ejected", why="failed")
        down = address("one:80", "10.0.0.2:80", "down", why="refused")
        answers = [
            (1, [address("one:80", "10.0.0.1:80"), down]),
            (2, [first, address("10.0.0.3:80", "10.0.0.3:80", "disabled")]),
        ]  # fmt: skip
        checked = [address("one:80", "10.0.0.2:80", check=check), address("one:80", "10.0.0.1:80")]
        overrides = Overrides().with_server("b", "one:80", 77.0, "drain", 9)
        overrides = overrides.with_hold("b", 0.0, math.inf)
        stale = {"two:80": (None, "no such name"), "one:80": (90.0, "no answer")}
        gauges = Gauges(held={"b": 4}, stale={("b", name): why for name, why in stale.items()})
        [its] = self.backends([totals], gauges, overrides, answers, checked, only=["b"])
        self.assertEqual((its["name"], its["hold"], its["held"]), ("b", {"until": None}, 4))
        expected: tuple[dict[str, Any], ...] = (
            {
                "state": "ejected", "since": 77.0, "weight": 9, "effective_weight": 1, "active": 5,
                "total": 7, "failed": 3, "bytes_in": 3, "bytes_out": 4, "first_byte_ms": None,
                "rate": 0.0, "why": "worker 2: failed; addresses 1 min 30 s old: no answer",
                "failures": {"tls-failed": 2, "reset": 1}, "checked": True,
            },
            {"state": "unresolved", "why": "no address: no such name", "weight": 3, "backup": True},
            {"state": "disabled", "since": 5.0, "checked": True},
        )  # fmt: skip
        for server, wanted in zip(its["servers"], expected, strict=True):
            self.assertEqual({name: server[name] for name in wanted}, wanted)
        rows = its["servers"][0]["addresses"]
        shown = [[row["address"], row["state"], row["check"]] for row in rows]
        self.assertEqual(shown, [["10.0.0.1:80", "ejected", None], ["10.0.0.2:80", "down", check]])
        held = Overrides().with_hold("c", 0.0, time.monotonic() + 50)
        one, other = self.backends([], Gauges(), held, (), ())
        self.assertEqual((one["name"], one["hold"], other["name"]), ("b", None, "c"))
        self.assertEqual(one["servers"][0]["why"], "its name has no address yet")
        self.assertLess(abs(other["hold"]["until"] - time.time() - 50), 9)

    def test_addresses_of_workers(self) -> None:
        up = [address("one:80", where) for where in "ab"] + [address("one:80", "c", "down")]
        found = finish(documents.weights_up([(1, up), (2, up[1:]), (3, [address("t", "d")])]))
        self.assertEqual(found, {("b", "one:80"): 1, ("b", "t"): 1})
        seen = {("b", "one:80"): ObservedServer("failing", "fails", 3.0)}
        told = [(1, [*up, address("t", "d"), address("t", "e", "newer")])]
        [(_, rows)] = documents.with_observed(told, seen)
        failing, others = ("failing", "fails"), [("c", "down", ""), ("d", "up", "")]
        shown = [(row["address"], row["state"], row["why"]) for row in rows]
        self.assertEqual(shown, [("a", *failing), ("b", *failing), *others])

    def test_addresses(self) -> None:
        its, place = SimpleNamespace(text="s"), SimpleNamespace(text="a")
        member = SimpleNamespace(server=its, target=place, full_weight=2)
        ages = iter([50.0, None])
        pool = SimpleNamespace(
            members=[member] * 2, since=lambda _: next(ages), effective_weight=lambda _: 1, state_of=lambda _: (MemberState.DOWN, "refused"),
        )  # fmt: skip
        upstream = SimpleNamespace(backend=SimpleNamespace(name="b"), pool=pool)
        upstreams: Any = SimpleNamespace(all=lambda _: [upstream], last_check=lambda *_: None)
        first, second = documents.address_states(upstreams)
        self.assertEqual(second, address("s", "a", "down", why="refused", since=None))
        self.assertLess(abs(time.time() - 50 - (first["since"] or 0.0)), 9)

    def test_certificates(self) -> None:
        now, day = time.time(), 86400.0
        lives = (("a", -9, 99), ("b", -9, 13), ("c", -9, -1), ("d", 1, 99), ("a", -9, 99))
        rows = [
            {
                "route": "r", "file": file, "names": [], "issuer": "x",
                "not_before": now + begins * day, "not_after": now + ends * day,
            }
            for file, begins, ends in lives
        ]  # fmt: skip
        tls = SimpleNamespace(managed=("m", "n"), files=("/m", "/n"))
        routes = SimpleNamespace(terminate_tls=None), SimpleNamespace(name="q", terminate_tls=tls)
        rules: Any = SimpleNamespace(routes=routes)
        renewed = {**rows[1], "name": "m", "acme": True}
        found: list[Any] = [*documents.certificates_document(rules, [renewed], rows)]
        states = [(row["route"], row["file"], row["state"], row["acme"]) for row in found]
        own = zip("abcd", ("valid", "ends soon", "ended", "not valid yet"), strict=True)
        self.assertEqual(states, [("q", "/m", "valid", True), *(("r", *one, False) for one in own)])
        lacking = found[1]["next_renewal"], found[1]["profile"], found[0].get("name")
        self.assertEqual(lacking, (None, None, None))

    def test_short_forms(self) -> None:
        [silent] = documents.short_forms(self.rules)
        shown = silent.name, silent.under, silent.outcome
        self.assertEqual(shown, ("silent", ("x",), Refusal.CLOSE))
        index = RulesIndex(self.rules)
        [row] = documents.routes_document(index, counts_of(Counters(), self.rules), [silent])
        fields = {
            "name": "silent", "under": ["x"], "backend": "close", "dry_run": False,
            "ends_tls": False, "tunnel": False, "line": 1,
        }  # fmt: skip
        self.assertEqual({name: row[name] for name in fields}, fields)  # type: ignore[literal-required]

    def test_worst_state_with_the_workers_that_report_it(self) -> None:
        for states, state, why in (
            (("up", "ejected"), "ejected", "worker 2: ejected"), (("down", "down"), "down", "down"),
            (("ejected", "up", "ejected"), "ejected", "worker 1, 3: ejected"),
        ):  # fmt: skip
            found = [address("s", "a", state, why=state) for state in states]
            told = documents.worst_row([*enumerate(found, 1)])
            self.assertEqual((told["state"], told["why"]), (state, why))

    def test_a_server_that_is_down_has_its_newest_cause(self) -> None:
        """And how many checks have failed in a row, as far as they are stored; a good one says nothing of a server that is not up yet."""
        for ok, history, why in (
            (False, [True, False, False, False], "3 checks failed; last: refused"),
            (False, [False], "1 check failed; last: refused"),
            (False, [False] * 50, "at least 50 checks failed; last: refused"),
            (True, [False, True], "before"),
        ):
            check: Any = {"ok": ok, "result": "refused", "history": history}
            for state, shown in (("down", why), ("up", "before"), ("drain", "before")):
                rows = [(1, address("s", "a", state, why="before"))]
                self.assertEqual(documents.worst_row(rows, check)["why"], shown, state)
        rows = [(1, address("s", "a", "down")), (2, address("s", "a", "up"))]
        check = {**check, "ok": False, "history": [False]}
        told = documents.worst_row(rows, check)
        self.assertEqual(told["why"], "worker 1: 1 check failed; last: refused")
