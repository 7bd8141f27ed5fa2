"""How the servers of an ``haproxy.cfg`` are spoken to, and what its section ``global`` becomes."""

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.haproxy.pieces import backend

_VERIFIED = "ssl verify required ca-file /ca-bundle.crt"


class SpokenToTests(SynchronousTestCase):
    def test_tls_keys(self) -> None:
        for server, keys in (
            (f"{_VERIFIED} verifyhost a.example",
             "tls_name = a.example\ntls_ca = /ca-bundle.crt\n"),
            (f"{_VERIFIED} sni str(a.example)", "tls_name = a.example\n"),
            (f"{_VERIFIED} verifyhost a crt /own.pem alpn h2",
             "tls_client_certificate = /own.pem\nalpn = h2\n"),
            ("ssl verify required ca-file @system-ca verifyhost a", "tls = yes\ntls_name = a\n"),
        ):  # fmt: skip
            output = backend(server=f"server s 127.0.0.1:1 {server}")
            self.assertIn(keys, output.text)
            self.assertEqual(output.warnings, ())
        output = backend(server=f"server s a.example:1 {_VERIFIED} check")
        self.assertEqual((output.warnings, rules_of(output).backends["x"].tls is None), ((), False))

    def test_weaker_tls_is_a_look(self) -> None:
        for server, why in (
            ("127.0.0.1:1 ssl verify none", "txmux always verifies"),
            (f"127.0.0.1:1 {_VERIFIED}", "HAProxy verifies no name"),
            ("a.example:1 ssl ca-file /ca.pem", "without subjectAltName"),
            (f"a.example:1 {_VERIFIED} sni ssl_fc_sni", "does not depend on the client"),
            (f"a.example:1 {_VERIFIED} sni str(b) verifyhost c", "these are b and c"),
        ):
            output = backend(server=f"server s {server}")
            self.assertIn(why, looks(output)[0])
            self.assertIn("\ntls = yes\n", output.text)

    def test_servers_spoken_to_otherwise_are_left_out(self) -> None:
        output = backend(f"server t 127.0.0.1:2 {_VERIFIED} verifyhost a")
        self.assertIn("these differ in tls, tls_ca, tls_name", looks(output)[0])

    def test_base_folders_of_global(self) -> None:
        output = converted(
            "global\n    ca-base /ca\n    crt-base /own\nlisten x\n    bind :9\n"
            "    server s a.example:1 ssl ca-file a.pem crt b.pem\n"
        )
        self.assertIn("tls_ca = /ca/a.pem\ntls_client_certificate = /own/b.pem\n", output.text)

    def test_resolvers_templates_and_srv_records(self) -> None:
        output = converted(
            "resolvers dns\n    nameserver a 10.0.0.1:53\n    nameserver b udp@10.0.0.2:5353\n    hold valid 10s\n"
            "listen x\n    bind :9\n    server-template s 1-3 db.example:1 resolvers dns init-addr none\n"
            "listen y\n    bind :8\n    server-template s 3 _ssh._tcp.example.com resolvers dns\n"
        )
        self.assertIn(
            "server = db.example:1\nresolvers = 10.0.0.1:53, 10.0.0.2:5353\n", output.text
        )
        self.assertIn("server = srv:_ssh._tcp.example.com\n", output.text)
        (told,) = output.warnings
        self.assertIn("x.cfg:4: hold valid 10s: has no counterpart", told)

    def test_server_without_address_is_the_asked_one(self) -> None:
        for server, place in (
            (":4431", "{local}:4431"),
            ("0.0.0.0:4431 weight 3", "{local}:4431 weight=3"),
            ("*:+1", "{local}:444"),
            (":::4431", "{local}:4431"),
        ):
            output = backend(server=f"server s {server}")
            self.assertIn(f"\nserver = {place}\n", output.text)
            self.assertEqual(output.warnings, ())

    def test_asked_address_is_neither_checked_nor_beside_others(self) -> None:
        output = backend("server t 127.0.0.1:2", server="server s :4431 check")
        self.assertIn("\nserver = {local}:4431\n", output.text)
        self.assertIn(
            "either servers at the address that the client connected to", looks(output)[1]
        )
        self.assertIn(
            "check = tcp interval=2s timeout=2s is left out: the server's address is another one for each client; "
            "if it is on this machine, write 127.0.0.1 in place of {local}, and the check",
            looks(output)[0],
        )
        for server in ("*", "0.0.0.0:443", ":"):
            self.assertIn("leads back to", looks(backend(server=f"server s {server}"))[0])

    def test_template_counts_as_several_servers(self) -> None:
        for balance, word in (
            ("balance leastconn", "least-connections"),
            ("balance source\n    hash-type consistent", "source-hash"),
        ):
            output = backend(balance, server="server-template s 1-3 db.example:1")
            self.assertIn(f"\nbalance = {word}\n", output.text)
            self.assertEqual(output.warnings, ())
        output = backend("balance uri", server="server-template s 3 db.example:1")
        self.assertIn("balance uri: has no counterpart", looks(output)[0])

    def test_independent_streams(self) -> None:
        output = backend("option independent-streams", "timeout server 9s", "timeout client 7s")
        self.assertIn("\nidle_timeout = 9s\n", output.text)
        self.assertIn("counts the bytes of both sides together", output.warnings[0])


