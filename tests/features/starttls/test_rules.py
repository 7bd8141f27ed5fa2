import json

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import CommandTestCase
from tests.rules.reading import cases


class ReadingTests(SynchronousTestCase):
    def test_values(self) -> None:
        text = f"{cases.LISTEN}starttls = smtp\nstarttls_banner = mail.example.com ESMTP\n"
        [found] = cases.read(text).listeners
        values = {"starttls": "smtp", "starttls_banner": "mail.example.com ESMTP"}
        self.assertEqual(found.more, values)


class ExplainTests(CommandTestCase):
    text = "[listen a]\nendpoint = :25\nstarttls = smtp\n[route m]\nmatch = tls\nbackend = 127.0.0.1:1\n"

    def test_before_tls(self) -> None:
        told = self.explain("--text", r"EHLO x\r\nSTARTTLS\r\nMAIL FROM:<x>\r\n")
        self.assertIn("decision  before TLS: tls-failed, close\n", told)
        self.assertIn("learnt    starttls=smtp tls_error=it sent something else than TLS", told)
        told = self.explain("--text", r"EHLO x\r\n")
        self.assertIn("decision  no TLS yet: undecided, waits for more\n", told)
        self.assertIn("deadline  after 5s: tls-failed, close\n", told)
        for text, key in ((r"STARTTLS\r\nx", "decision"), (r"EHLO x\r\n", "at_deadline")):
            (trace,) = json.loads(self.explain("--json", "--text", text))["streams"][0]["listeners"]
            self.assertEqual(trace[key]["by"], "tls-failed")
