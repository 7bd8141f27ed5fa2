"""What is told of a change of the rules."""

from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.changes import changes, unchangeable
from txmux.rules.reading.parser import parse

_BASE = "[listen x]\nendpoint = :443\n"


class ChangesTest(SynchronousTestCase):
    def told(self, old: str, new: str) -> str:
        return str(changes(parse(_BASE + old, "r.ini"), parse(_BASE + new, "r.ini")))

    def test_routes(self) -> None:
        old = "[route c]\nmatch = ssh\nbackend = close\n[route d]\nmatch = tls\nbackend = close\n"
        new = "".join(f"[route {n}]\nmatch = redis\nbackend = close\n" for n in "abc")
        self.assertEqual(self.told(old, new), "2 routes new (a, b), 1 changed (c), 1 gone (d)")

    def test_thousands(self) -> None:
        """Each change names some, so that a line stays one."""
        new = "".join(f"[route r{n}]\nmatch = redis\nbackend = close\n" for n in range(3000))
        named = ", ".join(f"r{n}" for n in range(20))
        self.assertEqual(self.told("", new), f"3000 routes new ({named} and 2980 more)")

    def test_order(self) -> None:
        one, other = (f"[route {n}]\nmatch = {n}\nbackend = close\n" for n in ("ssh", "tls"))
        self.assertEqual(self.told(one + other, other + one), "the order of routes changed")

    def test_backend_does_not_change_what_leads_to_it(self) -> None:
        rules = "[route a]\nmatch = ssh\nbackend = b\n[backend b]\nserver = 127.0.0.1:{}\n"
        lead = rules + "[backend c]\nserver = 127.0.0.1:9\nfallback = b\n"
        self.assertEqual(self.told(lead.format(1), lead.format(2)), "1 backend changed (b)")

    def test_listeners(self) -> None:
        more = "[listen y]\nendpoint = :80\n"
        self.assertEqual(self.told("", more), "listener y opened")
        self.assertEqual(self.told(more, ""), "listener y closed")
        self.assertEqual(self.told(more, more + "peek_limit = 5\n"), "listener y changed")

    def test_settings(self) -> None:
        self.assertEqual(
            self.told("", "[txmux]\nworkers = 2\ndrain_timeout = 5s\n"),
            "workers, drain_timeout of [txmux] changed",
        )

    def test_comments_and_blanks_change_nothing(self) -> None:
        self.assertEqual(self.told("", "# so\n\n[txmux]\ndrain_timeout = 30s\n"), "")

    def test_unchangeable(self) -> None:
        old = parse(_BASE, "r.ini").settings
        text = f"{_BASE}[txmux]\nworkers = 2\nrelay = portable\nuser = nobody\n"
        problems = unchangeable(old, parse(text, "r.ini").settings)
        self.assertEqual(
            [str(problem) for problem in problems],
            [
                f"r.ini:{line}: [txmux] {key}: cannot change while the service runs; restart it for that"
                for line, key in ((5, "relay"), (6, "user"))
            ],
        )
