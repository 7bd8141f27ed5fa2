import errno
import hashlib
import json
import os
import sys
from pathlib import Path

import attrs
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.admin.asking import LISTEN, AdminCase, Told
from tests.programs import run_program
from tests.support.changes import lack_modules
from tests.support.kit import PeerFactory, authority, connect, listen, reactor
from tests.support.steps import counts_of
from txmux.access.bans import Ban, banned_network
from txmux.admin.metrics import exposition
from txmux.control.gauges import Gauges
from txmux.control.steering import set_server
from txmux.rules.reading.parser import parse
from txmux.telemetry.counting.counters import OWN, Counters
from txmux.version import __version__

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

RULES = """[listen x]
endpoint = 127.0.0.1:0
max_connections_per_source = 2
detect_timeout = 1h

[route greeting]
match = regex pattern=HELLO
backend = b

[route nobody]
match = regex pattern=BYE
backend = down

[backend b]
server = 127.0.0.1:PORT

[backend down]
server = 127.0.0.1:1 down
"""

NAMES = frozenset(
    {
        "connections_total", "connections_active", "connections_undecided",
        "connections_ended_total", "route_matches_total", "bytes_total", "detect_seconds_bucket",
        "connect_seconds_bucket", "duration_seconds_bucket", "detect_bytes_bucket",
        "backend_connections_active", "backend_connections_total", "backend_bytes_total",
        "first_byte_seconds_bucket", "backend_connect_failures_total", "backend_server_up",
        "backend_server_state", "backend_server_weight", "backend_clients_held", "limit_refused_total", "sources_tracked",
        "relay_spliced_bytes_total", "worker_restarts_total", "open_descriptors", "max_descriptors",
        "access_log_lost_total", "bans", "reload_success", "reload_timestamp_seconds", "generations", "build_info", "rules_info",
        "attention",
    }
)  # fmt: skip
"""Those that every service has, as the reference lists them; others need a check or a certificate."""


