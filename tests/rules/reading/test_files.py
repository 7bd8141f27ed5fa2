import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.fakes import MATCHERS
from tests.rules.reading import cases
from tests.rules.reading.cases import FolderTestCase
from tests.support.kit import change_constants, change_environment, make_folder
from tests.support.privileges import as_nobody
from txmux.cli.remote.find import read_keys
from txmux.processes import watching
from txmux.rules.lint.warnings import lint
from txmux.rules.model import Files
from txmux.rules.problems import RulesError
from txmux.rules.reading import files
from txmux.rules.reading.files import expand, unread_among
from txmux.rules.reading.parser import is_as_read, load, read_again

LISTEN = "[listen public]\nendpoint = :443\n"


class FileTests(FolderTestCase):
    def problems(self) -> list[str]:
        error = self.assertRaises(RulesError, load, self.main, MATCHERS)
        return [line.replace(f"{self.folder}/", "") for line in str(error).split("\n")]

    def untaken(self) -> str:
        [[problem]] = load(self.main, MATCHERS).files.untaken.values()
        return str(problem).replace(f"{self.folder}/", "")

    def refuses(self, *told: str) -> None:
        self.assertEqual(self.problems(), [*told])

    def test_encodings(self) -> None:
        other = "is not UTF-8; save the file in that encoding"
        rows: tuple[tuple[Any, ...], ...] = (
            (b"# f\xfcr\r\n[listen a]\r\nendpoint = :x\r\n# \xe2\x82\n", f"1: {other}",
             "3: [listen a] endpoint: a port must be a whole number from 0 to 65535, not 'x'", f"4: {other}"),
            (b"[listen \xfc]\nf\xfcr\nendpoint = \xfc:1\n", *(f"{line}: {other}" for line in (1, 2, 3))),
            (b"\xfcisten = 1\n", f"1: {other}"), (LISTEN.encode("utf-16"), "1: is UTF-16; save the file as UTF-8"),
        )  # fmt: skip
        for data, *told in rows:
            self.main.write_bytes(data)
            self.refuses(*(f"rules.ini:{one}" for one in told))
        self.main.unlink()
        self.refuses("rules.ini: cannot be read: No such file or directory")
        # One with a byte order mark and Windows' ends of lines is read.
        self.main.write_bytes(b"\xef\xbb\xbf" + LISTEN.replace("\n", "\r\n").encode())
        self.assertEqual(load(self.main, MATCHERS).listeners[0].name, "public")
        self.assertEqual(load(str(self.main), MATCHERS).path, self.main)

    def test_include_pattern_by_pattern_in_sorted_order(self) -> None:
        """Each file is included once, where it is named first."""
        self.write(
            "rules.ini",
            f"[txmux]\ninclude = last/z.ini, rules.d/20.ini, rules.d/*.ini\n {self.folder.resolve()}/abs*.ini\n"
            f"{LISTEN}routes_from = *\n[route own]\nmatch = any\nbackend = pool\n",
        )
        for name in (
            "rules.d/20.ini", "rules.d/10.ini", "last/z.ini", "abs.ini", "rules.d/.30.ini",
        ):  # fmt: skip
            stem = Path(name).stem
            self.write(name, f"[route r{stem}]\nmatch = any\nbackend = close\n")
        self.write("rules.d/pool.ini", "[backend pool]\nserver = 127.0.0.1:1\n")
        (self.folder / "rules.d" / "folder.ini").mkdir()
        rules = load(self.main, MATCHERS)
        self.assertEqual([r.name for r in rules.routes], ["own", "rz", "r20", "r10", "rabs"])
        self.assertEqual(rules.routes[0].outcome, rules.backends["pool"])
        self.assertEqual(rules.files.untaken, {})
        (warning,) = (str(one) for one in lint(rules) if one.key == "include")
        self.assertIn("rules.ini:2: warning: [txmux] include: 'rules.d/folder.ini' is a folder", warning)  # fmt: skip
        self.assertEqual(unread_among(self.folder, "rules.d/*"), [])

    def test_include_of_what_cannot_be_included(self) -> None:
        self.write("rules.ini", f"[txmux]\ninclude = d/*.ini\n  d/a.ini\n{LISTEN}")
        self.refuses(
            "rules.ini:3: [txmux] include: cannot read 'd/a.ini': No such file or directory; a relative "
            f"path starts at the folder of the rules file, '{self.folder.resolve()}'"
        )
        self.write("d/a.ini", "")
        itself = "'rules.ini' is this file itself; put what is included into a folder of its own"
        for include, *told in (
            ("/no/such/file.ini",
             "2: [txmux] include: cannot read '/no/such/file.ini': No such file or directory; correct the path, or create the file"),
            ("d", "2: [txmux] include: cannot read 'd': Is a directory; write 'd/*.ini' for the files in it"),
            ("rules.ini\n  *.ini", *(f"{line}: [txmux] include: {itself}" for line in (2, 3))),
        ):  # fmt: skip
            self.write("rules.ini", f"[txmux]\ninclude = {include}\n{LISTEN}")
            self.refuses(*(f"rules.ini:{one}" for one in told))

    def test_include_what_is_no_regular_file(self) -> None:
        """Each is a unit with an error, as when it takes the place of a file that was read before; ``/dev/null`` is an empty file."""
        file = self.folder / "d" / "a.ini"
        null = self.write("d/null.ini", "")
        null.unlink()
        null.symlink_to(os.devnull)
        os.mkfifo(self.folder / "pipe")
        for reached, told in (
            ("../pipe", "it is no regular file; include other files, or mend that one"),
            ("/dev/full", "it is no regular file; include other files, or mend that one"),
            ("nowhere", "No such file or directory"),
            ("a.ini", "Too many levels of symbolic links"),
        ):
            file.symlink_to(reached)
            self.assertTrue(self.untaken().startswith(f"d/a.ini: cannot be read: {told}"), told)
            file.unlink()
        self.assertEqual(load(self.main, MATCHERS).files.untaken, {})
        # A pipe is not opened, since its writer would go on, and fail.
        null.unlink()
        os.mkfifo(file)
        opened = []
        open_file = os.open

        def note(path: str, flags: int, *how: Any, **more: Any) -> int:
            opened.extend([Path(path).name] * (not flags & os.O_PATH))
            return open_file(path, flags, *how, **more)

        self.patch(os, "open", note)
        self.assertIn("no regular file", self.untaken())
        self.assertEqual(opened, ["rules.ini"])

    def test_include_folder_that_may_not_be_searched(self) -> None:
        """As one of mode 0644, which shows names alone: others that the pattern finds are read."""
        self.write("rules.ini", f"[txmux]\ninclude = d*/*.ini\n{LISTEN}")
        self.folder.chmod(0o755)
        closed = self.write("d1/a.ini", "").parent
        closed.chmod(0o644)
        self.addCleanup(closed.chmod, 0o755)
        self.write("d2/b.ini", "[backend b]\nserver = 127.0.0.1:1\n")
        message = "cannot be read: Permission denied; let the user that txmux runs as read it"
        self.assertEqual(as_nobody(self.untaken), f"d1/a.ini: {message}")
        self.assertEqual([*as_nobody(partial(load, self.main, MATCHERS)).backends], ["b"])

    def test_what_is_too_large_for_all_is_the_largest_file_wherever_it_stands(self) -> None:
        change_constants(self, files, LARGEST_RULES=2000)
        self.write("d/a.ini", f"#{'x' * 1900}\n")
        self.write("d/b.ini", f"#{'x' * 300}\n[backend b]\nserver = 127.0.0.1:1\n")
        self.assertIn("d/a.ini: cannot be read: rules may have", self.untaken())
        rules = load(self.main, MATCHERS)
        self.assertEqual([*rules.backends], ["b"])
        change_constants(self, watching, LARGEST_RULES=2000)
        loaded = watching.loaded_digest(rules.files)
        self.assertEqual(watching.current_digest(self.folder, rules.files), loaded)
        change_constants(self, files, LARGEST_RULES=len(LISTEN) + 100)
        self.write("rules.ini", f"[txmux]\ninclude = *.inc\n{LISTEN}")
        self.write("a.inc", "#" * 50)
        self.write("b.inc", "#" * 50)
        message = "cannot be read: rules may have 0 MiB in all; is it the right file?; "
        self.assertEqual(self.untaken(), f"b.inc: {message}include other files, or mend that one")

    def test_include_links(self) -> None:
        """A link of one owner makes no other owner's file its own, and no error of the operator's."""
        self.write("d/b.ini", "[backend b]\nserver = 127.0.0.1:1\n")
        for name in ("a.ini", "c.ini"):
            link = self.folder / "d" / name
            link.symlink_to("b.ini")
            rules = load(self.main, MATCHERS)
            self.assertEqual([*rules.units], [f"{self.folder}/d/b.ini"])
            self.assertEqual(rules.files.untaken, {})
            link.unlink()
        self.write("rules.ini", f"[txmux]\ninclude = d/*.ini, own.ini\n{LISTEN}")
        own = self.write("own.ini", "[backend own]\nserver = 127.0.0.1:1\n")
        link.symlink_to("../own.ini")
        rules = load(self.main, MATCHERS)
        found = {rules.unit_of(one.section) for one in rules.backends.values()}
        self.assertEqual(found, {"", str(self.folder / "d" / "b.ini")})
        self.assertEqual(rules.backends["own"].section.path, str(own))
        link.unlink()
        link.symlink_to("../rules.ini")
        self.assertIn("d/c.ini' is this file itself", self.untaken())
        link.unlink()
        (self.folder / "d" / "e").symlink_to("..")
        self.write("rules.ini", f"[txmux]\ninclude = d/*/*.ini\n{LISTEN}")
        self.assertIn("d/e/rules.ini' is this file itself", self.untaken())

    def test_problems_of_included_files(self) -> None:
        self.write("rules.ini", "[txmux]\ninclude = z.ini, a.ini\n[route x]\nmatch = any\n")
        self.write("z.ini", "\n[route x]\nmatch = any\nbackend = close\n")
        self.write("a.ini", "oops\n[backend b]\nserver = c\n")
        self.assertEqual(
            [problem.split(": ")[:2] for problem in self.problems()],
            [
                ["rules.ini:1",
                 "there is no [listen NAME] section; add 'endpoint = :443' in a [listen NAME]"],
                ["rules.ini:3", "[route x] backend"],
                ["z.ini:2", "[route x]"],
                ["a.ini:1",
                 "a line needs '=', as in KEY = VALUE; to continue the value above, indent it"],
                ["a.ini:3", "[backend b] server"],
            ],
        )  # fmt: skip
        # An included file cannot include: it may have no [txmux].
        self.write("rules.ini", f"{LISTEN}[txmux]\ninclude = a.ini\n")
        self.write("a.ini", "[txmux]\ninclude = rules.ini\n")
        self.refuses("a.ini:1: [txmux]: is already at rules.ini:3; put all its keys there")
        self.write("rules.ini", "[txmux]\ninclude = *.provided\n")
        self.assertEqual(load(self.main, MATCHERS).listeners, ())


