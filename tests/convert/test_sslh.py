"""Tests of what is made of an ``sslh.cfg``."""

from __future__ import annotations

import builtins
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import SkipTest
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, looks, rules_of
from tests.programs import require_program
from txmux.convert.writer import ConvertError
from txmux.rules.model import Backend, Keepalive
from txmux.rules.reading.values import split_words

if TYPE_CHECKING:
    from txmux.convert.formats import Conversion

_LISTEN = 'listen: ( { host: "0.0.0.0"; port: "443"; } );\n'
_SSH = '{ name: "ssh"; host: "localhost"; port: "22"; }'


def with_protocols(*protocols: str, more: str = "") -> Conversion:
    """Convert a file with these entries, and one for SSH before them."""
    return converted(f"{more}{_LISTEN}protocols: ( {', '.join([_SSH, *protocols])} );")


def with_protocol(settings: str) -> Conversion:
    """Convert a file with one entry that is neither the first nor the last."""
    return with_protocols(
        f'{{ host: "10.0.0.1"; port: "80"; {settings} }}',
        '{ name: "anyprot"; host: "::1"; port: "9"; }',
    )


def match_of(settings: str) -> list[str]:
    """Give the ``match`` lines that an entry becomes."""
    (route,) = rules_of(with_protocol(settings)).routes[1:]
    return [alternative.text for alternative in route.alternatives]


class ListenTests(SynchronousTestCase):
    """Where it listens."""

    def endpoints(self, *entries: str) -> list[tuple[str, ...]]:
        text = f"listen: ( {', '.join(f'{{ {entry} }}' for entry in entries)} );"
        return [listener.endpoints for listener in rules_of(converted(text)).listeners]

    def test_addresses(self) -> None:
        """Addresses, names, UNIX sockets and names of services are written as txmux does."""
        self.assertEqual(
            self.endpoints(
                'host: "192.0.2.1"; port: "443";',
                'host: "[::]"; port: "443";',
                'host: "2001:db8::1"; port: "444";',
                'host: "example.com"; port: "ssh";',
                'host: "/run/x.sock"; is_unix: true; port: "";',
            ),
            [
                (
                    "192.0.2.1:443",
                    "[::]:443",
                    "[2001:db8::1]:444",
                    "tcp:22:interface=example.com",
                    "unix:/run/x.sock",
                )
            ],
        )

    def test_udp(self) -> None:
        """UDP has no counterpart."""
        text = 'listen: ( { host: "::"; port: "1"; }, { host: "::"; port: "2"; is_udp: true; } );'
        found = converted(text)
        self.assertEqual(rules_of(found).listeners[0].endpoints, ("[::]:1",))
        self.assertIn("line 1: listen :::2: is left out; txmux has no UDP", looks(found))

    def test_own_sections(self) -> None:
        """A limit, keepalive or PROXY headers of one endpoint make a listener of its own."""
        found = converted(
            """
            listen: ( { host: "127.0.0.1"; port: "1"; max_connections: 5; },
                      { host: "127.0.0.1"; port: "2"; keepalive: false; },
                      { host: "127.0.0.1"; port: "3"; keepalive: true; },
                      { host: "127.0.0.1"; port: "4"; proxyprotocol: true; } );
            """
        )
        listeners = rules_of(found).listeners
        self.assertEqual([one.max_connections for one in listeners], [5, 0, 0, 0])
        self.assertEqual(
            [one.keepalive for one in listeners], [Keepalive(), None, Keepalive(), Keepalive()]
        )
        self.assertEqual(
            [one.accept_proxy_from is not None for one in listeners], [False, False, False, True]
        )

    def test_nothing(self) -> None:
        """Without a listener that can be had there is nothing to convert."""
        for text in ("protocols: ();", 'listen: ( { host: "::"; port: "1"; is_udp: true; } );'):
            error = self.assertRaises(ConvertError, converted, text)
            self.assertIn("nothing in it can be converted", str(error))

    def test_taken_twice(self) -> None:
        """Of two endpoints that are the same, one becomes a comment."""
        text = 'listen: ( { host: "::1"; port: "1"; }, { host: "::1"; port: "1"; } );'
        found = converted(text)
        self.assertEqual(rules_of(found).listeners[0].endpoints, ("[::1]:1",))
        self.assertEqual(len(found.warnings), 1)

    def test_no_group(self) -> None:
        """What is no group is left out with a warning."""
        found = converted('listen: ( "x", { host: "::1"; port: "1"; } );')
        self.assertIn("line 1: 'x' is left out: it should be a group in braces", looks(found))


