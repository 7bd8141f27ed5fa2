"""Tests of what rules files mean."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS, FakePredicate
from tests.support.folders import make_folder
from txmux.rules.model import (
    Alternative,
    Backend,
    Clients,
    Listener,
    NetworkSet,
    Refusal,
    Route,
    Rules,
    Server,
    Settings,
)
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

COMPLETE = """\
[listen public]
endpoint = tcp:443
# a client that says nothing waits for the server to speak
silent   = ssh-server
# bytes came, but no route matched
default  = close

[route ssh]
match   = ssh
backend = ssh-server

[route site]
match   = tls sni=www.example.com,*.example.org
backend = web

[route redis]
match   = redis
from    = 10.0.0.0/8
backend = 127.0.0.1:6379

[backend ssh-server]
server = 127.0.0.1:22

[backend web]
# nginx with `listen 8443 ssl proxy_protocol`
server         = 127.0.0.1:8443
proxy_protocol = v2
"""

EVERYTHING = """\
[txmux]
relay = portable
max_connections = 1000
drain_timeout = 0s
access_log = log/access.log
access_log_format = json

[listen public]
endpoint =
    :443
    [::1]:8443
    unix:/run/x.sock
detect_timeout = 250ms
peek_limit = 64KiB
silent = reset
default = unix:/run/default.sock
allow = 10.0.0.0/8, 192.0.2.1
    2001:db8::/32
deny = 10.1.0.0/16
max_connections = 7
backlog = 5
keepalive = no

[listen other]
endpoint = :444

[route one]
match =
    ssh software=*Open*
    not tls
from = 10.0.0.0/8,
not_from = 10.1.0.0/16
under = public, other
backend = close
log = no

[backend pool]
server =
    127.0.0.1:22
    tcp:www.example.com:443:timeout=5
