"""Files with what is hardly meant, and exactly what is said of them; and files of which nothing is said."""

import re
from functools import partial
from pathlib import Path
from textwrap import dedent

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.searching import order
from tests.support.folders import make_folder
from tests.support.installed import names_missing
from txmux.detection.ambiguities import AMBIGUITIES, DATAGRAM_AMBIGUITIES, ambiguities_over
from txmux.interfaces import Transport
from txmux.rules.lint.warnings import lint, slow_routes
from txmux.rules.model import Rules, Settings
from txmux.rules.reading.parser import load, parse
from txmux.testing import calls_in

_ROOT = Path(__file__).parents[3]

# `{listen}` stands for a listener of two lines, `{to}` for a backend that refuses.
FILES = {
    # `any` before others
    "{listen}[route a]\nmatch = any\n{to}[route b]\nmatch = tls\n{to}": (
        "4: [route a] match: 'any' makes the later [route b] unreachable; put this route last"
    ),
    "{listen}[route a]\nmatch = any\n{to}[route b]\nmatch = any\n{to}[route c]\nmatch = not tls\n{to}": (
        "4: [route a] match: 'any' makes the later [route b] and [route c] unreachable; put this route last"
    ),
    "{listen}[route a]\nmatch = any\n{to}"
    + "".join(f"[route r{number}]\nmatch = ssh\n{{to}}" for number in range(8)): (
        "4: [route a] match: 'any' makes the later [route r0], [route r1], [route r2], [route r3], "
        "[route r4] and 3 more unreachable; put this route last"
    ),
    # wider before narrower
    "{listen}[route a]\nmatch = tls\n{to}[route b]\nmatch = tls sni=x\n{to}": (
        "7: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4); put this route first, or remove this"
    ),
    "{listen}[route a]\nmatch = tls sni=a\n{to}[route c]\nmatch = tls sni=b\n{to}[route b]\nmatch = tls sni=b,a\n{to}": (
        "10: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4) and "
        "[route c] (x.ini:7); put this route first, or remove this"
    ),
    "{listen}[route a]\nmatch = ssh\n{to}[route b]\nmatch = tls\n  ssh software=x\n{to}": (
        "8: [route b] match: 'ssh software=x' never decides: all its clients go to the earlier [route a] (x.ini:4); "
        "put this route first, or remove this"
    ),
    "{listen}[route a]\nmatch = not tls\n{to}[route b]\nmatch = ssh\n{to}": (
        "7: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4); put this route first, or remove this"
    ),
    # what no client comes by
    "[listen u]\nendpoint = udp:53\n[route a]\nmatch = ssh\n  dns\nbackend = udp:h:1\n": (
        "4: [route a] match: 'ssh' works only over TCP, and all clients of this route come by UDP; "
        "put it into a route of its own, or remove it"
    ),
    # networks
    (
        "{listen}[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\n{to}[route c]\nmatch = ssh\nnot_from = 10.1.0.0/16\n{to}"
        "[route b]\nmatch = ssh\n{to}"
    ): (
        "12: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4) and "
        "[route c] (x.ini:8); put this route first, or remove this"
    ),
    (
        "{listen}[route a]\nmatch = ssh\nfrom = 10.0.0.0/8, 12.0.0.0/8\n{to}[route c]\nmatch = ssh\n"
        "from = 11.0.0.0/8\n{to}[route b]\nmatch = ssh\nfrom = 11.0.0.0/8\n{to}"
    ): (
        "12: [route b] match: is never reached: all its clients go to the earlier [route c] (x.ini:8); put this route first, or remove this"
    ),
    "{listen}[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nnot_from = 10.0.0.0/9, 10.128.0.0/9\n{to}": (
        "6: [route a] not_from: excludes everything in 'from'; correct one of the two"
    ),
    "{listen}allow = 10.0.0.0/8\n[route a]\nmatch = ssh\nfrom = 192.0.2.0/24\n{to}": (
        "6: [route a] from: leaves no client that 'allow' and 'deny' of a listener let in; "
        "correct one of them, or remove this route"
    ),
    "{listen}allow = 10.0.0.0/8\n[route a]\nmatch = ssh\nnot_from = 10.0.0.0/8\n{to}": (
        "6: [route a] not_from: leaves no client that 'allow' and 'deny' of a listener let in; "
        "correct one of them, or remove this route"
    ),
    "{listen}allow = 10.0.0.0/8\ndeny = 10.0.0.0/7\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\n{to}": (
        "4: [listen l] deny: lets no client in: it covers all of 'allow'; correct one of the two"
    ),
    "{listen}deny = 0.0.0.0/0, ::/0\n[route a]\nmatch = ssh\n{to}": (
        "3: [listen l] deny: lets no client in: it covers every address; name only those that are to stay out"
    ),
    # listeners
    (
        "{listen}[listen m]\nendpoint = :2\n[route a]\nmatch = ssh\nunder = l\n{to}[route c]\nmatch = any\n"
        "under = m\n{to}[route b]\nunder = *\nmatch = ssh\n{to}"
    ): (
        "15: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:6) and "
        "[route c] (x.ini:10); put this route first, or remove this"
    ),
    # lines of one route
    "{listen}[route a]\nmatch = ssh\n  tls\n  ssh\n{to}": (
        "6: [route a] match: 'ssh' adds nothing to 'ssh'; remove this line"
    ),
    "{listen}[route a]\nmatch = tls sni=a,b\n  tls sni=*\n  ssh\n{to}": (
        "4: [route a] match: 'tls sni=a,b' adds nothing to 'tls sni=*'; remove this line"
    ),
    "{listen}[route a]\nmatch = not tls sni=a\n  tls\n{to}": (
        "4: [route a] match: 'not tls sni=a' and 'tls' match every client together, since one matching line suffices; "
        "exclude clients with an earlier route"
    ),
    "{listen}[route a]\nmatch = not tls\n  not ssh\n{to}": (
        "5: [route a] match: 'not ssh' and 'not tls' match every client together, since one matching line suffices; "
        "exclude clients with an earlier route"
    ),
    "{listen}[route a]\nmatch = not any\n{to}": (
        "4: [route a] match: 'not any' never matches; remove this line"
    ),
    # matchers that share clients
    "{listen}[route a]\nmatch = redis\n{to}[route b]\nmatch = memcached\nbackend = reset\n": (
        "7: [route b] match: 'memcached' should come before the 'redis' of [route a] (x.ini:4): "
        + next(p.why for p in AMBIGUITIES if (p.first, p.second) == ("memcached", "redis"))
    ),
    # servers that `from` protects
    "{listen}silent = h:1\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = tcp:h:1\n": (
        "3: [listen l] silent: clients that 'from' and 'not_from' of [route a] keep away come to the same server if "
        "they say nothing; keep them out by 'allow' or 'deny' here, or use another server"
    ),
    "{listen}default = tls:h:1\n[route a]\nmatch = ssh\nnot_from = 10.0.0.0/8\nbackend = tls:h:1\n": (
        "3: [listen l] default: clients that 'from' and 'not_from' of [route a] keep away come to the same server if "
        "they match no route; keep them out by 'allow' or 'deny' here, or use another server"
    ),
    # more bytes than are looked at
    "{listen}peek_limit = 10\n[route a]\nmatch = payload offset=9 text=ab\n{to}": (
        "5: [route a] match: 'payload offset=9 text=ab' never decides: it looks at 11 bytes, but 'peek_limit' is "
        "10 ([listen l]); raise that, or look at fewer"
    ),
    "{listen}peek_limit = 10\n[route a]\nmatch = regex pattern=a within=11\n{to}": (
        "5: [route a] match: 'regex pattern=a within=11' looks at 11 bytes, but 'peek_limit' is 10 ([listen l]); "
        "raise that, or look at fewer"
    ),
    # who speaks first
    "{listen}first = server\nsilent = h:1\n": (
        "3: [listen l] first: 'default' has no server that could speak; name one there\n"
        "4: [listen l] silent: has no effect with 'first = server', which sends every client to 'default'; remove one of the two"
    ),
    "{listen}first = server\ndefault = h:1\n[route a]\nmatch = ssh\n{to}[route b]\nmatch = tls\nunder = l\n{to}": (
        "3: [listen l] first: no client reaches [route a], [route b]: every one goes to 'default' at once; remove one of the two"
    ),
    # lines of `silent`
    "{listen}silent = h:1\n  h:2 from=10.0.0.0/8\n": (
        "4: [listen l] silent: no client is left for this line: earlier ones, or routes with 'match = silent', have them all, "
        "or 'allow' and 'deny' keep them out; put it first, or remove it"
    ),
    "{listen}allow = 10.0.0.0/8\nsilent = h:1 from=192.0.2.0/24\n  h:2\n": (
        "4: [listen l] silent: no client is left for this line: earlier ones, or routes with 'match = silent', have them all, "
        "or 'allow' and 'deny' keep them out; put it first, or remove it"
    ),
    "{listen}silent = h:1\n[route a]\nmatch = silent\nfrom = 0.0.0.0/0, ::/0\n{to}[route b]\nmatch = silent\nbackend = h:2\n": (
        "3: [listen l] silent: no client is left for this line: earlier ones, or routes with 'match = silent', have them all, "
        "or 'allow' and 'deny' keep them out; put it first, or remove it"
    ),
    # routes by silence
    "{listen}[route a]\nmatch = silent after=5s\n{to}[route b]\nmatch = silent after=1s\nfrom = 10.0.0.0/8\nbackend = h:2\n": (
        "7: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:4); put this route first, or remove this"
    ),
    "{listen}[route a]\nmatch = any\nbackend = h:25\n": (
        "4: [route a] match: 'any' waits for the client's first byte, and a server at port 25 usually waits to speak, too: "
        "write 'match = silent'"
    ),
    "{listen}silent = h:1 from=10.0.0.0/7\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = h:1\n": (
        "3: [listen l] silent: clients that 'from' and 'not_from' of [route a] keep away come to the same server if "
        "they say nothing; keep them out by 'allow' or 'deny' here, or use another server"
    ),
    # backends
    "[backend b]\nserver = h:1\n{listen}default = h:1\n": (
        "1: [backend b]: nothing uses it; name it in a route, or remove it"
    ),
}

KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="

FINE = (
    "[listen l]\nendpoint = unix:/run/x.sock\ndeny = 0.0.0.0/0, ::/0\n[route a]\nmatch = ssh\n{to}",
    # the narrower one comes first
    "{listen}[route a]\nmatch = tls sni=x\n{to}[route b]\nmatch = tls\n{to}[route c]\nmatch = any\n{to}",
    # a route that runs dry takes nothing
    "{listen}[route a]\nmatch = any\ndry_run = yes\n{to}[route b]\nmatch = ssh\n{to}",
    # some clients, or some listeners, are left
    "{listen}[route a]\nmatch = any\nfrom = 10.0.0.0/8\n{to}[route b]\nmatch = ssh\n{to}",
    "{listen}[route a]\nmatch = any\nfrom = 0.0.0.0/0, ::/0\n{to}[route b]\nmatch = ssh\n{to}",
    "{listen}[listen m]\nendpoint = :2\n[route a]\nmatch = any\nunder = m\n{to}[route b]\nunder = *\nmatch = ssh\n{to}",
    # a client that is undecided for both comes to the last
    "{listen}[route a]\nmatch = tls\n{to}[route b]\nmatch = not tls\n{to}[route c]\nmatch = any\n{to}",
    # of two that share clients: the right order, not all of the clients, the same outcome
    "{listen}[route b]\nmatch = memcached\nbackend = reset\n[route a]\nmatch = redis\n{to}",
    "{listen}[route a]\nmatch = redis\n{to}[route b]\nmatch = memcached\n{to}",
    "{listen}[route a]\nmatch = http method=GET\n{to}[route b]\nmatch = grpc\nbackend = reset\n",
    (
        "{listen}[route a]\nmatch = redis\nfrom = 10.0.0.0/8\n{to}[route b]\nmatch = memcached\nnot_from = 10.0.0.0/8\n"
        "backend = reset\n"
    ),
    # a server that is not protected here, or for which the listener does it
    "{listen}silent = h:1\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = h:2\n",
    "{listen}silent = h:1\nallow = 10.1.0.0/16\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = h:1\n",
    "{listen}silent = h:1\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = h:1\n[route b]\nmatch = tls\nbackend = h:1\n",
    "{listen}silent = h:1\n[route a]\nmatch = ssh\nfrom = 0.0.0.0/0, ::/0\nbackend = h:1\n",
    "{listen}silent = h:1 from=10.1.0.0/16\n[route a]\nmatch = ssh\nfrom = 10.0.0.0/8\nbackend = h:1\n",
    # who speaks first: a route that another listener asks, or that is inside TLS
    "{listen}first = server\ndefault = h:1\n[listen m]\nendpoint = :2\n[route a]\nunder = *\nmatch = ssh\n{to}",
    "{listen}silent = h:1 from=10.0.0.0/8\n  h:2 after=1s\n[route a]\nmatch = ssh\n{to}",
    # no byte decides on silence, nor does a time before the first that fits
    "{listen}[route a]\nmatch = any\n{to}[route b]\nmatch = silent\nbackend = h:2\n",
    "{listen}[route a]\nmatch = not tls\n{to}[route b]\nmatch = silent\nbackend = h:2\n",
    "{listen}[route a]\nmatch = silent\nfrom = 10.0.0.0/8\n{to}[route b]\nmatch = silent after=1s\nbackend = h:2\n",
    "{listen}silent = h:2\n[route a]\nmatch = silent\nfrom = 10.0.0.0/8\n{to}",
    # 'any' beside what takes silent clients to the same server, or to one whose clients may speak first
    "{listen}[route a]\nmatch = any\n  silent\nbackend = h:25\n",
    "{listen}silent = h:25\n[route a]\nmatch = any\nbackend = h:25\n",
    "{listen}[route a]\nmatch = any\nbackend = h:22\n",
    # a default that is more than is looked at
    "{listen}peek_limit = 10\n[route a]\nmatch = regex pattern=a\n{to}",
)


