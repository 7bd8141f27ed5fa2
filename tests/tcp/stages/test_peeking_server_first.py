"""Listeners whose server speaks first: a plain TCP proxy, and what silence leads to by and by."""

from ipaddress import ip_network

import attrs
from twisted.internet.protocol import Protocol, ServerFactory

from tests.support.mux import CLOSE, RESET, MuxTestCase, backend_at
from tests.support.peers import GREETING, Greeter, PeerFactory, listen
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Clients, NetworkSet, Period, Route, Silence

_HERE = NetworkSet([ip_network("127.0.0.0/8")])
_ELSEWHERE = NetworkSet([ip_network("192.0.2.0/24")])
_NEVER = Period(days=frozenset())


class AtOnceTest(MuxTestCase):
    async def test_default_greets_at_once_without_routes(self) -> None:
        client = await self.connect(self.mux(default=self.greeting()))
        await self.has_greeting(client)
        client.send(b"HELO x\r\n")
        server = await self.greeter.peer()
        await server.has(8)
        server.close()
        await self.assert_ended(client, backend="greeter", route=None, reason="done", bytes_in=8)

    async def test_routes_for_other_clients_or_times_are_not_waited_for(self) -> None:
        routes = [
            route("ssh", CLOSE, from_=["192.0.2.0/24"]),
            route("http", CLOSE, not_from=["127.0.0.0/8"], name="web"),
            attrs.evolve(route("tls", CLOSE), during=(_NEVER,)),
        ]
        await self.has_greeting(await self.connect(self.mux(routes, default=self.greeting())))

    async def test_one_possible_route_is_waited_for(self) -> None:
        routes = [route("ssh", CLOSE, from_=["127.0.0.0/8"])]
        client = await self.connect(self.mux(routes, default=self.greeting()))
        await self.accepted()
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        self.time.advance(5.1)
        await self.assert_ended(client, reason="silent")

    async def test_first_server_overrides_routes_and_silent(self) -> None:
        port = self.mux(
            [route("any", CLOSE)], first="server", silent=RESET, default=self.greeting()
        )
        await self.has_greeting(await self.connect(port))

    async def test_waits_for_a_byte_if_units_may_bring_routes(self) -> None:
        """Silent clients see the same as if the units had brought some."""
        client = await self.connect(self.mux(default=self.greeting(), routes_from=("*",)))
        await self.accepted()
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        self.time.advance(5.1)
        await self.assert_ended(client, reason="silent")

    async def test_waits_for_a_byte_if_silent_leads_elsewhere(self) -> None:
        port = self.mux(silent=self.greeting(), default=backend_at(self.backend_port()))
        client = await self.connect(port)
        await self.accepted()
        await self.turn(5)
        self.assertEqual((self.greeter.peers, self.backend.peers), ([], []))
        await self.has_greeting(client, after=5.1)
        client = await self.connect(port, b"x")
        await (await self.backend.peer()).has(1)

    async def test_routes_that_may_come_are_waited_for(self) -> None:
        """What units may add to a listener changes nothing for clients that say nothing."""
        await self.assert_silent_is_reset()

    async def test_routes_that_have_come_are_waited_for(self) -> None:
        await self.assert_silent_is_reset(route("ssh", CLOSE))

    async def assert_silent_is_reset(self, *routes: Route) -> None:
        port = self.mux([*routes], routes_from=("docker",), silent=RESET, default=self.greeting())
        await self.has_greeting(await self.connect(port, b"x"))
        client = await self.connect(port)
        await self.accepted()
        await self.assert_waits(5)
        await self.is_reset(client)
        await self.assert_logged(reason="silent")

    async def test_a_refusal_of_the_usual_kind_waits_for_routes_that_may_come(self) -> None:
        """Without `silent`, no server that speaks first is reached before a byte, as when there are routes."""
        client = await self.connect(self.mux(routes_from=("docker",), default=self.greeting()))
        await self.accepted()
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        self.time.advance(5.1)
        await self.assert_ended(client, reason="silent")

    async def test_waits_for_nothing_if_silent_leads_to_the_default(self) -> None:
        greeting = self.greeting()
        await self.has_greeting(await self.connect(self.mux(silent=greeting, default=greeting)))

    async def test_refusing_default_waits_for_detect_timeout(self) -> None:
        client = await self.connect(self.mux(default=RESET))
        await self.accepted()
        await self.assert_waits(5)
        await self.is_reset(client)
        await self.assert_logged(reason="silent")

    async def test_dry_run_route_still_sees_the_first_bytes(self) -> None:
        dry = attrs.evolve(route("ssh", CLOSE), dry_run=True)
        port = self.mux([dry], default=self.greeting())
        client = await self.connect(port, b"SSH-")
        await self.has_greeting(client)
        record = await self.closed(client, self.greeter.peers[0])
        self.assertEqual(record.facts["dry_run"], "ssh")
        client = await self.connect(port)
        await self.accepted()
        await self.has_greeting(client, after=5.1)

    async def test_protocol_in_process_greets_at_once(self) -> None:
        class Hello(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(GREETING)

        port = self.mux(default=outcome(ServerFactory.forProtocol(Hello)))
        await self.has_greeting(await self.connect(port))

    async def test_half_closed_client_hears_the_answer(self) -> None:
        client = await self.connect(self.mux(default=self.greeting()))
        client.finish()
        await self.has_greeting(client)
        server = await self.greeter.peer()
        await server.has_all()
        server.close()
        await self.assert_ended(client, reason="done")

    async def test_proxy_header_decides_whether_a_route_is_for_the_client(self) -> None:
        routes = [route("ssh", CLOSE, from_=["127.0.0.0/8"])]
        port = self.mux(routes, accept_proxy_from=SENDERS, default=self.greeting())
        client = await self.connect(port, LINE[:-1])
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        client.send(LINE[-1:] + b"x")
        await self.has_greeting(client)
        await (await self.greeter.peer()).has(1)
        client = await self.connect(port, LINE.replace(b"192.168.0.1 ", b"127.0.0.1 "))
        await self.turn(5)
        self.assertEqual(len(self.greeter.peers), 1)


class InsideTLSTest(MuxTestCase):
    async def test_server_greets_once_tls_is_established(self) -> None:
        greeter = PeerFactory(Greeter)
        ends = self.tls.route(outcome=backend_at(listen(self, greeter)))
        client = await self.tls.client(self.mux([ends]))
        await client.has(len(GREETING))


class LinesTest(MuxTestCase):
    ROUTES = (route("ssh", CLOSE),)

    async def test_first_line_for_the_client_decides(self) -> None:
        silent = (
            Silence(RESET, Clients(_ELSEWHERE)),
            Silence(self.greeting(), Clients(_HERE)),
            Silence(RESET),
        )
        client = await self.connect(self.mux(self.ROUTES, silent=silent))
        await self.accepted()
        await self.has_greeting(client, after=5.1)

    async def test_client_without_a_line_is_closed(self) -> None:
        port = self.mux(self.ROUTES, silent=(Silence(self.greeting(), Clients(_ELSEWHERE)),))
        client = await self.connect(port)
        await self.accepted_for(5.1)
        await self.is_closed(client)
        await self.assert_logged(reason="silent", backend=None)

    async def test_client_without_a_line_or_route_goes_to_the_default_at_once(self) -> None:
        silent = (Silence(RESET, Clients(_ELSEWHERE)),)
        await self.has_greeting(
            await self.connect(self.mux(silent=silent, default=self.greeting()))
        )

    async def test_line_may_have_less_time_than_detection(self) -> None:
        port = self.mux(self.ROUTES, silent=(Silence(self.greeting(), after=0.5),))
        quiet, slow = await self.connect(port), await self.connect(port)
        slow.send(b"S")
        while not any(c.record.bytes_in for c in self.factory.connections):
            await self.turn()
        await self.has_greeting(quiet, after=0.6)
        slow.send(b"SH-")
        await self.assert_ended(slow, route="ssh", reason="denied")

    async def test_line_may_have_more_time_which_speakers_have_too(self) -> None:
        port = self.mux(self.ROUTES, silent=(Silence(self.greeting(), after=20.0),), default=RESET)
        quiet = await self.connect(port)
        await self.accepted_for(19.0)
        slow = quiet
        slow.send(b"SS")
        await self.seen(2)
        self.assertEqual(self.records, [])
        self.time.advance(1.1)
        await self.is_reset(slow)
        await self.assert_logged(reason="no-route")

    async def test_silence_until_the_lines_time_follows_the_line(self) -> None:
        port = self.mux(self.ROUTES, silent=(Silence(self.greeting(), after=20.0),))
        client = await self.connect(port)
        await self.accepted_for(19.9)
        await self.turn(3)
        self.assertEqual(self.greeter.peers, [])
        await self.has_greeting(client, after=0.2)

    async def test_lines_see_the_headers_client_and_time_counts_from_accept(self) -> None:
        real = NetworkSet([ip_network("192.168.0.1")])
        silent = (Silence(RESET, Clients(_HERE)), Silence(self.greeting(), Clients(real), 2.0))
        port = self.mux(self.ROUTES, silent=silent, accept_proxy_from=SENDERS)
        client = await self.connect(port)
        await self.accepted_for(1.5)
        client.send(LINE)
        await self.accepted()
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        await self.has_greeting(client, after=0.6)
