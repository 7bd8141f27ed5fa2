"""Whom the rules of an ``haproxy.cfg`` let in, and whose PROXY headers count."""

from ipaddress import ip_address

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of, silent_of
from tests.convert.haproxy.pieces import frontend

_NOBODY = ("allow = 255.255.255.255/32",)


class AdmissionTests(SynchronousTestCase):
    def networks(self, *lines: str) -> tuple[str, ...]:
        text = frontend(*lines).text
        return tuple(line for line in text.splitlines() if line.startswith(("allow", "deny")))

    def test_connection_rules_become_allow_and_deny(self) -> None:
        deny = "tcp-request connection reject if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(deny), ("deny = 10.0.0.0/8",))
        only = "tcp-request connection reject if !{ src 10.0.0.0/8 }"
        self.assertEqual(self.networks(only), ("allow = 10.0.0.0/8",))
        both = "tcp-request connection accept if { src 10.0.0.0/8 }"
        reject = "tcp-request connection reject"
        self.assertEqual(self.networks(both, reject), ("allow = 10.0.0.0/8",))
        self.assertEqual(self.networks(reject + " if !FALSE"), _NOBODY)
        self.assertEqual(self.networks("tcp-request connection accept", deny), ())
        self.assertEqual(self.networks(only, only.replace("10.", "11.")), _NOBODY)
        self.assertEqual(
            self.networks(only, only.replace("10.0.0.0/8", "10.1.0.0/16")), ("allow = 10.1.0.0/16",)
        )
        either = "tcp-request connection reject if !{ src 10.0.0.1 } or !{ src 10.0.0.2 }"
        self.assertEqual(self.networks(either), _NOBODY)

    def test_accepted_by_one_layer_is_asked_by_the_next(self) -> None:
        accept = "tcp-request connection accept if { src 10.0.0.0/8 }"
        self.assertEqual(self.networks(accept, "tcp-request session reject"), _NOBODY)

    def test_accepted_network_in_a_rejected_one_stays_in(self) -> None:
        output = frontend(
            "tcp-request connection accept if { src 10.0.0.0/9 }",
            "tcp-request connection reject if { src 10.0.0.0/8 }",
        )
        listener = rules_of(output).listeners[0]
        for address, is_in in (("10.1.1.1", True), ("10.200.1.1", False), ("11.1.1.1", True)):
            self.assertEqual(listener.clients.serves(ip_address(address)), is_in, address)

    def test_content_rules_of_networks_are_admission(self) -> None:
        only = "tcp-request content reject if !{ src 10.0.0.0/8 }"
        for lines, expected in (
            ((only,), ("allow = 10.0.0.0/8",)),
            (("tcp-request content reject unless { src 10.0.0.0/8 }",), ("allow = 10.0.0.0/8",)),
            (("tcp-request content reject if { src 10.0.0.0/8 }",), ("deny = 10.0.0.0/8",)),
            (("tcp-request content reject if { req_ssl_ver 3.0 }", only), ("allow = 10.0.0.0/8",)),
            (("tcp-request content accept if { src ::1 }", "tcp-request content reject"),
             ("allow = ::1",)),
            (("tcp-request content accept if { src 10.0.0.0/8 } HTTP", only),
             ("allow = 10.0.0.0/8",)),
        ):  # fmt: skip
            text = (*lines, "use_backend a if HTTP", "default_backend b")
            self.assertEqual(self.networks(*text), expected, lines)
            listener = rules_of(frontend(*text)).listeners[0]
            self.assertEqual(
                (str(silent_of(listener)), str(listener.default)), (str(listener.default),) * 2
            )

    def test_rules_about_a_proxys_own_address_are_lost(self) -> None:
        only = "tcp-request connection reject if !{ src 10.0.0.0/8 }"
        output = frontend(only, bind="bind 127.0.0.1:1 accept-proxy")
        self.assertIn("it asks for the proxy's address", looks(output)[0])
        self.assertNotIn("\nallow", output.text)

    def test_networks_of_the_only_backend_are_admission(self) -> None:
        output = converted(
            """
            frontend f
                bind 127.0.0.1:1
                default_backend a
            backend a
                tcp-request content reject if !{ src 10.0.0.0/8 }
                server s 127.0.0.1:9
            """
        )
        self.assertIn("\nallow = 10.0.0.0/8\n", output.text)
        self.assertEqual(output.warnings, ())

    def test_expect_proxy(self) -> None:
        for condition, networks in (
            ("if { src 10.0.0.0/8 }", "10.0.0.0/8"),
            ("", "0.0.0.0/0\n    ::/0\n    unix"),
        ):
            output = frontend(f"tcp-request connection expect-proxy layer4 {condition}")
            self.assertIn(f"\naccept_proxy_from = {networks}\n", output.text)

    def test_expect_proxy_of_all_but_some_is_a_look(self) -> None:
        output = frontend("tcp-request connection expect-proxy layer4 if !{ src 10.0.0.0/8 }")
        self.assertIn("accept_proxy_from has a list of networks only", looks(output)[0])
        self.assertNotIn("\naccept_proxy_from", output.text)

    def test_holes_in_admitted_networks(self) -> None:
        output = frontend(
            "tcp-request connection accept if { src ::1 }",
            "tcp-request connection accept if { src 10.0.0.0/30 192.0.2.1 } !{ src 10.0.0.1 192.0.2.0/24 }",
            "tcp-request connection reject",
        )
        listener = rules_of(output).listeners[0]
        for address, is_in in (
            ("::1", True), ("10.0.0.0", True), ("10.0.0.1", False), ("10.0.0.3", True),
            ("192.0.2.1", False), ("127.0.0.1", False),
        ):  # fmt: skip
            self.assertEqual(listener.clients.serves(ip_address(address)), is_in, address)

    def test_every_line_of_lost_rules_is_reported(self) -> None:
        many = " ".join(f"10.{n // 100}.{n % 100}.1" for n in range(300))
        lines = (
            f"tcp-request connection accept if {{ src {many} }}",
            "tcp-request connection reject if { src 10.0.0.0/8 }",
        )
        output = frontend(*lines, "default_backend a")
        self.assertEqual(len(looks(output)), 2)
        for look in looks(output):
            self.assertIn("the clients that it keeps out come in: would take too many", look)
