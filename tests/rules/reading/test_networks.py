import random
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from tests.rules.fakes import MATCHERS
from tests.rules.reading.cases import FolderTestCase
from tests.support.growth import AT_ALL, growth
from txmux.rules.lint.warnings import lint
from txmux.rules.model import NetworkSet, Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load

LISTEN = "[listen a]\nendpoint = :1\n"


class ListsTests(FolderTestCase):
    def rules(self, text: str, **files: str) -> Rules:
        for name, its in files.items():
            self.write(f"{name}.txt", its)
        return load(self.write("rules.ini", text), MATCHERS)

    def complaints(self, text: str, **files: str) -> list[str]:
        error = self.assertRaises(RulesError, self.rules, text, **files)
        return [str(problem).replace(f"{self.folder}/", "") for problem in error.problems]

    def test_form(self) -> None:
        text = "\ufeff# a list\r\n10.0.0.0/8\r\n\r\n 192.0.2.1 ; SBL1\n; é\n2001:db8::/32#x"
        deny = self.rules(f"{LISTEN}deny = @list.txt", list=text).listeners[0].clients.excluded
        assert deny is not None
        self.assertEqual([*map(str, deny)], ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"])
        (self.folder / "list.txt").write_bytes(b"10.0.0.0/8 # \xff\n")  # in a comment
        deny = self.rules(f"{LISTEN}deny = @list.txt").listeners[0].clients.excluded
        assert deny is not None
        self.assertEqual([*map(str, deny)], ["10.0.0.0/8"])

    def test_every_key_takes_files(self) -> None:
        rules = self.rules(
            LISTEN
            + "".join(f"{key} = @list.txt\n" for key in ("allow", "deny", "accept_proxy_from"))
            + "[route r]\nmatch = any\nbackend = close\nfrom = @ list.txt, 10.0.0.0/8\nnot_from = @list.txt\n",
            list="192.0.2.0/24",
        )
        (listener,), (route,) = rules.listeners, rules.routes
        self.assertIs(listener.clients.allowed, listener.clients.excluded)
        self.assertIs(route.clients.excluded, listener.clients.excluded)
        assert route.clients.allowed is not None
        self.assertEqual(sorted(map(str, route.clients.allowed)), ["10.0.0.0/8", "192.0.2.0/24"])
        for one in (listener.clients.allowed, listener.accept_proxy_from):
            self.assertIn(ip_address("192.0.2.7"), one)

    def test_paths_start_at_the_naming_file(self) -> None:
        text = "[route r]\nbackend = b\nfrom = @near.txt\nmatch = any\n[backend b]\nserver = a:1\n"
        self.write("sub/x.ini", text)
        self.write("sub/near.txt", "192.0.2.1")
        main = f"[txmux]\ninclude = sub/x.ini\n{LISTEN}silent = b\ndeny = @list.txt"
        rules = self.rules(main, list="")
        allowed, denied = rules.routes[0].clients.allowed, rules.listeners[0].clients.excluded
        assert allowed is not None
        assert denied is not None
        self.assertEqual([*map(str, allowed), *denied], ["192.0.2.1/32"])

    def test_empty(self) -> None:
        rules = self.rules(
            f"{LISTEN}allow = @list.txt\n[listen b]\nendpoint = :2\n"
            "[route r]\nunder = *\nmatch = any\nbackend = close\nfrom = @list.txt\n",
            list="# nothing yet\n",
        )
        for clients in (rules.listeners[0].clients, rules.routes[0].clients):
            assert clients.allowed is not None
            self.assertEqual(len(clients.allowed), 0)
        found = [str(problem).partition("warning: ")[2] for problem in lint(rules)]
        expected = [
            "[listen a] allow: names no network, so no client can connect; add one, or remove this",
            "[route r] from: names no network, so no client is served; add one, or remove this route",
        ]
        self.assertEqual(found, expected)

    def test_wrong_lines_and_files_are_named(self) -> None:
        found = self.complaints(
            f"{LISTEN}deny = @list.txt\nallow = @list.txt\nmax_connections = x",
            list="10.0.0.0/8\n10.0.0.1/8\nx\n1.2.3.4, 5.6.7.8\n" + "y" * 100,
        )
        expected = [
            "rules.ini:5: [listen a] max_connections: must be a whole number from 0 to 1000000000, not 'x'",
            "list.txt:2: '10.0.0.1/8' is an address inside a network; write '10.0.0.0/8' for the network or '10.0.0.1' for the one address",
            "list.txt:3: 'x' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
            "list.txt:4: '1.2.3.4, 5.6.7.8' is not a network; write one a line, and what else it is to say after '#'",
            "list.txt:5: is not a network; write one a line, such as 10.0.0.0/8, and nothing else",
        ]
        self.assertEqual(found, expected)
        found = self.complaints(f"{LISTEN}deny = @list.txt", list="x\n" * 1000)
        self.assertEqual(len(found), 6)
        last = "list.txt:6: is not a network either; there are 1000 such lines in this file"
        self.assertEqual(found[-1], last)
        advice = "a relative path starts at the folder of the file that names it"
        text = f"{LISTEN}deny = @none.txt\n  @.\n  @\n  list.txt\n  lst\n  /24"
        found = self.complaints(text, list="10.0.0.1\n")
        expected = [
            f"cannot read 'none.txt': No such file or directory; {advice}",
            f"cannot read '{self.folder}': Is a directory; {advice}",
            "'@' names no file; its path belongs behind it",
            "'list.txt' is not a network; did you mean '@list.txt'?",
            "'lst' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
            "'/24' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
        ]
        self.assertEqual([line.partition(" deny: ")[2] for line in found], expected)

    def test_growth(self) -> None:
        """Twice as many take twice as long to read, and a look-up as long as with a few."""

        def lines(size: int) -> list[str]:
            numbers = random.Random(size)
            forms = ((32, 0, ""), (24, 8, "/24"), (48, 80, "/48"))
            return [
                f"{ip_address(numbers.getrandbits(bits) << shift)}{suffix}"
                for bits, shift, suffix in forms
                for _ in range(size)
            ]

        def reading(size: int) -> Callable[[], object]:
            route = "[route r]\nmatch = any\nbackend = close\nnot_from = @list.txt"
            text, its = f"{LISTEN}deny = @list.txt\n{route}", "\n".join(lines(size))
            return lambda: lint(self.rules(text, list=its))

        def looking_up(size: int) -> Callable[[], object]:
            networks = NetworkSet(map(ip_network, lines(size)))
            address = ip_address("192.0.2.7")
            return lambda: [address in networks for _ in range(100)]

        self.assertLess(growth(reading), AT_ALL)
        self.assertLess(growth(looking_up), 1.3)
