import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.rules.reading.cases import FolderTestCase
from tests.support.changes import change_constants, change_environment
from tests.support.examples import scaled
from tests.support.installed import names_missing
from tests.support.privileges import as_nobody
from txmux import files
from txmux.rules.changes import described_untaken
from txmux.rules.lint.destinations import unprovided
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Files, Refusal, Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.files import LARGEST_RULES
from txmux.rules.reading.parser import (
    is_as_read,
    load,
    read_again,
    retaken,
    with_unseen_units,
    without_unservable,
)
from txmux.rules.reading.units import UntakenUnits, texts_of_units
from txmux.testing import steps_in

LISTEN = "[listen public]\nendpoint = :443\n"
_UNITS = st.tuples(st.lists(st.sampled_from("vwxyz"), unique=True, max_size=3), st.booleans())
"""The names that each has, and whether it is wrong."""


class UnitsTest(FolderTestCase):
    def test_units_of_sections(self) -> None:
        """A file that a pattern finds is a unit, and is divided by its [unit] sections; what is included by name is the operator's."""
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*.ini, own.ini\n{LISTEN}")
        self.write("own.ini", "[backend own]\nserver = 127.0.0.1:1\n")
        a, b, c, d = (f"[backend {name}]\nserver = 127.0.0.1:1\n" for name in "abcd")
        self.write("d/x.ini", f"{a}[unit team-1]\n{b}[unit team-2]\n\n{c}")
        self.write("d/y.ini", d)
        for text in (a, f"# moved\n{a}"):  # the second time, sections are taken over
            self.write("d/x.ini", f"{text}[unit team-1]\n{b}[unit team-2]\n\n{c}")
            rules = load(path)
            x, y = f"{self.folder}/d/x.ini", f"{self.folder}/d/y.ini"
            self.assertEqual(
                {name: rules.unit_of(its.section) for name, its in rules.backends.items()},
                {"own": "", "a": x, "b": f"{x} [unit team-1]", "c": f"{x} [unit team-2]", "d": y},
            )
            self.assertEqual(rules.unit_of(rules.listeners[0].section), "")

    def test_left_out(self) -> None:
        """A unit with an error, or one that contradicts what is before it, is left out, and the others are read."""
        backend = "[backend {}]\nserver = 127.0.0.1:{}\n"
        good, other = backend.format("good", 1), backend.format("other", 1)
        parts = f"[unit one]\n{good}[unit bad]\n[listen x]\nendpoint = :443\n[unit two]\n{other}"
        self.write("d/good.ini", parts)
        for name, text, message in (
            ("key", "[backend bad]\nservers = 127.0.0.1:1\n", "unknown key"),
            ("form", "nothing\n", "a line needs"),
            ("twice", good, "is already at"),
            ("settings", "[txmux]\nworkers = 2\n", "is already at"),
            ("port", "[listen b]\nendpoint = :443\n", "is taken by"),
            ("name", "[unit a b]\n[backend bad]\nserver = 127.0.0.1:1\n", "needs a name"),
            ("indented", f"  [unit a b]\n{backend.format('bad', 1)}", "needs a name"),
            ("nul", "\0", "NUL"),
        ):
            bad = self.write(f"d/z-{name}.ini", text)
            rules = load(self.main)
            units = {name: str(problem) for name, [problem, *_] in rules.files.untaken.items()}
            first, second = sorted(units)
            self.assertEqual(first, f"{self.folder}/d/good.ini [unit bad]")
            self.assertTrue(second.startswith(str(bad)), second)
            self.assertIn(message, units[second])
            self.assertIn("good.ini:6: [listen x] endpoint: ':443' is taken by", units[first])
            self.assertEqual([*rules.backends], ["good", "other"])
            self.assertEqual(rules.line_of(rules.backends["other"].section), 8)
            self.assertTrue(is_as_read(rules))
            self.assertEqual(rules.files.on_disk[str(bad)], text.replace("\0", ""))
            bad.unlink()

    def test_losers(self) -> None:
        """Who is left out keeps nobody else out, also one that is left out for what no reading finds."""
        backend = "[backend {}]\nserver = 127.0.0.1:1\n".format
        inside = "[route t]\nmatch = tls\nunder = {0}\nterminate_tls = {0}.pem\nbackend = close\n"
        inside += "[route {0}]\nmatch = any\nunder = t\nbackend = e\n[listen {0}]\nendpoint = :1\n"
        own = str(self.write("d/e.ini", inside.format("e") + backend("e")))
        first = inside.format("b") + backend("e")
        self.write("d/a.ini", backend("a"))
        a_c, c_d = first + backend("a") + backend("c"), backend("c") + backend("d")
        for texts, left in (
            ([f"{first}worse\n"], "b"),
            ([first + backend("a")], "b"),
            ([a_c, backend("c")], "b"),
            ([a_c, c_d, backend("d")], "bd"),
            ([first], "e"),
        ):
            for name, text in zip("bcd", texts, strict=False):
                self.write(f"d/{name}.ini", text)
            rules = load(self.main, are_pem_files_there=False)
            untaken = {Path(unit).stem: its for unit, its in rules.files.untaken.items()}
            self.assertEqual({*untaken}, {*left}, untaken)
            for name in "cd":
                (self.folder / f"d/{name}.ini").unlink(missing_ok=True)
        units = UntakenUnits()
        self.assertEqual([*retaken(rules, units).files.untaken], [own])
        problem = Problem(f"{self.folder}/d/b.ini", 1, "listen b", "endpoint", "cannot listen")
        units.leave_out([problem], rules.units)
        self.assertEqual([*retaken(rules, units).files.untaken], [problem.path])

    @settings(max_examples=scaled(30))
    @given(units=st.lists(_UNITS, min_size=2, max_size=5))
    @example(units=[(["x"], True), (["x"], False), (["x", "y"], False), (["y"], False)])
    def test_only_taken_units_claim(self, units: list[tuple[list[str], bool]]) -> None:
        """At a start, a unit without an error is left out only for a name that an earlier one has, which is taken."""
        claimed = set[str]()
        left_out = set[str]()
        for number in range(5):
            names, is_wrong = units[number] if number < len(units) else ([], False)
            backends = (f"[backend {name}]\nserver = 127.0.0.1:1\n" for name in names)
            self.write(f"d/{number}.ini", "".join(backends) + "worse\n" * is_wrong)
            if is_wrong or claimed & {*names}:
                left_out.add(str(number))
            else:
                claimed |= {*names}
        self.assertEqual({Path(unit).stem for unit in load(self.main).files.untaken}, left_out)

    def test_each_keeps_the_next_out(self) -> None:
        """Of very many units in such a row, each second one is taken, which takes no longer for each of more."""
        backend = "[backend {}]\nserver = 127.0.0.1:1\n".format
        steps = []
        for many in (60, 120):
            path = self.write(f"{many}/rules.ini", f"[txmux]\ninclude = d/*.ini\n{LISTEN}")
            for number in range(many):
                self.write(f"{many}/d/{number:03}.ini", backend(number) + backend(number + 1))
            steps.append(steps_in(partial(load, path)))
            self.assertEqual(len(load(path).files.untaken), many // 2)
        self.assertLess(steps[1], 3 * steps[0])

    def test_said_once(self) -> None:
        """What keeps out a unit that has not changed is said once, though it is so in its text and in what is in force."""
        unit = self.write("d/a.ini", "[listen a]\nendpoint = :1\n")
        before = load(self.main).files
        for text in ("[listen b]\nendpoint = :1\n", "[listen a]\nendpoint = :2\n"):
            self.write("rules.ini", f"[txmux]\ninclude = d/*.ini\n{LISTEN}{text}")
            untaken = retaken(load(self.main, in_force=before), UntakenUnits(before)).files.untaken
            [[problem]] = untaken.values()
            self.assertEqual(problem.path, str(unit))

    def test_operator(self) -> None:
        """Errors of the operator's files are errors, beside which those of units are named; a file that is included by name has no units."""
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*.ini\n{LISTEN}bad = 1\n")
        self.write("d/a.ini", "worse\n")
        first, second = sorted(self.problems(path))
        self.assertIn("d/a.ini:1: a line needs", first)
        self.assertIn("rules.ini:5: [listen public] bad", second)
        self.write("rules.ini", f"[txmux]\ninclude = own.ini\n{LISTEN}")
        self.write("own.ini", "[unit a]\n")
        [problem] = self.problems(path)
        self.assertIn("is only for files that a pattern of 'include' finds", problem)

    def test_in_force_names_more(self) -> None:
        """What is in force for a unit may name lists and variables that its text of now does not."""
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*.ini\n{LISTEN}routes_from = *\n")
        networks = self.write("d/list.txt", "192.0.2.0/24\n")
        text = "[route a]\nmatch = ssh\nfrom = @list.txt, ${TXMUX_OF_A_UNIT}\nbackend = close\n"
        unit = self.write("d/a.ini", text)
        change_environment(self, TXMUX_OF_A_UNIT="198.51.100.1")
        before = load(path)
        unit.write_text("worse\n")
        del os.environ["TXMUX_OF_A_UNIT"]
        networks.unlink()
        rules = retaken(load(path), UntakenUnits(before.files))
        self.assertEqual([*rules.files.untaken], [str(unit)])
        self.assertEqual([one.name for one in rules.routes], ["a"])
        self.assertTrue(is_as_read(rules))
        # A new process has the texts of the units alone.
        networks.write_text("192.0.2.0/24\n")
        os.environ["TXMUX_OF_A_UNIT"] = "198.51.100.1"
        units = {name: rules.files.texts[name] for name in rules.units}
        rules = retaken(load(path), UntakenUnits(Files(units)))
        self.assertEqual([one.name for one in rules.routes], ["a"])

    def test_texts_of_units(self) -> None:
        """A new process is given the lists that units name, however they do, and no other ones; those that fit, if they are too many."""
        main = f"[txmux]\ninclude = d/*.ini\n{LISTEN}routes_from = *\n"
        path = self.write("rules.ini", f"{main}deny = @one.txt, @operator.txt\n")
        change_environment(self, TXMUX_OF_A_UNIT="two")
        route = "[route {0}]\nmatch = ssh\nfrom = @{1}\nbackend = close\n".format
        # Of the operator's, a unit may write the name.
        a = route("a", "../one.txt") + route("b", "${TXMUX_OF_A_UNIT}.txt") + "# operator.txt\n"
        for name, size in {"one.txt": 9, "d/two.txt": 8, "large.txt": LARGEST_RULES - 99}.items():
            self.write(name, f"#{size * 'x'}\n192.0.2.1\n")
        self.write("operator.txt", f"#{'x' * LARGEST_RULES}\n192.0.2.1\n")
        own = self.write("d/a.ini", a + route("c", f"{self.folder}/large.txt"))
        for text in ("", "[backend own]\nserver = 127.0.0.1:1\n"):  # then sections are taken over
            with path.open("a") as file:
                file.write(text)
            texts, left_out = texts_of_units(load(path))
            named = [str(self.folder / name) for name in ("d/../one.txt", "d/two.txt")]
            self.assertEqual({*texts}, {str(own), *named, str(self.folder / "large.txt")})
            self.assertEqual(left_out, [])
        self.write("large.txt", f"{'#' * LARGEST_RULES}\n")
        texts, left_out = texts_of_units(load(path))
        self.assertEqual({*texts}, {str(own), *named})
        self.assertEqual(left_out, [str(self.folder / "large.txt")])

    def test_unseen_on_a_dead_disk(self) -> None:
        """A new process does not wait for a disk that may have a file of before."""
        unit = self.write("d/a.ini", "[backend a]\nserver = 127.0.0.1:1\n")
        before = load(self.main).files
        unit.unlink()
        rules = load(self.main)
        read = partial(with_unseen_units, rules, before)
        self.assertIn("its disk has not answered", self.late(unit, "lstat", read))
        self.assertIs(read(), rules)
        # Nor where it looks whether a secret is there, which no key of the core does then.
        if names_missing("via"):
            return
        secret = self.write("secret", "x\n")
        via = f"via = http://u:{secret}@127.0.0.1:1\n"
        unit.write_text(f"[backend a]\nserver = 127.0.0.1:1\n{via}")
        self.write("d/b.ini", "worse\n")
        read = partial(without_unservable, load(self.main), UntakenUnits(before), lambda _: ())
        self.assertIn("its disk has not answered", self.late(secret, "stat", read))
        self.assertEqual([*read().backends], ["a"])

    def late(self, of: Path, name: str, read: Callable[[], Rules]) -> str:
        """Return the error of who reads while a file's disk does not answer."""
        is_back, looks_at = threading.Event(), getattr(Path, name)

        def look(path: Path, **options: Any) -> os.stat_result:
            if path == of:
                is_back.wait()
            found: os.stat_result = looks_at(path, **options)
            return found

        change_constants(self, files, PATIENCE=0.05)
        patched = self.patch(Path, name, look)
        threads = {*threading.enumerate()}
        try:
            error = self.assertRaises(RulesError, read)
        finally:
            is_back.set()
            for thread in {*threading.enumerate()} - threads:
                thread.join()
            patched.restore()
        self.assertIn(f"{of}: cannot be read: ", str(error))
        return str(error)

    def test_headers(self) -> None:
        """However a header is written that is read as one, the other units of its file are taken, also where one begins several times."""
        a, b, c = (f"[backend {name}]\nserver = 127.0.0.1:1\n" for name in "abc")
        right = f"[unit a]\n{a}{{}}\n{b}{{}}[unit c]\n{c}"
        unit = self.write("d/a.ini", right.format("[unit b]", ""))
        before = load(self.main)
        for header in (
            "[unit  b]", "[ unit b ]", "[unit\tb]", "[[unit b]]", "[unit b] # its", "[unit b",
        ):  # fmt: skip
            unit.write_text(right.format(header, "worse\n"))
            rules = retaken(load(self.main), UntakenUnits(before.files))
            self.assertEqual([*rules.files.untaken], [f"{unit} [unit b]"], header)
            self.assertEqual({*rules.backends}, {"a", "b", "c"}, header)
        unit.write_text(right.format(f"[unit {'b' * 2000}]", ""))
        *_, last = load(self.main).files.untaken  # what is named so is read as none
        self.assertEqual(last, str(unit))
        several = (("u", "a"), ("v", "b"), ("u", "c"))
        text = "".join(f"[unit {u}]\n[backend {b}]\nserver = 127.0.0.1:1\n" for u, b in several)
        unit = self.write("d/a.ini", text)
        before = load(self.main)
        unit.write_text(f"{text}worse\n")
        rules = retaken(load(self.main), UntakenUnits(before.files))
        self.assertEqual([*rules.files.untaken], [f"{unit} [unit u]"])
        self.assertEqual({*rules.backends}, {"a", "b", "c"})

    def test_names_of_files(self) -> None:
        """A file that is called as if it were a part of another one is not read: it would have what that is allowed."""
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*\n{LISTEN}routes_from = d/a\n")
        self.write("d/a", "[unit c]\n[backend a]\nserver = 127.0.0.1:1\n")
        unit = self.write("d/b]", "[backend b]\nserver = 127.0.0.1:1\n")
        before = load(path)
        unit.write_text("worse\n")
        rules = retaken(load(path), UntakenUnits(before.files))
        self.assertEqual(([*rules.files.untaken], {*rules.backends}), ([str(unit)], {"a", "b"}))
        unit.unlink()
        for name in ("a [unit c]", "a [unit "):
            other = self.write(f"d/{name}", "[route r]\nmatch = any\nbackend = close\n")
            rules = load(path)
            self.assertEqual(([*rules.units], rules.routes), ([f"{self.folder}/d/a"], ()))
            warnings = [problem.message for problem in lint(rules)]
            why = "is called like a part of another file, so nothing is read there; put a file in its place, or rename it"
            self.assertIn(f"'d/{name}' {why}", warnings)
            other.unlink()

    def test_described(self) -> None:
        """Of a whole file that is not taken, what is in force stays, whatever parts it has."""
        text = "[unit u]\n[backend a]\nserver = 127.0.0.1:1\n[unit v]\n[backend b]\nserver = 127.0.0.1:1\n"
        unit = self.write("d/a.ini", text)
        before = load(self.main)
        unit.write_bytes(b"\0")
        counted, told = described_untaken(retaken(load(self.main), UntakenUnits(before.files)))
        self.assertEqual(counted, "0 of 1 files taken")
        self.assertIn("what was in force for it stays", told)
        unit.write_text(f"worse\n{text}")
        counted, told = described_untaken(retaken(load(self.main), UntakenUnits(before.files)))
        self.assertEqual(counted, "2 of 3 units taken")
        self.assertIn("it is not served", told)
        many = attrs.evolve(load(self.main), files=Files(
            authors={"": 0, **{f"d/{n}.ini": 1001 * (n > 2) for n in range(10)}},
            untaken={f"d/{n}.ini": (Problem(f"d/{n}.ini", 1, "", "", "wrong"),) for n in range(10)},
        ))  # fmt: skip
        counted, *each, last = described_untaken(many)
        self.assertEqual([line[: len("d/0")] for line in each], [f"d/{n}" for n in range(8)])
        self.assertEqual(last, "2 more of user 1001: txmux check names them")
        unit.rename(unit.with_name("a\nb.ini"))
        self.assertTrue(all(line.isprintable() for line in described_untaken(load(self.main))))

    def test_in_force(self) -> None:
        """A unit that is not taken keeps what is in force for it, unless that has become wrong, too."""
        text = "[backend a]\nserver = 127.0.0.1:{}\n[unit u]\n[backend b]\nserver = 127.0.0.1:{}\n"
        unit = self.write("d/a.ini", text.format(1, 1))
        before = load(self.main)

        def servers(rules: Rules) -> dict[str, str]:
            return {name: its.servers[0].text for name, its in rules.backends.items()}

        unit.write_text(text.format(2, "x"))
        rules = retaken(load(self.main), UntakenUnits(before.files))
        self.assertEqual(servers(rules), {"a": "127.0.0.1:2", "b": "127.0.0.1:1"})
        self.assertEqual([*rules.files.untaken], [f"{unit} [unit u]"])
        # Nothing has changed since, also for a process that is sent what was read.
        found = servers(retaken(load(self.main), UntakenUnits(rules.files)))
        self.assertEqual(found, servers(rules))
        again = read_again(rules.files)
        self.assertEqual(servers(again), servers(rules))
        self.assertEqual(again.files.untaken, rules.files.untaken)
        unit.write_bytes(b"\0")
        rules = retaken(load(self.main), UntakenUnits(rules.files))
        self.assertEqual(servers(rules), {"a": "127.0.0.1:2", "b": "127.0.0.1:1"})
        self.main.write_text(f"{self.main.read_text()}[backend a]\nserver = 127.0.0.1:3\n")
        rules = retaken(load(self.main), UntakenUnits(rules.files))
        self.assertEqual(servers(rules), {"a": "127.0.0.1:3", "b": "127.0.0.1:1"})
        unit.unlink()
        told = servers(retaken(load(self.main), UntakenUnits(rules.files)))
        self.assertEqual(told, {"a": "127.0.0.1:3"})

    def test_units_that_cannot_be_served_are_left_out_too(self) -> None:
        unit = self.write("d/a.ini", "[backend a]\nserver = 127.0.0.1:1\n")
        self.write("d/b.ini", "[backend b]\nserver = 127.0.0.1:1\n")
        before = load(self.main)
        problem = Problem(str(unit), 1, "listen x", "endpoint", "cannot listen")
        for in_force, left in ((Files(), ["b"]), (before.files, ["a", "b"])):
            units = UntakenUnits(in_force)
            units.leave_out([problem], before.units)
            rules = retaken(before, units)
            self.assertEqual([*rules.backends], left)
            self.assertEqual(rules.files.untaken, {str(unit): (problem,)})
        units.leave_out([problem], rules.units)  # what is in force cannot be served either
        self.assertEqual([*retaken(rules, units).backends], ["b"])
        units.leave_out([problem], rules.units)
        self.assertEqual([*retaken(rules, units).backends], ["b"])
        self.assertRaises(RulesError, units.leave_out, [problem], rules.units)

    def test_folder_that_is_closed(self) -> None:
        """What was found before is not taken for gone where its folder may not be looked into."""
        unit = self.write("d/a.ini", "[backend a]\nserver = 127.0.0.1:1\n")
        before, folder = load(self.main), unit.parent
        folder.chmod(0)
        self.addCleanup(folder.chmod, 0o755)
        rules = self.acting(lambda: load(self.main, in_force=before.files))
        again = self.acting(lambda: retaken(rules, UntakenUnits(before.files)))
        [[problem]] = rules.files.untaken.values()
        self.assertIn(f"{unit}: cannot be read: Permission denied", str(problem))
        self.assertEqual([*again.backends], ["a"])
        folder.chmod(0o755)
        unit.unlink()
        self.assertEqual([*load(self.main, in_force=before.files).backends], [])

    def test_folder_of_a_disk_with_errors(self) -> None:
        """A folder that cannot be listed for any other reason than that it is gone says nothing of what was found in it."""
        unit = self.write("d/a.ini", "[backend a]\nserver = 127.0.0.1:1\n")
        before, folder = load(self.main), unit.parent
        folder.rename(self.folder / "old")
        folder.symlink_to("d")
        rules = load(self.main, in_force=before.files)
        self.assertEqual([*rules.files.untaken], [str(unit)])
        self.assertEqual([*retaken(rules, UntakenUnits(before.files)).backends], ["a"])

    def acting(self, function: Callable[[], Rules]) -> Rules:
        """Call a function as a user who may not look into all folders."""
        self.folder.chmod(0o755)
        return as_nobody(function)

    def test_folder_that_cannot_be_listed(self) -> None:
        """It is named with the reason, also where a pattern finds it: what is in it is not served. One that is missing may come yet."""
        self.write("closed/sub/a.ini", "[backend a]\nserver = 127.0.0.1:1\n")
        self.write("file", "")
        (self.folder / "loop").symlink_to("loop")
        (self.folder / "dangling").symlink_to("missing")
        closed = self.folder / "closed"
        closed.chmod(0)
        self.addCleanup(closed.chmod, 0o755)
        denied = "Permission denied; let the user that txmux runs as read it"
        mistaken = "correct the path of 'include', or put a folder there"
        for pattern, where, why in (
            ("closed/*.ini", "closed", denied),
            ("closed/sub/*.ini", "closed/sub", denied),
            ("closed/s*/a.ini", "closed", denied),
            ("cl*/*.ini", "closed", denied),
            ("cl*/a.ini", "closed", denied),
            ("file/*.ini", "file", f"Not a directory; {mistaken}"),
            ("loop/*.ini", "loop", f"Too many levels of symbolic links; {mistaken}"),
        ):  # fmt: skip
            with self.subTest(pattern=pattern):
                path = self.write("rules.ini", f"[txmux]\ninclude = {pattern}\n{LISTEN}")
                rules = self.acting(partial(load, path))
                [[problem]] = rules.files.untaken.values()
                self.assertIn(f": cannot look into '{self.folder}/{where}': {why}", str(problem))
                self.assertEqual(problem.path, str(self.folder / pattern.replace("cl*", "closed")))
                again = self.acting(partial(load, path, in_force=rules.files))
                self.assertEqual(again.files.untaken, rules.files.untaken)
        for pattern in ("missing/*.ini", "dangling/*.ini", "[fld]*/*.ini", "*.ini/*.ini"):
            path = self.write("rules.ini", f"[txmux]\ninclude = {pattern}\n{LISTEN}")
            self.assertEqual(self.acting(partial(load, path)).files.untaken, {}, pattern)

    def test_link_that_may_not_be_followed(self) -> None:
        """Neither a unit that is one, nor a socket behind one, keeps others from being read."""
        named = self.write("d/a.ini", "[listen a]\nendpoint = unix:/proc/1/root/a.sock\n")
        unit = named.with_name("b.ini")
        unit.symlink_to("/proc/1/root/b.ini")
        rules = self.acting(partial(load, self.main))
        self.assertEqual([*rules.files.untaken], [str(unit)])
        self.assertEqual([one.name for one in rules.listeners], ["public", "a"])

    def test_address_in_other_words(self) -> None:
        """It is what is in force, or a part of it; who has a part only has no more of it than before."""
        self.write("d/b.ini", "[listen b]\nendpoint = :2\n")
        before = load(self.main)
        for own, other, untaken in (
            ("tcp:2:interface=127.0.0.1", "127.0.0.1:2", "a"), ("[::ffff:127.0.0.1]:2", ":2", "a"),
            ("127.0.0.1:2", ":2", "a"), (":1-2", ":2", "b"), (":2", "udp:2", ""),
        ):  # fmt: skip
            self.write("d/a.ini", f"[listen a]\nendpoint = {other}\n")
            self.write("d/b.ini", f"[listen b]\nendpoint = {own}\n")
            rules = load(self.main, in_force=before.files)
            expected = [f"{self.folder}/d/{untaken}.ini"] if untaken else []
            self.assertEqual([*rules.files.untaken], expected, (own, other))

    def test_newcomer_before_others(self) -> None:
        """What a unit has in force cannot be claimed by one whose file is named before its own."""
        text = f"[txmux]\ninclude = d/*.ini\n{LISTEN}routes_from = *\n"
        path = self.write("rules.ini", text)
        listener = "[listen b]\nendpoint = 127.0.0.1:2\n[route r]\nmatch = tls\nunder = b\nterminate_tls = no.pem\nbackend = close\n"
        own = self.write("d/b.ini", listener)
        read = partial(load, path, are_pem_files_there=False)
        before = read()
        for claim, why in (
            ("[route r]\nmatch = ssh\nbackend = close\n", "is already at"),
            ("[listen b]\nendpoint = 127.0.0.1:3\n", "is already at"),
            ("[listen a]\nendpoint = 127.0.0.1:2\n", "is taken by"),
            ("[listen r]\nendpoint = 127.0.0.1:3\n", "has this name already"),
        ):
            with self.subTest(claim=claim):
                newcomer = self.write("d/a.ini", claim)
                [[problem]] = read().files.untaken.values()
                self.assertIn(why, problem.message)
                self.assertEqual(problem.path, str(own))  # at a start, in the order of their names
                for text in ("", "[backend more]\nserver = 127.0.0.1:1\n"):
                    with own.open("a") as file:
                        file.write(text)
                    for rules in (read(), read(in_force=before.files)):
                        again = retaken(rules, UntakenUnits(before.files))
                        self.assertEqual((len(again.listeners), len(again.routes)), (2, 1))
                        self.assertIn(str(newcomer), again.files.untaken)
                    self.assertEqual([*again.files.untaken], [str(newcomer)])
                    self.assertEqual(len(again.backends), bool(text))
                own.write_text(before.files.texts[str(own)])
                newcomer.unlink()

    def test_claims_in_force(self) -> None:
        """Each name and each address belongs to the unit that has just that in force, and not to one that is named before it."""
        change_environment(self, TXMUX_OF_A_UNIT="127.0.0.1:2")
        listen = "[listen {}]\nendpoint = 127.0.0.1:{}\n".format
        route = "[route b]\nmatch = {}\nunder = a\nbackend = close\n".format
        varying = "[listen b]\nendpoint = ${TXMUX_OF_A_UNIT}\n"
        ending, tunnel = "terminate_tls = no.pem\n", route("socks5") + "tunnel = yes\n"
        for name, (a, b), (new_a, new_b) in (
            ("outer", (route("any"), listen("b", 2)), (route("tls") + ending, listen("b", 2))),
            ("tunnel", (route("any"), listen("b", 2)), (tunnel, varying)),
            ("moved", ("", listen("b", 2)), (listen("b", 4), listen("b", 5))),
            ("more", ("", listen("b", 2)), (listen("c", 2), listen("b", 2) + "  127.0.0.1:4\n")),
            ("variable", ("", varying), (listen("c", 2), varying)),
            ("renamed", ("", listen("b", 2)), (listen("d", 2), listen("c", 2))),
        ):
            with self.subTest(name=name):
                first = self.write("d/a.ini", listen("a", 3) + a)
                second = self.write("d/b.ini", b)
                before = load(self.main, are_pem_files_there=False).files
                self.assertEqual(before.untaken, {})
                self.write("d/a.ini", listen("a", 3) + new_a)
                second.write_text(new_b)
                rules = load(self.main, are_pem_files_there=False, in_force=before)
                for again in rules, retaken(rules, UntakenUnits(before)):
                    self.assertEqual([*again.files.untaken], [str(first)])
                self.assertEqual([*again.files.texts.values()][-1], new_b)

    @settings(max_examples=scaled(30))
    @given(
        held=st.dictionaries(st.integers(0, 5), st.sampled_from("abcdef")),
        wanted=st.lists(st.sets(st.integers(0, 5), max_size=4), min_size=6, max_size=6),
    )
    @example(held={0: "b"}, wanted=[{0, 1}, {1}, set(), set(), set(), set()])
    @example(
        held={0: "a", 4: "b", 2: "c"}, wanted=[{3, 4, 5}, {2, 3, 5}, {1, 3}, set(), set(), set()]
    )
    def test_moved(self, held: dict[int, str], wanted: list[set[int]]) -> None:
        """Whatever owners move their listeners to, each that is not taken keeps what it has, and could not be taken."""
        had = {unit: {port for port, its in held.items() if its == unit} for unit in "abcdef"}
        now = dict(zip("abcdef", wanted, strict=True))
        for texts in had, now:
            for unit, ports in texts.items():
                listeners = (f"[listen {unit}{n}]\nendpoint = :{n + 1}\n" for n in sorted(ports))
                self.write(f"d/{unit}.ini", "".join(listeners) or "\n")
            if texts is had:
                before = load(self.main).files
        rules = retaken(load(self.main, in_force=before), UntakenUnits(before))
        out = {Path(unit).stem for unit in rules.files.untaken}
        served = {unit: (had if unit in out else now)[unit] for unit in now}
        names = {f"{unit}{n}" for unit, ports in served.items() for n in ports}
        self.assertEqual({one.name for one in rules.listeners} - {"public"}, names)
        for unit in out:
            others = (ports for other, ports in served.items() if other != unit)
            self.assertTrue(now[unit].intersection(*[set[int]().union(*others)]), unit)

    def test_cost_of_what_is_in_force(self) -> None:
        """It is not read again for who has claimed what first, unless two have claimed the same."""
        routes = "".join(f"[route r{n}]\nmatch = tls\nbackend = close\n" for n in range(500))
        path = self.write("rules.ini", f"[txmux]\ninclude = d/*.ini\n{LISTEN}{routes}")
        unit = self.write("d/a.ini", "[listen a]\nendpoint = 127.0.0.1:2\n")
        before = load(path).files
        steps = list[int]()
        for read in (load, partial(load, in_force=before)):
            unit.write_text(f"[listen a]\nendpoint = 127.0.0.1:2\n# {len(steps)}\n")
            steps.append(steps_in(lambda read=read: read(path)))  # type: ignore[misc]
        self.assertLess(steps[1], 1.1 * steps[0])

    def test_unprovided(self) -> None:
        """A name that only another file brings closes the clients while that is away, and does not refuse the rules."""
        text = (
            "[txmux]\ninclude = d/*.ini\n[listen public]\nendpoint = :443\n"
            "silent = box after=1s\n  close\ndefault = box\n"
            "[route r]\nmatch = ssh\nbackend = box\n"
            "[backend own]\nserver = 127.0.0.1:1\nfallback = box\n"
        )
        path = self.write("rules.ini", text)
        box = self.write("d/box.ini", "[backend box]\nserver = 127.0.0.1:1\n")
        for _ in range(2):
            rules = load(path)
            outcome = rules.backends["box"]
            self.assertEqual([*map(str, unprovided(rules))], [])
            self.assertEqual(rules.routes[0].outcome, outcome)
            box.rename(f"{box}.away")
            rules = load(path)
            its = rules.listeners[0]
            away = [*its.outcomes, rules.routes[0].outcome, rules.backends["own"].fallback]
            self.assertEqual(away, [Refusal.CLOSE] * 5)
            found = [(problem.line, problem.key) for problem in unprovided(rules)]
            keys = [(5, "silent"), (7, "default"), (10, "backend"), (13, "fallback")]
            self.assertEqual(found, keys)
            Path(f"{box}.away").rename(box)
        box.unlink()
        self.write("d/other.ini", "[backend other]\nserver = 127.0.0.1:1\nfallback = box\n")
        rules = load(path)
        [[problem]] = rules.files.untaken.values()
        self.assertIn("[backend other] fallback: there is no [backend box]", str(problem))
        path.write_text(text.replace("include = d/*.ini", ""))
        self.assertIn("there is no [backend box]", self.problems(path)[0])

    def problems(self, path: Path) -> list[str]:
        with self.assertRaises(RulesError) as caught:
            load(path)
        return [*map(str, caught.exception.problems)]
