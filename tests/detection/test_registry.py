import importlib
import pickle
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import attrs
import twisted
from twisted import plugins
from twisted.plugin import getCache
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.support.changes import change_constants
from txmux.detection import registry
from txmux.detection.detector import Detector
from txmux.detection.registry import Registry, WholeDatagram, installed_matchers
from txmux.interfaces import Datagrams, IProtocolMatcher, Option, Predicate, Transport, Verdict
from txmux.matchers.tls import tls
from txmux.rules.model import Alternative, Refusal, Route
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import read_alternative
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Prefix

_MATCHER = """\
from txmux.matchers.regex import RegexMatcher

class {kind}(RegexMatcher):
    name = {name!r}

{variable} = {kind}()
"""


def _module(kind: str, name: object, variable: str = "matcher") -> str:
    return _MATCHER.format(kind=kind, name=name, variable=variable)


class PluginTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="txmux-plugins-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.name = self.folder.name.replace("-", "_")
        self.package = self.folder / self.name
        self.package.mkdir()
        self.write("__init__", "")
        change_constants(self, sys, path=[str(self.folder), *sys.path])
        self.addCleanup(self.forget)

    def forget(self) -> None:
        for name in [name for name in sys.modules if name.startswith(self.name)]:
            del sys.modules[name]

    def write(self, module: str, text: str) -> Path:
        path = self.package / f"{module}.py"
        path.write_text(text)
        return path

    def distribute(self, distribution: str, module: str) -> None:
        metadata = self.folder / f"{distribution}-1.5.dist-info"
        metadata.mkdir()
        text = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n"
        (metadata / "METADATA").write_text(text)
        (metadata / "RECORD").write_text(f"{self.name}/{module}.py,,\n")

    def found(self) -> Registry:
        importlib.invalidate_caches()
        package: ModuleType = importlib.import_module(self.name)
        return installed_matchers(package)

    def test_which_are_found(self) -> None:
        for text, names in (
            ("again = 1\n", []), (_module("Mine", "mine") + "again = matcher\n", ["mine"]),
        ):  # fmt: skip
            self.write("one", text)
            found = self.found()
            self.assertEqual((list(found), found.problems), (names, ()))
            self.forget()

    def test_name_claimed_twice_is_nobodys(self) -> None:
        first = self.write("first", _module("One", "twice"))
        second = self.write("second", _module("Two", "twice") + _module("Fine", "fine", "fine"))
        self.distribute("first_package", "first")
        found = self.found()
        self.assertEqual(list(found), ["fine"])
        self.assertEqual((len(found), "twice" in found, "fine" in found), (1, False, True))
        (problem,) = found.problems
        self.assertEqual(problem.name, "twice")
        self.assertEqual(
            str(problem),
            "the matcher 'twice' is there 2 times: "
            f"{self.name}.first.One in {first} (first_package 1.5) and {self.name}.second.Two in {second}; "
            "rules that use it are refused until only one of them is installed",
        )
        error = self.assertRaises(registry.UnusableMatcherError, found.__getitem__, "twice")
        self.assertEqual(str(error), str(problem))
        self.assertRaises(KeyError, found.__getitem__, "thrice")

    def test_import_failure_is_named_with_its_package(self) -> None:
        broken = self.write("broken", "raise ValueError('first\\nsecond')\n")
        self.write("fine", _module("Fine", "fine"))
        self.distribute("broken_package", "broken")
        found = self.found()
        self.assertEqual(list(found), ["fine"])
        (problem,) = found.problems
        self.assertIsNone(problem.name)
        self.assertEqual(
            str(problem),
            f"the plugin module {self.name}.broken in {broken} (broken_package 1.5) cannot be used: "
            "ValueError: first second; matchers in it are missing until it is repaired or uninstalled",
        )
        self.assertEqual(self.flushLoggedErrors(), [])  # the problem is all that is said

    def test_broken(self) -> None:
        """At once, or after Twisted has kept what was in it."""
        for number, (text, why, later) in enumerate((
            ("import sys\nsys.exit('bye')\n", "SystemExit: bye", False),
            (_module("Odd", 5), "TypeError: a matcher's name is 5, not a str", False),
            ("import sys\nsys.exit('bye')\n", "SystemExit: bye", True),
            (_module("Odd", 5), "TypeError: a matcher's name is 5, not a str", True),
            ("import no_such_module_anywhere\n", "ModuleNotFoundError: No module", True),
        )):  # fmt: skip
            path = self.write(f"stale{number}", _module("Stale", "stale"))
            if later:
                self.assertEqual(list(self.found()), ["stale"])
                self.forget()
            path.write_text(text)
            found = self.found()
            self.assertEqual(list(found), [])
            (problem,) = found.problems
            self.assertIn(f"{path} cannot be used: {why}", str(problem))
            self.forget()
            path.unlink()

    def test_cache_of_others(self) -> None:
        """What Twisted keeps of others' plugins stays as it is, although no interface of theirs is imported."""
        theirs = "twisted.words.iwords"
        imports = f"from twisted.plugin import IPlugin\nfrom {theirs} import IProtocolPlugin\n"
        made = "@implementer(IPlugin, IProtocolPlugin)\nclass It: pass\nit = It()\n"
        self.write("others", f"{imports}from zope.interface import implementer\n{made}")
        self.assertEqual(list(self.found()), [])
        self.addCleanup(sys.modules.update, {theirs: sys.modules.pop(theirs)})
        for is_new in (False, True):
            self.forget()
            self.write("mine", _module("Mine", "mine") if is_new else "")
            self.assertEqual("mine" in self.found(), is_new)
        (it,) = getCache(importlib.import_module(self.name))["others"].plugins
        self.assertIn(importlib.import_module(theirs).IProtocolPlugin, it.provided)

    def test_cache_of_an_interface_that_has_left(self) -> None:
        """It is made anew, so that no later start has to import what has not changed."""
        gone = self.folder / "gone.py"
        gone.write_text("from twisted.plugin import IPlugin\nclass IGone(IPlugin): pass\n")
        change_constants(self, twisted, __path__=[*twisted.__path__, str(self.folder)])
        imports = "from zope.interface import implementer\nfrom twisted.gone import IGone\n"
        self.write("others", imports + "@implementer(IGone)\nclass It: pass\nit = It()\n")
        self.assertEqual(self.found(), Registry({}))
        del sys.modules["twisted.gone"]
        gone.unlink()
        self.write("mine", _module("Mine", "mine"))
        for _ in range(2):
            self.forget()
            self.assertEqual(list(self.found()), ["mine"])
        self.assertEqual(list(pickle.loads((self.package / "dropin.cache").read_bytes())), ["mine"])

    def test_own_interface_of_a_plugin_at_the_next_start(self) -> None:
        imports = "from zope.interface import implementer\nfrom txmux.interfaces import IProtocolMatcher\n"
        its = "name, summary, options, predicate = 'own', 'x', (), print"
        made = f"class IOwn(IProtocolMatcher): pass\n@implementer(IOwn)\nclass Own: {its}\nown = Own()\n"
        self.write("txmux_own", imports + made)
        change_constants(self, plugins, __path__=[str(self.package)])
        for _ in range(2):
            importlib.invalidate_caches()
            change_constants(self, registry, _known={})
            self.assertIn("own", installed_matchers())
            del sys.modules["twisted.plugins.txmux_own"]

    def test_repaired_meanwhile(self) -> None:
        flag = self.folder / "flag"
        self.write(
            "sometimes",
            f"import pathlib\nflag = pathlib.Path({str(flag)!r})\nthere = flag.exists()\nflag.touch()\n"
            "if not there:\n    raise OSError('not yet')\n" + _module("Slow", "slow"),
        )
        self.assertEqual((self.found(), list(self.found())), (Registry({}), ["slow"]))

    def test_incomplete_matchers_are_named_and_leave_the_others(self) -> None:
        for body, lacks in (
            ("summary = 'x'\n    options = ()", "predicate"),
            ("predicate = print", "summary, options"),
            ("predicate, summary, options = 5, 'x', ()", "predicate (5)"),
            ("predicate, summary, options = print, 5, ['sni']", "summary (5), options (['sni'])"),
            ("predicate, summary, options = print, 'x', None", "options (None)"),
            ("predicate, summary, options = print, 'x', ()\n    transports = 'udp'", "transports"),
            ("predicate, summary = print, 'x'\n    @property\n    def options(self): 1/0",
             "options (ZeroDivisionError: division by zero)"),
        ):  # fmt: skip
            text = (
                "from zope.interface import implementer\nfrom txmux.interfaces import IProtocolMatcher\n"
                f"@implementer(IProtocolMatcher)\nclass Half:\n    name = 'half'\n    {body}\nhalf = Half()\n"
            )
            path = self.write("half", text + _module("Fine", "fine"))
            found = self.found()
            self.assertEqual(list(found), ["fine"])
            (problem,) = found.problems
            message = f"the matcher 'half' in {path} is incomplete (missing or wrong: {lacks}); "
            self.assertTrue(str(problem).startswith(message), problem)
            with self.assertRaisesRegex(
                InvalidValueError, "the matcher 'half' in .* is incomplete"
            ):
                read_alternative("half", found)
            self.forget()