class MetricsTest(AdminCase):
    async def samples(self) -> Samples:
        told = await self.get("/metrics")
        self.assertEqual(told.status, 200)
        self.assertEqual(told.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8")
        self.page = told.body
        return {
            (sample.name.removeprefix("txmux_"), frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(told.body.decode())
            for sample in family.samples
        }

    def of(self, samples: Samples, name: str, **labels: str) -> float | None:
        return samples.get((name, frozenset(labels.items())))

    async def serve(self, factory: PeerFactory, settings: str = "") -> int:
        self.server = listen(self, factory)
        await self.start(settings, rules=RULES.replace("PORT", str(self.server)))
        return self.port

    async def test_traffic_includes_live_connections(self) -> None:
        factory = PeerFactory()
        port = await self.serve(factory)
        held = await connect(self, port)
        held.send(b"HELLO you")
        server = await factory.heard(9)
        server.send(b"hello")
        await held.has(5)
        await self.connect_until_lost(b"nobody knows this")
        await connect(self, port)
        await self.connect_until_lost(b"")
        samples = await self.samples()
        route, own = {"listener": "x", "route": "greeting"}, {"listener": "x"}
        of_server = {"backend": "b", "server": f"127.0.0.1:{self.server}"}
        python = ".".join(map(str, sys.version_info[:3]))
        for name, labels, value in (
            ("connections_total", own, 4), ("connections_active", own, 2),
            ("connections_undecided", own, 1), ("route_matches_total", route, 1),
            ("connections_ended_total", {**own, "route": "", "reason": "no-route"}, 1),
            ("bytes_total", {**route, "direction": "in"}, 9),
            ("bytes_total", {**route, "direction": "out"}, 5),
            ("detect_seconds_count", own, 2), ("detect_bytes_sum", {}, 26),
            ("connect_seconds_count", {"backend": "b"}, 1),
            ("first_byte_seconds_count", {"backend": "b"}, 1),
            ("backend_connections_total", of_server, 1),
            ("backend_bytes_total", {**of_server, "direction": "in"}, 9),
            ("backend_bytes_total", {**of_server, "direction": "out"}, 5),
            ("limit_refused_total", {**own, "limit": "max_connections_per_source"}, 1),
            ("duration_seconds_count", own, 2), ("sources_tracked", own, 1),
            ("build_info", {"version": __version__, "python": python}, 1),
        ):  # fmt: skip
            self.assertEqual(self.of(samples, name, **labels), value, name)
        status = (await self.get("/api/status")).json
        ended = {"ended": 2, "bytes_in": 17, "bytes_out": 0}
        counted = {"active": 2, "undecided": 1, "total": 4, "limit": 0, "unrouted": ended}
        self.assertEqual((status["connections"], status["workers"][0]["connections"]), (counted, 2))
        most = self.of(samples, "max_descriptors") or 0
        self.assertGreater(most, 100)
        self.assertLess(self.of(samples, "open_descriptors") or 0, most)
        self.assertGreater(self.of(samples, "process_resident_memory_bytes") or 0, 1_000_000)

    async def test_failed_servers_and_planned_work(self) -> None:
        """A server has one state, and counts as up unless it has failed: whoever drains it knows."""
        port = listen(self, PeerFactory())
        more = "[backend c]\nserver = nowhere.example:1\nresolvers = 127.0.0.1:1\n"
        more += "[backend d]\nserver = 127.0.0.1:1\n"
        await self.start(rules=RULES.replace("PORT", str(port)) + more)
        await set_server(self.running.control, "d", "127.0.0.1:1", state="drain")
        await self.running.control.bans.add(Ban(banned_network("192.0.2.0/24"), 0.0))
        samples = await self.samples()
        rows = [(name, dict(labels), value) for (name, labels), value in samples.items()]
        up = {its["backend"]: value for name, its, value in rows if name == "backend_server_up"}
        states = {
            its["backend"]: its["state"]
            for name, its, value in rows
            if name == "backend_server_state" and value
        }
        self.assertEqual(states, {"b": "up", "c": "unresolved", "d": "drain", "down": "disabled"})
        self.assertEqual(up, {"b": 1, "c": 0, "d": 1, "down": 1})
        self.assertEqual(self.of(samples, "bans"), 1)
        # Of the name server, at which nobody answers.
        while self.of(await self.samples(), "source_up", source="names 127.0.0.1:1") != 0:
            await deferLater(reactor, 0.05)

    def test_each_state_of_a_server(self) -> None:
        counters = Counters()
        counters.column(OWN)
        counts = counts_of(counters, parse(LISTEN, "rules.ini"))
        partly = attrs.evolve(counts, gauges=Gauges(up={("b", "s"): 1}))
        up: dict[str, list[bool]] = {}
        for state in ("up", "down", "ejected", "probing", "drain", "failing", "silent"):
            document = [{"name": "b", "servers": [{"server": "s", "state": state}]}]
            for its in (counts, partly):
                text = exposition(its, document).decode()
                self.assertEqual(text.count("txmux_backend_server_state{"), 1)
                labels = f'backend="b",server="s",state="{state}"'
                self.assertIn(f"txmux_backend_server_state{{{labels}}} 1.0\n", text)
                if 'txmux_backend_server_up{backend="b",server="s"} 1.0' in text:
                    up.setdefault(state, []).append(its is partly)
        both = [False, True]
        self.assertEqual(up, {"up": both, "ejected": [True], "probing": [True], "drain": both})

    async def test_lines_that_a_full_disk_does_not_take(self) -> None:
        await self.serve(PeerFactory(), "access_log = /dev/full")
        for count in (1, 2):
            await self.connect_until_lost(b"no route takes this")
            self.assertEqual(self.of(await self.samples(), "access_log_lost_total"), count)
        lost = ("warning", "access log /dev/full: 2 lines lost", os.strerror(errno.ENOSPC))
        for _ in range(2):
            status = json.loads((await self.get("/api/status")).body)
            found = [(one["level"], one["text"], one["cause"]) for one in status["attention"]]
            self.assertIn(lost, found)
            self.file.write_text(f"{self.file.read_text()}# changed\n")
            self.assertTrue((await self.running.reload()).ok)

    async def test_counters_after_a_reload_by_name(self) -> None:
        await self.serve(PeerFactory())
        await self.connect_until_lost(b"nobody knows this")
        before = await self.samples()
        self.assertEqual(self.of(before, "reload_success"), 1)
        digest = hashlib.sha256(self.file.read_bytes()).hexdigest()
        self.assertEqual(self.of(before, "rules_info", sha=digest), 1)
        self.file.write_text(self.file.read_text().replace("[route nobody]", "[route other]"))
        await self.running.reload()
        after = await self.samples()
        routes = {dict(labels).get("route") for _, labels in after}
        self.assertEqual(routes & {"nobody", "other"}, {"other"})
        self.assertEqual(self.of(after, "connections_total", listener="x"), 1)
        self.file.write_text("[nonsense]")
        await self.running.reload()
        failed = await self.samples()
        self.assertEqual(self.of(failed, "reload_success"), 0)
        then, now = (self.of(its, "reload_timestamp_seconds") or 0 for its in (before, failed))
        self.assertGreater(now, then)

    async def test_names_and_labels_of_the_reference_pass_promtool(self) -> None:
        await self.serve(PeerFactory())
        samples = await self.samples()
        self.assertEqual(NAMES - {name for name, _ in samples}, set())
        labels = {label for name, found in samples for label, _ in found}
        known = {"listener", "route", "backend", "server", "reason", "cause", "limit", "direction"}
        known |= {"state", "what", "level"}
        self.assertEqual(labels - known, {"le", "version", "python", "sha"})
        _, errors, status = await run_program("promtool", "check", "metrics", stdin=self.page)
        self.assertEqual((errors.decode(), status), ("", 0))
        page = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"
        text = page.read_text()  # every metric is documented
        documented = {name for name in NAMES if f"`txmux_{name.removesuffix('_bucket')}`" in text}
        self.assertEqual(NAMES - documented, set())

    async def test_certificates_here_and_in_the_status(self) -> None:
        identity = authority().issue("a.example")
        pem = identity.write(self.folder / "a.pem", key=True)
        text = f"[route t]\nmatch = tls\nterminate_tls = {pem}\nbackend = close\n"
        await self.start(rules=LISTEN + text)
        samples = await self.samples()
        until = identity.certificate.not_valid_after_utc.timestamp()
        name = "certificate_expiry_timestamp_seconds"
        self.assertEqual(self.of(samples, name, route="t", file=str(pem)), until)
        expected = {"route": "t", "file": str(pem), "expires": until}
        self.assertEqual((await self.get("/api/status")).json["certificates"], [expected])

    async def test_library_not_installed(self) -> None:
        await self.start()
        lack_modules(self, "prometheus_client")
        sys.modules.pop("txmux.admin.metrics", None)
        told = await self.get("/metrics")
        self.assertEqual(told.status, 501)
        self.assertIn("pip install 'txmux[admin]'", told.error)

    async def test_others_are_served_while_3000_routes_are_written(self) -> None:
        route = "[route r{0}]\nmatch = tls sni=r{0}.example\nbackend = close\n"
        await self.start(rules=LISTEN + "".join(map(route.format, range(3000))))
        answered: list[Told] = []
        Deferred.fromCoroutine(self.get("/metrics")).addCallback(answered.append)
        served = 0
        while not answered:
            self.assertEqual((await self.get("/healthz")).status, 200)
            served += 1
        self.assertGreater(served, 1)
        self.assertEqual(answered[0].body.count(b"txmux_route_matches_total{"), 3000)
