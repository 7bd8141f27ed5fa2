"""Bad files, and exactly what is said of them."""

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import parse

# Each file, and all that is wrong in it. `{listen}` stands for a listener of two lines.
BAD_FILES = {
    "": "1: there is no [listen NAME] section; add 'endpoint = :443' in a [listen NAME]",
    "[lisen a]\nendpoint = :1": (
        "1: [lisen a]: unknown section; did you mean [listen a]? "
        "(there are [txmux], [listen NAME], [route NAME], [backend NAME])"
    ),
    "{listen}[DEFAULT]\nlog = no": (
        "3: [DEFAULT]: unknown section (there are [txmux], [listen NAME], [route NAME], [backend NAME])"
    ),
    "[listen]\nendpoint = :1": "1: [listen]: needs a name; write [listen NAME]",
    "[listen a b]\nendpoint = :1": (
        "1: [listen a b]: 'a b' is not a name; use letters, digits, '.', '_' and '-' only; "
        "did you mean [listen a-b]?"
    ),
    f"[listen {'a' * 1001}]\nendpoint = :1": (
        f"1: [listen {'a' * 1001}]: has a name of 1,001 characters; use at most 1,000"
    ),
    "[txmux main]\n{listen}": "1: [txmux main]: takes no name; write [txmux]",
    "[txmux]\n{listen}[txmux]": "4: [txmux]: is already at rules.ini:1; put all its keys there",
    "{listen}[listen  public]\nendpoint = :x": (
        "3: [listen public]: is already at rules.ini:1; give one another name\n"
        "4: [listen public] endpoint: a port must be a whole number from 0 to 65535, not 'x'"
    ),
    "{listen}[backend close]\nserver = a:1\n[backend reset]\nserver = a:1": (
        "3: [backend close]: 'close' means to refuse the client; give the backend another name\n"
        "5: [backend reset]: 'reset' means to refuse the client; give the backend another name"
    ),
    "[listen a]\n[route b]\n[backend c]": (
        "1: [listen a] endpoint: is missing; write for example 'endpoint = :443'\n"
        "2: [route b] match: is missing; write for example 'match = ssh'\n"
        "2: [route b] backend: is missing; write for example 'backend = 127.0.0.1:22'\n"
        "3: [backend c] server: is missing; write for example 'server = 127.0.0.1:22'"
    ),
    "{listen}[route b]\nmacth = ssh\nbackend =\nfrom = ,": (
        "4: [route b] macth: unknown key; did you mean 'match'?\n"
        "5: [route b] backend: has no value; write for example 'backend = 127.0.0.1:22'\n"
        "6: [route b] from: has no value; write for example 'from = 10.0.0.0/8'"
    ),
    "{listen}quux = 1\npeek_limit = 1\n  2\n  3": (
        "3: [listen public] quux: unknown key; [listen NAME] has nothing like it; remove it\n"
        "5: [listen public] peek_limit: takes one value; remove this line, or unindent it if it is a key of its own\n"
        "6: [listen public] peek_limit: takes one value; remove this line, or unindent it if it is a key of its own"
    ),
    "{listen}[route b]\nmatch = any\nbackend = wbe\n[backend web]\nserver = a:1": (
        "5: [route b] backend: there is no [backend wbe]; did you mean 'web'? "
        "Write the name of a backend, HOST:PORT, unix:/path, close, reset or reject"
    ),
    "{listen}silent = Close\ndefault = 22\n[route b]\nmatch = any\nbackend = 127.0.0.1": (
        "3: [listen public] silent: there is no [backend Close]; did you mean 'close'? "
        "Write the name of a backend, HOST:PORT, unix:/path, close, reset or reject\n"
        "4: [listen public] default: '22' is not a server; did you mean '127.0.0.1:22'?\n"
        "7: [route b] backend: '127.0.0.1' has no port; write 127.0.0.1:PORT"
    ),
    "{listen}[route b]\nmatch = any\nbackend = c\nunder = pulbic,\n   b\n[backend c]": (
        "6: [route b] under: there is no [listen pulbic] and no [route pulbic]; did you mean 'public'?\n"
        "7: [route b] under: [route b] does not terminate TLS, so no route can be under it; "
        "add 'terminate_tls' there, or name a listener\n"
        "8: [backend c] server: is missing; write for example 'server = 127.0.0.1:22'"
    ),
    "{listen}[route b]\nmatch =\n  sssh\n  tls sin=a\n  'x\n  mysql\nbackend = close": (
        "5: [route b] match: unknown matcher 'sssh'; did you mean 'ssh'? "
        "(there are any, broken, payload, picky, redis, ssh, tls)\n"
        "6: [route b] match: unknown option 'sin'; did you mean 'sni'? (tls takes sni=, alpn=)\n"
        "7: [route b] match: a quote is not closed; close it, or write \\' or \\\" for the character itself\n"
        "8: [route b] match: unknown matcher 'mysql'; its clients wait for the server to speak, so no byte "
        "identifies them: write 'silent'"
    ),
    "[txmux]\nmax_connections = -1\ndrain_timeout = 30\naccess_log = a\0b\n{listen}": (
        "2: [txmux] max_connections: must be a whole number from 0 to 1000000000, not '-1'\n"
        "3: [txmux] drain_timeout: '30' is not a duration; "
        "did you mean '30s'?\n"
        "4: [txmux] access_log: 'a\\x00b' is not a path: it holds a NUL character"
    ),
    "[txmux]\ninclude = a\0b\n{listen}": "2: [txmux] include: 'a\\x00b' is not a path of a file",
    "[txmux]\nrelay = fast\naccess_log_format = xml\n{listen}": (
        "2: [txmux] relay: must be auto, portable or kernel, not 'fast'\n"
        "3: [txmux] access_log_format: must be text or json, not 'xml'"
    ),
    "{listen}detect_timeout = 0s\npeek_limit = 0\nkeepalive = on\nallow = 10.0.0.1/8": (
        "3: [listen public] detect_timeout: must be more than 0; "
        "write a duration as 250ms, 5s, 1.5s, 10m, 1h or 2d; the longest is 3650d\n"
        "4: [listen public] peek_limit: '0' is out of range; from 1 to 1MiB\n"
        "5: [listen public] keepalive: must be yes or no, not 'on'\n"
        "6: [listen public] allow: '10.0.0.1/8' is an address inside a network; write '10.0.0.0/8' "
        "for the network or '10.0.0.1' for the one address"
    ),
    "no section = 1\n{listen}oops\n[route x": (
        "1: no section: comes before the first section; put a header such as [route ssh] above it\n"
        "4: [listen public]: a line needs '=', as in KEY = VALUE; to continue the value above, indent it\n"
        "5: a header is a name between '[' and ']', as in [route ssh]"
    ),
    "{listen}peek_limit = 5 # few\ndetect_timeout = 5s;": (
        "3: [listen public] peek_limit: a comment needs its own line; put '# few' above this one\n"
        "4: [listen public] detect_timeout: remove the ';' at the end; write 5s"
    ),
    "{listen}peek_limit = 5\npeek_limit = 6": (
        "4: [listen public] peek_limit: is already at line 3; keep one of the two"
    ),
    "{listen}[route b]\nmatch = any\nbackend = close\nserver = a:1\nmax_connections = 1\nbogus = 1": (
        "6: [route b] server: unknown key; write 'backend = a:1'\n"
        "7: [route b] max_connections: unknown key; it belongs in [txmux], [listen NAME] or [backend NAME]\n"
        "8: [route b] bogus: unknown key; [route NAME] has nothing like it; remove it"
    ),
    "{listen}[route b]\nmatch = any\nbackend = close\nunder = x": (
        "6: [route b] under: there is no [listen x] and no [route x] (there are public)"
    ),
    "[txmux]\naccess_log = none\n{listen}keepalive = Yes # x": (
        "2: [txmux] access_log: 'none' is not a path; write 'off' for no log, '-' for the service's own log, "
        "or './none' for a file of that name\n"
        "5: [listen public] keepalive: a comment needs its own line; put '# x' above this one\n"
        "5: [listen public] keepalive: must be yes or no, not 'Yes'"
    ),
}

