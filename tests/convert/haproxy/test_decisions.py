"""Who is led where by HAProxy, and by the rules that are made of it."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of, silent_of
from tests.convert.haproxy.pieces import BACKENDS, frontend, routes
from txmux.rules.model import Refusal


class DecisionTests(SynchronousTestCase):
    def test_default_backend_serves_silent_clients(self) -> None:
        for line, expected in (("use_backend b if HTTP", ["a", "a"]), ("", ["close", "a"])):
            listener = rules_of(frontend(line, "default_backend a")).listeners[0]
            output = [getattr(o, "name", "close") for o in (silent_of(listener), listener.default)]
            self.assertEqual([name.lower() for name in output], expected)

    def test_unconditional_use_backend_ends_the_list(self) -> None:
        output = frontend("use_backend a if HTTP", "use_backend b", "default_backend a")
        self.assertIn("default = b\n", output.text)

    def test_rules_that_are_never_reached(self) -> None:
        delay = "tcp-request inspect-delay 1s"
        for lines, expected in (
            (("use_backend a", "use_backend b if HTTP"), ["use_backend b if HTTP"]),
            (("use_backend a if HTTP", "use_backend b if HTTP"), ["use_backend b if HTTP"]),
            (("use_backend a if HTTP", "use_backend b if HTTP or RDP_COOKIE"), []),
            (("use_backend a if HTTP", "use_backend b if METH_GET"), ["use_backend b if METH_GET"]),
            (("use_backend a if METH_GET", "use_backend b if HTTP"), []),
            (("use_backend a if !HTTP", "use_backend b if HTTP"), []),
            (("use_backend a if FALSE",), ["use_backend a if FALSE"]),
            (("tcp-request content reject", "use_backend a if HTTP"), ["use_backend a if HTTP"]),
            (("tcp-request content accept", "use_backend a if HTTP"), []),
            (
                ("tcp-request content accept if HTTP", "tcp-request content reject", "use_backend a if HTTP"),
                [],
            ),
        ):  # fmt: skip
            output = frontend(delay, *lines, "default_backend b")
            said = [line for line in output.warnings if "is never reached" in line]
            self.assertEqual([line.split(": ")[1] for line in said], expected)
        at = "use_backend {} if {{ dst_port {} }}"
        output = frontend(at.format("a", 443), at.format("b", 80), bind="bind :443\n    bind :80")
        self.assertEqual(output.warnings, ())

    def test_unknown_backend_closes_its_clients(self) -> None:
        for line in ("default_backend x", "use_backend x if HTTP"):
            self.assertIn("there is no backend", looks(frontend(line))[0])
        output = frontend("use_backend %[src] if HTTP", "default_backend a")
        self.assertIn("put together for each client", looks(output)[0])
        self.assertIn("match = http\nbackend = close\n", output.text)

    def test_inspect_delay_is_detect_timeout(self) -> None:
        asks = "use_backend a if HTTP"
        for lines, expected in (
            (("tcp-request inspect-delay 3s", asks), 3),
            (("tcp-request inspect-delay 1500", asks), 1.5),
            (("tcp-request inspect-delay 3s", "default_backend a"), 5),
            (("default_backend a",), 5),
            ((asks,), 5),
        ):
            output = frontend(*lines)
            self.assertEqual(rules_of(output).listeners[0].detect_timeout, expected)
            self.assertEqual(
                "HAProxy decides by what has come at once" in output.text, lines == (asks,)
            )

    def test_accept_alone_needs_no_route(self) -> None:
        output = frontend("tcp-request content accept if HTTP", "use_backend a if HTTP")
        self.assertEqual((len(rules_of(output).routes), output.warnings), (1, ()))

    def test_rejected_clients_have_the_first_route(self) -> None:
        lines = ("use_backend a if { req_ssl_sni x }", "default_backend b")
        self.assertEqual(
            routes("tcp-request content reject if { req_ssl_ver 3.0 }", *lines),
            [(["tls version=ssl3"], "close"), (["tls sni=x"], "a")],
        )

    def test_silent_clients_are_among_rejected_others(self) -> None:
        for rejection in (
            "tcp-request content reject if !{ req_ssl_hello_type 1 }",
            "tcp-request content reject unless { req_ssl_hello_type 1 }",
            "tcp-request content silent-drop if !{ req_ssl_hello_type 1 } or FALSE",
        ):
            lines = (rejection, "use_backend a if { req_ssl_sni x }", "default_backend b")
            self.assertEqual(routes(*lines), [(["tls sni=x"], "a"), (["tls"], "b")])
            listener = rules_of(frontend(*lines)).listeners[0]
            self.assertEqual(
                (silent_of(listener), listener.default), (Refusal.CLOSE, Refusal.CLOSE)
            )

    def test_accepted_clients_have_routes_where_others_are_rejected(self) -> None:
        lines = (
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "tcp-request content accept if { req.payload(0,1) 16 }",
            "tcp-request content reject",
            "use_backend a if { req_ssl_sni x }",
            "default_backend b",
        )
        self.assertEqual(
            routes(*lines), [(["tls sni=x"], "a"), (["tls"], "b"), (["payload hex=16"], "b")]
        )
        output = frontend(*lines)
        listener = rules_of(output).listeners[0]
        self.assertEqual((silent_of(listener), listener.default), (Refusal.CLOSE, Refusal.CLOSE))
        (look,) = looks(output)
        self.assertIn("use_backend a if { req_ssl_sni x }: not for those of tcp-request", look)

    def test_accepted_clients_are_not_rejected_later(self) -> None:
        self.assertEqual(
            routes(
                "tcp-request content accept if HTTP",
                "tcp-request content reject if { req_ssl_hello_type 1 }",
                "tcp-request content accept",
                "default_backend b",
            ),
            [(["http"], "b"), (["tls"], "close")],
        )
        self.assertEqual(
            routes(
                "tcp-request content accept",
                "tcp-request content reject if HTTP",
                "default_backend b",
            ),
            [],
        )

    def test_neither_of_two(self) -> None:
        """Who offers none of two protocols is told apart by a name; those that offer one go where all others do."""
        offers = (
            "acl h1 req.ssl_alpn http/1.1",
            "acl h2 req.ssl_alpn h2",
            "acl sni req.ssl_sni -m found",
        )
        self.assertEqual(
            routes(
                *offers,
                "use_backend a if !h1 !h2 !sni",
                "use_backend b if !h1 !h2 sni",
                "default_backend x",
            ),
            [(["tls alpn=http/1.1", "tls alpn=h2"], "close"), (["tls sni=*"], "b")],
        )

    def test_consequence_of_two_places_at_once(self) -> None:
        output = frontend(
            "use_backend a if { req.payload(4,1) 16 }",
            "tcp-request content reject if !{ req.payload(0,1) 47 }",
        )
        self.assertIn(
            "and a line has one place; clients that are both are closed", looks(output)[0]
        )

    def test_silent_clients(self) -> None:
        ssh = "{ req.payload(0,4) -m bin 5353482d }"
        for condition, led in (
            ("{ req.len 0 }", []),
            ("{ req_len lt 1 }", []),
            (f"{ssh} or {{ req.len 0 }}", [(["payload hex=5353482d"], "b")]),
            ("!HTTP { req.len 0 }", [(["http"], "a")]),
            ("{ req.len 0 } !{ req.len gt 0 }", [(["any"], "a")]),
        ):
            delay = "tcp-request inspect-delay 2s"
            lines = (delay, f"use_backend b if {condition}", "default_backend a")
            output = frontend(*lines)
            self.assertEqual(output.warnings, (), condition)
            listener = rules_of(output).listeners[0]
            self.assertIn("\nsilent = b\ndefault = a\n", output.text)
            self.assertEqual(listener.detect_timeout, 2)
            self.assertEqual(routes(*lines), led)
        output = frontend("use_backend b if { req.len 0 } { src 10.0.0.0/8 }", "default_backend a")
        self.assertIn("silent = b from=10.0.0.0/8\n    a\ndefault = a\n", output.text)
        output = frontend("use_backend b if !{ req.len 0 }", "default_backend a")
        self.assertIn("silent = a\ndefault = b\n", output.text)

    def test_silent_at_once_without_inspect_delay(self) -> None:
        output = frontend("use_backend b if { req.len 0 }", "default_backend a")
        self.assertIn("every client there whose first bytes", looks(output)[0])

    def test_impossible_lengths(self) -> None:
        self.assertEqual(routes("use_backend b if { req.len 0 } HTTP", "default_backend a"), [])
        output = frontend("use_backend b if { req.len lt 5 }", "default_backend a")
        self.assertIn("for clients that say nothing, write 'silent' in [listen]", looks(output)[0])

    def test_lost_rejection_says_that_clients_come_in(self) -> None:
        for line in (
            "tcp-request content reject if { nbsrv(x) lt 2 }",
            "tcp-request content reject if { req.payload(0,9) -m reg a$ }",
            "tcp-request connection reject if { nbsrv(x) lt 2 }",
            "tcp-request connection reject if HTTP",
        ):
            output = frontend(line, "default_backend a")
            self.assertIn("the clients that it keeps out come in", " ".join(looks(output)), line)

    def test_backend_rules_precede_its_route(self) -> None:
        output = converted(
            """
            frontend f
                bind 127.0.0.1:1
                use_backend a if { req_ssl_hello_type 1 }
                default_backend b
            backend a
                tcp-request inspect-delay 2s
                tcp-request content reject if { req_ssl_sni x }
                tcp-request content reject if !{ src 10.0.0.0/8 }
                server s 127.0.0.1:9
            backend b
                server s 127.0.0.1:2
            """
        )
        self.assertEqual((looks(output), rules_of(output).listeners[0].detect_timeout), ([], 2))
        self.assertIn("match = tls sni=x\nbackend = close\n", output.text)
        self.assertIn("match = tls\nnot_from = 10.0.0.0/8\nbackend = close\n", output.text)

    def test_written_rules_are_not_reported_as_lost(self) -> None:
        lines = (
            "tcp-request content accept if { req_ssl_hello_type 1 }",
            "tcp-request content accept if HTTP",
            "tcp-request content reject",
            "use_backend a if HTTP",
            "default_backend b",
        )
        self.assertEqual(routes(*lines), [(["tls"], "b"), (["http"], "a")])
        self.assertEqual(frontend(*lines).warnings, ())

    def test_routes_are_under_their_own_listeners(self) -> None:
        output = converted(
            "frontend f\n    bind 127.0.0.1:1\n    bind 127.0.0.1:2 accept-proxy\n    use_backend a if HTTP\n"
            f"frontend g\n    bind 127.0.0.1:3\n    use_backend b if HTTP\n{BACKENDS}"
        )
        self.assertEqual([route.under for route in rules_of(output).routes], [("f", "f-2"), ("g",)])