class LintTests(SynchronousTestCase):
    def found(self, text: str) -> list[str]:
        text = text.format(listen="[listen l]\nendpoint = :1\n", to="backend = close\n")
        warnings = list(map(str, lint(parse(text, "x.ini"))))
        for warning in warnings:
            self.assertRegex(warning, r"^x\.ini:\d+: warning: ")
        return [re.sub(r"^x\.ini:(\d+: )warning: ", r"\1", warning) for warning in warnings]

    def test_exactly_these_warnings(self) -> None:
        for text, warnings in FILES.items():
            self.assertEqual((text, self.found(text)), (text, warnings.split("\n")))

    def test_no_warning_where_nothing_is_certain(self) -> None:
        for text in FINE:
            self.assertEqual((text, self.found(text)), (text, []))

    def test_wrong_order_of_an_ambiguous_pair(self) -> None:
        route = "[route {0}]\nmatch = {0}\nbackend = h:{1}\n"
        pairs = ambiguities_over(Transport.TCP)
        self.assertGreater(len(pairs), len(AMBIGUITIES))
        for pair in pairs:
            first, second = route.format(pair.first, 1), route.format(pair.second, 2)
            told = self.found("{listen}" + first + second)
            self.assertEqual(
                [line.endswith(pair.always) for line in told], [True] * bool(pair.always)
            )
            (warning,) = self.found("{listen}" + second + first)
            self.assertIn(pair.why, warning)

    def test_in_either_order(self) -> None:
        """Some clients of MongoDB go to `socks5` in the right order, and clients of SOCKS wait in the other."""
        socks = "[route s]\nmatch = socks5\nbackend = h:1\n"
        mongo = "[route m]\nmatch = mongodb\nbackend = h:2\n"
        (told,) = self.found("{listen}" + socks + mongo)
        self.assertIn(
            "'mongodb' shares clients with the 'socks5' of [route s] (x.ini:4): MongoDB", told
        )
        self.assertIn("exactly 261 bytes", told)
        (told,) = self.found("{listen}" + mongo + socks)
        self.assertIn("'socks5' should come before the 'mongodb' of [route m] (x.ini:4): ", told)

    def test_datagram_ambiguities(self) -> None:
        listener = "[listen l]\nendpoint = udp:1\n"
        route = "[route {0}]\nmatch = {0}\nbackend = udp:h:{1}\n"
        pairs = ambiguities_over(Transport.UDP)
        self.assertGreater(len(pairs), len(DATAGRAM_AMBIGUITIES))
        for pair in pairs:
            first, second = route.format(pair.first, 1), route.format(pair.second, 2)
            self.assertEqual(self.found(listener + first + second), [])
            (warning,) = self.found(listener + second + first)
            self.assertIn(pair.why, warning)

    def test_recommended_order(self) -> None:
        """In the order of the reference, only what loses clients there, too, is told: pairs are those of the transport."""
        for heading, endpoint, server, told in (
            ("Ambiguities", ":1", "h", [pair.always for pair in AMBIGUITIES if pair.always]),
            ("Order over UDP", "udp:1", "udp:h", []),
        ):
            routes = "".join(
                f"[route {name}]\nmatch = {name}\nbackend = {server}:{number}\n"
                for number, name in enumerate(order(heading), 1)
            )
            found = self.found(f"[listen l]\nendpoint = {endpoint}\n{routes}")
            self.assertEqual([line.rpartition(": ")[2] for line in found], told)

    def test_transports(self) -> None:
        """A line takes clients of its transports only, and is of use if it is for any of them."""
        both = "[listen t]\nendpoint = :1\n[listen u]\nendpoint = udp:1\n"
        refuse = "backend = close\n"
        for text in (
            # What takes all over TCP leaves datagrams to the next.
            f"[route a]\nmatch = any\nunder = t\n{refuse}[route b]\nunder = *\nmatch = dns\n{refuse}",
            f"[route a]\nunder = *\nmatch = tls\n    quic\n{refuse}[route b]\nunder = *\nmatch = dns\n{refuse}",
            # These options take what is not taken without them.
            f"[route a]\nunder = *\nmatch = wireguard\n{refuse}[route b]\nunder = *\nmatch = wireguard reserved=1,2,3\n{refuse}",
            f"[route a]\nunder = *\nmatch = dns\n{refuse}[route b]\nunder = *\nmatch = dns within=2KiB\n{refuse}",
            # A datagram is looked at as a whole.
            f"[route a]\nmatch = payload offset=20000 text=x\nunder = u\n{refuse}",
        ):
            self.assertEqual((text, self.found(both + text)), (text, []))
        for text, problem in {
            # The line for UDP is of no use where all datagrams are gone, though streams come.
            f"[route a]\nmatch = any\nunder = u\n{refuse}[route b]\nunder = *\nmatch = quic\n    tls\n{refuse}": (
                "11: [route b] match: 'quic' never decides: all its clients go to the earlier [route a] (x.ini:6); "
                "put this route first, or remove this"
            ),
            f"[route a]\nunder = *\nmatch = wireguard\n{refuse}[route b]\nunder = *\nmatch = wireguard key={KEY}\n{refuse}": (
                "11: [route b] match: is never reached: all its clients go to the earlier [route a] (x.ini:7); "
                "put this route first, or remove this"
            ),
        }.items():
            self.assertEqual(self.found(both + text), [problem])

    def test_documented_rules_have_no_warnings(self) -> None:
        for file in sorted((_ROOT / "examples").rglob("*.ini")):
            if not names_missing(text := file.read_text()):
                self.assertEqual((file, lint(parse(text, file))), (file, []))
        for page in sorted((*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md"))):
            for indent, block in re.findall(
                r"^( *)```ini\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL
            ):
                text = dedent(block) if indent else block
                if "[listen " not in text:
                    text += "[listen added-by-the-test]\nendpoint = 127.0.0.1:0\n"
                if not names_missing(text):
                    self.assertEqual((page, lint(parse(text, page))), (page, []))

    def test_included_files_are_named_and_come_later(self) -> None:
        folder = make_folder(self)
        main, other = (folder / "z.ini"), (folder / "a.ini")
        main.write_text(
            "[txmux]\ninclude = a.ini\n[listen l]\nendpoint = :1\n[route a]\nmatch = any\nbackend = close\n"
        )
        other.write_text("[backend b]\nserver = h:1\n[route b]\nmatch = ssh\nbackend = close\n")
        places = [(found.path, found.line) for found in lint(load(main))]
        self.assertEqual(places, [(str(main), 6), (str(other), 1)])

    def test_work_grows_as_the_routes(self) -> None:
        calls = []
        for many in (200, 400):
            route = "[route r{0}]\nmatch = tls sni=a{0}.example\nbackend = 127.0.0.1:{0}\n"
            routes = "".join(route.format(number) for number in range(1, many))
            rules = parse(f"[listen a]\nendpoint = :0\n{routes}", "x.ini")
            calls.append(calls_in(partial(lint, rules)))
        self.assertLess(calls[1], 2.2 * calls[0])

    def test_slow_routes(self) -> None:
        """From 200 routes on that clients have tried one by one, there is a note; of what an index finds, there is none."""
        tried = (
            "{} routes are tried one by one",
            "found at once by lines with whole names, such as sni=",
        )
        conditions = (
            "its routes have {} different 'from', 'not_from', 'client_cert' or 'during'",
            "several",
        )
        for line, keys, transport, texts in (
            ("regex pattern=a{}", "", "tcp", tried),
            ("ssh", "", "tcp", tried),
            ("tls sni=www.*.h{}.test", "", "tcp", tried),
            ("not tls sni=h{}.test", "", "tcp", tried),
            ("tls sni=h{0}.test\n  http path=/{0}", "", "tcp", tried),
            ("dns type=A", "", "udp", tried),
            ("tls sni=h{0}.test\n  wireguard", "", "tcp", ()),
            ("tls sni=h{0}.test\n  http host=h{0}.test,*.h{0}.test\n  dns name=h{0}.test", "",
             "tcp", ()),
            ("dns name=h{0}.test\n  quic sni=h{0}.test", "from = 10.0.0.0/8\n", "udp", ()),
            ("http host=h{0}.test", "from = 10.0.{0}.0/24\n", "tcp", conditions),
        ):  # fmt: skip
            for count in (199, 200):
                text = f"[listen x]\nendpoint = {transport}:1\n" + "".join(
                    f"[route r{n}]\nmatch = {line.format(n)}\nbackend = close\n{keys.format(n)}"
                    for n in range(count)
                )
                notes = [str(note) for note in slow_routes(parse(text, "x.ini"))]
                self.assertEqual(len(notes), bool(texts) and count == 200, (line, keys))
                for note in notes:
                    for part in texts:
                        self.assertIn(part.format(count), note)

    def test_rules_made_in_python_have_none(self) -> None:
        self.assertEqual(lint(Rules(Path("x"), Settings(), (), ())), [])
