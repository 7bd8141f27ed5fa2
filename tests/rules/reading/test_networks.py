import random
import time
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.support.folders import make_folder
from txmux.rules.lint.warnings import lint
from txmux.rules.model import NetworkSet, Rules
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import load
from txmux.transport import IPAddress

LISTEN = "[listen a]\nendpoint = :1\n"


class ListsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)

    def rules(self, text: str, **files: str) -> Rules:
        (self.folder / "rules.ini").write_text(text)
        for name, its in files.items():
            path = self.folder / f"{name}.txt"
            path.write_text(its)
        return load(self.folder / "rules.ini", MATCHERS)

    def complaints(self, text: str, **files: str) -> list[str]:
        error = self.assertRaises(RulesError, self.rules, text, **files)
        return [str(problem).replace(f"{self.folder}/", "") for problem in error.problems]

    def refuses(self, text: str, *told: str, **files: str) -> None:
        self.assertEqual(self.complaints(text, **files), [*told])

    def test_form(self) -> None:
        text = "\ufeff# a list\r\n10.0.0.0/8\r\n\r\n 192.0.2.1 ; SBL1\n; é\n2001:db8::/32#x"
        deny = self.rules(f"{LISTEN}deny = @list.txt", list=text).listeners[0].clients.excluded
        assert deny is not None
        self.assertEqual([*map(str, deny)], ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"])

    def test_bytes_in_comments(self) -> None:
        (self.folder / "list.txt").write_bytes(b"10.0.0.0/8 # \xff\n")
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
        sub = self.folder / "sub"
        sub.mkdir()
        (sub / "x.ini").write_text(
            "[route r]\nbackend = b\nfrom = @near.txt\nmatch = any\n[backend b]\nserver = a:1\n"
        )
        (sub / "near.txt").write_text("192.0.2.1")
        rules = self.rules(
            f"[txmux]\ninclude = sub/x.ini\n{LISTEN}silent = b\ndeny = @list.txt", list=""
        )
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
        self.assertEqual(
            found,
            [
                "[listen a] allow: names no network, so no client can connect; add one, or remove this",
                "[route r] from: names no network, so no client is served; add one, or remove this route",
            ],
        )

    def test_wrong_lines(self) -> None:
        self.refuses(
            f"{LISTEN}deny = @list.txt\nallow = @list.txt\nmax_connections = x",
            "rules.ini:5: [listen a] max_connections: must be a whole number from 0 to 1000000000, not 'x'",
            "list.txt:2: '10.0.0.1/8' is an address inside a network; write '10.0.0.0/8' for the network "
            "or '10.0.0.1' for the one address",
            "list.txt:3: 'x' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
            "list.txt:4: '1.2.3.4, 5.6.7.8' is not a network; write one a line, and what else it is to say after '#'",
            "list.txt:5: is not a network; write one a line, such as 10.0.0.0/8, and nothing else",
            list="10.0.0.0/8\n10.0.0.1/8\nx\n1.2.3.4, 5.6.7.8\n" + "y" * 100,
        )

    def test_only_the_first_wrong_lines(self) -> None:
        found = self.complaints(f"{LISTEN}deny = @list.txt", list="x\n" * 1000)
        self.assertEqual(len(found), 6)
        self.assertEqual(
            found[-1], "list.txt:6: is not a network either; there are 1000 such lines in this file"
        )

    def test_no_file(self) -> None:
        advice = "a relative path starts at the folder of the file that names it"
        found = self.complaints(
            f"{LISTEN}deny = @none.txt\n  @.\n  @\n  list.txt\n  lst\n  /24", list="10.0.0.1\n"
        )
        self.assertEqual(
            [line.partition(" deny: ")[2] for line in found],
            [
                f"cannot read 'none.txt': No such file or directory; {advice}",
                f"cannot read '{self.folder}': Is a directory; {advice}",
                "'@' names no file; its path belongs behind it",
                "'list.txt' is not a network; did you mean '@list.txt'?",
                "'lst' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
                "'/24' is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32",
            ],
        )

    def test_time(self) -> None:
        """They are read in a few times what it takes to read each by itself, and a look-up costs as much as with a few."""
        numbers = random.Random(1)
        lines = [f"{ip_address(numbers.getrandbits(32))}" for _ in range(7_000)]
        lines += [f"{ip_address(numbers.getrandbits(24) << 8)}/24" for _ in range(2_000)]
        lines += [f"{ip_address(numbers.getrandbits(48) << 80)}/48" for _ in range(1_000)]
        begin = time.process_time()
        rules = self.rules(
            f"{LISTEN}deny = @list.txt\n[route r]\nmatch = any\nbackend = close\nnot_from = @list.txt",
            list="\n".join(lines),
        )
        lint(rules)
        read = time.process_time()
        for line in lines:
            ip_network(line)
        self.assertLess(read - begin, 30 * (time.process_time() - read))
        deny = rules.listeners[0].clients.excluded
        assert deny is not None
        few = NetworkSet(ip_network(line) for line in ("192.0.2.1", "10.0.0.0/24", "2001:db8::/48"))
        strangers = [ip_address(numbers.getrandbits(32)) for _ in range(5_000)]
        self.assertIn(ip_address(lines[0]), deny)
        self.assertLess(_time_of(strangers, deny), 5 * _time_of(strangers, few) + 0.05)


def _time_of(addresses: Sequence[IPAddress], networks: NetworkSet) -> float:
    return min(_once(addresses, networks) for _ in range(5))


def _once(addresses: Sequence[IPAddress], networks: NetworkSet) -> float:
    begin = time.process_time()
    for address in addresses:
        address in networks  # noqa: B015 - only its time counts
    return time.process_time() - begin