class ProtocolTests(SynchronousTestCase):
    """Whom it leads where."""

    def test_probes(self) -> None:
        """Each probe is a matcher; what is not installed becomes a comment."""
        for name in ("ssh", "http", "tls", "syslog"):
            self.assertEqual(match_of(f'name: "{name}";'), [name])
        self.assertEqual(match_of('name: "ssl";'), ["tls"])
        self.assertEqual(match_of('name: "anyprot";'), ["any"])

    def test_all_probes(self) -> None:
        """No probe of sslh is unknown, whatever matchers are installed."""
        for name, matcher in (
            ("openvpn",) * 2,
            ("tinc",) * 2,
            ("xmpp",) * 2,
            ("adb",) * 2,
            ("socks5",) * 2,
            ("msrdp", "rdp"),
        ):
            self.assertIn(f"match = {matcher}", with_protocol(f'name: "{name}";').text)

    def test_unknown_probe(self) -> None:
        """A probe without a matcher is a route in comments, and a warning."""
        found = with_protocol('name: "gopher";')
        self.assertEqual(len(rules_of(found).routes), 1)
        self.assertIn("# match = gopher\n", found.text)
        self.assertIn("line 2: match = gopher: unknown matcher 'gopher'", looks(found)[0])

    def test_udp(self) -> None:
        """UDP has no counterpart."""
        for settings in ('name: "wireguard";', 'name: "regex"; is_udp: true;'):
            found = with_protocol(settings)
            self.assertEqual(len(rules_of(found).routes), 1)
            self.assertIn("is left out; txmux has no UDP", looks(found)[0])

    def test_tls(self) -> None:
        """Names and protocols become options of one line."""
        self.assertEqual(
            match_of(
                'name: "tls"; sni_hostnames: [ "a.example", "*.b.example" ]; alpn_protocols: [ "h2" ];'
            ),
            ["tls sni=a.example,*.b.example alpn=h2"],
        )

    def test_sets_of_characters(self) -> None:
        """A name with a set of characters becomes a regular expression."""
        self.assertEqual(
            match_of('name: "tls"; sni_hostnames: [ "www[12].example", "a.example" ];'),
            ["tls sni=a.example", "tls sni=~www[12]\\.example"],
        )

    def test_regex(self) -> None:
        """Patterns are kept; one that is not anchored may begin later."""
        self.assertEqual(
            match_of(r'name: "regex"; regex_patterns: [ "^\x00[\x0D-\xFF]\x38", "jabber", "" ];'),
            [r"regex pattern=^\x00[\x0d-\xff]8", "regex pattern=(?s:.*)(?:jabber)", "any"],
        )

    def test_alternatives(self) -> None:
        """A ``^`` of one alternative says nothing of the others."""
        self.assertEqual(
            match_of('name: "regex"; regex_patterns: [ "^a|b", "(?i)^c d" ];'),
            ["regex pattern=(?s:.*)(?:^a|b)", "regex pattern='(?i)^c d'"],
        )

    def test_quotes(self) -> None:
        """Quotes in a pattern are its own."""
        found = with_protocol(r"""name: "regex"; regex_patterns: [ "^'a", "^\"b c" ];""")
        lines = rules_of(found).routes[1].alternatives
        self.assertEqual([line.predicate.longest for line in lines], [256, 256])
        self.assertEqual(split_words(lines[0].text)[1], "pattern=^'a")
        self.assertEqual(split_words(lines[1].text)[1], 'pattern=^"b c')

    def test_refused_regex(self) -> None:
        """A pattern that txmux refuses becomes a comment; the route stays as long as it has others."""
        found = with_protocol('name: "regex"; regex_patterns: [ "^a$", "^b" ];')
        self.assertIn("looks past the end of its own match", looks(found)[0])
        self.assertEqual(len(rules_of(found).routes), 2)
        only = with_protocol('name: "regex"; regex_patterns: [ "^a(?=b)" ];')
        self.assertEqual(len(rules_of(only).routes), 1)
        self.assertIn("# match = regex pattern=^a(?=b)\n", only.text)

    def test_servers(self) -> None:
        """Host and port, a UNIX socket, PROXY headers and the access log."""
        rules = rules_of(
            with_protocols(
                '{ name: "http"; host: "/run/x.sock"; is_unix: true; port: ""; log_level: 0; }',
                '{ name: "tls"; host: "::1"; port: "xmpp-client"; proxyprotocol: 2; }',
                '{ name: "socks5"; host: "::1"; port: 1080; }',
            )
        )
        servers = [backend.servers[0].text for backend in rules.backends.values()]
        self.assertEqual(servers, ["localhost:22", "unix:/run/x.sock", "[::1]:5222", "[::1]:1080"])
        self.assertEqual([route.log for route in rules.routes], [True, False, True, True])
        self.assertEqual(rules.backends["tls"].proxy_protocol, "v2")

    def test_keys(self) -> None:
        """What txmux has a key for gets that key."""
        found = with_protocol('name: "http"; max_connections: 7; transparent: true;')
        self.assertIn("\nmax_connections = 7\n", found.text)
        self.assertIn("\nsource = client\n", found.text)

    def test_no_counterpart(self) -> None:
        """What has no counterpart is a comment and a warning with its line."""
        for setting in (
            "fork: true;",
            "tfo_ok: true;",
            "minlength: 9;",
            "keepalive: false;",
            "udp_timeout: 9;",
        ):
            found = with_protocol(f'name: "http"; {setting}')
            name = setting.partition(":")[0]
            self.assertIn(f"x.cfg:2: {name}: has no counterpart", found.warnings[0])
            self.assertIn(f"# line 2: {name}: has no counterpart", found.text)

    def test_neutral(self) -> None:
        """What changes nothing is not mentioned."""
        settings = (
            "fork: false; tfo_ok: false; keepalive: true; resolve_on_forward: true; log_level: 1;"
        )
        self.assertEqual(
            with_protocol(f'name: "http"; {settings} transparent: false;').warnings, ()
        )

    def test_service(self) -> None:
        """Whom hosts.allow and hosts.deny keep out is to be looked at."""
        found = with_protocol('name: "http"; service: "x";')
        self.assertIn("service: hosts.allow and hosts.deny are not read", looks(found)[0])

    def test_passed_header(self) -> None:
        """A header that comes in goes on to the servers that are not said to get none, or one of a version."""
        listen = 'listen: ( { host: "::1"; port: "1"; proxyprotocol: true; } );'
        found = converted(
            f"""
            {listen}
            protocols: (
                {{ name: "ssh"; host: "::1"; port: "22"; proxyprotocol: 0; }},
                {{ name: "http"; host: "::1"; port: "80"; proxyprotocol: 1; }},
                {{ name: "tls"; host: "::1"; port: "443"; }}
            );
            """
        )
        backends = rules_of(found).backends
        self.assertEqual([b.proxy_protocol for b in backends.values()], ["off", "v1", "v2"])
        (look,) = looks(found)
        self.assertIn("the header that comes in goes on to this server", look)
        self.assertEqual(with_protocol('name: "http"; proxyprotocol: 0;').warnings, ())

    def test_wrong_kinds(self) -> None:
        """A value of a wrong kind, and an unknown option, are warnings."""
        found = with_protocol('name: "http"; transparent: "x"; max_connections: -1; nonsense: 1;')
        for name in ("transparent", "max_connections", "nonsense"):
            self.assertTrue(any(f" {name}: " in warning for warning in found.warnings), name)

    def test_unknown_service(self) -> None:
        """A server with a port of an unknown name is left out, and its clients are led to no other."""
        found = with_protocols('{ name: "http"; host: "localhost"; port: "no-such-service"; }')
        self.assertEqual(list(rules_of(found).backends), ["ssh"])
        self.assertIn("# [backend http]\n", found.text)
        self.assertIn("match = http\nbackend = close\n", found.text)


