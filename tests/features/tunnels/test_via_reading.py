"""Tests of ``via``: proxies, their logins, and servers that no proxy can be asked for."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.rules.reading.cases import BackendTestCase
from tests.support.folders import make_folder
from txmux.features.tunnels.via import Via, proxy
from txmux.rules.model import Server
from txmux.rules.problems import InvalidValueError, RulesError
from txmux.rules.reading.parser import load


class ViaTests(BackendTestCase):
    def test_meaning(self) -> None:
        for text, expected in {
            "socks5://127.0.0.1:1080": Via(
                "socks5", Server("socks5://127.0.0.1:1080", "tcp", "127.0.0.1", 1080)
            ),
            "socks4://[::1]:9/": Via("socks4", Server("socks4://[::1]:9", "tcp", "::1", 9)),
            "http://ops:/etc/p@w@proxy.test:3128": Via(
                "http",
                Server("http://proxy.test:3128", "tcp", "proxy.test", 3128),
                "ops",
                Path("/etc/p@w"),
            ),
        }.items():
            self.assertEqual(proxy(text), expected)
            self.assertEqual(self.backend(f"via = {text}").proxy, expected)
        own = self.backend("via = socks5://ops:password@proxy:1").proxy
        assert own is not None
        self.assertEqual(own.password, Path("etc/password"))

    def test_mistakes(self) -> None:
        form = "is not a proxy; write it as socks5://HOST:PORT or http://HOST:PORT"
        login = "a login before '@' is USER:PASSWORD-FILE; write it so"
        for text, expected in {
            "127.0.0.1:1080": form,
            "": form,
            "socks5h://127.0.0.1:1080": f"{form}; did you mean 'socks5://127.0.0.1:1080'?",
            "https://127.0.0.1:1080": f"{form}; did you mean http://?",
            "socks5://proxy:0": "the proxy: a port must be a whole number from 1 to 65535, not '0'",
            "socks5://proxy": "the proxy: 'proxy' has no port; write proxy:PORT, unix:/path, srv:_service._tcp.DOMAIN "
            "or a Twisted client endpoint string",
            "socks5://{local}:1": "'{local}:1' is no proxy to connect to; write its HOST:PORT",
            "socks4://ops:file@proxy:1": "SOCKS 4 has no passwords; remove what precedes '@', or write socks5",
            "http://ops@proxy:1": login,
            "http://ops:@proxy:1": login,
            "http://öps:file@proxy:1": login,
        }.items():
            self.assertEqual(self.complaint(proxy, text).split(";")[0], expected.split(";")[0])

    @given(st.text("socks5htp:/@[]{}.1 ", max_size=25))
    def test_any_text_is_read_or_refused(self, text: str) -> None:
        try:
            self.assertEqual(proxy(text).server.kind, "tcp")
        except InvalidValueError as error:
            self.assertTrue(error.messages)

    def test_servers_that_it_cannot_reach(self) -> None:
        other = "or put that server into a [backend] of its own"
        for kind, server, why in (
            ("http", "unix:/x", "is a UNIX socket of this machine; write HOST:PORT"),
            ("http", "srv:_a._tcp.x",
             "is looked up here, but its proxy looks names up; write it as HOST:PORT"),
            ("http", "[fe80::1%eth0]:1", "has a zone of this machine; write it without"),
            ("socks4", "[2001:db8::1]:1", "is IPv6, which SOCKS 4 does not know; write socks5"),
        ):  # fmt: skip
            self.refuses(
                f"via = {kind}://127.0.0.1:9", f"6 via: {server!r} {why}, {other}", servers=server
            )
        said = self.complaints("via = http://127.0.0.1:9", servers="udp:10.0.0.1:1")
        self.assertIn("6 via: works only over TCP; remove it", said)
        self.backend("via = socks5://127.0.0.1:9", servers="{local}:443")

    def test_networks_of_names_are_not_known(self) -> None:
        text = "via = http://127.0.0.1:9\nallow_names = *.test"
        self.backend(text, servers="{sni}:443")
        [said] = self.complaints(f"{text}\nallow_networks = public", servers="{sni}:443")
        self.assertIn("8 allow_networks: with 'via', the proxy looks names up", said)

    def test_source_is_of_connections_to_the_proxy(self) -> None:
        self.backend("via = http://127.0.0.1:9\nsource = 192.0.2.1", servers="x.test:1")
        [said] = self.complaints("via = http://[::1]:9\nsource = 192.0.2.1", servers="10.0.0.1:1")
        self.assertIn("'http://[::1]:9' is IPv6, but no address here is", said)
        [said] = self.complaints("via = http://127.0.0.1:9\nsource = client")
        self.assertIn("client has no effect with 'via'", said)

    def test_loop_is_that_to_the_proxy(self) -> None:
        self.backend("via = socks5://10.0.0.9:1", servers="127.0.0.1:9")
        [said] = self.complaints("via = socks5://127.0.0.1:1")
        self.assertIn("leads back to [listen l], which listens at 'socks5://127.0.0.1:1'", said)


class PasswordTests(BackendTestCase):
    def test_what_may_be_the_password_itself_is_not_repeated(self) -> None:
        path = make_folder(self) / "rules.ini"
        text = "[listen l]\nendpoint = :1\nsilent = b\n[backend b]\nserver = 10.0.0.1:1\nvia = http://ops:{}@x:1\n"
        path.write_text(text.format("geheim"))
        error = self.assertRaises(RulesError, load, path)
        self.assertIn(
            "is the path of a file with the password as its only line, and there is no", str(error)
        )
        self.assertNotIn("geheim", str(error))
        path.write_text(text.format("/nowhere/x"))
        self.assertIn("cannot read '/nowhere/x'", str(self.assertRaises(RulesError, load, path)))
