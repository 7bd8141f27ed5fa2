"""How it is said what is wrong; what that is, the files of ``tests/rules/wrong`` have.

A file with very many errors, as another owner may have written it, costs what one without costs.
"""

import time

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.support.installed import names_missing
from txmux.control.rules_index import RulesIndex
from txmux.rules.lint.warnings import lint
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.parser import parse


class ErrorTests(SynchronousTestCase):
    def test_name_that_many_routes_have(self) -> None:
        """The text of the error, which a log gets, has a line for one mistyped name; of a few, it has all."""
        for count, expected in ((3, 3), (20, 1)):
            routes = "".join(f"[route r{n}]\nmatch = ssh\nbackend = wbe\n" for n in range(count))
            text = f"[listen a]\nendpoint = :1\n[backend web]\nserver = a:1\n{routes}"
            error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
            self.assertEqual(len(error.problems), count)
            lines = str(error).splitlines()
            self.assertEqual(len(lines), expected)
        told = r"^rules\.ini:7: \[route r0\] backend: there is no \[backend wbe\].* \(the same in 19 more lines: 10, 13, 16, 19, 22, 25, 28, 31, 34, 37 …\)$"
        self.assertRegex(lines[0], told)

    def test_forms(self) -> None:
        for problem, text in (
            (Problem("a.ini", 3, "route x", "match", "oh"), "a.ini:3: [route x] match: oh"),
            (Problem("a.ini", 3, "route x", "", "oh"), "a.ini:3: [route x]: oh"),
            (Problem("a.ini", 3, "", "key", "oh"), "a.ini:3: key: oh"),
            (Problem("a.ini", 3, "", "", "oh"), "a.ini:3: oh"),
            (Problem("./a.ini", 0, "", "", "oh"), "./a.ini: oh"),
        ):
            self.assertEqual(str(problem), text)
        huge = "x" * 1_000_000
        self.assertLess(len(str(Problem("a", 1, f"route {huge}", huge, huge))), 20_000)
        printable = str(Problem("a\udcff", 1, "route \x1b[31m", "k\u2028", "é\x85"))
        self.assertEqual(printable, r"a\udcff:1: [route \x1b[31m] k\u2028: é\x85")
        error = RulesError([Problem("a", 1, "", "", "x"), Problem("a", 2, "", "", "y")])
        self.assertEqual((str(error), len(error.problems)), ("a:1: x\na:2: y", 2))
        text = "[txmux]\ninclude = a\0b\naccess_log = a\0b\n[listen a]\nendpoint = :1\n"
        error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
        expected = ["' is not a path of a file", "' is not a path: it holds a NUL character"]
        found = [one.message for one in error.problems]
        self.assertEqual(found, [f"'a\\x00b{why}" for why in expected])

    def test_advice_is_for_the_first(self) -> None:
        """All errors are reported, and the first with what may be meant, however many other files have before."""
        wrong = "".join(f"[route r{n}]\nmatch = shh\nbackend = close\n" for n in range(1000))
        text = f"[listen a]\nendpoint = :1\n{wrong}[backend b]\nserver = :1\nserverr = 1\n"
        error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
        advised = ["did you mean 'ssh'" in problem.message for problem in error.problems]
        self.assertTrue(all(advised[:100]))
        self.assertFalse(any(advised[300:]))
        names = [problem.section for problem in error.problems if problem.key == "match"]
        self.assertEqual(names, [f"route r{n}" for n in range(1000)])

    def test_deep_nesting_costs_little(self) -> None:
        """Neither does TLS in TLS, however deep, nor in a circle: of routes that are too deep, the first is named."""
        for top in ("a", "r1999"):
            routes = (
                f"[route r{n}]\nmatch = tls\nterminate_tls = x.pem\nunder = {f'r{n - 1}' if n else top}\nbackend = close\n"
                for n in range(2000)
            )
            text = f"[listen a]\nendpoint = :1\n{''.join(routes)}[route b]\nmatch = tls\nunder = b, a\nterminate_tls = x.pem\nbackend = close\n"
            begun = time.process_time()
            error = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
            self.assertLess(time.process_time() - begun, 5)
            found = [problem for problem in error.problems if "is under itself" in problem.message]
            circles = ["route b"] if top == "a" else ["route r0", "route b"]
            self.assertEqual([problem.section for problem in found], circles)
            found = [problem for problem in error.problems if "is too deep" in problem.message]
            deep = ["route r20"] if top == "a" else []
            self.assertEqual([problem.section for problem in found], deep)
        # One is named, however many there are.
        last = 3000
        many = "".join(
            f"[route r{n}]\nmatch = tls\nterminate_tls = x.pem\nbackend = close\n"
            f"under = {f'r{n + 1}' if n < last else ', '.join(f'r{one}' for one in reversed(range(last)))}\n"
            for n in range(last + 1)
        )
        text = f"[listen a]\nendpoint = :1\n{many}"
        (told,) = self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS).problems
        self.assertIn("is under itself: r2999 -> r3000 -> r2999", told.message)

    def test_many_ways(self) -> None:
        """A route to which clients come by very many ways, of TLS or of tunnels, is read, warned of and found as soon as others."""
        every = "tls\nterminate_tls = x.pem", "socks5\ntunnel = yes"
        for opens in [its for its in every if not names_missing(its)]:
            routes = (
                f"[route r{n}{letter}]\nmatch = {opens}\nbackend = b\n"
                f"under = {', '.join(f'r{n - 1}{one}' for one in 'abcdefgh') if n else 'a'}\n"
                for n in range(19)
                for letter in "abcdefgh"
            )
            text = (
                f"[listen a]\nendpoint = :1\n[listen b]\nendpoint = :2\n{''.join(routes)}"
                "[route inner]\nunder = r18a\nmatch = any\nclient_cert = any\nbackend = b\n"
                "[backend b]\nserver = {host}:80\nallow_names = *\n"
            )
            begun = time.process_time()
            with self.subTest(opens):
                (problem,) = self.assertRaises(RulesError, parse, text, "rules.ini").problems
                self.assertIn("asks clients for no certificate", problem.message)
                rules = parse(text.replace("client_cert = any\n", ""), "rules.ini")
                list(lint(rules))
                index = RulesIndex(rules)
                found = {tuple(index.listeners_of(route)) for route in rules.routes}
                self.assertEqual(found, {("a",)})
                self.assertLess(time.process_time() - begun, 10)

    def test_many_over_and_under_one(self) -> None:
        """The listeners of each are found without a look at all over it."""
        outer, many = "match = tls\nterminate_tls = x.pem\nbackend = close\nunder = ", range(4000)
        routes = "".join(f"[route o{n}]\n{outer}a\n[route i{n}]\n{outer}hub\n" for n in many)
        hub = f"[route hub]\n{outer}{', '.join(f'o{n}' for n in many)}\n"
        rules = parse(f"[listen a]\nendpoint = :1\n{routes}{hub}", "rules.ini", MATCHERS)
        index, begun = RulesIndex(rules), time.process_time()
        self.assertEqual({tuple(index.listeners_of(route)) for route in rules.routes}, {("a",)})
        self.assertLess(time.process_time() - begun, 2)

    def test_time(self) -> None:
        """The time is that of as many lines, not of their square, whatever is wrong with them."""
        for line, around in (
            ("k = 1", "[backend b]\nserver = :1\n{}"),
            ("k{} = 1", "[backend b]\nserver = :1\n{}"),
            ("server = :1", "[backend b]\n{}"),
            ("x", "[backend b]\nserver = :1\n{}"),
            ("[route", "{}"),
            ("[route r]", "{}"),
            ("[route r{}]\nmatch = ssh\nbackend = y{}", "[backend b]\nserver = :1\n{}"),
            ("    tue Europe/Pariss{}", "[route r]\nmatch = ssh\nbackend = :1\nduring = mon\n{}"),
        ):
            lines = "\n".join(line.replace("{}", f"{n}") for n in range(2_000))
            text = f"[listen a]\nendpoint = :1\n{around.replace('{}', lines)}\n"
            begun = time.process_time()
            self.assertRaises(RulesError, parse, text, "rules.ini", MATCHERS)
            self.assertLess(time.process_time() - begun, 1.25, line)