class DecisionTests(SynchronousTestCase):
    """What becomes of silent and of unknown clients."""

    def outcomes(self, more: str = "", *protocols: str) -> tuple[str, str]:
        listener = rules_of(with_protocols(*protocols, more=more)).listeners[0]
        (silence,) = listener.silent
        assert isinstance(silence.outcome, Backend)
        assert isinstance(listener.default, Backend)
        return silence.outcome.name, listener.default.name

    def test_last(self) -> None:
        """The last protocol has what no probe knows, and SSH who says nothing."""
        tls = '{ name: "tls"; host: "localhost"; port: "443"; }'
        self.assertEqual(self.outcomes("", tls), ("ssh", "tls"))

    def test_anyprot(self) -> None:
        """An `anyprot` at the end needs no route."""
        last = '{ name: "anyprot"; host: "localhost"; port: "443"; }'
        self.assertEqual(self.outcomes("", last), ("ssh", "anyprot"))
        self.assertEqual(len(rules_of(with_protocols(last)).routes), 1)

    def test_on_timeout(self) -> None:
        """``on-timeout`` names whom silent clients are led to; a name that is not there means the first."""
        last = '{ name: "timeout"; host: "localhost"; port: "daytime"; }'
        for key in ("on-timeout", "on_timeout"):
            self.assertEqual(self.outcomes(f'{key}: "timeout";', last)[0], "timeout")
        self.assertEqual(self.outcomes('on-timeout: "x";', last)[0], "ssh")

    def test_timeout(self) -> None:
        """``timeout`` is the time that a client has."""
        listener = rules_of(with_protocols(more="timeout: 2;")).listeners[0]
        self.assertEqual(listener.detect_timeout, 2.0)
        self.assertIn("detect_timeout = 0s", with_protocols(more="timeout: 0;").text)