# Files with one mistake that would look like several.
FOLLOW_ON = {
    "[listen a]\nendpoint = :1\n[listen a]\npeek_limit = 1": (
        "3: [listen a]: is already at rules.ini:1; give one another name"
    ),
    "[listen a]\n[listen a]": (
        "1: [listen a] endpoint: is missing; write for example 'endpoint = :443'\n"
        "2: [listen a]: is already at rules.ini:1; give one another name"
    ),
    "[listen a]\nendpoint :1": ("2: [listen a]: a line needs '=' behind 'endpoint'"),
    "[listen a]\n= :1": "2: [listen a]: a key is missing before '='",
    "[listen a": "1: a header is a name between '[' and ']', as in [route ssh]",
    "[listen-public-https]\nendpoint = :1": (
        "1: [listen-public-https]: unknown section; did you mean [listen NAME]? "
        "(there are [txmux], [listen NAME], [route NAME], [backend NAME])"
    ),
    "{listen}silent = web\n[bakend web]\nserver = a:0": (
        "4: [bakend web]: unknown section; did you mean [backend web]? "
        "(there are [txmux], [listen NAME], [route NAME], [backend NAME])\n"
        "5: [bakend web] server: a port must be a whole number from 1 to 65535, not '0'"
    ),
    "{listen}[route b]\nmatch = ssh\n  backend = web\n  [route c]\n  sssh = 1\nlog = no\n  under = public": (
        "5: [route b] match: unknown matcher 'backend' (there are any, broken, payload, picky, redis, ssh, tls); "
        "unindent it if it is a key of its own\n"
        "6: [route b] match: unknown matcher '[route' (there are any, broken, payload, picky, redis, ssh, tls); "
        "unindent it if it is a header\n"
        "7: [route b] match: unknown matcher 'sssh'; did you mean 'ssh'? "
        "(there are any, broken, payload, picky, redis, ssh, tls)\n"
        "9: [route b] log: takes one value; remove this line, or unindent it if it is a key of its own"
    ),
}


