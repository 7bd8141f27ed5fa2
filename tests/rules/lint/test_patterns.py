"""Options that match nothing, or other clients than they seem to."""

from twisted.trial.unittest import SynchronousTestCase

from txmux.detection.registry import installed_matchers
from txmux.rules.lint.patterns import cut_signatures
from txmux.rules.lint.warnings import closed_listeners, lint
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse

_WHOLE = "has to match the whole value, not only its beginning; write"
_NO_NAME = "matches nothing: clients that connect to an address send no name (RFC 6066, section 3); write sni=none"
_NOT = "'!' has no meaning here; put 'not' before the matcher, and write"
_NO = "which is not in any name;"
_NO_EXPRESSION = "is not a regular expression without '~' in front; write"

LINES = {
    "http path=admin": "path=: 'admin' matches nothing, since a path begins with '/'; write '/admin'",
    "http path=/a,b/*": "path=: 'b/*' matches nothing, since a path begins with '/'; write '/b/*'",
    "http path=~^/api": f"path=: '~^/api' {_WHOLE} '~^/api.*', or '~^/api$' if that is meant",
    "tls sni=~^www": f"sni=: '~^www' {_WHOLE} '~^www.*', or '~^www$' if that is meant",
    "ssh software=openssh*": "software=: case counts, and 'openssh*' does not match 'OpenSSH'; write 'OpenSSH*'",
    "ssh software=PuTTY": (
        "software=: 'PuTTY' has to match all that a client sends, its version, too; write 'PuTTY*'"
    ),
    "http host=[a.example]": f"host=: '[a.example]' has '[', {_NO} write the name alone",
    "tls sni=%.example": f"sni=: '%.example' has '%', {_NO} a regular expression has '~' in front",
    "not ssh software=putty_*": "software=: case counts, and 'putty_*' does not match 'PuTTY'; write 'PuTTY_*'",
    "tls alpn=http2": "alpn=: no client offers a protocol of the name 'http2'; write 'h2'",
    "tls sni=192.0.2.1": f"sni=: '192.0.2.1' {_NO_NAME}",
    "tls sni=2001:db8::1": f"sni=: '2001:db8::1' {_NO_NAME}",
    "http host=!a.example": f"host=: {_NOT} 'a.example'",
    "http path=!/x": f"path=: {_NOT} '/x'",
    "tls alpn=!h2": f"alpn=: {_NOT} 'h2'",
    "ssh software=!PuTTY*": f"software=: {_NOT} 'PuTTY*'",
    "http path=^/api": f"path=: '^/api' {_NO_EXPRESSION} '~^/api.*'",
    "tls sni=^www[.]a$": f"sni=: '^www[.]a$' {_NO_EXPRESSION} '~^www[.]a$'",
    "http host=example$": f"host=: 'example$' {_NO_EXPRESSION} '~.*example$'",
    "http path=~api/.*": "path=: '~api/.*' matches nothing, since a path begins with '/'; write '~/api/.*'",
    "http path=.php": "path=: '.php' matches nothing, since a path begins with '/'; write '*.php'",
    "http path=http://a.example/x": (
        "path=: 'http://a.example/x' matches nothing, since a path begins with '/'; write '/x'"
    ),
    "http path=/x?y=1": "path=: '/x?y=1': a path is compared without its query; write '/x'",
    "ssh software=SSH-2.0-OpenSSH*": "software=: it is compared with what follows 'SSH-2.0-'; write 'OpenSSH*'",
    "ssh software=~openssh.*": "software=: case counts, and 'openssh' does not match 'OpenSSH'; write 'OpenSSH'",
    "tls sni=[::1]": f"sni=: '[::1]' {_NO_NAME}",
    "tls sni=a.example|b.example": f"sni=: 'a.example|b.example' has '|', {_NO} write commas between names",
    "tls sni=a.example;b.example": f"sni=: 'a.example;b.example' has ';', {_NO} write commas between names",
    "http host=a.example/x": f"host=: 'a.example/x' has '/', {_NO} write the name alone",
    "xmpp to=a@b.example": f"to=: 'a@b.example' has '@', {_NO} write the name alone",
    "tls sni=(a|b).example": (
        f"sni=: '(a|b).example' has '(', {_NO} a regular expression has '~' in front"
    ),
    "tls 'sni=a.example b.example'": (
        "sni=: 'a.example b.example' has a blank, which is not in any name; write commas between names"
    ),
}