class TopLevelTests(SynchronousTestCase):
    """All other options."""

    def test_neutral(self) -> None:
        """What changes nothing is not mentioned."""
        more = "foreground: true; inetd: false; numeric: false; transparent: false; timeout: 5;"
        self.assertEqual(with_protocols(more=more).warnings, ())

    def test_no_counterpart(self) -> None:
        """What has no counterpart is a comment and a warning."""
        for setting in (
            "foreground: false;",
            "numeric: true;",
            'user: "nobody";',
            'pidfile: "/x";',
            'chroot: "/x";',
            'syslog_facility: "auth";',
            'logfile: "/x";',
            "udp_max_connections: 16;",
            "version: true;",
            'prefix: "x";',
        ):
            found = with_protocols(more=setting)
            self.assertEqual(len(found.warnings), 1, setting)
            self.assertIn(
                f"x.cfg:1: {setting.partition(':')[0]}: has no counterpart", found.warnings[0]
            )
            self.assertIn(found.warnings[0].partition(": ")[2], found.text)

    def test_inetd(self) -> None:
        """Where inetd listens, a person has to look."""
        self.assertIn("inetd listens for it", looks(with_protocols(more="inetd: true;"))[0])

    def test_verbose(self) -> None:
        """All that is about the amount of logging is told at once."""
        found = with_protocols(more="verbose-config: 0; verbose-fd: 1; verbose: 3;")
        self.assertEqual(len(found.warnings), 1)
        self.assertIn("verbose-config, verbose-fd, verbose", found.warnings[0])

    def test_transparent(self) -> None:
        """A transparent proxy is one for all backends."""
        found = with_protocols(more="transparent: true;")
        self.assertIn("\nsource = client\n", found.text)

    def test_unknown(self) -> None:
        """An unknown option is a warning."""
        found = with_protocols(more="nonsense: 1;")
        self.assertIn(
            "x.cfg:1: nonsense: is not an option of sslh that is known here", found.warnings
        )


