from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.lint.warnings import closed_listeners, lint
from txmux.rules.reading.parser import parse


class ClosedTests(SynchronousTestCase):
    def found(self, text: str) -> list[str]:
        return list(map(str, closed_listeners(parse(text, "x.ini"))))

    def test_routes_that_another_program_will_write(self) -> None:
        text = "[txmux]\ninclude = no-such/*.ini\n{}[listen a]\nendpoint = :1\ndefault = close\n"
        self.assertEqual(self.found(text.format("watch_rules = 1s\n")), [])
        self.assertEqual(len(self.found(text.format(""))), 1)

    def test_routes_without_a_listener(self) -> None:
        """The listeners that another program will write are for routes of its own."""
        text = "[txmux]\ninclude = no-such/*.ini\nwatch_rules = 1s\n[route r]\nmatch = ssh\nbackend = close\n"
        [found] = [str(one) for one in lint(parse(text, "x.ini")) if one.key == "under"]
        self.assertIn("[route r] under: no client gets here, since its unit has no [listen]; add one", found)  # fmt: skip
