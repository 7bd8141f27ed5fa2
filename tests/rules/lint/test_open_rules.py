"""Files of the rules that others can change are warned of, by `check`, at the start and as long as the service runs."""

import grp
import os
import pwd
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.support.folders import make_folder
from txmux import load
from txmux.cli import main
from txmux.errors import sudo_for
from txmux.rules.lint.secrets import open_rules
from txmux.rules.lint.warnings import lint

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

        def group_of(number: int) -> Any:
            return grp.struct_group((f"g{number}", "x", number, members[number]))

        self.patch(pwd, "getpwall", lambda: users)
        self.patch(
            pwd, "getpwuid", lambda number: next(one for one in users if one.pw_uid == number)
        )
        self.patch(grp, "getgrgid", group_of)
        path = self.folder / "d" / "a.ini"
        path.chmod(0o664)
        for user, group, is_open in (
            (0, 0, False),
            (0, 4001, True),  # the own group of a user who is not the owner
            (4001, 4001, False), (0, 4002, True), (4001, 4002, False), (0, 4003, False),
        ):  # fmt: skip
            os.chown(path, user, group)
            told = [
                f"group 'g{group}' can write to '{path}'; run: {sudo_for(path)}chmod g-w {path}"
            ]
            self.assertEqual(self.found(), told * is_open, (user, group))
        os.chown(path, 0, 4009)
        self.patch(grp, "getgrgid", {}.__getitem__)
        self.assertEqual(self.found(), [])

    def test_it_is_a_warning_of_check_which_changes_no_exit_code(self) -> None:
        path = self.folder / "d" / "a.ini"
        path.chmod(0o666)
        with redirect_stdout(StringIO()) as out:
            self.assertEqual(main(["check", str(self.file)]), 0)
        self.assertIn(f"{path}: warning: every user of this machine can write to ", out.getvalue())