_ABC = Prefix(b"abc")


@implementer(IProtocolMatcher)
@attrs.frozen
class _Declares:
    transports: object
    name: str = "declares"
    summary: str = "for tests"
    options: tuple[Option, ...] = ()

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _ABC


class TransportTests(SynchronousTestCase):
    def test_what_is_asked_about_a_datagram(self) -> None:
        """The predicate about the whole of it, or one for datagrams; nothing without a declaration."""
        both, other = tuple(Transport), Prefix(b"x")
        for matcher, asked in (
            (tls, None), (PlainMatcher("x", "x", _ABC, transports=both), WholeDatagram(_ABC)),
            (PlainMatcher("x", "x", _ABC, transports=both, datagrams=other), other),
        ):  # fmt: skip
            self.assertEqual(registry.datagram_predicate(matcher, {}, _ABC), asked)
        self.assertEqual(registry.transports_of(tls), {Transport.TCP})

    def test_udp_only_is_never_asked_about_streams(self) -> None:
        matcher = PlainMatcher("x", "x", _ABC, transports=(Transport.UDP,))
        line = read_alternative("not x", {"x": matcher})
        self.assertEqual(
            line, Alternative("not x", _ABC, negated=True, datagrams=_ABC, streams=False)
        )
        for wrong in ((), ("udp",), None):
            error = self.assertRaises(
                InvalidValueError, read_alternative, "declares", {"declares": _Declares(wrong)}
            )
            self.assertIn("the matcher 'declares' failed", str(error))

    def test_whole_datagram(self) -> None:
        whole = WholeDatagram(_ABC)
        for first, verdict in ((b"abcd", "MATCH"), (b"ab", "NO"), (b"x", "NO")):
            self.assertIs(whole(Datagrams((first, b"abc"))), Verdict[verdict])
        self.assertEqual((whole.longest, whole.first_bytes, whole.key), (1, {0x61}, None))
        self.assertIsNone(whole.learnt)
        predicate = tls.predicate({"sni": "a.example"})
        whole = WholeDatagram(predicate)
        self.assertEqual(whole.key, predicate.key)  # type: ignore[attr-defined]
        lines = (Alternative("x", WholeDatagram(_ABC)), Alternative("tls", whole))
        plan = Detector([Route("a", lines, Refusal.CLOSE)]).plan(0x16)
        self.assertEqual(plan.learners_for(0), (whole.learnt,))

    def test_installed(self) -> None:
        found = installed_matchers()
        self.assertEqual((list(found), len(found)), (sorted(found), len(list(found))))
        self.assertTrue({"any", "http", "payload", "redis", "regex", "ssh", "tls"} <= found.keys())
        self.assertEqual(found.problems, ())
        found = installed_matchers()
        change_constants(self, plugins, __path__=["/nonexistent"])
        self.assertIs(installed_matchers(), found)
