"""`txmux ban`, `unban` and `bans` by others than the user of the service: those whom the socket's group or the token lets in."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING
from unittest import SkipTest

from tests.interop.children import Child, InteropTestCase, eventually, leave_unmeasured, run
from tests.programs import require_program
from tests.service.test_privileges import python_for_everybody
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_SERVICE, _MEMBER, _STRANGER, _OPERATORS = 64001, 64002, 64003, 64004
"""Users, and a group of two of them; nobody has to have given them names."""

_RULES = """\
[txmux]
{settings}
[listen public]
endpoint = 127.0.0.1:0
"""


def _as(user: int, group: int, *command: str | Path) -> tuple[str | Path, ...]:
    ids = (f"--reuid={user}", f"--regid={group}", "--clear-groups")
    return (*python_for_everybody(), "setpriv", *ids, *command)


class BanningUsersTests(InteropTestCase):
    """A service that is neither root's nor theirs."""

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("only root can become other users")
        require_program("setpriv")
        leave_unmeasured(self)
        self.folder.chmod(0o755)
        self.own_folder = self.folder / self._testMethodName
        self.own_folder.mkdir()
        os.chown(self.own_folder, _SERVICE, _OPERATORS)

    def start(self, settings: str) -> None:
        rules = self.own_folder / "rules.ini"
        rules.write_text(_RULES.format(settings=settings))
        command = (sys.executable, "-m", "txmux", "run", rules)
        program, *arguments = _as(_SERVICE, _OPERATORS, *command)
        self.own(Child(str(program), *arguments)).wait_for("listening on 127.0.0.1")

    def ask(self, user: int, group: int, *words: str, **environment: str) -> tuple[int, str, str]:
        told = [f"{name}={value}" for name, value in environment.items()]
        command = _as(user, group, "env", *told, sys.executable, "-m", "txmux", *words)
        done = run(str(command[0]), *command[1:])
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    def test_group(self) -> None:
        """Who is in the group of the socket may do everything; who is not is told whose it is, and bans nobody."""
        socket = self.own_folder / "admin.sock"
        self.start(f"admin = unix:{socket}")
        eventually(socket.exists, "it can be asked")
        by = ("--admin", f"unix:{socket}")
        member, stranger = (_MEMBER, _OPERATORS), (_STRANGER, _STRANGER)
        found = self.ask(*member, "ban", *by, "192.0.2.7", "1h", "tried", "passwords")
        self.assertEqual(found, (0, "192.0.2.7 is banned\n", ""))
        refused = (
            f"no permission to open {socket} (--admin), which belongs to {_SERVICE}:{_OPERATORS} with mode 0660; "
            "try as that user, or in that group"
        )
        for words in (("ban", *by, "192.0.2.8"), ("unban", *by, "192.0.2.7"), ("bans", *by)):
            code, out, err = self.ask(*stranger, *words)
            self.assertEqual((code, out), (3, ""))
            self.assertIn(refused, err)
        code, out, _ = self.ask(*member, "bans", *by)
        self.assertIn("192.0.2.7", out)
        self.assertIn("tried passwords", out)
        self.assertNotIn("192.0.2.8", out)
        found = self.ask(*member, "unban", *by, "192.0.2.7")
        self.assertEqual(found, (0, "192.0.2.7 is not banned any more\n", ""))

    def test_token(self) -> None:
        """By TCP, who knows the token may; who does not, or may not read its file, is told how it is given."""
        port = free_port()
        token = self.own_folder / "token"
        self.start(f"admin = 127.0.0.1:{port}\nadmin_token = {token}")
        eventually(token.exists, "there is a token")
        by = ("--admin", f"127.0.0.1:{port}")
        ban = ("ban", *by, "192.0.2.7")
        code, _, err = self.ask(_MEMBER, _MEMBER, *ban)
        self.assertEqual(code, 1)
        self.assertIn("give the secret by TXMUX_ADMIN_TOKEN, --token-file FILE", err)
        code, _, err = self.ask(_MEMBER, _MEMBER, *ban, "--token-file", str(token))
        self.assertEqual(code, 2)
        self.assertIn("cannot be read: Permission denied", err)
        code, _, err = self.ask(_MEMBER, _MEMBER, *ban, TXMUX_ADMIN_TOKEN="guessed")
        self.assertEqual(code, 1)
        self.assertIn("that is not the token of 'admin_token'", err)
        secret = token.read_text().strip()
        found = self.ask(_MEMBER, _MEMBER, *ban, TXMUX_ADMIN_TOKEN=secret)
        self.assertEqual(found, (0, "192.0.2.7 is banned\n", ""))