class ProcessTests(SynchronousTestCase):
    def test_process_keys(self) -> None:
        output = converted(
            "global\n    user haproxy\n    group haproxy\n    nbthread 4\n    hard-stop-after 30s\n    grace 2s\n"
            "    log stdout format raw local0\nlisten x\n    bind :9\n    server s 127.0.0.1:1\n"
        )
        keys = (
            "user = haproxy", "group = haproxy", "workers = 4", "drain_timeout = 30s",
            "grace = 2s",
        )  # fmt: skip
        for line in (*keys, "access_log = stdout"):
            self.assertIn(f"\n{line}\n", output.text)
        self.assertEqual(len(output.warnings), 1, "limits hold for each worker")

    def test_ssl_min_ver_of_global_is_not_reported(self) -> None:
        for options, warnings in (
            ("ssl-min-ver TLSv1.3", []),
            ("no-sslv3 ssl-min-ver TLSv1.3 no-tls-tickets",
             ["ssl-default-bind-options no-sslv3 no-tls-tickets: has no counterpart"]),
        ):  # fmt: skip
            output = converted(
                f"global\n    ssl-default-bind-options {options}\nlisten x\n    bind :9 ssl crt /x.pem\n    server s 127.0.0.1:1\n"
            )
            self.assertIn("\ntls_minimum = 1.3\n", output.text)
            self.assertEqual([line.partition(": ")[2] for line in output.warnings], warnings)

    def test_process_and_log_are_one_line_at_the_end(self) -> None:
        output = converted(
            "global\n    log /dev/log local0\n    stats socket /run/x level admin\n    pidfile /x\n"
            "    chroot /y\n    daemon\n    tune.bufsize 9\ndefaults\n    log global\n    option tcplog\n"
            "    errorfile 503 /x\n    option http-server-close\n    timeout http-request 9s\nlisten x\n    bind :9 interface eth0\n    bind :8\n"
            "    server s 127.0.0.1:1\nlisten pages\n    mode http\n    bind :7\n    stats enable\n"
        )
        look, aside = output.warnings
        self.assertIn("x.cfg:15: LOOK: bind", look)
        self.assertEqual(
            aside,
            "x.cfg:2: left out: listen pages (metrics in [txmux], and 'txmux top'), log (access_log in [txmux]), "
            "stats (admin in [txmux], 'txmux status'), pidfile (--pidfile of 'txmux run'), chroot, daemon, tune.bufsize, "
            "option tcplog (access_log_format in [txmux]), errorfile, option http-server-close, timeout http-request; see 'Run as a service'",
        )
        first, second = output.text.splitlines()[:2]
        self.assertTrue(first.startswith("# LOOK: ") and second.startswith("# left out: "))
        output = converted("global\n    daemon\nlisten x\n    bind :9\n    server s 127.0.0.1:1\n")
        self.assertEqual(looks(output), [])
