from collections.abc import Callable
from random import Random
from typing import Any

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from tests.support.folders import make_folder
from txmux.rules.model import Listener, Server
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.conflicts import claims
from txmux.rules.reading.endpoints import listening, server, short_form
from txmux.rules.reading.endpointstrings import ports_text, split_arguments, split_ports
from txmux.rules.reading.parser import load, parse
from txmux.serving.listen_addresses import listen_addresses

_OF_PORTS = [
    *(":", "127.0.0.1:", "[::1]:", "[fe80::1%eth-0]:", "tcp:", "tcp6:", "tcp:127.0.0.1:"),
    *("udp:", "udp:127.0.0.1:", "udp:[::1]:"),
]
_OF_LISTENING = ("443", "0", "x", "", "127.0.0.1", "50", "port=", "interface=", "backlog=")
_OF_SERVERS = ("443", "x", "a.b", "10.0.0.1", "port=1", "host=h", "timeout=3", "path=/x")


class ListeningTests(SynchronousTestCase):
    def test_short_forms_and_endpoint_strings_which_are_passed_on(self) -> None:
        for text, parts in {
            "127.0.0.1:443": ("127.0.0.1", 443), "0.0.0.0:0": ("0.0.0.0", 0),
            "[::1]:65535": ("::1", 65535), "[fe80::1%eth0]:22": ("fe80::1%eth0", 22),
            ":8443": ("", 8443),
        }.items():  # fmt: skip
            self.assertEqual((listening(text), short_form(text)), (text, parts))
        for text in (
            "tcp:443", "tcp:0", "tcp:port=443:interface=127.0.0.1:backlog=50", "tcp:443:interface=",
            r"tcp:443:interface=\:\:1", r"tcp6:443:interface=\:\:", "unix:/run/x.sock",
            "unix:/run/with blank.sock:mode=660:lockfile=0", "systemd:domain=INET:index=0",
            "systemd:domain=UNIX:name=web", "ssl:443:privateKey=/does/not/exist.pem",
            "haproxy:tcp:443",
        ):  # fmt: skip
            self.assertEqual(listening(text), text)
            self.assertIsNone(short_form(text), text)
        for text in ("unix:5-6", "unix:/run/a\\:5-6", "ssl:5-6", "example.com:5-6", "5-6"):
            self.assertIsNone(split_ports(text), text)

    @given(
        st.lists(st.sampled_from(_OF_LISTENING), max_size=5),
        st.sampled_from(["tcp", "tcp6", "unix"]),
    )
    def test_twisted_takes_what_is_accepted(self, parts: list[str], kind: str) -> None:
        text = ":".join([kind, *parts]).replace("=:", "=")
        try:
            read = listening(text)
        except InvalidValueError:
            return
        if short_form(read) is None:  # which txmux opens itself
            serverFromString(MemoryReactorClock(), read)

    @given(st.text(), st.sampled_from([listening, server]))
    def test_any_text(self, text: str, read: Callable[[str], object]) -> None:
        try:
            read(text)
        except InvalidValueError as error:
            self.assertTrue(all(error.messages))

    @given(st.sampled_from(_OF_PORTS), st.integers(0, 65_540), st.integers(-2, 5))
    def test_as_a_line_for_each_port(self, before: str, first: int, more: int) -> None:
        """They are listened on, and taken from others, as with an endpoint for each of them."""
        text = f"{before}{first}-{first + more}"
        is_good = 0 < first <= first + more < 65_536
        try:
            read = listening(text)
        except InvalidValueError as error:
            self.assertFalse(is_good)
            self.assertTrue(all(error.messages))
            return
        self.assertTrue(is_good)
        each = [listening(f"{before}{port}") for port in range(first, first + more + 1)]
        found = listen_addresses(Listener("a", (":0", read), mptcp=True))[1:]
        others = listen_addresses(Listener("a", (":0", *each), mptcp=True))[1:]
        self.assertEqual([attrs.evolve(one, ports="") for one in found], others)
        self.assertEqual({one.line for one in found}, {read})
        self.assertEqual(short_form(read), short_form(each[0]))
        for some, ones in zip(claims(text), zip(*map(claims, each), strict=True), strict=True):
            self.assertEqual(some, set().union(*ones))

    @given(st.sets(st.integers(1, 99), min_size=1))
    def test_description(self, ports: set[int]) -> None:
        noun, _, text = ports_text(ports).partition(" ")
        self.assertEqual(noun == "port", len(ports) == 1)
        runs = [part.split("-") for part in text.split(", ") if part != "…"]
        found = [port for run in runs for port in range(int(run[0]), int(run[-1]) + 1)]
        self.assertEqual(found, sorted(ports)[: len(found)])
        self.assertTrue(len(found) == len(ports) or text.endswith(", …"))