class FileTests(SynchronousTestCase):
    """Whole files."""

    def test_shipped_example(self) -> None:
        """The example that comes with sslh becomes rules without errors."""
        require_program("sslh")
        example = Path("/usr/share/doc/sslh/examples/example.cfg")
        if not example.exists():
            raise SkipTest("the package has no example")
        found = converted(example.read_bytes(), name="example.cfg")
        rules = rules_of(found)
        self.assertGreater(len(rules.routes), 5)
        self.assertIsInstance(rules.listeners[0].silent[0].outcome, Backend)

    def test_measured_setup(self) -> None:
        """A file that tells HTTP and Redis from all else, which has the silent clients, too."""
        found = converted(
            r"""
            timeout: 5; foreground: true; on-timeout: "anyprot";
            listen: ( { host: "127.0.0.1"; port: "8443"; } );
            protocols: (
                { name: "http"; host: "127.0.0.1"; port: "80"; },
                { name: "regex"; host: "127.0.0.1"; port: "6379"; regex_patterns: ["^\\*"]; },
                { name: "anyprot"; host: "127.0.0.1"; port: "5201"; }
            );
            """
        )
        self.assertIn("silent = anyprot\ndefault = anyprot\n", found.text)
        self.assertIn("match = regex pattern=^\\*\n", found.text)
        self.assertEqual((len(rules_of(found).routes), found.warnings), (2, ()))

    def test_no_libconfig(self) -> None:
        """What libconfig cannot read is one clear error."""
        for text in (
            "listen: (",
            "listen: @",
            'listen: "\\xzz";',
            "timeout: 09;",
            "listen: " + "(" * 3000,
        ):
            error = self.assertRaises(ConvertError, converted, text, "sslh")
            self.assertIn("is not a file that libconfig reads", str(error))

    def test_no_package(self) -> None:
        """Without libconf the error says how to install it."""
        original = importlib.import_module

        def without(name: str, *arguments: Any) -> Any:
            if name == "libconf":
                raise ModuleNotFoundError(name)
            return original(name, *arguments)

        with patch("txmux.convert.sslh.libconfig.import_module", without):
            error = self.assertRaises(ConvertError, converted, _LISTEN, "sslh")
        self.assertIn("pip install 'txmux[convert]'", str(error))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        """Whatever is in the file, nothing comes but the clear error."""
        with patch.object(builtins, "open", side_effect=OSError):
            attempt(text, "sslh")

    @given(
        st.lists(
            st.sampled_from(
                [
                    "{",
                    "}",
                    "(",
                    ")",
                    ":",
                    ";",
                    ",",
                    "listen",
                    "protocols",
                    "name",
                    "host",
                    "port",
                    '"tls"',
                    '"ssh"',
                    '"\\n[x]"',
                    '"# a"',
                    '"443"',
                    "[",
                    "]",
                    "sni_hostnames",
                    "regex_patterns",
                    '"^a$"',
                    '"\\xff"',
                    "true",
                    "7",
                ]
            )
        )
    )
    def test_any_tokens(self, tokens: list[str]) -> None:
        """The same for texts that are nearly right."""
        for text in (" ".join(tokens), f"{_LISTEN} protocols: ( {{ {' '.join(tokens)} }} );"):
            attempt(text, "sslh")