class MessageTests(SynchronousTestCase):
    maxDiff = None

    def lines(self, text: str) -> list[str]:
        error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
        self.assertTrue(all(p.path == "rules.ini" for p in error.problems))
        return [line.removeprefix("rules.ini:") for line in str(error).split("\n")]

    def test_bad_files(self) -> None:
        for text, expected in BAD_FILES.items():
            whole = text.replace("{listen}", "[listen public]\nendpoint = :443\n")
            self.assertEqual("\n".join(self.lines(whole)), expected, whole)

    def test_no_follow_on_errors(self) -> None:
        for text, expected in FOLLOW_ON.items():
            whole = text.replace("{listen}", "[listen public]\nendpoint = :443\n")
            self.assertEqual("\n".join(self.lines(whole)), expected, whole)

    def test_name_that_many_routes_have(self) -> None:
        """The text of the error, which a log gets, has a line for one mistyped name; of a few, it has all."""
        for count, expected in ((3, 3), (20, 1)):
            routes = "".join(f"[route r{n}]\nmatch = ssh\nbackend = wbe\n" for n in range(count))
            text = f"[listen a]\nendpoint = :1\n[backend web]\nserver = a:1\n{routes}"
            error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
            self.assertEqual(len(error.problems), count)
            lines = str(error).splitlines()
            self.assertEqual(len(lines), expected)
        self.assertTrue(
            lines[0].startswith("rules.ini:7: [route r0] backend: there is no [backend wbe]")
        )
        self.assertTrue(
            lines[0].endswith(
                " (the same in 19 more lines: 10, 13, 16, 19, 22, 25, 28, 31, 34, 37 …)"
            )
        )

    def test_access_log_that_looks_like_a_word(self) -> None:
        words = "none on Off OFF no yes Stdout stderr syslog true False"
        for word in words.split():
            (line,) = self.lines(f"[txmux]\naccess_log = {word}\n[listen a]\nendpoint = :1\n")
            self.assertIn(f"'off' for no log, '-' for the service's own log, or './{word}'", line)

    def test_proxy_protocol_inside_tls(self) -> None:
        text = (
            "[listen public]\nendpoint = :443\n[backend a]\nproxy_protocol = v2\n"
            "server = a:1\n  tls:a:443\n  SSL:a:443 weight=2\n  unix:/x:timeout=5\n"
        )
        first, second = self.lines(text)
        self.assertEqual(
            first,
            "6: [backend a] server: 'tls:a:443' would get the PROXY header inside TLS, where no server looks "
            "for it; write 'server = HOST:PORT' with 'tls = yes', or 'proxy_protocol = off'",
        )
        self.assertIn("7: [backend a] server: 'SSL:a:443' would get the PROXY header", second)
        parse(text.replace("= v2", "= off"), "rules.ini", MATCHERS)


class ProblemTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for problem, text in (
            (Problem("a.ini", 3, "route x", "match", "oh"), "a.ini:3: [route x] match: oh"),
            (Problem("a.ini", 3, "route x", "", "oh"), "a.ini:3: [route x]: oh"),
            (Problem("a.ini", 3, "", "key", "oh"), "a.ini:3: key: oh"),
            (Problem("a.ini", 3, "", "", "oh"), "a.ini:3: oh"),
            (Problem("./a.ini", 0, "", "", "oh"), "./a.ini: oh"),
        ):
            self.assertEqual(str(problem), text)

    def test_one_printable_line(self) -> None:
        problem = Problem("a\udcff", 1, "route \x1b[31m", "k\u2028", "é\x85")
        self.assertEqual(str(problem), r"a\udcff:1: [route \x1b[31m] k\u2028: é\x85")

    def test_one_problem_a_line(self) -> None:
        error = RulesError([Problem("a", 1, "", "", "x"), Problem("a", 2, "", "", "y")])
        self.assertEqual(str(error), "a:1: x\na:2: y")
        self.assertEqual(len(error.problems), 2)
