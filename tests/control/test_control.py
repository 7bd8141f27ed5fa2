from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import PeerFactory, SupervisedTestCase, VirtualTime, connect, listen, reactor
from txmux.client.overrides import Overrides, ServerState
from txmux.control.broadcast import concurrently
from txmux.control.connections import list_connections
from txmux.control.control import Control
from txmux.control.gauges import Gauges
from txmux.control.report import Report, UnknownError
from txmux.control.steering import set_backend, set_listener, set_server
from txmux.errors import MuxError
from txmux.net.channel.channel import ChannelError
from txmux.rules.model import Route, Rules, Settings, TlsSettings
from txmux.serving.store import ListeningSockets
from txmux.telemetry.counting.counters import Counters
from txmux.telemetry.lines import LOST_LINES


class SteeringTest(SupervisedTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.time = VirtualTime()
        self.backends = [PeerFactory(), PeerFactory()]
        self.servers = [f"127.0.0.1:{listen(self, one)}" for one in self.backends]

    def text(self, more: str = "") -> str:
        first, second = self.servers
        return (
            f"[txmux]\naccess_log = LOG\n[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route ssh]\nmatch = ssh\nbackend = b\n"
            f"[backend b]\nserver =\n    {first}\n    {second} weight=2\n{more}"
        )

    async def begin(self, more: str = "") -> int:
        (port,) = await self.run_service(self.text(more), use=self.time)
        return port

    async def led(self, port: int, times: int) -> list[int]:
        """Connect clients one after the other, and give how many each server has had since."""
        before = [len(one.peers) for one in self.backends]
        for number in range(times):
            client = await connect(self, port)
            client.send(b"SSH-2.0-a\r\n")
            while sum(len(one.peers) for one in self.backends) <= sum(before) + number:
                await deferLater(reactor, 0)
        return [len(one.peers) - was for one, was in zip(self.backends, before, strict=True)]

    async def set_server(self, number: int, state: ServerState, **more: Any) -> str:
        with capturedLogs():
            server = self.servers[number]
            report = await set_server(self.running.control, "b", server, state=state, **more)
        self.assertTrue(report.ok)
        return report.changes

    async def test_drain_and_weight(self) -> None:
        port = await self.begin()
        self.assertEqual(await self.led(port, 3), [1, 2])
        told = await self.set_server(1, "drain")
        self.assertEqual(told, f"backend b: {self.servers[1]} is drained")
        self.assertEqual(await self.led(port, 3), [3, 0])
        self.assertEqual(len(await list_connections(self.running.control)), 6)
        await self.set_server(1, "ready")
        self.assertEqual(await self.led(port, 3), [1, 2])
        await set_server(self.running.control, "b", self.servers[0], weight=5)
        self.assertEqual(await self.led(port, 7), [5, 2])
        await set_server(self.running.control, "b", self.servers[0], weight=0)
        self.assertEqual(await self.led(port, 3), [1, 2])
        told = await self.set_server(1, "maintenance", close_connections=True)
        self.assertTrue(told.endswith(" is in maintenance, 8 connections ended"), told)
        while len(rows := await list_connections(self.running.control)) > 11:
            await deferLater(reactor, 0)
        self.assertEqual({row["server"] for row in rows}, {self.servers[0]})

    async def test_look_notices_what_the_status_shows(self) -> None:
        """A look at the backends with a server that is not up finds the same items as one at all of them."""
        control = (await self.begin("    127.0.0.1:1 down\n"), self.running.control)[1]
        for states in (("ready", "ready"), ("drain", "ready"), ("drain", "maintenance")):
            for number, state in enumerate(states):
                await self.set_server(number, state)  # type: ignore[arg-type]
            with capturedLogs():
                await control.look()
                known = (await control.attention_state())["since"]
                looked = {(row["text"], row["level"]) for row in known}
                whole = await control.attention(await control.ask())
            self.assertEqual({(item.text, item.level) for item in whole}, looked)
            found = any(text.startswith("backend b: ") for text, _ in looked)
            self.assertEqual(found, states[1] != "ready")
        # Where a worker has not answered, what is not seen need not be over.
        reports = await control.ask()
        late = attrs.evolve(reports, gauges=attrs.evolve(reports.gauges, missing=["worker 1"]))
        for told, lasts in ((late, True), (reports, False)):
            seen = (told.lacking, await control.attention(told, []))
            self.assertEqual(seen, (["worker 1"] * lasts, []))
            since = (await control.attention_state())["since"]
            self.assertEqual([row["what"] for row in since], ["backend"] * lasts)
        log = f"access log {self.log}"
        LOST_LINES.add(log, 3, "full")
        self.addCleanup(LOST_LINES.end, log)
        kept = await control.attention_state()
        self.assertEqual(kept["lost_lines"], {f"{log}: full": 3})

    async def test_overrides_survive_reloads_and_hold_under_older_rules(self) -> None:
        port = await self.begin()
        await self.set_server(1, "drain")
        with capturedLogs():
            await self.change(self.text("connect_timeout = 4s\n"))
            self.assertEqual(await self.led(port, 3), [3, 0])
            without = self.text().partition("[backend")[0]
            await self.change(without.replace("backend = b", "backend = 127.0.0.1:1"))
            await self.change(self.text())
        self.assertEqual(await self.led(port, 3), [3, 0])
        undecided = await connect(self, port)  # of rules that are older then
        undecided.send(b"SSH")
        while len(await list_connections(self.running.control)) < 7:
            await deferLater(reactor, 0)
        await self.change(self.text("connect_timeout = 4s\n"))
        await self.set_server(0, "drain")
        undecided.send(b"-2.0-a\r\n")
        await undecided.is_lost()
        await self.until(lambda: "reason=no-server" in self.log.read_text())

    async def test_counters_of_removed_routes_make_room_for_those_of_others(self) -> None:
        await self.begin()
        counts = []
        with capturedLogs():
            for number in range(9):
                await self.change(self.text().replace("route ssh", f"route ssh{number}"))
                counts.append(len(self.running.control.counters.layout.places))
        self.assertEqual(counts[4:], 5 * [counts[4]])

    async def test_drained_server_is_checked_but_not_in_maintenance(self) -> None:
        await self.begin("check = tcp interval=2s\n")
        checks: dict[ServerState, bool] = {"drain": True, "maintenance": False, "ready": True}
        for state, checked in checks.items():
            for number in (0, 1):
                await self.set_server(number, state)
            await deferLater(reactor, 0.05)
            before = [len(one.peers) for one in self.backends]
            for _ in range(30):
                self.time.advance(0.2)
                await deferLater(reactor, 0)
            while checked and not all(self.checked_since(before)):
                self.time.advance(0.2)
                await deferLater(reactor, 0)
            self.assertEqual((state, self.checked_since(before)), (state, [checked, checked]))

    def checked_since(self, before: list[int]) -> list[bool]:
        return [len(one.peers) > was for one, was in zip(self.backends, before, strict=True)]


class WorkersTest(SupervisedTestCase):
    workers = 2

    async def refused(self, port: int) -> None:
        client = await self.live.client(port)
        await client.is_lost()

    async def test_drain_in_all_present_and_later_workers(self) -> None:
        port = await self.live.begin()
        server = f"127.0.0.1:{self.live.server}"
        with capturedLogs():
            report = await set_server(self.running.control, "b", server, state="drain")
            told = f"backend b: {server} is drained; no server of b gets new clients now"
            self.assertEqual((report.ok, report.changes), (True, told))
            for _ in range(10):
                await self.refused(port)
            await self.change(self.live.text().replace("workers = 2", "workers = 3"))
            for _ in range(10):
                await self.refused(port)
            await self.change(self.live.text().replace("workers = 2", "workers = 1"))
            await self.refused(port)
            await set_server(self.running.control, "b", server, state="ready")
            await self.live.client(port)
            await (await self.live.backend.peer()).has(11)

    async def test_concurrent_changes_of_a_backend_end_with_one_of_them(self) -> None:
        others = [f"127.0.0.{number}:1" for number in range(2, 32)]
        await self.live.begin(backend="".join(f"    {server}\n" for server in others))
        control = self.running.control
        both: list[tuple[ServerState, ...]] = [("drain", "ready"), ("ready", "drain")]
        for states in both * 3:
            reports = await concurrently(
                *(set_backend(control, "b", state) for state in states * 5),
                *(set_server(control, "b", others[0], weight=weight) for weight in range(1, 9)),
            )
            self.assertNotIn("not yet", str(reports))
            [backend] = await control.backends()
            shown = "up" if states[-1] == "ready" else states[-1]
            self.assertEqual({row["state"] for row in backend["servers"]}, {shown})
            self.assertEqual(backend["servers"][1]["weight"], 8)
            answers = await control.addresses()
            told = {(n, row["state"]) for n, rows in answers for row in rows}
            self.assertEqual({state for _, state in told}, {shown})
            self.assertEqual({number for number, _ in told}, {1, 2})

    async def test_no_present_or_later_worker_accepts(self) -> None:
        """Clients wait in the queue of the listener until it accepts again."""
        port, control = await self.live.begin(), self.running.control
        with capturedLogs():
            await set_listener(control, "public", accepting=False)
            missing = await control.missing()
            shut = (["public"], ["[listen public]: no client is accepted"])
            self.assertEqual((control.shut(), missing), shut)
            (told,) = (await control.status())["listeners"]
            self.assertFalse(told["accepting"])
            await self.live.client(port)
            await self.change(self.live.text().replace("workers = 2", "workers = 3"))
            await deferLater(reactor, 0.2)
            self.assertEqual(await list_connections(control), [])
            await set_listener(control, "public", accepting=True)
            await (await self.live.backend.peer()).has(11)
        self.assertEqual((control.shut(), await control.missing()), ([], []))


class AloneTest(SynchronousTestCase):
    """What the supervisor says and does by itself."""

    def setUp(self) -> None:
        tls = TlsSettings((Path("a.pem"),), managed=("a.example",))
        rules = Rules(Path("x.ini"), Settings(), (), (Route("r", (), None, terminate_tls=tls),))
        self.elsewhere: Any = None
        service: Any = SimpleNamespace(renew_elsewhere=lambda _: self.elsewhere)
        self.control = Control(Clock(), rules, Counters(), ListeningSockets(Clock()), service)
        self.done: list[str] = []
        stale = {("b", "s"): (None, "refused"), ("b", "t"): (90.0, "late")}
        files, upstreams = SimpleNamespace(look_now=self.look), SimpleNamespace(stale=lambda: stale)
        state: Any = SimpleNamespace(files=files, workers=list, upstreams=upstreams)
        self.control.state = state

    async def look(self) -> None:
        self.done.append("look")

    async def renewed(self, name: str, *answers: Any) -> Report:
        parts: Any = {n: SimpleNamespace(renew=made) for n, made in enumerate(answers)}
        self.control.parts = parts
        return await self.control.renew(name)

    def test_certificates_that_are_renewed(self) -> None:
        """By the feature that gets them; where it cannot, another process may."""
        none, fails = Mock(return_value=None), Mock(side_effect=MuxError("away"))
        does = Mock(return_value=succeed("renewed"))
        there = succeed(Report(ok=True, changes="there"))
        for answers, self.elsewhere, changes, errors in (
            ((none, does), None, "renewed", ()), ((fails,), None, "", ("away",)),
            ((fails,), there, "there", ()),
        ):  # fmt: skip
            report = self.successResultOf(self.renewed("a.example", *answers))
            found = report.changes, tuple(report.errors), self.done
            self.assertEqual(found, (changes, errors, ["look"]))
        for name, more in (
            ("b.example", "; did you mean 'a.example'?"), ("x", " (there are a.example)"),
        ):  # fmt: skip
            failure = self.failureResultOf(self.renewed(name, none), UnknownError)
            told = f"no certificate of {name!r} comes by ACME{more}"
            self.assertEqual(failure.getErrorMessage(), told)

    def test_ends(self) -> None:
        """Another process goes on with what changes; lines that logs have lost are told where none does."""
        for name in ("stop", "report_stop"):
            whose: Any = self.control.lists if name == "stop" else self.control.events
            self.patch(whose, name, lambda name=name: self.done.append(name))
        self.control.parts = {"f": SimpleNamespace(stop_following=lambda: self.done.append("f"))}  # type: ignore[assignment]
        self.control.be_replaced()
        ended = ["report_stop", "stop", "f"]
        self.assertEqual((self.done, self.control.is_stopping), (ended, False))
        self.successResultOf(self.control.stop_following())
        self.assertEqual((self.done[3:], self.control.is_stopping), (ended, True))
        LOST_LINES.take_count()
        reports: Any = SimpleNamespace(gauges=Gauges())
        with capturedLogs() as events:
            self.control.report_end(is_replaced=False)
            LOST_LINES.add("log", 3, "full")
            self.addCleanup(LOST_LINES.end, "log")
            counts = self.successResultOf(self.control.counts(reports))
            self.assertEqual((counts.process.lost_lines, counts.reloaded), (3, (True, 0.0)))
            LOST_LINES.add("log", 2, "full")
            self.control.report_end(is_replaced=True)
            self.control.report_end(is_replaced=False)
        self.assertEqual([event["lost"] for event in events], [5])

    def test_names_that_are_not_found_and_no_worker(self) -> None:
        fed = list[object]()
        self.control.state.lists = cast("Any", SimpleNamespace(feed=fed.append))
        self.control.feed({"a": 1})
        self.assertEqual(fed, [{"a": 1}])
        stale = ["s: no address: refused", "t: addresses 1 min 30 s old: late"]
        self.assertEqual(self.control.stale(), [f"backend b: {one}" for one in stale])
        failure = self.failureResultOf(self.control.explain(b"x"), ChannelError)
        self.assertIn("no worker serves", failure.getErrorMessage())
        self.failureResultOf(self.control.explain(b"x", "publik"), UnknownError)

    states = st.sampled_from([None, "ready", "drain", "maintenance"])
    weights = st.sampled_from([None, 0, 1, 7])

    @given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), states, weights)))
    def test_overrides_as_json(self, changes: list[tuple[str, str, Any, int | None]]) -> None:
        wanted = Overrides()
        for number, (backend, server, state, weight) in enumerate(changes):
            wanted = wanted.with_server(backend, server, float(number), state, weight)
            wanted = wanted.with_listener(server, accepting=state != "drain")
        self.assertEqual(Overrides.read(wanted.as_json()), wanted)
        for order in wanted.servers.values():
            self.assertTrue(order.state != "ready" or order.weight)
