import os
import pwd
import shlex
import socket
import stat
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

from tests.support.kit import CommandTestCase, change_constants, pretend_user
from tests.support.named_files import BY_TWISTED, MADE, RULES, folder_of_files
from txmux.cli import check
from txmux.files import may_read
from txmux.processes.account import UserAccount

_NOBODY = "nobody"
_NOT_READ = {"logs/access.log", "acme_folder", "acme_folder/b.example.pem"}
"""What is written, which is another warning."""


class ReadTests(CommandTestCase):
    folder: Path
    as_user: ClassVar[tuple[str, ...]] = ("--as", _NOBODY)

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid():
            raise SkipTest("only root can open files as another user")
        self.group = pwd.getpwnam(_NOBODY).pw_gid
        self.folder = folder_of_files(self)
        self.rules = self.write("rules.ini", (RULES + BY_TWISTED).format(self.folder))
        for path in self.folder.rglob("*"):
            path.chmod(0o775 if path.is_dir() else 0o660)
            os.chown(path, 0, self.group)
        for made in (self.folder / name for name in MADE):
            for path in (made, *made.iterdir()):
                path.chmod(0o700)
                os.chown(path, pwd.getpwnam(_NOBODY).pw_uid, self.group)

    def checked(self, *more: str) -> tuple[int, list[str]]:
        code, out, _ = self.run_main("check", *self.as_user, *more, self.rules)
        return code, [line for line in out.splitlines() if "may not read" in line]

    def test_each_file(self) -> None:
        """One that is closed to the user is an error; after the command it is none, and closed to all others."""
        (self.folder / "logs/access.log").chmod(0o220)
        self.assertEqual(self.checked(), (0, []))
        for path in self.folder.rglob("*"):
            name = str(path.relative_to(self.folder))
            if path.is_symlink() or (path.is_dir() and name != "ech_keys") or name in _NOT_READ:
                continue
            before = stat.S_IMODE(path.stat().st_mode)
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.chown(path, 0, 0)
            code, lines = self.checked()
            self.assertEqual(code, 1, name)
            (line,) = {line.partition(": run: ")[2] or line for line in lines}
            command = line.rpartition("; run: ")[2].replace("sudo ", "")
            self.assertIn(str(path), command)
            subprocess.run(command, shell=True, check=True)
            self.assertEqual(self.checked(), (0, []), name)
            self.assertFalse(path.stat().st_mode & stat.S_IROTH)
            path.chmod(before)

    def test_all_that_is_closed_on_the_way_to_a_file_is_named_at_once(self) -> None:
        outer = self.folder / "a b"
        outer.mkdir(mode=0o700)
        (outer / "key").write_text(20 * "x")
        (outer / "key").chmod(0o600)
        text = self.rules.read_text()
        self.rules.write_text(text.replace(f"{self.folder}/admin_token\n", f"{outer}/key\n"))
        code, (line,) = self.checked()
        names = shlex.join([str(outer), f"{outer}/key"])
        group = UserAccount(_NOBODY, 0, self.group).group
        told = f"chgrp {group} {names} && chmod g+rX {names}"
        self.assertEqual((code, line.rpartition("; run: ")[2].replace("sudo ", "")), (1, told))
        os.chown(outer / "key", pwd.getpwnam(_NOBODY).pw_uid, 0)
        (line,) = self.checked()[1]
        self.assertTrue(line.endswith(f"chmod g+rX {shlex.quote(str(outer))}"), line)
        change_constants(self, check, _HOME=str(outer))
        line = self.checked()[1][0]
        self.assertTrue(line.endswith("'; move it to another folder, such as /etc/txmux"), line)

    def test_helper(self) -> None:
        """With `user`, a helper opens what is root's alone, but not what Twisted opens in a worker."""
        for path in self.folder.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
            os.chown(path, 0, 0)
        _, _, rest = self.rules.read_text().partition("[txmux]")
        self.rules.write_text(f"[txmux]\nuser = {_NOBODY}\n{rest}")
        code, out, _ = self.run_main("check", self.rules)
        lines = [line for line in out.splitlines() if "may not read" in line]
        self.assertEqual(code, 0, out)
        named = [line.partition("'nobody' may not read '")[2].partition("'")[0] for line in lines]
        self.assertEqual(named, [f"{self.folder}/endpoint", f"{self.folder}/server"])

    def test_socket_of_a_server(self) -> None:
        """Whoever serves connects to it: the user of the rules, or else the one that starts the service."""
        folder = self.folder / "servers"
        folder.mkdir(mode=0o755)
        servers = [folder / name for name in ("x", "y", "z")]
        for path in servers[:2]:
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
            path.chmod(0o660)
        listen = "[listen x]\nendpoint = 127.0.0.1:0\n"
        backends = "[backend b]\nserver = unix:{}\n    unix:{}\n    unix:{}\n".format(*servers)
        closed = f"[backend b] server: user '{_NOBODY}' may not connect to '{servers[0]}'"
        for settings, options in (("", self.as_user), (f"[txmux]\nuser = {_NOBODY}\n", ())):
            rules = self.write("b.ini", f"{settings}{listen}default = b\n{backends}")
            os.chown(servers[1], 0, self.group)
            out = self.told(0, self.run_main("check", *options, rules))
            (line,) = (one for one in out.splitlines() if "may not connect" in one)
            self.assertIn(closed, line)
            folder.chmod(0o750)
            self.assertEqual(self.run_main("check", *options, rules)[1].count("not connect"), 2)
            folder.chmod(0o755)
        pretend_user(self, 4711)
        for path in (rules, self.write("c.ini", f"{listen}default = b\n{backends}")):
            self.assertNotIn("not connect", self.run_main("check", path)[1])

    def test_readable_by_all(self) -> None:
        # What root may read, and not all, is named with the command that tells more.
        self.assertNotIn("--as USER", self.run_main("check", self.rules)[1])
        key = self.folder / "terminate_tls"
        os.chown(key, 0, 0)
        key.chmod(0o600)
        code, out, _ = self.run_main("check", self.rules)
        (line,) = (line for line in out.splitlines() if "--as USER" in line)
        self.assertEqual(code, 0)
        note = rf"note: '{key}' is not open to all users; if another one than root starts the service, run: .*txmux check --as USER {self.rules}$"
        self.assertRegex(line, note)
        # The command that closes a secret to others leaves it to the user of the service.
        for group in (0, self.group):
            os.chown(key, 0, group)
            key.chmod(0o644)
            _, out, _ = self.run_main("check", *self.as_user, self.rules)
            (line,) = (line for line in out.splitlines() if "every user" in line)
            command = line.rpartition("; run: ")[2].replace("sudo ", "")
            subprocess.run(command, shell=True, check=True)
            self.assertEqual(stat.S_IMODE(key.stat().st_mode), 0o640)
            with UserAccount(_NOBODY, 65534, self.group).acting():
                self.assertTrue(may_read(key))
        # One that there is not.
        code, out, _ = self.run_main("check", "--as", "no-such-user", self.rules)
        self.assertEqual(code, 1)
        self.assertIn("--as: user: there is no user 'no-such-user'", out)
        # Without the privilege.
        pretend_user(self, 4711)
        code, out, _ = self.run_main("check", "--as", _NOBODY, self.rules)
        self.assertEqual(code, 1)
        self.assertIn("--as: only root can open files as user 'nobody'", out)


class OwnTests(CommandTestCase):
    def test_each_file(self) -> None:
        """Without a known user, what this one may not read is a warning."""
        folder = folder_of_files(self)
        rules = folder / "rules.ini"
        rules.write_text(RULES.format(folder))
        # Root may read all, so it is another user here.
        user = UserAccount("4711", 4711, 4711) if os.geteuid() == 0 else None
        if user is not None:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, user.uid, user.gid)
        names = ("crowdsec_key", "tunnel_users", "tls_ca", "ech_keys/a.pem", "admin_tokens")
        for name in (name for name in names if (folder / name).exists()):
            (folder / name).chmod(0)
            with user.acting() if user else nullcontext():
                code, out, _ = self.run_main("check", rules)
            (line,) = (line for line in out.splitlines() if "may not read" in line)
            self.assertEqual(code, 0, out)
            self.assertIn(": warning: ", line)
            self.assertIn(f"may not read '{folder}/{name}'; let the user that txmux runs as", line)
            (folder / name).chmod(0o600)
