from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import rules_of
from tests.convert.haproxy.pieces import frontend, routes


class DecisionTests(SynchronousTestCase):
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
