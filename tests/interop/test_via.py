"""Servers behind real proxies: OpenSSH's, Dante and microsocks for SOCKS, tinyproxy for HTTP."""

import contextlib
import socket
import sys
from pathlib import Path

from tests.interop.children import PATIENCE, Child, InteropTestCase, eventually, listens, run, write
from tests.interop.servers import make_certificate, proxied_site, start_nginx, start_sshd
from tests.support.kit import EchoServer, Service, free_port

_DANTE = """\
logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: none
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 127.0.0.0/8 to: 0.0.0.0/0 port = {blocked} }}
socks pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
"""
_TINYPROXY = """\
Port {port}
Listen 127.0.0.1
MaxClients 100
PidFile "{folder}/{port}.pid"
LogFile "{folder}/{port}.log"
{more}
"""
_LISTENER = "[listen {name}]\nendpoint = 127.0.0.1:0\ndefault = {name}\n[backend {name}]\n"


class ProxyTests(InteropTestCase):
    def started(self, child: Child, port: int) -> str:
        self.own(child)
        eventually(lambda: listens(port), f"a proxy listens: {child.output}")
        return f"127.0.0.1:{port}"

    def dante(self, blocked: int = 1) -> str:
        port, folder = free_port(), self.make_folder()
        file = write(folder / "danted.conf", _DANTE.format(port=port, blocked=blocked))
        return self.started(Child("danted", "-f", file, "-p", folder / "pid"), port)

    def microsocks(self, *options: str) -> str:
        port = free_port()
        return self.started(Child("microsocks", "-i", "127.0.0.1", "-p", str(port), *options), port)

    def tinyproxy(self, more: str = "") -> str:
        port, folder = free_port(), self.make_folder()
        text = _TINYPROXY.format(port=port, folder=folder, more=more)
        file = write(folder / "tinyproxy.conf", text)
        return self.started(Child("tinyproxy", "-d", "-c", file), port)

    def password(self, text: str = "secret") -> Path:
        return write(self.make_folder() / "password", f"{text}\n", 0o600)

    def backends(self, server: str, **proxies: str) -> Service:
        """Start a service with a listener for each proxy, before the same server."""
        sections = ((_LISTENER.format(name=name), via) for name, via in proxies.items())
        rules = "".join(f"{one}server = {server}\nvia = {via}\n" for one, via in sections)
        return self.own(Service(self.folder, rules))

    def test_server_that_speaks_first_behind_each_kind_of_proxy(self) -> None:
        sshd = self.own(start_sshd(self.make_folder()))
        port, password = free_port(), self.password()
        command = ("-N", "-D", f"127.0.0.1:{port}", "-p", str(sshd.port), "127.0.0.1")
        dynamic = self.started(Child("ssh", *sshd.options, *command), port)
        proxies = {
            "openssh5": f"socks5://{dynamic}",
            "openssh4": f"socks4://{dynamic}",
            "dante": f"socks5://{self.dante()}",
            "microsocks": f"socks5://ops:{password}@{self.microsocks('-u', 'ops', '-P', 'secret')}",
            "tinyproxy": f"http://{self.tinyproxy()}",
            "tinylogin": f"http://ops:{password}@{self.tinyproxy('BasicAuth ops secret')}",
            "named": f"http://localhost:{self.tinyproxy().rpartition(':')[2]}",
        }
        mux = self.backends(f"localhost:{sshd.port}", **proxies)
        for name in proxies:
            options = (*sshd.options, "-p", str(mux.ports[name]), "127.0.0.1")
            found = run("ssh", *options, "head -c 300000 /dev/zero; cat", stdin=b"x" * 300_000)
            self.assertEqual(len(found.stdout), 600_000, (name, found.stderr, mux.child.output))
            fields = mux.take_fields("server", "reason", listener=name)
            self.assertEqual(fields, (f"localhost:{sshd.port}", "done"))
        self.assertNotIn("secret", mux.child.output)

    def test_refusals_are_named(self) -> None:
        nowhere, wrong = free_port(), self.password("wrong")
        socks = self.microsocks("-u", "ops", "-P", "secret")
        http = self.tinyproxy("BasicAuth ops secret")
        denied = "does not accept user 'ops' with this password"
        wanted = "Proxy Authentication Required; it wants a user and a password"
        proxies = {
            "dante": (f"socks5://{self.dante(blocked=nowhere)}", "its rules do not allow it (2)"),
            "microsocks": (f"socks5://{self.microsocks()}", "connection refused (5)"),
            "nologin": (f"socks5://{socks}", "accepts only clients with a user and a password"),
            "badlogin": (f"socks5://ops:{wrong}@{socks}", denied),
            "tinyproxy": (f"http://{self.tinyproxy()}", "answers 500 Unable to connect"),
            "tinylogin": (f"http://{http}", f"answers 407 {wanted}"),
            "tinybad": (f"http://ops:{wrong}@{http}", "answers 401 Unauthorized"),
        }
        vias = {name: via for name, (via, _) in proxies.items()}
        mux = self.backends(f"127.0.0.1:{nowhere}", **vias)
        for name, (via, said) in proxies.items():
            with socket.create_connection(("127.0.0.1", mux.ports[name]), PATIENCE) as client:
                client.sendall(b"hello")
                # It may be refused before that is read, which makes it a reset.
                with contextlib.suppress(ConnectionResetError):
                    self.assertEqual(client.recv(1), b"")
            self.assertEqual(mux.take_one(name)["reason"], "connect-refused", name)
            proxy = via.replace(f"ops:{wrong}@", "")
            mux.child.wait_for(rf"backend {name}: cannot connect to \S+ the proxy {proxy}: it ")
            self.assertIn(said, mux.child.output)
        self.assertNotIn("wrong", mux.child.output)

    def test_header_and_tls_are_inside_for_clients_and_checks(self) -> None:
        certificate = make_certificate(self.make_folder(), "www.example.com")
        port = free_port()
        site = proxied_site(certificate, "$proxy_protocol_addr", port=port)
        self.own(start_nginx(self.make_folder(), site))
        keys = f"tls = yes\ntls_name = www.example.com\ntls_ca = {certificate.chain}\n"
        keys += "proxy_protocol = v2\ncheck = http interval=100ms rise=1 fall=1"
        mux = self.backends(f"localhost:{port}", site=f"http://{self.tinyproxy()}\n{keys}")
        found = run("curl", "-s", f"http://127.0.0.1:{mux.port}/")
        self.assertIn(b"127.0.0.1", found.stdout, mux.child.output)
        self.assertEqual(mux.take_one()["reason"], "done")
        self.assertNotIn("is down", mux.child.output)

    def test_check_connect_tries_servers_behind_the_proxy(self) -> None:
        echo, proxy = self.own(EchoServer()), self.tinyproxy()
        for port, said in ((echo.port, b""), (free_port(), b"it answers 500 Unable to connect")):
            backend = f"server = localhost:{port}\nvia = http://{proxy}\n"
            rules = write(self.folder / "checked.ini", _LISTENER.format(name="b") + backend)
            found = run(sys.executable, "-m", "txmux", "check", "--connect", rules)
            self.assertIn(said, found.stdout + found.stderr)
            self.assertEqual(found.returncode != 0, bool(said), found)