class ServerTests(SynchronousTestCase):
    def test_paths_and_names_that_fit(self) -> None:
        for text, part in {
            "": "an empty text is not a server", '""': "'' is not a server", "unix:/a\0b": "NUL",
        }.items():  # fmt: skip
            self.assertIn(part, cases.complaint(server, text))
        self.assertEqual(server(f"{'a.' * 126}b:1").host, f"{'a.' * 126}b")
        self.assertIn("is not a host name", cases.complaint(server, f"{'a.' * 126}bb:1"))
        found = split_arguments(r"x:a\:b:c\=d:e\\f=g=\:h\=:")
        parts = (found.kind, found.positional, found.named)
        self.assertEqual(parts, ("x", ("a:b", "c=d", ""), {r"e\f": "g=:h="}))
        told = "is 108 bytes long; the path of a UNIX socket has at most 107"
        for path in ("/" + "x" * 106, "/" + "é" * 53):
            for form in ("unix:{}", "unix:address={}:mode=660"):
                listening(form.format(path))
                message = cases.complaint(listening, form.format(f"{path}y"))
                self.assertIn(f"address: {told}", message)
            for form in ("unix:{}", "unix:path={}", "unix:{}:timeout=5"):
                server(form.format(path))
                self.assertIn(f"path: {told}", cases.complaint(server, form.format(f"{path}y")))
        self.assertIn("NUL", cases.complaint(listening, "unix:/a\0b"))

    @given(
        st.lists(st.sampled_from(_OF_SERVERS), max_size=4), st.sampled_from(["tcp", "unix", "TCP"])
    )
    def test_twisted_takes_what_is_accepted(self, parts: list[str], kind: str) -> None:
        text = ":".join([kind, *parts])
        try:
            server(text)
        except InvalidValueError:
            return
        clientFromString(MemoryReactorClock(), text)

    def test_each_kind_takes_its_options(self) -> None:
        blank = Server("unix:/run/my app", "unix", path="/run/my app")
        kinds = {"'unix:/run/my app'": blank, r"unix:/run/my\ app": blank}
        for text, host, port in (
            ("127.0.0.1:22", "127.0.0.1", 22), ("[::1]:22", "::1", 22),
            ("redis:6379", "redis", 6379), ("srv:443", "srv", 443), ("{local}:443", "{local}", 443),
            ("db_1.example.com.:5432", "db_1.example.com.", 5432),
            ("tcp:www.example.com:80", "www.example.com", 80),
            ("tcp:host=www.example.com:80", "www.example.com", 80),
            ("TCP:port=80:host=10.0.0.1", "10.0.0.1", 80), (r"tcp:\:\:1:80", "::1", 80),
            (r"tcp:host=\:\:1:port=80", "::1", 80), ("udp:{local}:53", "{local}", 53),
            ("{sni}:443", "{sni}", 443), ("app-{host}.lan:{port}", "app-{host}.lan", 0),
            ("udp:{sni}:{port}", "{sni}", 0), ("192.0.2.1:{port}", "192.0.2.1", 0),
            ("app:{port}", "app", 0),
        ):  # fmt: skip
            kind: Any = "udp" if text.startswith("udp:") else "tcp"
            kinds[text] = Server(text, kind, host=host, port=port)
        for text in ("unix:/run/x.sock", "unix:path=/run/x.sock"):
            kinds[text] = Server(text, "unix", path="/run/x.sock")
        kinds[r"unix:/run/a\:b"] = Server(r"unix:/run/a\:b", "unix", path="/run/a:b")
        for text in (
            "tcp:www.example.com:80:timeout=5", "unix:/run/x.sock:timeout=5",
            "ssl:www.example.com:443:hostname=www.example.com", "tls:www.example.com:443",
            "TLS:www.example.com:443:trustRoots=/does/not/exist",
        ):  # fmt: skip
            kinds[text] = Server(text, "endpoint")  # which only Twisted can connect to
        for text, expected in kinds.items():
            self.assertEqual(server(text), expected)
            self.assertEqual(server(f"{text} weight=2"), attrs.evolve(expected, weight=2))
        found = server("srv:_ssh._tcp.example.com")
        self.assertEqual(found, Server("srv:_ssh._tcp.example.com", "srv", "_ssh._tcp.example.com"))
        for text, message in {
            "ssh.example.com": "'ssh.example.com' is not a name of an SRV record; write for example srv:_ssh._tcp.example.com",
            "_ssh._tcp": "'_ssh._tcp' is not a name of an SRV record; write for example srv:_ssh._tcp.example.com",
            "_a._udp.b": "'_a._udp.b' is for UDP; write srv:_a._tcp.b",
            "_a._tcp.b:5": "'_a._tcp.b:5': the port is in the SRV record; write srv:_a._tcp.b",
            "_a._tcp.-": "'_a._tcp.-' is not a host name; write one such as www.example.com, or an IP address",
        }.items():
            self.assertEqual(cases.complaint(server, f"srv:{text}"), message)

    @given(
        st.integers(1, 65535),
        st.integers(0, 10**9),
        st.sets(st.sampled_from(("backup", "down"))),
        st.randoms(),
    )
    def test_options_in_any_order(
        self, weight: int, most: int, flags: set[str], random: Random
    ) -> None:
        words = [f"weight={weight}", f"max_connections={most}", *sorted(flags)]
        random.shuffle(words)
        found = server(f"h:1  {' '.join(words)}")
        self.assertEqual((found.text, found.host, found.port), ("h:1", "h", 1))
        self.assertEqual((found.weight, found.max_connections), (weight, most))
        self.assertEqual((found.backup, found.down), ("backup" in flags, "down" in flags))

    def test_missing_in_every_key(self) -> None:
        folder = make_folder(self)
        no, there, rules = (folder / name for name in ("no.pem", "there.pem", "x.ini"))
        there.write_text("")

        def found(text: str) -> list[str]:
            rules.write_text(text)
            its = cases.complaints("", lambda _: load(rules))
            return [one.replace(f"{folder}/", "") for one in its]

        told = f"cannot read 'no.pem': No such file or directory; correct the path, or put the file into '{folder}'"
        text = (
            f"[listen a]\nendpoint = ssl:1:privateKey={no}:certKey={there}\n  ssl:2:{there}:{no}\n"
            f"silent = ssl:h:1:privateKey={no} after=1s\ndefault = tls:h:1:certificate={no}\n"
            f"[route r]\nmatch = any\nbackend = ssl:h:1:certKey={no}:privateKey={there}\n"
            f"[backend b]\nserver = h:1\n  ssl:h:1:certKey={no}:privateKey={there} weight=2\nfallback = ssl:h:1:certKey={no}\n"
        )
        self.assertEqual(
            found(text),
            [
                f"2 endpoint: privateKey: {told}", f"3 endpoint: certKey: {told}",
                f"4 silent: privateKey: {told}", f"5 default: certificate: {told}",
                f"8 backend: certKey: {told}", f"11 server: certKey: {told}",
                f"12 fallback: certKey: {told}",
            ],
        )  # fmt: skip
        (told,) = found("[listen a]\nendpoint = ssl:1\n")
        text = "2 endpoint: privateKey: cannot read 'server.pem': No "
        self.assertTrue(told.startswith(text), told)
        text = f"[listen a]\nendpoint = ssl:1:privateKey={there}\n  :2\ndefault = tls:h:22\nsilent = close\n"
        self.assertEqual(found(text), [])
        parse("[listen a]\nendpoint = ssl:1:privateKey=no.pem\n", "x.ini")
