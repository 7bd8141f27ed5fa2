"""curl, nc, ssh and psql come to servers by their names, through one port that answers as a proxy does."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import ClassVar

from tests.interop.children import PATIENCE, InteropTestCase, output_of, run
from tests.interop.servers import (
    files_site,
    make_certificate,
    start_dnsmasq,
    start_nginx,
    start_postgres,
    start_sshd,
)
from tests.support.ports import free_port
from tests.support.services import Service

_RULES = """\
[listen public]
endpoint = 127.0.0.1:0
[listen secret]
endpoint = 127.0.0.1:0
[route proxy]
under = public, ended
match = http method=CONNECT
match = socks5
match = socks4
tunnel = yes
backend = by-name
[route ended]
under = *
match = tls
terminate_tls = {identity}
[route admins]
under = secret
match = http method=CONNECT host=127.0.0.7,admin.corp.test
tunnel = yes
tunnel_users = {admins}
backend = admins
[route login]
under = secret
match = http method=CONNECT
match = socks5
tunnel = yes
tunnel_users = {users}
[route in-ssh]
under = login
match = ssh
backend = by-name
[route in-http]
under = login
match = http
backend = by-name
[backend admins]
server = 127.0.0.1:{web}
[backend by-name]
server = {{host}}:{{port}}
deny_networks = 127.0.0.7
allow_names = *.corp.test, 127.*
allow_networks = 127.0.0.0/8
resolvers = 127.0.0.1:{dns}
"""
_PSQL = "select current_setting('port')"


class TunnelTests(InteropTestCase):
    web: ClassVar[int]
    postgres: ClassVar[int]
    users: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        folder = cls.make_folder("rules")
        hosts = folder / "hosts"
        names = " ".join(f"{name}.corp.test" for name in ("ssh", "db", "web"))
        hosts.write_text(
            f"127.0.0.1 {names}\n127.0.0.7 alias.corp.test admin.corp.test\n10.255.255.1 outside.corp.test\n"
        )
        dns, cls.web, cls.postgres = free_port(), free_port(), free_port()
        cls.share(start_dnsmasq(hosts, f"--port={dns}"))
        cls.ssh = cls.share(start_sshd(cls.make_folder("ssh")))
        site = cls.make_folder("site")
        (site / "page").write_text("the page\n")
        cls.share(start_nginx(cls.make_folder("nginx"), files_site(cls.web, site)))
        cls.share(start_postgres(cls.make_folder("postgres"), cls.postgres))
        cls.certificate = make_certificate(cls.make_folder("tls"), "proxy.corp.test", "localhost")
        cls.users, admins = folder / "users", folder / "admins"
        for path, name in ((cls.users, "ann"), (admins, "root")):
            path.write_bytes(output_of("htpasswd", "-nbBC4", name, "secret"))
            path.chmod(0o600)
        rules = _RULES.format(
            identity=cls.certificate.both, users=cls.users, admins=admins, web=cls.web, dns=dns
        )
        cls.mux = cls.share(Service(cls.folder, rules))

    def proxy(self, listener: str = "public") -> str:
        return f"127.0.0.1:{self.mux.ports[listener]}"

    def curl(self, *options: str, name: str = "web", listener: str = "public") -> str:
        done = run(
            *("curl", "-sS", "-m", "20", "-p", "--noproxy", "none.invalid"),
            *("-w", "%{http_code} %{http_connect}"),
            *(*options, f"http://{name}.corp.test:{self.web}/page"),
        )
        self.assertNotIn(done.returncode, (6, 28), done.stderr)
        self.mux.take_one(listener)
        return done.stdout.decode()

    def test_curl_by_each_kind_of_proxy(self) -> None:
        proxy = self.proxy()
        for kind, told in (("http", "200 200"), ("socks5h", "200 000"), ("socks4a", "200 000")):
            with self.subTest(kind):
                self.assertEqual(self.curl("-x", f"{kind}://{proxy}"), f"the page\n{told}")

    def test_curl_by_a_proxy_behind_tls(self) -> None:
        proxy = f"https://localhost:{self.mux.ports['public']}"
        ca = str(self.certificate.chain)
        found = self.curl("-x", proxy, "--proxy-cacert", ca)
        self.assertEqual(found, "the page\n200 200")

    def test_curl_logs_in_after_an_answer_407(self) -> None:
        proxy, secret = f"http://{self.proxy('secret')}", "secret"
        found = self.curl("-x", proxy, "--proxy-anyauth", "-U", "ann:secret", listener=secret)
        self.assertEqual(found, "the page\n200 200")
        self.assertIn(" 407", self.curl("-x", proxy, "-U", "ann:wrong", listener=secret))
        proxy = f"socks5h://ann:secret@{self.proxy('secret')}"
        self.assertEqual(self.curl("-x", proxy, listener=secret), "the page\n200 000")

    def test_server_of_others_by_no_spelling(self) -> None:
        """A user comes to what is for other users by no other name of its address, and they do."""
        proxy = self.proxy("secret")
        for kind, name in (("http", "alias"), ("socks5h", "alias"), ("socks5h", "admin")):
            found = self.curl("-x", f"{kind}://ann:secret@{proxy}", name=name, listener="secret")
            self.assertNotIn("the page", found)
        found = self.curl("-x", f"http://root:secret@{proxy}", name="admin", listener="secret")
        self.assertEqual(found, "the page\n200 200")

    def test_names_that_lead_elsewhere(self) -> None:
        proxy = f"http://{self.proxy()}"
        for name in ("outside", "x.y", "missing"):
            self.assertIn(self.curl("-x", proxy, name=name)[:7], ("000 403", "000 502"))

    def test_ssh_by_netcat(self) -> None:
        for kind in ("connect", "5"):
            with self.subTest(kind):
                command = f"-oProxyCommand=nc -X {kind} -x {self.proxy()} %h %p"
                options = (*self.ssh.options, command, "-p", str(self.ssh.port))
                done = run("ssh", *options, "ssh.corp.test", "echo through")
                self.assertEqual(done.stdout, b"through\n", done.stderr)
                line = self.mux.take_one("public")
                self.assertEqual(line["facts"]["host"], "ssh.corp.test")

    def test_psql_whose_server_speaks_after_the_client(self) -> None:
        configuration = self.make_folder() / "proxychains.conf"
        configuration.write_text(
            f"strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\nhttp 127.0.0.1 {self.mux.ports['public']}\n"
        )
        done = run(
            *("env", "LC_ALL=C", "proxychains4", "-f", configuration, "psql", "-AtX", "-c", _PSQL),
            f"host=db.corp.test port={self.postgres} user=postgres password=secret",
        )
        self.assertEqual(done.stdout.decode(), f"{self.postgres}\n", done.stderr)
        self.assertEqual(self.mux.take_one("public")["facts"]["host"], "db.corp.test")

    def test_reload_in_the_middle_of_a_request(self) -> None:
        address = "127.0.0.1", self.mux.ports["secret"]
        with socket.create_connection(address, PATIENCE) as client:
            client.sendall(b"CONNECT web.corp.test:1 HTTP/1.1\r\n")
            self.mux.reload()
            client.sendall(b"\r\n")
            self.assertIn(b" 407 ", client.recv(1000))
        self.mux.take_one("secret")
