"""Tests of what is made of Traefik's UDP routers."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of

_POINTS = "entryPoints: {dns: {address: ':53/udp'}, game: {address: '192.0.2.1:27015/udp', udp: {timeout: 20}}, web: {address: ':80'}}\n"
_SERVICES = """\
  services:
    names: {loadBalancer: {servers: [{address: "127.0.0.1:5353"}, {address: "[::1]:5353"}]}}
    games: {weighted: {services: [{name: one, weight: 3}, {name: two}]}}
    one: {loadBalancer: {servers: [{address: "a.example:1"}]}}
    two: {loadBalancer: {servers: [{address: "a.example:2"}]}}
"""


class DatagramRouterTests(SynchronousTestCase):
    def test_udp_router_leads_all_to_its_service(self) -> None:
        output = converted(
            f"{_POINTS}udp:\n  routers:\n    n: {{entryPoints: [dns], service: names@file}}\n"
            f"    g: {{entryPoints: [game], service: games}}\n{_SERVICES}"
        )
        self.assertEqual(looks(output), [])
        for text in (
            "endpoint = udp:53\ndefault = names\n",
            "endpoint = udp:192.0.2.1:27015\ndefault = games\n",
            "server = udp:127.0.0.1:5353\n    udp:[::1]:5353\nidle_timeout = 3s\nunanswered_timeout = 3s\n",
            "server = udp:a.example:1 weight=3\n    udp:a.example:2\nidle_timeout = 20s\nunanswered_timeout = 20s\n",
        ):
            self.assertIn(text, output.text)

    def test_router_without_entry_points_has_all_of_its_kind(self) -> None:
        output = converted(
            f"{_POINTS}tcp:\n  routers: {{t: {{rule: 'HostSNI(`*`)', service: names}}}}\n"
            "  services: {names: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}}\n"
            f"udp:\n  routers: {{u: {{service: names}}}}\n{_SERVICES}"
        )
        self.assertEqual(looks(output), [])
        rules = rules_of(output)
        led = {
            listener.endpoints[0]: getattr(listener.default, "name", "")
            for listener in rules.listeners
        }
        # Two of UDP, as their times are not the same.
        self.assertEqual(
            led, {":80": "names", "udp:53": "names-2", "udp:192.0.2.1:27015": "names-3"}
        )

    def test_lost_and_second_routers_are_reported(self) -> None:
        for routers, told in (
            ("{a: {service: gone, entryPoints: [dns]}}", "there is no service 'gone'"),
            ("{a: {service: one, entryPoints: [dns]}, b: {service: two, entryPoints: [dns]}}",
             "router b: is left out"),
            ("{a: {service: one, entryPoints: [dns, web]}}",
             "entryPoints.web is not for UDP; write /udp after its port"),
        ):  # fmt: skip
            [said] = looks(converted(f"{_POINTS}udp:\n  routers: {routers}\n{_SERVICES}"))
            self.assertIn(told, said)

    def test_tcp_router_at_a_udp_entry_point(self) -> None:
        output = converted(
            "entryPoints: {u: {address: ':53/udp'}, s: {address: ':443', http3: {}}}\n"
            "tcp:\n  routers: {t: {rule: 'HostSNI(`*`)', service: a, entryPoints: [u, s]}}\n"
            "  services: {a: {loadBalancer: {servers: [{address: '127.0.0.1:1'}]}}}\n"
        )
        first, second = sorted(looks(output))
        self.assertIn("':53/udp' is a UDP address", first + second)
        self.assertIn("http3: is left out", first + second)
