import gc
import json
from collections.abc import Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import change_constants, make_folder, pretend_user
from txmux.cli.provider.writer import ProviderWriter
from txmux.errors import MuxError
from txmux.interfaces import ProvidedObject
from txmux.rules.problems import RulesError
from txmux.rules.reading import context, files, parser
from txmux.rules.reading.files import SourceFile

RULES = """
[txmux]
include = p/*.ini
[listen public]
endpoint = :443
routes_from = own
[route ssh]
match = ssh
backend = 127.0.0.1:22
"""


def route(name: str, match: str = "any", more: str = "") -> ProvidedObject:
    return ProvidedObject(
        f"object {name}", f"[route {name}]\nmatch = {match}\nbackend = 127.0.0.1:1\n{more}"
    )


class WriterTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        (self.folder / "p").mkdir()
        self.rules = self.folder / "rules.ini"
        self.rules.write_text(RULES)
        self.path = self.folder / "p/own.ini"
        self.clock = Clock()
        self.asked: list[str] = []
        self.told: list[str] = []
        self.refuses = False
        self.answer: Any = None
        self.writer = self.made()

    def made(self, *listen_keys: str) -> ProviderWriter:
        how = self.clock, self.path, self.rules, self._ask, self.told.append
        writer = ProviderWriter(*how, listen_keys=set(listen_keys))
        self.addCleanup(writer.stop)
        return writer

    def _ask(self, method: str, path: str) -> Deferred[Any]:
        self.asked.append(f"{method} {path}")
        if self.refuses:
            raise MuxError("you may not")
        return succeed(self.answer)

    def write(self, *objects: ProvidedObject, seconds: float = 0.0) -> str:
        with capturedLogs() as events:
            self.writer.write(lambda _: objects)
            self.clock.advance(seconds)
        return "\n".join(map(eventAsText, events))

    def routes(self) -> list[str]:
        return [line for line in self.path.read_text().splitlines() if line.startswith("[")]

    def reported(self) -> str:
        return str(json.loads(self.path.with_name(".own.ini.state").read_text())["why"])

    def test_once_a_second_and_the_newest_state(self) -> None:
        self.write(route("a"))
        self.assertEqual(self.routes(), ["[route a]"])
        for name in "bcd":
            self.write(route(name), seconds=0.1)
        self.assertEqual(self.routes(), ["[route a]"])
        self.clock.advance(0.7)
        self.assertEqual((self.routes(), self.asked), (["[route d]"], ["POST /api/reload"] * 2))
        self.write(route("d"), seconds=2)
        self.writer.stop()  # from then on, what its provider still learns changes nothing
        self.writer.lost("cancelled")
        self.write(route("e"), seconds=2)
        self.assertEqual((self.routes(), self.reported()), (["[route d]"], ""))
        files = {one.name for one in self.path.parent.iterdir()}
        self.assertEqual((len(self.asked), files), (2, {"own.ini", ".own.ini.state"}))
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_a_second_passes_after_a_write_that_has_taken_long(self) -> None:
        takes, written = [0.6, 0.0], list[float]()

        def objects(_: object) -> Sequence[ProvidedObject]:
            self.clock.rightNow += takes.pop(0)
            written.append(self.clock.seconds())
            return [route(f"r{len(written)}")]

        for _ in range(2):
            self.writer.write(objects)
            self.clock.advance(0)
        self.clock.pump([0.25] * 8)
        self.assertEqual(len(written), 2)
        self.assertGreaterEqual(written[1] - written[0], 1.0)

    def test_very_many_rules_leave_the_processor_to_others(self) -> None:
        collects: list[bool] = []
        begun: list[float] = []

        def objects(_: object) -> Sequence[ProvidedObject]:
            begun.append(self.clock.seconds())
            collects.append(gc.isenabled())
            self.clock.rightNow += 3.0
            return [route(f"r{len(begun)}")]

        for seconds in (0.0, 2.75):
            self.writer.write(objects, lambda *_: collects.append(gc.isenabled()))
            self.clock.advance(seconds)
        self.assertEqual(begun, [0.0])
        self.clock.advance(0.25)
        self.assertEqual(begun, [0.0, 6.0])
        self.assertEqual((collects, gc.isenabled()), ([False] * 4, True))

    def test_what_makes_no_valid_section_is_left_out(self) -> None:
        bad = ProvidedObject("x\n[y]", problem="it has\nno port")
        objects = (
            route("a"), route("b", "tcp"), bad, route("ssh"), route("c", more="\n[backend q]"),
            route("d"),
        )  # fmt: skip
        logged = self.write(*objects)
        self.assertEqual(self.routes(), ["[route a]", "[route d]"])
        for text in (logged, self.path.read_text()):
            for why in (
                r"object b\b.*: match: unknown matcher 'tcp'",
                r"x\\n\[y\].*: it has\\nno port",
                r"object ssh\b.*: is already at .*rules.ini:\d+; give one another",
                r"object c\b.*: server: is missing",
            ):
                self.assertRegex(text, why)
        written = [line for line in text.splitlines() if not line.startswith("#")]
        self.assertEqual(written, [*route("a").text.split("\n"), *route("d").text.split("\n")])
        self.clock.advance(5)
        self.assertEqual(self.write(*objects), "")

    def test_what_is_suspicious_is_served_and_said_once(self) -> None:
        mail = attrs.evolve(route("mail"), warning="it waits")
        self.assertIn("mail: it waits", self.write(mail))
        self.assertEqual(self.routes(), ["[route mail]"])
        self.clock.advance(5)
        self.assertNotIn("it waits", self.write(mail, route("b")))
        # The file is written though another one that is included has errors, or has the same names.
        (self.path.parent / "a.ini").write_text("[route a]\nmatch = oops\n")
        self.write(route("b"), seconds=9)
        self.assertEqual(self.routes(), ["[route b]"])

    def test_what_its_user_may_not_write(self) -> None:
        """An object is left out for what the service would refuse in a file of this user."""
        for user, expected in ((0, ["[route a]", "[backend u]"]), (12345, ["[route a]"])):
            pretend_user(self, user)
            text = "[backend u]\nserver = 127.0.0.1:1\nfallback = unix:/run/x.sock"
            logged = self.write(route("a"), ProvidedObject("object u", text), seconds=9)
            self.assertEqual(self.routes(), expected)
        self.assertIn("object u is left out: fallback: only files of root", logged)

    def test_a_name_of_another_file(self) -> None:
        """The earlier file has it, by the order of the files, but for what is written already; it is tried again."""
        for other, routes in (
            ("z.ini", ["[route a]", "[route b]"]),
            ("a.ini", ["[route a]", "[route b]"]),
        ):
            (self.folder / "p" / other).write_text(route("a").text)
            self.write(route("a"), route("b"), seconds=1)
            self.assertEqual(self.routes(), routes)
        self.write(seconds=1)
        logged = self.write(route("a"), route("b"), seconds=1)
        message = r"object a\b.* is left out: is already at \S*p/a.ini:\d+; give one another"
        self.assertRegex(logged, message)
        self.assertEqual(self.routes(), ["[route b]"])
        took: list[float] = []

        def objects(_: object) -> Sequence[ProvidedObject]:
            took.append(self.clock.seconds())
            self.clock.rightNow += 1.0  # of very many rules
            return [route("a"), route("b")]

        self.writer.write(objects)
        for seconds in (1, 15):
            self.clock.advance(seconds)
        self.assertEqual(len(took), 1)
        (self.folder / "p" / other).unlink()
        self.clock.advance(5)
        self.assertEqual(self.routes(), ["[route a]", "[route b]"])

    def test_a_name_that_the_service_has_given_to_another_file(self) -> None:
        """What has lost it is left out, and the rest of its unit is served."""
        objects = [attrs.evolve(route(name), unit="u") for name in "ab"]
        self.write(*objects)
        (self.folder / "p/a.ini").write_text(route("a").text)
        self.answer = {
            "untaken": [{"unit": "p/own.ini [unit u]", "errors": ["is already at a.ini"]}]
        }
        self.write(*objects, attrs.evolve(route("c"), unit="u"), seconds=1)
        self.assertEqual(self.routes(), ["[unit u]", "[route a]", "[route b]", "[route c]"])
        self.clock.advance(5)
        self.assertEqual(self.routes(), ["[unit u]", "[route b]", "[route c]"])

    def test_the_largest_objects_take_no_room_from_others(self) -> None:
        """Nor do the reasons for which very many are left out."""
        pretend_user(self, 12345)
        change_constants(self, files, LARGEST_OF_OTHERS=20_000)
        huge = [route(f"h{number}", "tls\n " * 1000) for number in range(9)]
        wrong = [ProvidedObject(f"object w{number}", problem="no") for number in range(1000)]
        logged = self.write(route("a"), *wrong, *huge, route("b"))
        self.assertEqual(
            self.routes(), [f"[route {name}]" for name in ("a", "h0", "h1", "h2", "b")]
        )
        message = "all files of user 12345 may have 0 MiB; remove some rules"
        self.assertIn(f"h8 is left out: it is one of the largest objects: {message}", logged)
        self.assertIn(
            "# left out: 906 more, which the log names", self.path.read_text().split("\n")
        )

    def test_what_is_left_out_keeps_its_place(self) -> None:
        """Where an object says how its clients are refused, nothing that depends on it is left out with it."""
        text = "[listen l]\nendpoint = :1\ndefault = %s\n"
        port = ProvidedObject("port", text % "s", unit="l", refusing=text % "close")
        wrong = ProvidedObject("s", "[backend s]\nserver = 127.0.0.1:0\n", unit="l")
        other = "[route o]\nmatch = ssh\nbackend = close\n"
        self.writer = self.made("endpoint", "default")
        self.write(port, wrong, ProvidedObject("other", other, unit="l"))
        self.assertEqual(self.routes(), ["[unit l]", "[listen l]", "[route o]"])
        self.assertIn("default = close", self.path.read_text())
        self.assertEqual(self.told, [f"{self.path}: 1 object"])

    def test_expressions_take_no_room_from_others(self) -> None:
        """All files of a user may have so many states: what has most of them is left out, and the rest is served."""
        pretend_user(self, 12345)
        change_constants(self, context, _MOST_STATES=100)
        sizes = {"a": 20, "b": 70, "c": 60, "d": 30}
        made = [route(name, f"regex pattern=x{{{size}}}") for name, size in sizes.items()]
        logged = self.write(*made, route("plain"))
        self.assertEqual(self.routes(), ["[route a]", "[route d]", "[route plain]"])
        message = "all expressions in files of user 12345 may have 100 states"
        for name in "bc":
            self.assertIn(f"object {name} is left out: {message}", logged)

    def test_what_refuses_clients_is_never_too_large(self) -> None:
        """Without it, clients of an object would reach what another one has for all."""
        pretend_user(self, 12345)
        change_constants(self, files, LARGEST_OF_OTHERS=40_000)

        def full(name: str, host: str) -> ProvidedObject:
            backend, refused = (
                route(name, f"tls sni={host}", more).text for more in ("# x\n" * 500, "")
            )
            return ProvidedObject(name, backend, refusing=refused.replace("127.0.0.1:1", "reject"))

        rest = f"[route rest]\nmatch = tls sni={'r' * 60}.example\nbackend = reject\n"
        refusing = [full(f"f{number}", f"f{number}.{'x' * 50}.example") for number in range(20)]
        small = [route(f"s{number}") for number in range(1000)]
        self.write(*refusing, ProvidedObject("rest", rest, refusing=rest), *small)
        text, written = self.path.read_text(), self.routes()
        self.assertEqual(
            written[:21], [*(f"[route f{number}]" for number in range(20)), "[route rest]"]
        )
        self.assertEqual(text.count("backend = reject"), 21)
        self.assertIn(len(written), range(22, 1021))
        more = [full(f"f{number}", f"f{number}.{'x' * 50}.example") for number in range(400)]
        logged = self.write(*more, seconds=60)
        self.assertIn("not written: the rules would have errors: ", logged)
        self.assertEqual(self.path.read_text(), text)

    def test_rules_with_errors_or_without_the_file(self) -> None:
        self.path.write_text("# before\n")
        for text, why in (
            ("[listen a]\n[txmux]\ninclude = p/*.ini\n", "the rules have errors: "),
            (RULES.replace("p/*", "q/*"), f"does not include it; write there in [txmux]: include = {self.path.parent}/*.ini"),
        ):  # fmt: skip
            self.rules.write_text(text)
            logged = self.write(route("a"), seconds=60)
            self.assertEqual((logged.count(why), self.path.read_text()), (1, "# before\n"))
            self.assertIn(why, self.told[-1])
            self.assertIn(why, self.reported())
        self.writer.lost("no daemon")
        self.assertEqual(self.reported(), "no daemon")
        self.rules.unlink()
        self.assertIn("No such file", self.write(seconds=60))
        self.assertIn("not written: ", self.reported())
        self.rules.write_text(RULES)
        self.clock.advance(5)
        self.assertEqual(self.reported(), "")
        self.assertEqual(self.routes(), [])
        self.write(route("a"), seconds=5)
        self.assertEqual(self.routes(), ["[route a]"])

    def test_rules_of_the_service_are_shown_to_the_provider(self) -> None:
        self.path.write_text(route("own").text)
        names = lambda rules: "-".join(its.name for its in rules.routes)  # noqa: E731
        self.writer.write(lambda rules: [route(f"beside-{names(rules)}")])
        self.clock.advance(0)
        self.assertEqual(self.routes(), ["[route beside-ssh]"])

    def test_lost_source(self) -> None:
        with capturedLogs() as events:
            self.writer.lost("no daemon")
            self.writer.lost("no daemon")
            self.assertFalse(self.path.exists())
            self.write(route("a"))
            self.writer.lost("gone")
        logged = "\n".join(map(eventAsText, events))
        self.assertEqual(logged.count("no daemon; nothing is written until it answers"), 1)
        self.assertEqual(logged.count("the source answers again"), 1)
        self.assertIn(f"gone; {self.path} stays as it is until it answers", logged)
        self.assertEqual(self.told[-1], f"gone; {self.path} stays as it is")
        self.assertEqual(self.routes(), ["[route a]"])

    def test_systemd_is_told_of_a_file_that_is_right_already(self) -> None:
        self.write(route("a"))
        self.writer.lost("gone")
        self.write(route("a"), seconds=5)
        self.assertEqual(self.told[-1], f"{self.path}: 1 object")
        self.told.clear()
        again = self.made()
        again.write(lambda _: [route("a")])
        self.clock.advance(0)
        self.assertEqual(self.told, [f"{self.path}: 1 object"])
        again.write(lambda _: [route("a")])
        self.clock.advance(2)
        self.assertEqual((len(self.told), len(self.asked)), (1, 1))

    def test_a_service_that_refuses_to_reload(self) -> None:
        """It is asked again, as one that starts later."""
        self.refuses = True
        logged = self.write(route("a"))
        self.clock.pump([5, 10, 20])
        self.assertEqual(len(self.asked), 4)
        logged += self.write(route("b"), seconds=5)
        why = "does not reload at once, so watch_rules has to do it: you may not"
        self.assertEqual(logged.count(why), 1)
        asked = len(self.asked)
        self.refuses = False
        self.clock.pump([40, 1000])
        self.assertEqual(len(self.asked), asked + 1)

    def test_listeners_have_the_keys_that_the_provider_may_set(self) -> None:
        own = ProvidedObject("own", "[listen own]\nendpoint = :1\n")
        more = ProvidedObject("more", "[ listen more ]\nendpoint = :2\nallow = 10.0.0.1\n")
        logged = self.write(own, route("listening", "tls sni=listen"))
        self.assertIn("own is left out: not for its provider: [listen] sections", logged)
        self.assertEqual(self.routes(), ["[route listening]"])
        self.writer = self.made("endpoint")
        logged = self.write(own, more)
        self.assertEqual(self.routes(), ["[listen own]"])
        self.assertIn("more is left out: not for its provider: allow of [listen]", logged)

    def test_the_provider_learns_what_is_served(self) -> None:
        told: list[object] = []

        def served(objects: Sequence[ProvidedObject], why: str) -> None:
            told.append(([one.problem.partition(";")[0] for one in objects], why))

        def write(*objects: ProvidedObject) -> None:
            self.writer.write(lambda _: objects, served)
            self.clock.advance(2)

        write(route("a"), route("b", "ssh x=1"))
        self.assertEqual(told, [(["", "match: unknown option 'x' (ssh takes software=)"], "")])
        self.refuses = True
        write(route("c"))
        write(route("c"))
        self.assertEqual(told[1:], [([""], "you may not")] * 2)
        asking: Deferred[Any] = Deferred()
        self.writer.ask = lambda *_: asking
        write(route("d"))
        write(route("d"))
        self.assertEqual(told[3:], [([""], "the service has not answered yet")])
        asking.callback(None)
        self.assertEqual(told[4:], [([""], "")])

    def test_units_that_the_service_has_not_taken(self) -> None:
        """Their objects have the reason, and the service is asked again until they are taken."""
        told: list[list[tuple[str, str]]] = []
        self.rules.write_text(RULES.replace("p/*.ini", "p/*.ini, else/*.ini"))
        other = self.folder / "else/own.ini"
        other.parent.mkdir()
        other.touch()
        answer: dict[str, Any] = {
            "untaken": [
                {"unit": str(other), "errors": [f"{other}:1: [route b] match: wrong"]},
                {"unit": "elsewhere/other.ini [unit b]", "errors": ["other.ini:1: [listen b] endpoint: wrong"]},
                {"unit": "p/own.ini [unit b]", "errors": ["p/own.ini:9: [listen b] endpoint: cannot listen at :1: in use"]},
            ]
        }  # fmt: skip
        self.answer = answer
        objects = [attrs.evolve(route(name), unit=name) for name in "ab"]

        def served(its: Sequence[ProvidedObject], _: str) -> None:
            told.append([(one.name, one.problem) for one in its])

        self.writer.write(lambda _: objects, served)
        self.clock.advance(0)
        self.assertEqual(self.routes(), ["[unit a]", "[route a]", "[unit b]", "[route b]"])
        b = "object b", "cannot listen at :1: in use"
        self.assertEqual(told, [[("object a", ""), b]])
        self.clock.advance(5)
        self.assertEqual(told[1:], [[("object a", ""), b]])
        answer["untaken"] = []
        self.clock.advance(5)
        self.assertEqual(told[2:], [[("object a", ""), ("object b", "")]])
        self.clock.advance(20)
        self.assertEqual(self.asked, ["POST /api/reload", *["GET /api/status"] * 2])

    def test_drafts_after_another_are_read_as_the_first(self) -> None:
        texts = [
            route(name, match).text
            for name, match in (("a", "any"), ("a", "oops"), ("ssh", "any"), ("b", "tls sni=b"))
        ]

        def read(text: str) -> object:
            try:
                rules = parser.load_draft(self.rules, SourceFile(str(self.path), text))
            except RulesError as error:
                return error.problems
            return [one.name for one in rules.routes]

        parser.last_read = None
        after = [read(text) for text in texts]
        alone = []
        for text in texts:
            parser.last_read = None
            alone.append(read(text))
        self.assertEqual(after, alone)