proxy_protocol = v1
connect_timeout = 1s
retries = 0
idle_timeout = 2h
half_close_timeout = 30s
max_duration = 1d
"""

LISTEN = "[listen public]\nendpoint = :443\n"


def read(text: str) -> Rules:
    return parse(text, "etc/rules.ini", MATCHERS)


def tcp(text: str) -> Server:
    host, _, port = text.rpartition(":")
    return Server(text, "tcp", host=host, port=int(port))


class MeaningTests(SynchronousTestCase):
    def test_complete_small_file(self) -> None:
        ssh = Backend("ssh-server", (tcp("127.0.0.1:22"),))
        web = Backend("web", (tcp("127.0.0.1:8443"),), proxy_protocol="v2")
        redis = Backend("127.0.0.1:6379", (tcp("127.0.0.1:6379"),))
        sni = FakePredicate("tls", (("sni", "www.example.com,*.example.org"),))
        self.assertEqual(
            read(COMPLETE),
            Rules(
                path=Path("etc/rules.ini"),
                settings=Settings(),
                listeners=(Listener("public", ("tcp:443",), silent=ssh, default=Refusal.CLOSE),),
                routes=(
                    Route("ssh", (Alternative("ssh", FakePredicate("ssh")),), ssh),
                    Route(
                        "site", (Alternative("tls sni=www.example.com,*.example.org", sni),), web
                    ),
                    Route(
                        "redis",
                        (Alternative("redis", FakePredicate("redis")),),
                        redis,
                        clients=Clients(NetworkSet([ip_network("10.0.0.0/8")])),
                    ),
                ),
                backends={"ssh-server": ssh, "web": web},
            ),
        )

    def test_every_key(self) -> None:
        rules = read(EVERYTHING)
        self.assertEqual(
            rules.settings,
            Settings(
                relay="portable",
                max_connections=1000,
                drain_timeout=0.0,
                access_log=Path("etc/log/access.log"),
                access_log_format="json",
            ),
        )
        default = "unix:/run/default.sock"
        self.assertEqual(
            rules.listeners,
            (
                Listener(
                    "public",
                    (":443", "[::1]:8443", "unix:/run/x.sock"),
                    detect_timeout=0.25,
                    peek_limit=65536,
                    silent=Refusal.RESET,
                    default=Backend(default, (Server(default, "unix", path="/run/default.sock"),)),
                    clients=Clients(
                        NetworkSet(map(ip_network, ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32"))),
                        NetworkSet([ip_network("10.1.0.0/16")]),
                    ),
                    max_connections=7,
                    backlog=5,
                    keepalive=None,
                ),
                Listener("other", (":444",)),
            ),
        )
        software = FakePredicate("ssh", (("software", "*Open*"),))
        self.assertEqual(
            rules.routes,
            (
                Route(
                    "one",
                    (
                        Alternative("ssh software=*Open*", software),
                        Alternative("not tls", FakePredicate("tls"), negated=True),
                    ),
                    Refusal.CLOSE,
                    clients=Clients(
                        NetworkSet([ip_network("10.0.0.0/8")]),
                        NetworkSet([ip_network("10.1.0.0/16")]),
                    ),
                    under=("public", "other"),
                    log=False,
                ),
            ),
        )
        self.assertEqual(
            rules.backends,
            {
                "pool": Backend(
                    "pool",
                    (tcp("127.0.0.1:22"), Server("tcp:www.example.com:443:timeout=5", "endpoint")),
                    proxy_protocol="v1",
                    connect_timeout=1.0,
                    retries=0,
                    idle_timeout=7200.0,
                    half_close_timeout=30.0,
                    max_duration=86400.0,
                )
            },
        )

    def test_smallest(self) -> None:
        rules = read(LISTEN)
        self.assertEqual((rules.routes, rules.backends), ((), {}))

    def test_order_of_routes(self) -> None:
        rules = read(
            f"[route b]\nmatch = any\nbackend = close\n{LISTEN}[route a]\nmatch = any\nbackend = x\n"
            "[backend x]\nserver = 127.0.0.1:1\n[route c]\nmatch = any\nbackend = reset\n"
        )
        self.assertEqual([route.name for route in rules.routes], ["b", "a", "c"])
        self.assertEqual(rules.routes[1].outcome, rules.backends["x"])

    def test_routes_of_a_listener(self) -> None:
        rules = read(
            f"{LISTEN}[listen other]\nendpoint = :444\n[route all]\nmatch = any\nbackend = close\n"
            "[route some]\nmatch = any\nbackend = close\nunder = other\n"
        )
        public, other = rules.listeners
        self.assertEqual([r.name for r in rules.routes_of(public)], ["all"])
        self.assertEqual([r.name for r in rules.routes_of(other)], ["all", "some"])

    def test_access_log(self) -> None:
        for text, expected in {
            "-": "-",
            "off": None,
            "a.log": Path("etc/a.log"),
            "/a.log": Path("/a.log"),
        }.items():
            rules = read(f"[txmux]\naccess_log = {text}\n{LISTEN}")
            self.assertEqual(rules.settings.access_log, expected)

    def test_no_longest_connection(self) -> None:
        rules = read(f"{LISTEN}[backend x]\nserver = a:1\nmax_duration = none\n")
        self.assertIsNone(rules.backends["x"].max_duration)

    def test_installed_matchers(self) -> None:
        error = self.assertRaises(
            RulesError, parse, f"{LISTEN}[route a]\nmatch = ?\nbackend = close\n", "x"
        )
        self.assertEqual(
            str(error),
            "x:4: [route a] match: unknown matcher '?'; 'txmux matchers' lists those there are",
        )

    def test_many_routes(self) -> None:
        routes = "".join(
            f"[route r{n}]\nmatch = tls sni=h{n}\nbackend = 10.0.0.1:{n + 1}\n" for n in range(2000)
        )
        self.assertEqual(len(read(LISTEN + routes).routes), 2000)


# Words that lead deep into the parser, between texts that do not.
SNIPPETS = st.sampled_from(
    [
        "[listen a]",
        "[route b]",
        "[backend c]",
        "[txmux]",
        "\n",
        "\n  ",
        " = ",
        "match",
        "endpoint",
        "server",
        "backend",
        "from",
        "include",
        "under",
        "access_log",
        "not tls sni=",
        "payload text=",
        "'",
        '"',
        "\\",
        ":443",
        "tcp:",
        "unix:",
        "[::1]:1",
        "c",
        "5s",
        "10.0.0.0/8",
        "#",
        ",",
        "silent",
    ]
)


class AnyTextTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make an empty folder, so that no pattern finds anything."""
        self.folder = make_folder(self)

    @given(st.one_of(st.text(), st.lists(st.one_of(SNIPPETS, st.text(max_size=3))).map("".join)))
    def test_rules_or_all_problems(self, text: str) -> None:
        path = f"{self.folder}/rules.ini"
        try:
            rules = parse(text, path, MATCHERS)
        except RulesError as error:
            lines = [problem.line for problem in error.problems]
            self.assertEqual(lines, sorted(lines))
            self.assertEqual(len(str(error).splitlines()), len(lines))
        else:
            self.assertTrue(rules.listeners)
