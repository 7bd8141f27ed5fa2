import re

import attrs
from twisted.python.reflect import namedAny
from zope.interface import implementer

import txmux
from tests.rules.fakes import FakeMatcher, FakePredicate
from tests.support.changes import change_environment, install
from tests.support.kit import CommandTestCase, Terminal
from txmux.cli import matchers
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import IProtocolMatcher, Option, Transport
from txmux.rules.reading.parser import parse
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

OWN = f"txmux {txmux.__version__}"


@implementer(IProtocolMatcher)
@attrs.frozen
class LocalMatcher:
    name: str = "local"
    summary: str = "for tests"
    options: tuple[Option, ...] = ()

    def predicate(self, options: object) -> FakePredicate:
        return FakePredicate("local")


def matcher_of(module: str) -> IProtocolMatcher:
    matcher: IProtocolMatcher = type("Matcher", (LocalMatcher,), {"__module__": module})(module)
    return matcher


class MatchersTests(CommandTestCase):
    def test_list_has_one_line_for_each_with_its_package(self) -> None:
        out = self.told(0, self.run_main("matchers"))
        head, *lines = out.splitlines()
        self.assertEqual(head.split(), ["matcher", "over", "recognises", "from"])
        self.assertEqual([line.split()[0] for line in lines], list(installed_matchers()))
        for line, matcher in zip(lines, installed_matchers().values(), strict=True):
            self.assertIn(f" {matcher.summary} ", line)
            self.assertTrue(line.endswith(f" {OWN}"), line)
        # No word is lost on a terminal.
        change_environment(self, TERM="xterm", COLUMNS="200")
        _, out, _ = self.run_main("matchers", out=Terminal())
        plain = re.sub(r"\x1b\[[0-9;]*m", "", out)
        self.assertEqual(plain.splitlines()[0].split(), head.split())
        for matcher in installed_matchers().values():
            self.assertIn(matcher.summary, plain)
        # Problems of plugins are warnings.
        install(self, matchers, problem="a plugin is broken")
        said = "matcher  over  recognises  from\n", "warning: a plugin is broken\n"
        self.assertEqual(self.run_main("matchers"), (0, *said))

    def describe(self, name: str) -> str:
        return self.told(0, self.run_main("matchers", name))

    def test_options_and_examples_with_those_they_need(self) -> None:
        self.assertEqual(self.describe("payload").splitlines()[:8], [
            "payload: given bytes at a given offset", f"over tcp, udp, from {OWN}", "",
            "option   meaning",
            *(f"{o.name + '=':9}{o.meaning}" for o in installed_matchers()["payload"].options),
        ])  # fmt: skip
        examples = self.describe("payload").partition("in a rules file")[2]
        for line in ("text=JDWP- offset=4  ", "text=JDWP-  ", "hex='16 03 01' mask='ff ff fc'  "):
            pattern = rf"match = payload {re.escape(line)} *\d bytes, or 1 datagram\n"
            self.assertRegex(examples, pattern)
        self.assertEqual(
            self.describe("any"),
            f"any: anything at all, from its first byte\nover tcp, udp, from {OWN}\n\nIt has no options.\n\n"
            "in a rules file  needs at most\nmatch = any      1 byte, or 1 datagram\n",
        )
        # An unknown name has a hint.
        for name, message in (
            ("bitcon", "'bitcon'; did you mean 'bitcoin'? 'txmux matchers' lists "),
            ("mysql", "'mysql'; its clients wait"),
            ("a b", "'a b'"),
        ):
            err = self.told(1, self.run_main("matchers", name))
            self.assertTrue(err.startswith(f"txmux: unknown matcher {message}"), err)
        # Examples of all matchers are valid, and show each option.
        # Nothing is asked here of where they are from, for which all that is installed is read.
        self.patch(matchers, "_origins", lambda found: {matcher.name: OWN for matcher in found})
        for name, matcher in installed_matchers().items():
            pattern = r"^(match = .*?)  +\d+ (?:bytes?|datagrams?)\b.*$"
            lines = re.findall(pattern, self.describe(name), re.MULTILINE)
            self.assertTrue(lines, name)
            endpoint = ":443" if Transport.TCP in transports_of(matcher) else "udp:443"
            text = f"[listen a]\nendpoint = {endpoint}\n" + "".join(
                f"[route r{number}]\n{line}\nbackend = close\n" for number, line in enumerate(lines)
            )
            self.assertEqual(len(parse(text, "x").routes), len(lines))
            for option in matcher.options:
                self.assertIn(f" {option.name}=", "\n".join(lines))

    def test_origin(self) -> None:
        picky = FakeMatcher("picky", (Option("port", "for tests", "bad"),))
        origins = {
            # The distribution that has the file, or the module if none has it.
            matcher_of("twisted.internet.tcp"): f"Twisted {namedAny('twisted.__version__')}",
            matcher_of("twisted.plugins.mine"): "module twisted.plugins.mine",
            LocalMatcher(): f"module {__name__}",
            PlainMatcher("mine", "x", Pattern(b"x")): f"module {__name__}",
            picky: f"module {FakeMatcher.__module__}",
        }
        install(self, matchers, *origins)
        lines = self.told(0, self.run_main("matchers")).splitlines()[1:]
        for line, (matcher, origin) in zip(lines, origins.items(), strict=True):
            self.assertRegex(line, rf"^{matcher.name} .* {re.escape(origin)}$")
        # An invalid example is left out.
        self.assertNotIn("match = ", self.describe("picky"))