FINE = (
    "http path=/admin,*.php,?", "http path=~^/api(/.*)?$", "http path=~^/api.*",
    "ssh software=paramiko_*,~OpenSSH.*", "http host=[::ffff:192.0.2.*],fe80::1%eth0",
    "http host=192.0.2.1", "http host=[2001:db8::1],xn--bcher-kva.example,a_b.*",
    "http path=/x$,/a?b,*,/(x)", "http path=~api|/x", "http path=~a?/x",
    "dns name=0/25.2.0.192.in-addr.arpa", "regex pattern=!x", "payload text=!",
    "ssh software=~Open.*", "ssh software=OpenSSH_*,Open*,ope*", "tls alpn=h2 sni=~www[.].*",
    "regex pattern=^abc",
)  # fmt: skip


class PatternTests(SynchronousTestCase):
    def found(self, line: str, more: str = "") -> list[str]:
        text = (
            f"[listen a]\nendpoint = :1\n{more}[route r]\nmatch = {line}\nbackend = 127.0.0.1:22\n"
        )
        return [problem.message for problem in lint(parse(text, "x.ini"))]

    def test_mistakes(self) -> None:
        for line, message in LINES.items():
            self.assertEqual(self.found(line), [message])

    def test_no_warning_of_what_can_match(self) -> None:
        for line in FINE:
            self.assertEqual(self.found(line), [], line)

    def test_peek_limit_below_what_clients_send_first(self) -> None:
        told = "looks at what often is in the first {} bytes only, but 'peek_limit' is 512 ([listen a]); raise that"
        for line, least in (("tls sni=a.example", 2048), ("http host=a.example", 1024)):
            self.assertEqual(
                self.found(line, "peek_limit = 512\n"), [f"{line!r} {told.format(least)}"]
            )
            self.assertEqual(self.found(line, "peek_limit = 2KiB\n"), [])
        self.assertEqual(self.found("tls", "peek_limit = 512\n"), [])

    def test_postgres_inside_tls(self) -> None:
        """`postgres sni=` asks for TLS itself, so a route with it may end that."""
        text = (
            "[listen a]\nendpoint = :1\n[route out]\nmatch = postgres sni=db.example\n{}"
            "terminate_tls = a.pem\nbackend = 127.0.0.1:22\n"
        )
        self.assertEqual(lint(parse(text.format(""), "x.ini")), [])
        (problem,) = lint(
            parse(text.replace("postgres sni=db.example", "postgres").format(""), "x.ini")
        )
        self.assertIn("'postgres' is never TLS", problem.message)


class ClosedTests(SynchronousTestCase):
    def found(self, text: str) -> list[str]:
        return list(map(str, closed_listeners(parse(text, "x.ini"))))

    def test_closed(self) -> None:
        told = (
            "x.ini:1: [listen a]: every client is turned away: neither a route nor 'default' or 'silent' names a "
            "server; add a route, or a server there"
        )
        for more in (
            "",
            "default = reset\n[route r]\nmatch = ssh\nbackend = close\n",
            "[route r]\nmatch = tls\nterminate_tls = a.pem\n[route s]\nmatch = any\nunder = r\nbackend = close\n",
        ):
            self.assertEqual(self.found(f"[listen a]\nendpoint = :1\n{more}"), [told])

    def test_one_way_to_a_server_is_enough(self) -> None:
        for more in (
            "silent = 127.0.0.1:22\n",
            "default = 127.0.0.1:22\n",
            "[route r]\nmatch = tls\nterminate_tls = a.pem\n[route s]\nmatch = any\nunder = r\nbackend = 127.0.0.1:22\n",
        ):
            self.assertEqual(self.found(f"[listen a]\nendpoint = :1\n{more}"), [])

    def test_routes_that_another_program_will_write(self) -> None:
        text = "[txmux]\ninclude = no-such/*.ini\n{}[listen a]\nendpoint = :1\ndefault = close\n"
        self.assertEqual(self.found(text.format("watch_rules = 1s\n")), [])
        self.assertEqual(len(self.found(text.format(""))), 1)

    def test_routes_without_a_listener(self) -> None:
        """The listeners that another program will write are for routes of its own."""
        text = "[txmux]\ninclude = no-such/*.ini\nwatch_rules = 1s\n[route r]\nmatch = ssh\nbackend = close\n"
        [found] = [str(one) for one in lint(parse(text, "x.ini")) if one.key == "under"]
        self.assertIn("[route r] under: no client gets here, since its unit has no [listen]; add one", found)  # fmt: skip


