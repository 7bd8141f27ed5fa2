from pathlib import Path
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from tests.convert.haproxy.pieces import backend, frontend
from txmux.rules.model import Backend
from txmux.rules.optional import missing


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

    def test_bind_with_inexpressible_tls_is_left_out(self) -> None:
        mixed = Path(self.mktemp())
        mixed.write_text("/x\n/y [alpn h2 verify required ca-file /ca] a.example\n")
        for words in (
            "ssl", "ssl crt-list /no/such", "ssl crt /x strict-sni", f"ssl crt-list {mixed}",
            "ssl crt /x verify required ca-file /ca ca-verify-file /root",
        ):  # fmt: skip
            output = frontend("default_backend a", bind=f"bind :1\n    bind :444 {words}")
            self.assertIn(f"line 3: bind :444 {words}: is left out", looks(output)[0])
        for name in ("ca-file", "ca-verify-file"):
            output = frontend(
                "default_backend a", bind=f"bind :444 ssl crt /x verify required {name} /ca"
            )
            self.assertIn("tls_client_ca = /ca\n", output.text)

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

    def test_bind_with_narrower_access_is_left_out(self) -> None:
        for flag in ("interface eth0", "namespace x", "transparent", "user root", "gid 3"):
            output = frontend(bind=f"bind 127.0.0.1:1\n    bind /run/x.sock {flag}")
            self.assertEqual(rules_of(output).listeners[0].endpoints, ("127.0.0.1:1",))
            self.assertIn(f"bind /run/x.sock {flag}: is left out; ", looks(output)[0])


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

    def test_proxy_protocol_versions(self) -> None:
        for parameter, version in (
            ("", "off"), ("send-proxy", "v1"), ("send-proxy-v2", "v2"),
            ("send-proxy-v2-ssl", "v2"), ("no-send-proxy", "off"),
        ):  # fmt: skip
            server = f"default-server {parameter}\n    server s 127.0.0.1:1"
            self.assertEqual(self.only(server=server).proxy_protocol, version)

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

    def test_socks_proxy_of_all_servers(self) -> None:
        if why := missing("via"):
            raise SkipTest(why)
        server = "server s 127.0.0.1:1 socks4 127.0.0.1:1080"
        output = backend("server t db.example:2 socks4 127.0.0.1:1080", server=server)
        self.assertIn("via = socks4://127.0.0.1:1080\n", output.text)
        self.assertEqual(looks(output), [])
        output = backend("server t 127.0.0.1:2", server=server)
        self.assertIn("these differ in via", looks(output)[0])
