"""The keys ``starttls`` and ``starttls_banner``, and what `txmux explain` makes of a client's beginning."""

import json

from tests.cli.support import ExplainTestCase
from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.installed import KEYS


class ReadingTests(ReadingTestCase):
    def test_values(self) -> None:
        text = f"{self.listen}starttls = smtp\nstarttls_banner = mail.example.com ESMTP\n"
        [found] = self.read(text).listeners
        values = {"starttls": "smtp", "starttls_banner": "mail.example.com ESMTP"}
        self.assertEqual(found.more, values)

    def test_wrong(self) -> None:
        together = "is not for clients that begin in the clear by 'starttls'; remove one of the two"
        first = "is for 'starttls' of a protocol whose servers speak first; remove it"
        for text, told in (
            ("starttls = submission", "3 starttls: must be smtp, imap, pop3, ftp, xmpp or ldap, not 'submission'"),
            ("starttls_banner = x", f"3 starttls_banner: {first}"),
            ("starttls = ldap\nstarttls_banner = x", f"4 starttls_banner: {first}"),
            ("starttls = ftp\nfirst = server", f"4 first: {together}"),
            ("starttls = ftp\nsilent = reset", f"4 silent: {together}"),
        ):  # fmt: skip
            self.refuses(f"{self.listen}{text}\n", told)
        text = "[listen a]\nendpoint = udp:1\nstarttls = smtp\n"
        self.refuses(text, "3 starttls: works only over TCP; remove it")

    def test_no_socket_is_handed_over(self) -> None:
        self.refuses(
            "[listen a]\nendpoint = :1\nstarttls = smtp\ndefault = handover:/run/x.sock\n",
            "4 default: [listen a] has begun with each client by 'starttls', which no other program knows; name a server",
        )

    def test_stage_is_loaded_before_workers_are_forked(self) -> None:
        loads = KEYS["listen"]["starttls"].loads
        assert loads is not None
        self.assertEqual([*loads("smtp")], ["txmux.features.starttls.stage"])


class ExplainTests(ExplainTestCase):
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
