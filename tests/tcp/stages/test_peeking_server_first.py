"""Listeners whose server speaks first: a plain TCP proxy, and what silence leads to by and by."""

from ipaddress import ip_network
from typing import Any

import attrs

from tests.support.mux import CLOSE, RESET, MuxTestCase, backend_at
from tests.support.peers import GREETING, Peer, close
from tests.tcp.stages.test_reading_proxy_header import LINE, SENDERS
from txmux.rules.embedding import outcome, route
from txmux.rules.model import Clients, NetworkSet, Period, Route, Silence

_HERE = NetworkSet([ip_network("127.0.0.0/8")])
_ELSEWHERE = NetworkSet([ip_network("192.0.2.0/24")])
_NEVER = Period(days=frozenset())
_ROUTES = (route("ssh", CLOSE),)


class AtOnceTest(MuxTestCase):
    async def test_default_greets_at_once_without_routes(self) -> None:
        """Also a client that has finished."""
        port = self.mux(default=self.greeting())
        for count in self.anew((8, 0)):
            client = await self.connect(port)
            if count:
                await self.has_greeting(client)
                client.send(b"HELO x\r\n")
            else:
                client.finish()
                await self.has_greeting(client)
            server = await self.greeter.peer(1 - count // 8)
            await server.has(count)
            if not count:
                await server.has_all()
            server.close()
            await self.assert_ended(
                client, backend="greeter", route=None, reason="done", bytes_in=count
            )

    async def test_client_whom_no_route_may_take_is_greeted_at_once(self) -> None:
        """Those for others and other times do not count; nor does `silent`, unless it leads elsewhere. A protocol in this process does so, too."""
        greeting, others = self.greeting(), ["192.0.2.0/24"]
        for routes, settings in (
            ([
                route("ssh", CLOSE, from_=others),
                route("http", CLOSE, not_from=["127.0.0.0/8"], name="web"),
                attrs.evolve(route("tls", CLOSE), during=(_NEVER,)),
            ], {}),
            ([route("silent", greeting, name="mail", from_=others)], {}),
            ([route("any", CLOSE)], {"first": "server", "silent": RESET}),
            ([], {"silent": greeting}), ([], {"default": outcome(self.greeter)}),
            ([], {"silent": (Silence(RESET, Clients(_ELSEWHERE)),)}),
        ):  # fmt: skip
            with self.subTest(routes=routes, settings=settings):
                every: dict[str, Any] = {"default": greeting, **settings}
                await self.has_greeting(await self.connect(self.mux(routes, **every)))

    async def test_one_whom_a_route_may_take_is_waited_for(self) -> None:
        """So it is where units may bring routes: silent clients see the same as if they had brought some."""
        local = [route("ssh", CLOSE, from_=["127.0.0.0/8"])]
        rows: Any = (local, ()), ([], ("*",)), ([], ("docker",))
        for routes, units in self.anew(rows):
            port = self.mux(routes, default=self.greeting(), routes_from=units)
            client = await self.connect(port)
            await self.greets_nobody()
            self.time.advance(5.1)
            await self.assert_ended(client, reason="silent")

    async def test_waits_for_a_byte_if_silent_leads_elsewhere(self) -> None:
        """A default that refuses waits for `detect_timeout`."""
        client = await self.connect(self.mux(default=RESET))
        await self.accepted()
        await self.assert_waits(5)
        await self.is_reset(client)
        await self.assert_logged(reason="silent")
        port = self.mux(silent=self.greeting(), default=backend_at(self.backend_port()))
        client = await self.connect(port)
        await self.accepted()
        await self.turn(5)
        self.assertEqual((self.greeter.peers, self.backend.peers), ([], []))
        await self.has_greeting(client, after=5.1)
        await self.connect(port, b"x")
        await self.backend.heard(1)

    async def test_routes_of_units_change_nothing_for_clients_that_say_nothing(self) -> None:
        for routes in self.anew(((), (route("ssh", CLOSE),))):
            port = self.mux(routes, routes_from=("docker",), silent=RESET, default=self.greeting())
            await self.has_greeting(await self.connect(port, b"x"))
            client = await self.connect(port)
            await self.accepted(2)
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

    async def test_client_that_says_nothing_inside_tls(self) -> None:
        """The default greets it once TLS is established; the server of a silent route, after its time."""
        client = await self.tls.client(self.mux([self.tls.route(outcome=self.greeting())]))
        await client.has(len(GREETING))
        client.reset()
        await self.logged()
        self.greeter.peers.clear()
        ends = self.tls.route(outcome=None)
        mail = attrs.evolve(
            route("silent after=1s", self.greeting(), name="mail"), under=(ends.name,)
        )
        client = await self.tls.client(self.mux([ends, mail]))
        await self.turn(5)
        self.assertEqual(self.greeter.peers, [])
        self.time.advance(1.1)
        await client.has(len(GREETING))
        self.assertEqual(self.only().record.route, "mail")


class SilentRouteTest(MuxTestCase):
    def mail(self, match: Any = "silent", **settings: Any) -> Route:
        return route(match, self.greeting(), name="mail", **settings)

    def numbers(self, name: str) -> Any:
        return self.factory.runtime.counters.route("public", name).cells

    async def waiting(self, routes: Any, **settings: Any) -> Peer:
        client = await self.connect(self.mux(routes, **settings))
        await self.accepted()
        return client

    async def test_client_that_says_nothing_is_the_routes(self) -> None:
        """A port scan opens no connection."""
        client = await self.waiting([self.mail()])
        client.close()
        await self.assert_ended(client, route=None, reason="client-gone", bytes_in=0)
        self.records.clear()
        client = await self.waiting([self.mail()])
        await self.accepted_for(2.9)
        self.assertEqual(self.greeter.peers, [])
        await self.has_greeting(client, after=0.2)
        client.send(b"HELO x\r\n")
        server = await self.greeter.peer()
        await server.has(8)
        server.close()
        await self.assert_ended(client, backend="greeter", route="mail", reason="done", bytes_in=8)

    async def test_it_has_the_listeners_time_or_its_own(self) -> None:
        """Also if it leads where the default does."""
        client = await self.waiting([self.mail()], default=self.greeting())
        await self.greets_nobody()
        await self.has_greeting(client, after=3.1)
        await self.has_greeting(await self.waiting([self.mail()], detect_timeout=1.0), after=1.1)
        client = await self.waiting([self.mail()], detect_timeout=9.0)
        await self.accepted_for(8.9)
        await self.has_greeting(client, after=0.2)
        client = await self.waiting([self.mail("silent after=500ms")], detect_timeout=9.0)
        await self.has_greeting(client, after=0.6)

    async def test_who_says_something_is_never_its_client(self) -> None:
        """It keeps the usual time."""
        port = self.mux([self.mail()], default=backend_at(self.backend_port()))
        for byte in (b"\0", b"\n", b"x"):
            client = await self.connect(port, byte)
            await self.backend.heard(1)
            await self.closed(client, self.backend.peers.pop())
            self.assertIsNone(self.records.pop().route)
        routes = [route("ssh", backend_at(self.backend_port())), self.mail()]
        client = await self.waiting(routes)
        client.send(b"S")
        await self.seen(1)
        await self.accepted_for(4.5)
        self.assertEqual((self.greeter.peers, self.records), ([], []))
        client.send(b"SH-")
        await self.backend.heard(4)

    async def test_first_that_fits_decides_after_its_own_time(self) -> None:
        routes = [
            route("silent after=100ms", RESET, name="far", from_=["192.0.2.0/24"]),
            route("silent after=100ms", RESET, name="not", not_from=["127.0.0.0/8"]),
            attrs.evolve(route("silent after=100ms", RESET, name="night"), during=(_NEVER,)),
            self.mail("silent after=2s"), route("silent after=1s", RESET, name="later"),
        ]  # fmt: skip
        client = await self.waiting(routes, silent=(Silence(RESET, after=0.1),))
        await self.accepted_for(1.9)
        self.assertEqual(self.records, [])
        await self.has_greeting(client, after=0.2)

    async def test_lines_of_the_listener_are_before_routes_of_other_units(self) -> None:
        """What another unit brings changes nothing for silent clients of whom the listener says something itself."""
        routes = [attrs.evolve(self.mail("silent after=100ms"), is_of_unit=True)]
        for lines, after, name in (
            ((Silence(self.greeting(), after=1.0),), 1.1, "silent"), ((), 0.2, "mail"),
        ):  # fmt: skip
            client = await self.waiting(routes, silent=lines)
            await self.has_greeting(client, after=after)
            await self.closed(client, self.greeter.peers.pop())
            self.assertEqual(self.records.pop().route, name)

    async def test_line_of_the_listener_has_the_name_of_its_key(self) -> None:
        """It is for those whom no route takes."""
        far = route("silent after=100ms", RESET, name="far", from_=["192.0.2.0/24"])
        greeting = self.greeting()
        for other, line, after in self.anew(
            ((route("ssh", CLOSE), greeting, 5.1), (far, (Silence(greeting, after=1.0),), 1.1))
        ):
            client = await self.waiting([other], silent=line)
            await self.has_greeting(client, after=after)
            record = await self.closed(client, self.greeter.peers[-1])
            self.assert_story(record, route="silent", reason="done", bytes_out=len(GREETING))
            self.assertEqual(sum(self.numbers("silent")[:1]), 1)

    async def test_route_may_also_go_by_bytes(self) -> None:
        backend = backend_at(self.backend_port())
        port = self.mux([route(["silent after=1s", "ssh"], backend, name="ssh")])
        client = await self.connect(port, b"SSH-")
        await self.backend.heard(4)
        await self.closed(client, self.backend.peers.pop())
        client = await self.connect(port)
        await self.accepted_for(1.1)
        await self.assert_closed(client, await self.backend.peer(), 2, route="ssh", reason="done")

    async def test_route_may_refuse_or_leave_no_line(self) -> None:
        client = await self.waiting([route("silent after=1s", RESET, name="scan")])
        await self.accepted_for(1.1)
        await self.is_reset(client)
        await self.assert_logged(route="scan", reason="silent")
        self.records.clear()
        client = await self.waiting([attrs.evolve(self.mail(), log=False)])
        await self.has_greeting(client, after=3.1)
        server = await self.greeter.peer()
        close(server, client)
        await self.turn(5)
        self.assertEqual(self.records, [])

    async def test_dry_run_takes_nobody_and_counts_after_its_time(self) -> None:
        for time, name, counts in self.anew((
            ("1s", "dry", {"dry": 1}), ("2s", "dry", {"dry": 1}), ("1h", None, {"dry": 0}),
        )):  # fmt: skip
            dry = attrs.evolve(route(f"silent after={time}", RESET, name="dry"), dry_run=True)
            client = await self.waiting([dry, self.mail("silent after=2s")])
            await self.has_greeting(client, after=2.0)
            record = await self.closed(client, self.greeter.peers[-1])
            self.assertEqual((record.route, record.facts.get("dry_run")), ("mail", name))
            self.assertEqual(dict(self.factory.configuration.dry_runs), counts)

    async def test_headers_client_counts_and_time_from_accept(self) -> None:
        routes = [
            route("silent", RESET, name="here", from_=["127.0.0.0/8"]),
            self.mail("silent after=2s", from_=["192.168.0.1"]),
        ]
        client = await self.connect(self.mux(routes, accept_proxy_from=SENDERS))
        await self.accepted_for(1.5)
        client.send(LINE)
        await self.greets_nobody()
        await self.has_greeting(client, after=0.6)

    async def test_server_may_get_a_hello_that_other_routes_would_read(self) -> None:
        routes = [route("tls sni=a.example", CLOSE, from_=["192.0.2.0/24"]), self.mail()]
        await self.has_greeting(await self.waiting(routes), after=3.1)

    async def test_first_line_for_the_client_decides(self) -> None:
        """A client without a line is closed."""
        elsewhere, here = Clients(_ELSEWHERE), Silence(self.greeting(), Clients(_HERE))
        port = self.mux(_ROUTES, silent=(Silence(self.greeting(), elsewhere),))
        client = await self.connect(port)
        await self.accepted_for(5.1)
        await self.is_lost_cleanly(client)
        await self.assert_logged(reason="silent", backend=None)
        silent = Silence(RESET, elsewhere), here, Silence(RESET)
        client = await self.connect(self.mux(_ROUTES, silent=silent))
        await self.accepted()
        await self.has_greeting(client, after=5.1)

    async def test_line_may_have_less_time_than_detection_or_more(self) -> None:
        """Speakers have more of it, too."""
        port = self.mux(_ROUTES, silent=(Silence(self.greeting(), after=20.0),), default=RESET)
        slow = await self.connect(port)
        await self.accepted_for(19.0)
        slow.send(b"SS")
        await self.seen(2)
        self.assertEqual(self.records, [])
        self.time.advance(1.1)
        await self.is_reset(slow)
        await self.assert_logged(reason="no-route")
        port = self.mux(_ROUTES, silent=(Silence(self.greeting(), after=0.5),))
        quiet, slow = await self.connect(port), await self.connect(port)
        slow.send(b"S")
        while not any(c.record.bytes_in for c in self.factory.connections):
            await self.turn()
        await self.has_greeting(quiet, after=0.6)
        slow.send(b"SH-")
        await self.assert_ended(slow, 2, route="ssh", reason="denied")
