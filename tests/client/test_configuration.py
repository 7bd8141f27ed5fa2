from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace

import attrs
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from tests.support.kit import MuxTestCase, PeerFactory, backend_at
from txmux.client.configuration import Configuration
from txmux.client.tls import terminators
from txmux.client.tls.terminators import PreparedTerminators, TlsTerminators
from txmux.detection.ranked import finish
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Clients, Listener, NetworkSet, Route, Rules, Settings, Silence
from txmux.telemetry.counting.counter_groups import ListenerTotals


class GenerationTest(MuxTestCase):
    def change(self, routes: Iterable[Route]) -> None:
        factory = self.factory
        now = factory.configuration
        shared = factory.runtime, factory.upstreams, TlsTerminators(factory.runtime.reactor)
        factory.change(Configuration.make(routes, now.settings, now.admission, *shared))

    async def test_client_keeps_the_rules_it_was_accepted_under(self) -> None:
        """Both count for the listener: when they are decided, while they are relayed, and at their ends."""
        port = self.mux([route("ssh", backend_at(self.backend_port()), name="old")])
        before = await self.connect_read(port, b"SSH")
        self.change([route("ssh", "close", name="new")])
        after = await self.connect(port, b"SSH-2.0-a\r\n")
        await self.assert_ended(after, route="new", reason="denied")
        cells = self.factory.configuration.counts.cells
        self.assertEqual(ListenerTotals.detect_bytes.read(cells).sum, 11)
        before.send(b"-2.0-a\r\n")
        server = await self.backend.heard(11)
        server.send(b"yes")
        await before.has(3)
        (connection,) = self.factory.connections
        for _ in range(2):  # each byte once
            connection.count_bytes()
        self.assertEqual(ListenerTotals.bytes_in.read(cells), 22)
        self.assertEqual(ListenerTotals.bytes_out.read(cells), 3)
        await before.tell(server, b"more", 15)
        before.close()
        server.close()
        await self.assert_logged(2, route="old", reason="done")
        self.assertEqual(ListenerTotals.bytes_in.read(cells), 26)

    def has_left(self, count: int) -> bool:
        return len(self.factory.connections) == count

    async def test_factory_is_stopped_with_the_last_connection_of_its_rules(self) -> None:
        served = PeerFactory()
        port = self.mux([route("ssh", served)])
        clients = [await self.connect(port, b"SSH-2.0-a\r\n") for _ in range(2)]
        for number in range(2):
            await (await served.peer(number)).has(11)
        self.change([route("ssh", "close")])
        for client, ports in zip(clients, (1, 0), strict=True):
            self.assertEqual(served.numPorts, 1)
            client.reset()
            await self.until_so(partial(self.has_left, ports))
            self.assertEqual(served.numPorts, ports)
        for destination, ports in ((served, 1), ("close", 0)):  # without a connection, at once
            self.change([route("ssh", destination)])
            self.assertEqual(served.numPorts, ports)

    async def test_changed_backend_of_the_same_name_keeps_its_counters(self) -> None:
        port = self.backend_port()
        listener = self.mux([route("ssh", backend_at(port), name="old")])
        await self.connect(listener, b"SSH-2.0-a\r\n")
        await self.backend.heard(11)
        self.change([route("ssh", backend_at(port)), route("redis", backend_at(port, retries=7))])
        same, other = (
            branch.destination for branch in self.factory.configuration.top.detector.routes
        )
        active = [
            [member.connections for member in upstream.pool.members] for upstream in (same, other)
        ]
        self.assertEqual(active, [[1], [1]])

    def test_fallback_may_be_a_factory_without_a_hash(self) -> None:
        @attrs.define
        class Unhashable(Factory):
            number: int = 0

        backend = backend_at(1, fallback=outcome(Unhashable()))
        self.mux([route("ssh", backend), route("redis", backend_at(1, fallback=backend.fallback))])
        first, second = self.factory.configuration.top.detector.routes
        self.assertIs(first.destination, second.destination)

    def test_silent_clients_of_some_networks(self) -> None:
        """Their addresses have to be known, as those of clients that a route is limited to."""
        limited = Clients(excluded=NetworkSet([ip_network("192.0.2.0/24")]))
        for clients, expected in ((Clients(), False), (limited, True)):
            self.mux(silent=(Silence(backend_at(1), clients=clients),))
            self.assertEqual(self.factory.configuration.top.depends_on_client, expected)


class _Keys:
    def read_again(self) -> Callable[[], None]:
        return lambda: None


class TlsTerminatorsTest(MuxTestCase):
    def test_terminator_is_shared_by_name_and_files(self) -> None:
        terminators = TlsTerminators(Clock())
        made = terminators.terminator_of(self.tls.route())
        self.assertIs(terminators.terminator_of(self.tls.route(match="any")), made)
        self.assertIsNot(terminators.terminator_of(self.tls.route("other")), made)
        self.assertIsNot(terminators.terminator_of(self.tls.route(alpn=("h2",))), made)

    def prepared(self, *routes: Route, listeners: tuple[Listener, ...] = ()) -> PreparedTerminators:
        rules = Rules(Path("rules"), Settings(), listeners, routes)
        return finish(self.terminators.prepare_in_steps(rules, routes))

    def test_reload_keeps_unchanged_terminators_and_forgets_others(self) -> None:
        """So it does the keys of listeners, which are made once."""
        self.terminators = TlsTerminators(Clock())
        kept, gone = self.tls.route("kept"), self.tls.route("gone")
        made_of = SimpleNamespace(key="keys", make=lambda *_, **__: _Keys())
        self.patch(terminators, "OPENINGS", (made_of,))
        listener = Listener("a", more={"keys": Path("keys.pem")})
        self.prepared(kept, gone, listeners=(listener,)).commit()
        made, [keys] = self.terminators.terminator_of(kept), self.terminators.openings_of(listener)
        self.assertIn(keys, self.terminators.watched())
        self.prepared(kept, self.tls.route("new")).commit()
        self.assertIs(self.terminators.terminator_of(kept), made)
        self.assertEqual([name for name, _ in self.terminators.made], ["kept", "new"])
        self.assertNotIn(keys, self.terminators.watched())

    def test_unusable_file_keeps_the_old_terminators(self) -> None:
        self.terminators = TlsTerminators(Clock())
        route = self.tls.route()
        self.prepared(route).commit()
        context = self.terminators.terminator_of(route).store.connection().get_context()
        assert route.terminate_tls is not None
        missing = attrs.evolve(route.terminate_tls, files=(Path("missing.pem"),))
        new = attrs.evolve(route, name="new")
        prepared = self.prepared(route, new, attrs.evolve(route, name="bad", terminate_tls=missing))
        self.assertEqual([problem.section for problem in prepared.problems], ["route bad"])
        prepared.abandon()
        self.assertEqual([name for name, _ in self.terminators.made], [route.name])
        self.assertIs(
            self.terminators.terminator_of(route).store.connection().get_context(), context
        )