class VariableTests(SynchronousTestCase):
    def test_variables_stand_for_their_values(self) -> None:
        known = {"A": "1", "EMPTY": "", "D": "${A}$$"}.get
        for text, value in {
            "a${A}b${A}": "a1b1", "${EMPTY}.": ".", "${A:-2}": "1", "${EMPTY:-2}": "2",
            "${B:-}": "", "${B:-:443}": ":443", "${B:-a$$b}": "a$b", "${D}": "${A}$$",
            "$${A}": "${A}", "$$$$": "$$", "^a$": "^a$", "$A $1": "$A $1",
        }.items():  # fmt: skip
            self.assertEqual(expand(text, known), value, text)
        text = "[listen a]\nendpoint = 127.0.0.1:${PORT}\nallow = ${NETS}, 192.0.2.${LAST:-7}\n"
        (listener,) = cases.read(text).listeners
        self.assertEqual(listener.endpoints, ("127.0.0.1:8443",))
        allowed = "10.0.0.0/8, 192.0.2.1\n ::1\n 192.0.2.7"
        (same,) = cases.read(f"[listen a]\nendpoint = :1\nallow = {allowed}").listeners
        self.assertEqual(listener.clients, same.clients)
        path = make_folder(self) / "rules.ini"
        path.write_text("[txmux]\nadmin = 127.0.0.1:${PORT}\nadmin_token = ${TOKEN:-token}\n")
        found = read_keys(path)
        self.assertEqual((found.admin, found.token), (["127.0.0.1:8443"], path.parent / "token"))

    def setUp(self) -> None:
        change_environment(self, PORT="8443", NETS="10.0.0.0/8, 192.0.2.1\n::1\n")

    def test_other_processes_use_the_first_values(self) -> None:
        folder = make_folder(self)
        path = folder / "rules.ini"
        text = "[txmux]\ninclude = ${MORE:-more}.ini\n[listen a]\nendpoint = 127.0.0.1:${PORT}\n"
        path.write_text(text)
        (folder / "more.ini").write_text("[listen b]\nendpoint = 127.0.0.2:${PORT}\n")
        rules = load(path)
        self.assertTrue(is_as_read(rules))
        told = json.loads(json.dumps(attrs.asdict(rules.files)))
        change_environment(self, PORT="1", NETS=None, MORE="x")
        again = read_again(Files(**told))
        self.assertEqual(again.listeners, rules.listeners)
        self.assertEqual(next(one.endpoints[0] for one in again.listeners), "127.0.0.1:8443")