class UnusableTests(SynchronousTestCase):
    def complaints(self, text: str) -> list[str]:
        error = self.assertRaises(RulesError, parse, text, "x.ini")
        return [problem.message for problem in error.problems]

    def refuses(self, text: str, *told: str) -> None:
        self.assertEqual(self.complaints(text), [*told])

    def test_link_local_needs_an_interface(self) -> None:
        told = "'fe80::1' is an address of one link; write its interface, too: [fe80::1%eth0]:PORT"
        self.refuses("[listen a]\nendpoint = [fe80::1]:1\n", told)
        self.refuses("[listen a]\nendpoint = :1\ndefault = [fe80::1]:1\n", told)
        parse("[listen a]\nendpoint = [fe80::1%lo]:1\n", "x.ini")

    def test_link_local_in_endpoint_strings(self) -> None:
        told = "'fe80::1' is an address of one link; write its interface, too: fe80\\:\\:1%eth0"
        self.refuses(
            "[listen a]\nendpoint = tcp6:1:interface=fe80\\:\\:1\ndefault = tcp:fe80\\:\\:1:2\n",
            f"interface: {told}",
            f"host: {told}",
        )
        parse("[listen a]\nendpoint = tcp6:1:interface=fe80\\:\\:1%lo\n", "x.ini")
        text = "[listen a]\nendpoint = :1\ndefault = b\n[backend b]\nserver = [::1]:2\nsource = fe80::1\n"
        self.refuses(
            text,
            "'fe80::1' is not an address to connect from; write one of this machine's, such as 192.0.2.1",
        )

    def test_tcp6_has_ipv6_alone(self) -> None:
        self.refuses(
            "[listen a]\nendpoint = tcp6:1:interface=127.0.0.1\n",
            "interface: '127.0.0.1' is not an IPv6 address; write one, or tcp instead of tcp6",
        )

    def test_workers_cannot_share_what_twisted_opens(self) -> None:
        text = "[txmux]\nworkers = {}\n[listen a]\nendpoint = :1\n tcp:2\n unix:/x\n ssl:3:privateKey=k:certKey=c\n"
        self.refuses(
            text.format(2),
            "several workers cannot share an endpoint of type 'ssl'; write ADDRESS:PORT, "
            ":PORT, unix:/path, or 'workers = 1' in [txmux]",
        )
        parse(text.format(1), "x.ini")


class SignatureTests(SynchronousTestCase):
    def found(self, line: str) -> list[str]:
        rules = parse(
            f"[listen l]\nendpoint = :1\n[route r]\nmatch = {line}\nbackend = close\n", "x.ini"
        )
        return [problem.message for problem in cut_signatures(rules, installed_matchers())]

    def test_part_of_a_signature(self) -> None:
        for line, name in {
            "payload hex=2a320d0a": "redis", r"payload text=*2\r\n": "redis",
            "payload hex=160301": "tls", "payload text=@RSYNCD": "rsync",
            "payload hex=13426974": "bittorrent",
        }.items():  # fmt: skip
            message = (
                f"{line!r} is how some clients of '{name}' begin, and others begin otherwise; "
                f"'match = {name}' knows all of them"
            )
            self.assertEqual(self.found(line), [message])

    def test_nothing_is_certain(self) -> None:
        """Of bytes that are all of a signature, of several protocols, of none, words, and other places nothing is said."""
        for line in (
            "payload text=SSH-", "payload hex=0001", "payload text=HELLO", "payload hex=2a",
            "payload text=PROTO:1", "payload hex=2a320d0a mask=ffffffff",
            "payload hex=2a320d0a offset=4", "redis",
        ):  # fmt: skip
            self.assertEqual((line, self.found(line)), (line, []))
