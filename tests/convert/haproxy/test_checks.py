from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import looks, rules_of
from tests.convert.haproxy.pieces import backend
from txmux.rules.optional import missing

_USUAL = "interval=2s timeout=2s"


class CheckTests(SynchronousTestCase):
    def check(self, *lines: str, server: str = "check", warnings: int = 0) -> str:
        output = backend(*lines, server=f"server s 127.0.0.1:1 {server}")
        self.assertEqual(len(output.warnings), warnings, output.warnings)
        (check,) = [line for line in output.text.splitlines() if line.startswith("check = ")]
        self.assertIsNotNone(rules_of(output).backends["x"].check)
        return check.removeprefix("check = ")

    def test_schedule_and_its_defaults(self) -> None:
        for server, lines, schedule in (
            ("check", (), _USUAL),
            ("check inter 500 rise 3 fall 4", (), "interval=500ms timeout=500ms rise=3 fall=4"),
            ("check", ("timeout connect 1s",), _USUAL),
            ("check", ("timeout check 5s", "timeout connect 1s"), "interval=2s timeout=1s"),
            ("check", ("timeout check 5s",), _USUAL),
        ):
            self.assertEqual(self.check(*lines, server=server), f"tcp {schedule}")
        # Its answer is waited for, unlike the handshake of 'check-ssl', which is a part of connecting.
        hello = ("option ssl-hello-chk", "timeout check 5s", "timeout connect 1s")
        self.assertIn("timeout=6s", self.check(*hello, warnings=1))
        redis = ("option redis-check", "timeout check 5s", "timeout connect 1s")
        self.assertEqual(self.check(*redis), "redis interval=2s timeout=6s")

    def test_kinds_that_both_have(self) -> None:
        for lines, kind in (
            (("option redis-check",), "redis"),
            (("option pgsql-check user x",), "postgres"),
            (("option tcp-check",), "tcp"),
            (("option tcp-check", "tcp-check connect"), "tcp"),
            (("option tcp-check", "tcp-check connect port 8080"), "tcp port=8080"),
            (("option tcp-check", "tcp-check connect ssl port 8443 linger"),
             "tcp tls=yes port=8443"),
            (("option tcp-check", "tcp-check connect port 6379", "tcp-check expect string +x"),
             "expect=+x port=6379"),
            (
                ("option httpchk", "http-check connect port 8008",
                 "http-check send meth GET uri / hdr host a"),
                "http path=/ host=a port=8008",
            ),
            (("option tcp-check", "tcp-check expect string SSH-"), "expect=SSH-"),
            (("option tcp-check", r'tcp-check send "PING\r\n"', "tcp-check expect string +PONG"),
             r"send=PING\r\n expect=+PONG"),
            (("option tcp-check", "tcp-check send-binary 00ff", "tcp-check expect binary 16"),
             r"send=\x00\xff expect=\x16"),
        ):  # fmt: skip
            self.assertEqual(self.check(*lines), f"{kind} {_USUAL}")

    def test_protocols(self) -> None:
        """Whether a protocol is spoken is seen by its first answer; where that is less than HAProxy asks, with a word."""
        for option, warnings, words in (
            ("mysql-check user x", 0, "mysql user=x"), ("mysql-check", 0, "mysql"),
            ("smtpchk EHLO a", 0, "smtp"),
            ("ssl-hello-chk", 1, "tcp tls=yes"), ("spop-check", 1, "tcp"),
        ):  # fmt: skip
            self.assertEqual(self.check(f"option {option}", warnings=warnings), f"{words} {_USUAL}")
            output = backend(f"option {option}", server="server s 127.0.0.1:1 check")
            self.assertEqual(len(looks(output)), option == "ssl-hello-chk")
        self.assertIn(r"expect=\x0a\x01\0\x04", self.check("option ldap-check"))

    def test_weaker_steps_are_a_look(self) -> None:
        for lines in (
            ("option external-check",),
            ("option tcp-check", "tcp-check send x", "tcp-check expect rstring ^y"),
            ("option tcp-check", "tcp-check connect port 2", "tcp-check connect port 3"),
            ("option tcp-check", "tcp-check connect addr 10.0.0.1"),
            ("option tcp-check", "tcp-check expect string a", "tcp-check expect string b"),
            ("option tcp-check", "tcp-check send x"),
            ("option tcp-check", "tcp-check send-binary x", "tcp-check expect string a"),
            ("option httpchk", "http-check expect rstring x"),
            ("option httpchk", "http-check expect ! string x"),
            ("option httpchk", "http-check expect status 2"),
            ("option httpchk", "http-check expect rstatus ("),
            ("option httpchk", "http-check expect rstatus x"),
            ("option httpchk", "http-check connect via-socks4"),
            ("option httpchk", "http-check send uri-lf /%[date]"),
            ("option httpchk", "http-check send hdr X %[date]"),
        ):
            self.assertEqual(self.check(*lines, warnings=1), f"tcp {_USUAL}", lines)
            output = backend(*lines, server="server s 127.0.0.1:1 check")
            self.assertIn("check = tcp, which only connects: no counterpart of", looks(output)[0])

    def test_http_request_with_method_version_and_headers(self) -> None:
        for lines, words in (
            ((), r"send='OPTIONS / HTTP/1.0\r\n\r\n'"),
            (("option httpchk /h",), r"send='OPTIONS /h HTTP/1.0\r\n\r\n'"),
            (("option httpchk GET /h",), r"send='GET /h HTTP/1.0\r\n\r\n'"),
            ((r"option httpchk GET /h HTTP/1.1\r\nHost:\ a.example",), "path=/h host=a.example"),
            ((r"option httpchk HEAD /h HTTP/1.1\r\nHost:\ a.example",),
             "method=HEAD path=/h host=a.example"),
            ((r"option httpchk DELETE /h HTTP/1.1\r\nHost:\ a.example",),
             r"send='DELETE /h HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n'"),
            ((r"option httpchk OPTIONS * HTTP/1.1\r\nHost:\ a.example",),
             r"send='OPTIONS * HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n'"),
            (("http-check send meth GET uri /h ver HTTP/1.1 hdr Host ''",),
             r"send='GET /h HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n'"),
            (("http-check send uri /h ver HTTP/1.1 hdr Host a.example",),
             "method=OPTIONS path=/h host=a.example"),
            (("http-check send meth GET uri /h ver HTTP/1.1 hdr Host a.example comment x",),
             "path=/h host=a.example"),
            (("http-check send meth POST body 'a b'",),
             r"send='POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\na b'"),
        ):  # fmt: skip
            self.assertEqual(self.check("option httpchk", *lines), f"http {words} {_USUAL}")

    def test_expected_answer(self) -> None:
        for expected, words in (
            ("status 200", "expect=200"), ("status 200-399", "expect=2xx,3xx"),
            ("status 200,401,300-302", "expect=200,300-302,401"), ("rstatus ^2", "expect=2xx"),
            ("! status 400-599", "expect=1xx,2xx,3xx"), ("! rstatus ^[1345]", "expect=2xx"),
        ):  # fmt: skip
            output = self.check("option httpchk", f"http-check expect {expected}")
            self.assertEqual(output, rf"http send='OPTIONS / HTTP/1.0\r\n\r\n' {words} {_USUAL}")
        output = self.check("option httpchk", "http-check expect string ready")
        self.assertEqual(output, rf"send='OPTIONS / HTTP/1.0\r\n\r\n' expect=ready {_USUAL}")

    def test_check_goes_by_the_socks_proxy(self) -> None:
        if why := missing("via"):
            raise SkipTest(why)
        for words, count in (("check check-via-socks4", 0), ("check", 1)):
            output = backend(server=f"server s 127.0.0.1:1 socks4 127.0.0.1:2 {words}")
            self.assertEqual(rules_of(output).backends["x"].check is None, False)
            said = [line for line in output.warnings if "txmux by the proxy" in line]
            self.assertEqual((len(said), looks(output)), (count, []))

    def test_check_that_would_find_something_else_is_a_look(self) -> None:
        for server in (
            "check addr 10.0.0.1", "check track a/b", "check agent-check",
            "check check-send-proxy", "check port 2 check-send-proxy send-proxy",
            "check check-alpn h2",
        ):  # fmt: skip
            output = backend("option redis-check", server=f"server s 127.0.0.1:1 {server}")
            self.assertIn("its check is left out", looks(output)[0])
            self.assertIsNone(rules_of(output).backends["x"].check)
        output = backend(server="server s 127.0.0.1:1 agent-check")
        self.assertIn("no counterpart of agent-check", looks(output)[0])

    def test_different_checks_are_lost_and_longest_times_kept(self) -> None:
        first = "server s 127.0.0.1:1 check port 2"
        for second, how in (
            ("check port 3", "port: s has 2, t has 3"),
            ("check", "port: s has 2, t has none"),
            ("check port 2 check-ssl", "check-ssl: s has none, t has it"),
            ("port 2", "check: s has it, t has none"),
        ):
            output = backend(f"server t 127.0.0.1:2 {second}", server=first)
            self.assertIn(f"these differ in {how}", looks(output)[0])
            self.assertNotIn("\ncheck", output.text)
        for off in ("disabled", "weight 0"):
            self.check(f"server t 127.0.0.1:2 check port 3 {off}")
        self.assertEqual(self.check("server t 127.0.0.1:2", warnings=1), f"tcp {_USUAL}")
        output = backend("server t 127.0.0.1:2", "option redis-check", server=first)
        self.assertIn("these differ in check", looks(output)[0])
        times = self.check("server t 127.0.0.1:2 check inter 5s fall 9 rise 1", warnings=3)
        self.assertEqual(times, "tcp interval=5s timeout=5s fall=9")

    def test_end_of_connections_with_their_server(self) -> None:
        down, up = "on-marked-down shutdown-sessions", "on-marked-up shutdown-backup-sessions"
        for first, second, expected, warned in (
            (f"check {down}", f"check {down}", "yes", 0),
            (f"check {down}", "check backup", "yes", 1),
            (f"check {down} {up}", f"check backup {down}", "backup", 0),
            # What is left out is the check, and that has a LOOK.
            (f"check port 8008 {down}", f"check port 8009 {down}", "yes", 1),
            (down, down, "no", 0),
        ):
            output = backend(
                f"server t 127.0.0.1:2 {second}", server=f"server s 127.0.0.1:1 {first}"
            )
            self.assertEqual(rules_of(output).backends["x"].end_on_down, expected, first)
            self.assertEqual(len(output.warnings), warned, output.warnings)
