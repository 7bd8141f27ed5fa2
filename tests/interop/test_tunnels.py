"""curl, nc, ssh and psql come to servers by their names, through one port that answers as a proxy does."""

import socket
from functools import partial
from pathlib import Path

from tests.interop import servers
from tests.support.kit import PATIENCE, InteropTestCase, Service, free_port, output_of, run, write

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
_CHAIN = "strict_chain\nquiet_mode\nproxy_dns\n[ProxyList]\n"


class TunnelTests(InteropTestCase):
    def curl(self, *options: str, name: str = "web", listener: str = "public") -> str:
        own = ("-sS", "-m", "20", "-p", "--noproxy", "none.invalid")
        shown = ("-w", "%{http_code} %{http_connect}")
        done = run("curl", *own, *shown, *options, f"http://{name}.corp.test:{self.web}/page")
        self.assertNotIn(done.returncode, (6, 28), done.stderr)
        self.mux.take_one(listener)
        return done.stdout.decode()

    def assert_curl(self, port: int, secret: int, ca: Path) -> None:
        """It comes through by each kind of proxy, and by one behind TLS."""
        public, page = f"127.0.0.1:{port}", "the page\n200 200"
        for kind, told in (("http", "200 200"), ("socks5h", "200 000"), ("socks4a", "200 000")):
            self.assertEqual(self.curl("-x", f"{kind}://{public}"), f"the page\n{told}", kind)
        tls = ("-x", f"https://localhost:{port}", "--proxy-cacert", str(ca))
        self.assertEqual(self.curl(*tls), page)
        # It logs in after an answer 407.
        curl = partial(self.curl, listener="secret")
        proxy = f"http://127.0.0.1:{secret}"
        self.assertEqual(curl("-x", proxy, "--proxy-anyauth", "-U", "ann:secret"), page)
        self.assertIn(" 407", curl("-x", proxy, "-U", "ann:wrong"))
        proxy = f"ann:secret@127.0.0.1:{secret}"
        self.assertEqual(curl("-x", f"socks5h://{proxy}"), "the page\n200 000")
        # A user comes to what is for other users by no other name of its address, and they do.
        for kind, name in (("http", "alias"), ("socks5h", "alias"), ("socks5h", "admin")):
            self.assertNotIn("the page", curl("-x", f"{kind}://{proxy}", name=name))
        proxy = f"http://root:secret@127.0.0.1:{secret}"
        self.assertEqual(curl("-x", proxy, name="admin"), page)
        # Names that lead elsewhere.
        for name in ("outside", "x.y", "missing"):
            code = self.curl("-x", f"http://{public}", name=name)[:7]
            self.assertIn(code, ("000 403", "000 502"))

    def test_each_client_and_no_server_of_others(self) -> None:
        folder = self.make_folder("rules")
        names = "127.0.0.1 ssh.corp.test db.corp.test web.corp.test\n127.0.0.7 alias.corp.test admin.corp.test\n"
        hosts = write(folder / "hosts", f"{names}10.255.255.1 outside.corp.test\n")
        dns, self.web, database = free_port(), free_port(), free_port()
        self.own(servers.start_dnsmasq(hosts, f"--port={dns}"))
        server = self.own(servers.start_sshd(self.make_folder("ssh")))
        site = write(self.folder / "site/page", "the page\n").parent
        self.own(servers.start_nginx(self.make_folder("nginx"), servers.files_site(self.web, site)))
        self.own(servers.start_postgres(self.make_folder("postgres"), database))
        certificate = servers.make_certificate(folder, "proxy.corp.test", "localhost")
        login = partial(output_of, "htpasswd", "-nbBC4")
        users = write(folder / "users", login("ann", "secret").decode(), 0o600)
        admins = write(folder / "admins", login("root", "secret").decode(), 0o600)
        files = {"identity": certificate.both, "users": users, "admins": admins, "dns": dns}
        self.mux = self.own(Service(self.folder, _RULES.format(**files, web=self.web)))
        port, secret = (self.mux.ports[listener] for listener in ("public", "secret"))
        public = f"127.0.0.1:{port}"
        self.assert_curl(port, secret, certificate.chain)

        for kind in ("connect", "5"):
            command = f"-oProxyCommand=nc -X {kind} -x {public} %h %p"
            options = (*server.options, command, "-p", str(server.port))
            done = run("ssh", *options, "ssh.corp.test", "echo through")
            self.assertEqual(done.stdout, b"through\n", (kind, done.stderr))
            self.assertEqual(self.mux.take_one("public")["facts"]["host"], "ssh.corp.test")

        # The server of psql speaks after the client.
        configuration = write(folder / "proxychains.conf", f"{_CHAIN}http 127.0.0.1 {port}\n")
        proxied = ("env", "LC_ALL=C", "proxychains4", "-f", configuration)
        there = f"host=db.corp.test port={database} user=postgres password=secret"
        done = run(*proxied, "psql", "-AtX", "-c", "select current_setting('port')", there)
        self.assertEqual(done.stdout.decode(), f"{database}\n", done.stderr)
        self.assertEqual(self.mux.take_one("public")["facts"]["host"], "db.corp.test")

        # A reload in the middle of a request.
        with socket.create_connection(("127.0.0.1", secret), PATIENCE) as client:
            client.sendall(b"CONNECT web.corp.test:1 HTTP/1.1\r\n")
            self.mux.reload()
            client.sendall(b"\r\n")
            self.assertIn(b" 407 ", client.recv(1000))
        self.mux.take_one("secret")
