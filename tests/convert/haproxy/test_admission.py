from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import rules_of, silent_of
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
