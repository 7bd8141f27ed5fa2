"""Files with what is hardly meant, and exactly what is said of them; and files of which nothing is said."""

import grp
import importlib.util
import os
import pwd
import re
import sys
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from textwrap import dedent
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.matchers.searching import order
from tests.support.changes import lack_modules
from tests.support.folders import make_folder
from tests.support.installed import names_missing
from txmux.cli import main
from txmux.detection.ambiguities import AMBIGUITIES, DATAGRAM_AMBIGUITIES, ambiguities_over
from txmux.errors import sudo_for
from txmux.interfaces import Transport
from txmux.rules.lint.secrets import open_rules
from txmux.rules.lint.warnings import closed_listeners, lint, slow_routes
from txmux.rules.model import Rules, Settings
from txmux.rules.reading.parser import load, parse
from txmux.testing import steps_in

_ROOT = Path(__file__).parents[3]
_INI_BLOCK = re.compile(r"^( *)```ini\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class LintTests(SynchronousTestCase):
    def found(self, text: str) -> list[str]:
        warnings = list(map(str, lint(parse(text, "x.ini"))))
        for warning in warnings:
            self.assertRegex(warning, r"^x\.ini:\d+: warning: ")
        return [re.sub(r"^x\.ini:(\d+: )warning: ", r"\1", warning) for warning in warnings]

    def test_wrong_order_of_an_ambiguous_pair(self) -> None:
        route = "[route {0}]\nmatch = {0}\nbackend = {1}h:{2}\n"
        rows = (Transport.TCP, "", AMBIGUITIES), (Transport.UDP, "udp:", DATAGRAM_AMBIGUITIES)
        for transport, before, own in rows:
            listener = f"[listen l]\nendpoint = {before or ':'}1\n"
            pairs = ambiguities_over(transport)
            self.assertGreater(len(pairs), len(own))
            for pair in pairs:
                first = route.format(pair.first, before, 1)
                second = route.format(pair.second, before, 2)
                found = self.found(listener + first + second)
                always = [line.endswith(pair.always) for line in found]
                self.assertEqual(always, [True] * bool(pair.always))
                (warning,) = self.found(listener + second + first)
                self.assertIn(pair.why, warning)

    def test_recommended_order(self) -> None:
        """In the order of the reference, only what loses clients there, too, is told: pairs are those of the transport."""
        for heading, endpoint, server, told in (
            ("Ambiguities", ":1", "h", [pair.always for pair in AMBIGUITIES if pair.always]),
            ("Order over UDP", "udp:1", "udp:h", []),
        ):
            route = f"[route {{0}}]\nmatch = {{0}}\nbackend = {server}:{{1}}\n".format
            routes = "".join(route(name, number) for number, name in enumerate(order(heading), 1))
            found = self.found(f"[listen l]\nendpoint = {endpoint}\n{routes}")
            self.assertEqual([line.rpartition(": ")[2] for line in found], told)

    def test_documented_rules_and_those_made_in_python_have_no_warnings(self) -> None:
        for file in sorted((_ROOT / "examples").rglob("*.ini")):
            if not names_missing(text := file.read_text()):
                self.assertEqual((file, lint(parse(text, file))), (file, []))
        for page in sorted((*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md"))):
            for indent, block in _INI_BLOCK.findall(page.read_text()):
                text = dedent(block) if indent else block
                if "[listen " not in text:
                    text += "[listen added-by-the-test]\nendpoint = 127.0.0.1:0\n"
                if not names_missing(text):
                    self.assertEqual((page, lint(parse(text, page))), (page, []))
        self.assertEqual(lint(Rules(Path("x"), Settings(), (), ())), [])

    def test_included_files_are_named_and_come_later(self) -> None:
        folder = make_folder(self)
        main, other = (folder / "z.ini"), (folder / "a.ini")
        text = "[txmux]\ninclude = a.ini\n[listen l]\nendpoint = :1\n[route a]\nmatch = any\nbackend = close\n"
        main.write_text(text)
        other.write_text("[backend b]\nserver = h:1\n[route b]\nmatch = ssh\nbackend = close\n")
        places = [(found.path, found.line) for found in lint(load(main))]
        self.assertEqual(places, [(str(main), 6), (str(other), 1)])

    def test_work_grows_as_the_rules(self) -> None:
        """As the routes; and as the networks beside them that a listener denies, also if each route excludes others."""
        route = "[route r{0}]\nmatch = tls sni=a{0}.example\nbackend = 127.0.0.1:{0}\n"
        excluding = f"{route}not_from = 2001:db8:f:{{0}}::/64\nterminate_tls = x\n"
        for denied, each in (("", route), ("    2001:db8:{0}::/49\n", excluding)):
            head, steps = "[listen a]\nendpoint = :0\n" + "deny =\n" * bool(denied), []
            for many in (200, 400):
                parts = (one.format(n) for one in (denied, each) for n in range(1, many))
                steps.append(steps_in(partial(lint, parse(head + "".join(parts), "x.ini"))))
            self.assertLess(steps[1], 2.2 * steps[0], each)

    def test_slow_routes(self) -> None:
        """From 200 routes on that clients have tried one by one, there is a note; of what an index finds, there is none."""
        at_once = "found at once by lines with whole names, such as sni="
        tried = "{} routes are tried one by one", at_once
        of_each = "its routes have {} different 'from', 'not_from', 'client_cert' or 'during'"
        conditions = of_each, "several"
        for line, keys, transport, texts in (
            ("regex pattern=a{}", "", "tcp", tried),
            ("ssh", "", "tcp", tried),
            ("tls sni=www.*.h{}.test", "", "tcp", tried),
            ("not tls sni=h{}.test", "", "tcp", tried),
            ("tls sni=h{0}.test\n  http path=/{0}", "", "tcp", tried),
            ("dns type=A", "", "udp", tried),
            ("tls sni=h{0}.test\n  wireguard", "", "tcp", ()),
            ("tls sni=h{0}.test\n  http host=h{0}.test,*.h{0}.test\n  dns name=h{0}.test", "",
             "tcp", ()),
            ("dns name=h{0}.test\n  quic sni=h{0}.test", "from = 10.0.0.0/8\n", "udp", ()),
            ("http host=h{0}.test", "from = 10.0.{0}.0/24\n", "tcp", conditions),
        ):  # fmt: skip
            for count in (199, 200):
                text = f"[listen x]\nendpoint = {transport}:1\n" + "".join(
                    f"[route r{n}]\nmatch = {line.format(n)}\nbackend = close\n{keys.format(n)}"
                    for n in range(count)
                )
                notes = [str(note) for note in slow_routes(parse(text, "x.ini"))]
                self.assertEqual(len(notes), bool(texts) and count == 200, (line, keys))
                for note in notes:
                    for part in texts:
                        self.assertIn(part.format(count), note)
        # No client is compared with those of another first byte.
        route = "[route r{}]\nmatch = {}\nbackend = close\n".format
        kinds = "".join(route(n, ("ssh", "tls")[n % 2]) for n in range(398))
        self.assertEqual([*slow_routes(parse(f"[listen x]\nendpoint = :1\n{kinds}", "x.ini"))], [])

    def test_routes_that_another_program_will_write(self) -> None:
        """The listeners that it will write are for routes of its own."""
        text = "[txmux]\ninclude = no-such/*.ini\n{}[listen a]\nendpoint = :1\ndefault = close\n"
        for watch, count in (("watch_rules = 1s\n", 0), ("", 1)):
            self.assertEqual(len([*closed_listeners(parse(text.format(watch), "x.ini"))]), count)
        text = "[txmux]\ninclude = no-such/*.ini\nwatch_rules = 1s\n[route r]\nmatch = ssh\nbackend = close\n"
        [told] = [str(one) for one in lint(parse(text, "x.ini")) if one.key == "under"]
        why = "[route r] under: no client gets here, since its unit has no [listen]; add one"
        self.assertIn(why, told)

    def test_metrics_without_the_package(self) -> None:
        """A service answers 501 there, so a warning names the extra, with the command of this installation."""
        rules = parse("[txmux]\nmetrics = 127.0.0.1:9443\n[listen l]\nendpoint = :1\n", "x.ini")
        installed = self.patch(importlib.util, "find_spec", str)
        self.assertEqual(lint(rules), [])
        installed.restore()
        lack_modules(self, "prometheus_client")
        (said,) = map(str, lint(rules))
        told = "x.ini:2: warning: [txmux] metrics: needs the package prometheus_client, which is not installed"
        self.assertTrue(said.startswith(told), said)
        self.assertTrue(said.endswith(f"{sys.prefix}/bin/pip install 'txmux[admin]'"), said)


RULES = """\
[txmux]
include = own.ini, d/*.ini
[listen a]
endpoint = 127.0.0.1:0
allow = @networks
[route a]
match = ssh
backend = b
"""
SERVER = "[backend {}]\nserver = 127.0.0.1:1\n"


class OpenRulesTest(SynchronousTestCase):
    """Files of the rules that others can change are warned of, by `check`, at the start and as long as the service runs."""

    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.folder.chmod(0o755)
        self.file = self.write("rules.ini", RULES)
        self.write("networks", "::/0\n")
        self.write("own.ini", SERVER.format("b"))
        self.write("d/a.ini", SERVER.format("c"))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(text)
        path.chmod(0o644)
        return path

    def found(self) -> list[str]:
        return [one.message for one in open_rules(load(self.file))]

    def test_every_user(self) -> None:
        """Each file that has text of the rules, and each folder on the way, that every user may write to; not a sticky one."""
        self.assertEqual(self.found(), [])
        for name in ("rules.ini", "networks", "own.ini", "d/a.ini"):
            path = self.folder / name
            path.chmod(0o646)
            command = f"run: {sudo_for(path)}chmod o-w {path}"
            message = f"every user of this machine can write to '{path}'; {command}"
            self.assertEqual(self.found(), [message])
            self.assertIn(message, str([*map(str, lint(load(self.file)))]))
            path.chmod(0o644)
        for folder, modes in ((self.folder, (0o777, 0o1777)), (self.folder / "d", (0o757, 0o1757))):
            for mode in modes:
                folder.chmod(mode)
                found = self.found()
                self.assertEqual(len(found), not mode & 0o1000, oct(mode))
                told = [one for one in found if f"write to '{folder}', and" not in one]
                self.assertEqual(told, [])
            folder.chmod(0o755)
        path.chmod(0o666)  # of `check`, it is a warning, which changes no exit code
        with redirect_stdout(StringIO()) as out:
            self.assertEqual(main(["check", str(self.file)]), 0)
        self.assertIn(f"{path}: warning: every user of this machine can write to ", out.getvalue())

    def test_the_file_and_the_folder_behind_a_link_count(self) -> None:
        place = make_folder(self)
        place.chmod(0o777)
        (place / "real.ini").write_text(SERVER.format("d"))
        (self.folder / "d" / "z.ini").symlink_to(place / "real.ini")
        [message] = self.found()
        told = f"write to '{place}', and so choose what is in '{self.folder}/d/z.ini'"
        self.assertIn(told, message)

    def test_units_that_are_not_taken(self) -> None:
        self.write("d/z.ini", "nothing\n").chmod(0o666)
        [message] = self.found()
        self.assertIn("d/z.ini", message)

    def test_group(self) -> None:
        """A group counts if it has other members than the owner of the file and root."""
        if os.geteuid():
            raise SkipTest("only root can give a file to a group")
        users = [pwd.struct_passwd(("root", "x", 0, 0, "", "/", "")), pwd.struct_passwd(("ann", "x", 4001, 4001, "", "/", ""))]  # fmt: skip
        members: dict[int, list[str]] = {0: ["ann"], 4001: [], 4002: ["ann"], 4003: []}

        groups = {n: grp.struct_group((f"g{n}", "x", n, its)) for n, its in members.items()}
        self.patch(pwd, "getpwall", lambda: users)
        self.patch(pwd, "getpwuid", {one.pw_uid: one for one in users}.__getitem__)
        self.patch(grp, "getgrgid", groups.__getitem__)
        path = self.folder / "d" / "a.ini"
        path.chmod(0o664)
        for user, group, is_open in (
            (0, 0, False),
            (0, 4001, True),  # the own group of a user who is not the owner
            (4001, 4001, False), (0, 4002, True), (4001, 4002, False), (0, 4003, False),
        ):  # fmt: skip
            os.chown(path, user, group)
            run = f"run: {sudo_for(path)}chmod g-w {path}"
            told = [f"group 'g{group}' can write to '{path}'; {run}"] * is_open
            self.assertEqual(self.found(), told, (user, group))
        os.chown(path, 0, 4009)
        groups.clear()
        self.assertEqual(self.found(), [])
