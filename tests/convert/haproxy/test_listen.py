"""What becomes of binds, backends and whole files of HAProxy."""

from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.haproxy.pieces import backend, frontend
from txmux.rules.model import Backend
from txmux.rules.optional import missing
from txmux_convert.writer import ConvertError


class BindTests(SynchronousTestCase):
    def endpoints(self, bind: str) -> list[tuple[str, ...]]:
        return [listener.endpoints for listener in rules_of(frontend(bind=bind)).listeners]

    def test_forms_of_addresses(self) -> None:
        for bind, endpoint in (
            (":443", "0.0.0.0:443"), ("*:443", "0.0.0.0:443"), ("192.0.2.1:443", "192.0.2.1:443"),
            ("ipv4@192.0.2.1:443", "192.0.2.1:443"), (":::443", ":443"),
            ("[::]:443 v6only", "[::]:443"), (":::443 v4v6", ":443"), ("ipv6@:443 v4v6", ":443"),
            ("2001:db8::1:443", "[2001:db8::1]:443"),
            ("/run/x.sock mode 660", "unix:/run/x.sock:mode=660"),
            ("unix@/run/x.sock", "unix:/run/x.sock"),
        ):  # fmt: skip
            self.assertEqual(self.endpoints(f"bind {bind}"), [(endpoint,)])

    def test_ipv6_beside_ipv4(self) -> None:
        for both in ("bind *:443\n    bind :::443", "bind :::443,0.0.0.0:443"):
            self.assertEqual({*self.endpoints(both)[0]}, {"0.0.0.0:443", "[::]:443"})

    def test_several_addresses_are_one_listener(self) -> None:
        self.assertEqual(
            self.endpoints("bind 127.0.0.1:1,127.0.0.1:2\n    bind 127.0.0.1:3"),
            [("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3")],
        )

    def test_address_beside_the_name(self) -> None:
        output = converted("listen x 127.0.0.1:1\n    server s 127.0.0.1:2\n")
        self.assertEqual(rules_of(output).listeners[0].endpoints, ("127.0.0.1:1",))

    def test_refused_addresses_become_comments(self) -> None:
        for bind in ("127.0.0.1:3-2", "fd@3", "abns@x:1"):
            output = frontend(bind=f"bind 127.0.0.1:1\n    bind {bind}")
            self.assertEqual(rules_of(output).listeners[0].endpoints, ("127.0.0.1:1",))
            self.assertTrue(
                output.warnings[0].startswith("x.cfg:3: LOOK: endpoint = "), output.warnings
            )

    def test_bind_with_tls_is_a_listener_of_its_own(self) -> None:
        output = frontend(
            "default_backend a",
            bind="bind 127.0.0.1:1\n    bind :443 name ssl\n    bind :444 ssl crt /x crt /y alpn h2 ssl-min-ver TLSv1.3",
        )
        plain, secure = rules_of(output).listeners
        self.assertEqual(plain.endpoints, ("127.0.0.1:1", "0.0.0.0:443"))
        self.assertEqual((secure.endpoints, output.warnings), (("0.0.0.0:444",), ()))
        self.assertIn(
            "match = tls\nunder = f-2\nterminate_tls = /x, /y\nalpn = h2\ntls_minimum = 1.3\nbackend = a\n",
            output.text,
        )

    def test_bind_with_inexpressible_tls_is_left_out(self) -> None:
        mixed = Path(self.mktemp())
        mixed.write_text("/x\n/y [alpn h2 verify required ca-file /ca] a.example\n")
        for words in (
            "ssl",
            "ssl crt-list /no/such",
            "ssl crt /x strict-sni",
            f"ssl crt-list {mixed}",
            "ssl crt /x verify required ca-file /ca ca-verify-file /root",
        ):
            output = frontend("default_backend a", bind=f"bind :1\n    bind :444 {words}")
            self.assertIn(f"line 3: bind :444 {words}: is left out", looks(output)[0])
        for name in ("ca-file", "ca-verify-file"):
            output = frontend(
                "default_backend a", bind=f"bind :444 ssl crt /x verify required {name} /ca"
            )
            self.assertIn("tls_client_ca = /ca\n", output.text)

    def test_multipath_addresses(self) -> None:
        output = converted(
            "frontend f\n    bind mptcp4@127.0.0.1:1\n    bind mptcp6@:2\n    bind 127.0.0.1:3\n    default_backend a\n"
            "backend a\n    server x mptcp@192.0.2.1:4\n    server y 192.0.2.2:4\n"
        )
        rules = rules_of(output)
        self.assertEqual(
            [(listener.endpoints, listener.mptcp) for listener in rules.listeners],
            [(("127.0.0.1:1", ":2"), True), (("127.0.0.1:3",), False)],
        )
        (backend,) = rules.backends.values()
        self.assertEqual((backend.mptcp, len(backend.servers)), (True, 1))
        self.assertIn("these differ in mptcp", looks(output)[0])

    def test_certificates_of_clients_that_need_none(self) -> None:
        """Unless HAProxy is told to take those that are not valid, it refuses them."""
        asks = "bind :444 ssl crt /x verify optional ca-file /ca crl-file /crl"
        for more, warned in (("", 1), (" ca-ignore-err all crt-ignore-err all", 0)):
            output = frontend("default_backend a", bind=asks + more)
            self.assertIn(
                "tls_client_ca = /ca\ntls_client_crl = /crl\ntls_client = optional\n", output.text
            )
            self.assertEqual((len(output.warnings), looks(output)), (warned, []))

    def test_tls_defaults_of_global(self) -> None:
        output = converted(
            "global\n    ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n    ssl-server-verify none\n"
            "listen x\n    bind :1 ssl crt /x\n    server s a.example:9 ssl\n"
        )
        self.assertIn("\ntls_minimum = 1.3\n", output.text)
        self.assertIn("verify none: txmux always verifies", looks(output)[0])

    def test_keepalive_and_log_options(self) -> None:
        output = frontend(
            "clitcpka-idle 10",
            "clitcpka-intvl 2m",
            "clitcpka-cnt 3",
            "option dontlog-normal",
            "default_backend a",
        )
        self.assertIn("keepalive = idle=10s interval=2m count=3\n", output.text)
        self.assertIn("\nlog = errors\n", output.text)
        self.assertEqual(output.warnings, ())

    def test_certificates_of_folders_lists_and_keys(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        for name in ("a.pem", "b.pem", "b.pem.ocsp", ".hidden"):
            (folder / name).write_text("-----BEGIN PRIVATE KEY-----")
        (folder / "c.crt").write_text("-----BEGIN CERTIFICATE-----")
        (folder / "c.key").write_text("-----BEGIN PRIVATE KEY-----")
        (folder.parent / "list").write_text(f"# all\n{folder}/a.pem [alpn h2] a.example\n\n/y\n")
        for words, files in (
            (f"crt {folder}", f"{folder}/a.pem, {folder}/b.pem, {folder}/c.crt"),
            (f"crt {folder}/c.crt", f"{folder}/c.crt, {folder}/c.key"),
            (f"crt-list {folder.parent}/list", f"{folder}/a.pem, /y"),
        ):
            output = frontend("default_backend a", bind=f"bind :444 ssl {words}")
            self.assertIn(f"terminate_tls = {files}\n", output.text)
        self.assertIn(
            f"{folder.parent}/list:1: is written into the rules as it is now", output.warnings[0]
        )

    def test_range_of_ports_is_split_where_rules_ask_for_the_port(self) -> None:
        output = frontend("default_backend a", bind="bind :::1-3,*:3-999")
        self.assertEqual(rules_of(output).listeners[0].endpoints, ("[::]:1-3", "0.0.0.0:3-999"))
        lines = ("use_backend b if { dst_port gt 11 } { dst 127.0.0.0/8 }", "default_backend a")
        output = frontend(*lines, bind="bind 127.0.0.1:11-12")
        self.assertEqual(
            [str(getattr(listener.default, "name", "")) for listener in rules_of(output).listeners],
            ["a", "b"],
        )
        self.assertEqual(output.warnings, ())
        output = frontend(*lines, bind="bind :1-2")
        self.assertIn("dst is not known where the client comes in", looks(output)[0])

    def test_accept_proxy_is_a_listener_of_its_own(self) -> None:
        output = frontend(bind="bind 127.0.0.1:1\n    bind 127.0.0.1:2 accept-proxy")
        self.assertEqual(len(rules_of(output).listeners), 2)
        self.assertIn("\naccept_proxy_from = 0.0.0.0/0, ::/0\n", output.text)

    def test_limits_are_taken_and_the_rest_warned_of(self) -> None:
        output = frontend(bind="bind 127.0.0.1:1 maxconn 9 backlog 8 tfo tcp-ut 3s")
        self.assertEqual(rules_of(output).listeners[0].max_connections, 9)
        self.assertIn("no counterpart of tfo, tcp-ut", output.warnings[0])

    def test_bind_with_narrower_access_is_left_out(self) -> None:
        for flag in ("interface eth0", "namespace x", "transparent", "user root", "gid 3"):
            output = frontend(bind=f"bind 127.0.0.1:1\n    bind /run/x.sock {flag}")
            self.assertEqual(rules_of(output).listeners[0].endpoints, ("127.0.0.1:1",))
            self.assertIn(f"bind /run/x.sock {flag}: is left out; ", looks(output)[0])

    def test_unix_socket_with_a_proxy_header(self) -> None:
        output = frontend(bind="bind /run/x.sock accept-proxy")
        self.assertIn("\naccept_proxy_from = 0.0.0.0/0, ::/0\n    unix\n", output.text)

    def test_frontend_without_a_bind_is_left_out(self) -> None:
        self.assertRaises(ConvertError, frontend, bind="bind :443 ssl")
        output = converted("frontend f\n    bind :1 ssl\nlisten g\n    bind :2\n")
        self.assertEqual([listener.name for listener in rules_of(output).listeners], ["g"])


class BackendTests(SynchronousTestCase):
    def only(self, *lines: str, server: str = "server s 127.0.0.1:1") -> Backend:
        (output,) = rules_of(backend(*lines, server=server)).backends.values()
        return output

    def test_forms_of_server_addresses(self) -> None:
        for given_as, text in (
            ("127.0.0.1:1", "127.0.0.1:1"), ("ipv4@127.0.0.1:1", "127.0.0.1:1"),
            ("db.example:1", "db.example:1"), ("[::1]:1", "[::1]:1"),
            ("2001:db8::1:1", "[2001:db8::1]:1"), ("unix@/run/x.sock", "unix:/run/x.sock"),
            ("/run/x.sock", "unix:/run/x.sock"),
        ):  # fmt: skip
            output = self.only(server=f"server s {given_as}")
            self.assertEqual([server.text for server in output.servers], [text])

    def test_impossible_servers_are_left_out(self) -> None:
        for server in (
            "127.0.0.1:http", ":80", "*:80", "0.0.0.0", "[::]:80", "127.0.0.1:1 namespace x",
            "[::1]:1 socks4 127.0.0.1:2", "127.0.0.1:1 socks4 127.0.0.1:http", "abns@x:1",
        ):  # fmt: skip
            output = backend(f"server t {server}")
            self.assertEqual(len(rules_of(output).backends["x"].servers), 1)
            self.assertIn(f"# LOOK: line 6: server t {server}: is left out; ", output.text)

    def test_server_without_port_has_the_only_one_of_its_clients(self) -> None:
        for server, text in (
            ("10.0.0.1", "10.0.0.1:443"), ("10.0.0.1:+100", "10.0.0.1:543"),
            ("10.0.0.1:-1", "10.0.0.1:442"), ("10.0.0.1:0", "10.0.0.1:443"),
            ("db.example", "db.example:443"),
        ):  # fmt: skip
            self.assertEqual(self.only(server=f"server s {server}").servers[0].text, text)
        output = converted("listen x\n    bind :1\n    bind :2\n    server s 10.0.0.1\n")
        self.assertIn("\nserver = 10.0.0.1:{port}\n", output.text)
        self.assertEqual(looks(output), [])
        for server in ("10.0.0.1:+1", "0.0.0.0"):
            output = converted(
                f"listen x\n    bind :1-9\n    bind 127.0.0.1:2\n    server s {server}\n"
            )
            self.assertIn("its clients come to more than one", " ".join(looks(output)))

    def test_clients_of_a_backend_without_servers_are_closed(self) -> None:
        output = converted(
            "frontend f\n    bind 127.0.0.1:1,127.0.0.1:2\n    use_backend x if HTTP\n    default_backend y\n"
            "backend x\n    server s 10.0.0.1:+1\nbackend y\n    server s 10.0.0.2:1\n"
        )
        self.assertIn("match = http\nbackend = close\n", output.text)
        self.assertEqual(len(looks(output)), 2)

    def test_proxy_protocol_versions(self) -> None:
        for parameter, version in (
            ("", "off"), ("send-proxy", "v1"), ("send-proxy-v2", "v2"),
            ("send-proxy-v2-ssl", "v2"), ("no-send-proxy", "off"),
        ):  # fmt: skip
            server = f"default-server {parameter}\n    server s 127.0.0.1:1"
            self.assertEqual(self.only(server=server).proxy_protocol, version)

    def test_servers_with_another_header_are_left_out(self) -> None:
        output = backend("server t 127.0.0.1:2 send-proxy", "server u 127.0.0.1:3")
        self.assertEqual(len(rules_of(output).backends["x"].servers), 2)
        self.assertIn("these differ in proxy_protocol", looks(output)[0])

    def test_looks(self) -> None:
        for server, lines, message in (
            ("source ::1", ("server t 127.0.0.1:2 source 10.0.0.2",), "source: is left out"),
            ("source 10.0.0.1", ("server t 127.0.0.1:2",), "source: is left out"),
            ("", ("balance rdp-cookie(x)", "server t 127.0.0.1:2"),
             "balance rdp-cookie(x): has no counterpart"),
        ):  # fmt: skip
            output = backend(*lines, server=f"server s 127.0.0.1:1 {server}")
            self.assertIn(message, looks(output)[0])

    def test_only_first_of_several_backups(self) -> None:
        more = ("server t 127.0.0.1:2 backup", "server u 127.0.0.1:3 backup")
        self.assertIn("\nbalance = first\n", backend(*more).text)
        output = backend(*more, "option allbackups")
        self.assertEqual((output.warnings, "balance" in output.text), ((), False))
        output = backend(*more, "server v 127.0.0.1:4")
        self.assertIn("HAProxy uses the first backup", looks(output)[0])

    def test_keys_with_a_counterpart(self) -> None:
        for server, lines, line in (
            ("weight 3", (), "server = 127.0.0.1:1 weight=3"),
            ("weight 0", (), "server = 127.0.0.1:1 down"),
            ("maxconn 3", (), "server = 127.0.0.1:1 max_connections=3\nqueue = 1000000"),
            ("maxconn 3", ("timeout connect 4s",), "connect_timeout = 4s"),
            ("maxconn 3", ("timeout connect 4s", "timeout queue 4s"), "queue = 1000000"),
            ("disabled", (), "server = 127.0.0.1:1 down"),
            ("disabled enabled", (), "server = 127.0.0.1:1"),
            ("backup", (), "server = 127.0.0.1:1 backup"),
            ("weight 3 backup disabled", (), "server = 127.0.0.1:1 weight=3 backup down"),
            ("source 10.0.0.1:2000-3000", (), "source = 10.0.0.1:2000-3000"),
            ("send-proxy-v2-ssl", (), "proxy_protocol = v2\nproxy_tlvs = ssl"),
            ("send-proxy-v2 proxy-v2-options ssl,cert-cn,unique-id,crc32c", (),
             "proxy_protocol = v2\nproxy_tlvs = ssl, unique-id, crc32c"),
            ("send-proxy-v2 proxy-v2-options authority", (), "proxy_tlvs = authority"),
            ("", ("source 10.0.0.1",), "source = 10.0.0.1"),
            ("", ("source 0.0.0.0 usesrc clientip",), "source = client"),
            ("source 10.0.0.1:0", (), "source = 10.0.0.1"),
            ("source 0.0.0.0 usesrc client", (), "source = client"),
            ("", ("balance source", "server t 127.0.0.1:2"), "balance = source-hash"),
            ("", ("server t 127.0.0.1:2",), "balance = round-robin"),
        ):  # fmt: skip
            output = backend(*lines, server=f"server s 127.0.0.1:1 {server}")
            self.assertIn(f"{line}\n", output.text)
            self.assertEqual(output.warnings, ())

    def test_backend_without_servers_is_left_out(self) -> None:
        output = converted("frontend f\n    bind :1\n    default_backend x\nbackend x\n")
        message = "x.cfg:4: LOOK: [backend x] is left out: it has no server; its clients are closed"
        self.assertIn(message, output.warnings)
        for condition, line in (
            ("nbsrv(a) lt 1", "fallback = close\n"),
            ("src 10.0.0.0/8", "silent = close from=10.0.0.0/8 after=1ms\n    a\n"),
        ):
            output = converted(
                f"frontend f\n    bind :1\n    use_backend x if {{ {condition} }}\n    default_backend a\n"
                "backend a\n    option tcp-check\n    server s 127.0.0.1:2 check\nbackend x\n"
            )
            self.assertIn(line, output.text)
            self.assertEqual(len(looks(output)), 1, output.warnings)

    def test_socks_proxy_of_all_servers(self) -> None:
        if why := missing("via"):
            raise SkipTest(why)
        server = "server s 127.0.0.1:1 socks4 127.0.0.1:1080"
        output = backend("server t db.example:2 socks4 127.0.0.1:1080", server=server)
        self.assertIn("via = socks4://127.0.0.1:1080\n", output.text)
        self.assertEqual(looks(output), [])
        output = backend("server t 127.0.0.1:2", server=server)
        self.assertIn("these differ in via", looks(output)[0])

    def test_slow_start_is_the_longest(self) -> None:
        for server, more, seconds, count in (
            ("slowstart 5000", "slowstart 5s", 5, 0),
            ("slowstart 5s", "slowstart 1m", 60, 1),
            ("slowstart 5s", "", 5, 1),
        ):
            output = backend(
                f"server t 127.0.0.1:2 {more}", server=f"server s 127.0.0.1:1 {server}"
            )
            self.assertEqual(rules_of(output).backends["x"].slow_start, seconds)
            said = [line for line in output.warnings if "slowstart: servers" in line]
            self.assertEqual(len(said), count)

    def test_unknown_parameters_are_named(self) -> None:
        output = backend(server="server s 127.0.0.1:1 cookie x tfo")
        self.assertIn("127.0.0.1:1: no counterpart of cookie, tfo", output.warnings[0])

    def test_other_time_in_the_queue_is_warned_of(self) -> None:
        output = backend(
            "timeout connect 4s", "timeout queue 3s", server="server s 127.0.0.1:1 maxconn 3"
        )
        self.assertIn("clients wait for connect_timeout at most", output.warnings[0])

    def test_impossible_weight_is_a_look(self) -> None:
        output = backend(server="server s 127.0.0.1:1 weight 70000")
        self.assertIn("server = 127.0.0.1:1 weight=70000: ", looks(output)[0])
        self.assertIn("\nserver = 127.0.0.1:1\n", output.text)

    def test_shorter_timeout_counts_and_tunnel_before_it(self) -> None:
        output = converted(
            "defaults\n    timeout connect 4s\n    timeout client 1m\n"
            "listen x\n    bind :1\n    server s 127.0.0.1:9\n    timeout server 50s\n    retries 7\n"
            "listen y\n    bind :2\n    server s 127.0.0.1:9\n    timeout server 50s\n    timeout tunnel 1h\n"
        )
        x, y = rules_of(output).backends.values()
        self.assertEqual((x.connect_timeout, x.idle_timeout, x.retries), (4, 50, 7))
        self.assertEqual((y.idle_timeout, output.warnings), (3600, ()))

    def test_impossible_time_is_a_comment(self) -> None:
        self.assertEqual(len(backend("timeout connect 0", "timeout server forever").warnings), 2)

    def test_fraction_of_a_millisecond_is_one(self) -> None:
        self.assertEqual(self.only("timeout connect 100us").connect_timeout, 0.001)
