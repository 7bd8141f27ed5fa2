"""``txmux run`` without a file: which rules its options mean, and which do not go together."""

import re
import shlex
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.matchers.all_samples import for_streams
from tests.support.kit import CommandTestCase, change_constants
from txmux import files
from txmux.rules.reading.parser import parse

_LISTEN = ("--listen", "127.0.0.1:8443")

_PRINTED = """\
# txmux run --listen :443 --listen '[::1]:444' --tls 127.0.0.1:8443 --ssh unix:/run/ssh.sock --silent 127.0.0.1:22 --default close --user nobody --workers 2

[txmux]
user    = nobody
workers = 2

[listen public]
endpoint = :443
    [::1]:444
silent   = 127.0.0.1:22
default  = close

[route tls]
match   = tls
backend = 127.0.0.1:8443

[route ssh]
match   = ssh
backend = unix:/run/ssh.sock
"""


class CommandTests(CommandTestCase):
    def printed(self, *words: str) -> str:
        out = self.told(0, self.run_main("run", "--print", *words))
        self.told(0, self.run_main("check", self.write("printed.ini", out)))
        self.assertEqual(self.run_main("fmt", "--check", self.folder / "printed.ini")[:2], (0, ""))
        return out

    def test_all_options_in_their_order(self) -> None:
        words = shlex.split(_PRINTED.splitlines()[0].removeprefix("# txmux run "))
        self.assertEqual(self.printed(*words), _PRINTED)
        mixed = self.printed(*words[-4:], *words[:4], *words[6:8], *words[4:6])
        self.assertEqual(re.findall(r"^\[route (\w+)\]", mixed, re.MULTILINE), ["ssh", "tls"])
        # There is one for each matcher of TCP without options.
        names = {*for_streams()} - {"any", "payload", "regex", "silent"}
        words = [word for name in sorted(names) for word in (f"--{name}", "127.0.0.1:1")]
        self.assertEqual(self.printed(*_LISTEN, *words).count("[route "), len(names))
        for name in ("any", "payload", "regex"):
            err = self.told(2, self.run_main("run", *_LISTEN, f"--{name}", "127.0.0.1:1"))
            self.assertIn(f"unrecognized arguments: --{name}", err)
        # One server is enough.
        for option in ("--ssh", "--default", "--silent"):
            self.printed(*_LISTEN, option, "127.0.0.1:22")
        # Silent clients go to SSH.
        for options, silent in (
            (("--tls", "127.0.0.1:443", "--ssh", "127.0.0.1:22"), "silent   = 127.0.0.1:22\n"),
            (("--ssh", "127.0.0.1:22", "--silent", "close"), "silent   = close\n"),
            (("--ssh", "unix:/x", "--silent", "127.0.0.1:3"), "silent   = 127.0.0.1:3\n"),
            (("--tls", "127.0.0.1:443"), ""),
        ):
            text = self.printed(*_LISTEN, *options)
            self.assertEqual("".join(re.findall(r"^silent .*\n", text, re.MULTILINE)), silent)
        # A dollar sign is literal.
        (route,) = parse(self.printed(*_LISTEN, "--ssh", "unix:/run/${HOME}"), "x").routes
        self.assertIn("unix:/run/${HOME}", str(route.outcome))

    def test_udp_and_admin(self) -> None:
        """Clients of UDP have a listener of their own, beside which those of TCP may have one."""
        listen = "--listen", "udp:4443"
        alone = self.printed(*listen, "--quic", "127.0.0.1:443", "--default", "[::1]:9")
        self.assertIn("[listen datagrams]\nendpoint = udp:4443\ndefault  = udp:[::1]:9\n", alone)
        self.assertIn("[route quic]\nmatch   = quic\nbackend = udp:127.0.0.1:443\n", alone)
        words = ("--quic", "127.0.0.1:5443", "--tls", "127.0.0.1:443", "--dns", "127.0.0.1:53")
        both = self.printed(*listen, *_LISTEN, *words)
        rules = parse(both, "x")
        self.assertEqual([one.name for one in rules.listeners], ["public", "datagrams"])
        names = [[route.name for route in rules.routes_of(its)] for its in rules.listeners]
        self.assertEqual(names, [["tls", "dns"], ["quic"]])
        self.assertIn("backend = udp:127.0.0.1:5443", both)
        self.assertIn("backend = 127.0.0.1:53", both)
        under = [f"{one.name} {' '.join(one.under)}" for one in rules.routes]
        self.assertEqual(under, ["quic datagrams", "tls public", "dns public"])
        refused = self.printed(*listen, *_LISTEN, "--dns", "close")
        self.assertIn("[route dns]\nunder   = *\n", refused)
        # The endpoint of the administration.
        given = (*_LISTEN, "--ssh", "127.0.0.1:22", "--admin", "127.0.0.1:8440")
        text = self.printed(*given, "--admin", "off", "--admin-token", str(self.folder / "token"))
        self.assertEqual(parse(text, "x").settings.admin, ("127.0.0.1:8440",))
        code, _, err = self.run_main("run", *given)
        self.assertEqual((code, err.count("\n")), (2, 1))
        self.assertIn("txmux: --admin: over TCP it needs --admin-token FILE, too", err)

    def refused(self, *words: str | Path) -> list[str]:
        return self.told(2, self.run_main("run", *words)).splitlines()

    def test_invalid_values_and_combinations(self) -> None:
        for words, said in (
            (["rules.ini", *_LISTEN], "--listen is for running without a rules file"),
            (["rules.ini", "--ssh", "a:1"], "write it into rules.ini, or leave the file out"),
            (["--ssh", "a:1"], "which takes --listen, too: --listen :443"),
            (["--print"], "--print is for running without a rules file"),
            ([*_LISTEN], "name at least one server: --ssh 127.0.0.1:22"),
            ([*_LISTEN, "--ssh", "a:1", "--ssh", "b:1"], "--ssh is given twice"),
        ):
            (line,) = self.refused(*words)
            self.assertIn(said, line)
        # Values, with their options.
        line = "--listen x --tls foo --ssh [::1 --workers many --print"
        lines = self.refused(*line.split())
        options = sorted(re.findall(r"^txmux: (--\w+): ", "\n".join(lines), re.MULTILINE))
        self.assertEqual(options, ["--listen", "--ssh", "--tls", "--workers"])
        self.assertIn("--tls: 'foo' has no port; write foo:443", lines[-2])
        # Servers without a port or a listener.
        for words, said in (
            (["--ssh", "localhost"], "--ssh: 'localhost' has no port; write localhost:22"),
            (["--ssh", "10.0.0.1"], "--ssh: '10.0.0.1' has no port; write 10.0.0.1:22"),
            (["--tls", "::1"], "--tls: '::1' has no port; write [::1]:443"),
            (["--tls", "[::1]"], "--tls: '[::1]' has no port; write [::1]:443"),
            (["--dns", "ns.example"], "--dns: 'ns.example' has no port; write ns.example:PORT"),
            (["--default", "web"], "--default: 'web' has no port; write web:PORT"),
            (["--silent", "localhost"], "--silent: 'localhost' has no port; write localhost:PORT"),
            (["--quic", "10.0.0.1:443"], "--quic: it works only over UDP; add --listen udp:PORT"),
            (["--default", "clos"], "--default: 'clos' is not a server; did you mean 'close'?"),
        ):
            self.assertEqual(self.refused(*_LISTEN, *words), [f"txmux: {said}"])
        forms = "ADDRESS:PORT, [V6]:PORT, :PORT or tcp:PORT"
        for listen, said in (
            ("udp:443", "--ssh: it works only over TCP; add --listen :PORT"),
            ("0.0.0.0", f"--listen: '0.0.0.0' is not an endpoint; write {forms}"),
        ):
            lines = self.refused("--listen", listen, "--ssh", "10.0.0.1:22")
            self.assertEqual(lines, [f"txmux: {said}"])
        # Options of other programs, with advice.
        for option, said in (
            ("--ssl", "write --tls"),
            ("--https", "write --tls"),
            ("--mysql", "its clients wait for the server to speak: write --silent"),
            ("--websocket", "that needs a rules file, with 'match = http upgrade=websocket' in it"),
            ("--opnvpn", "did you mean '--openvpn'?"),
            ("--lisen", "did you mean '--listen'?"),
        ):
            line = self.refused(*_LISTEN, option, "127.0.0.1:1")[-1]
            self.assertIn(f"unrecognized arguments: {option}", line)
            self.assertIn(f"; {said}", line)
        self.assertTrue(self.refused("a", "b")[-1].endswith("unrecognized arguments: b"))

    @given(st.text(st.characters(exclude_characters="\0")))
    @example("[")
    def test_value_stays_one_value_or_is_refused(self, text: str) -> None:
        code, out, err = self.run_main("run", "--print", *_LISTEN, f"--default={text}")
        if code:
            self.assertEqual(out, "")
            self.assertRegex(err, r"\A(?:txmux: --default[: ].*\n)+\Z")
        else:
            rules = parse(out, "x")
            self.assertEqual((len(rules.listeners), rules.routes), (1, ()))

    def test_default_file(self) -> None:
        path = self.folder / "rules.ini"
        change_constants(self, files, RULES=path)
        code, out, err = self.run_main("run")
        self.assertEqual((code, out), (78, ""))
        first, second = err.splitlines()
        self.assertEqual(first, f"{path}: cannot be read: No such file or directory")
        self.assertIn("txmux run FILE, or txmux run --listen :443 --ssh 127.0.0.1:22", second)
