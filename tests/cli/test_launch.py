"""By which user a service is started: the unit of systemd that names its rules."""

import os
import pwd
import sys
from pathlib import Path

from tests.cli.support import CommandTestCase
from txmux.cli import launch
from txmux.cli.launch import launch_of
from txmux.processes.privilege.account import Account

_NOBODY = "nobody"


class LaunchTests(CommandTestCase):
    """Units in folders of the test."""

    def setUp(self) -> None:
        super().setUp()
        self.rules = self.write("rules.ini", "[listen a]\nendpoint = :0\n")
        self.folders = tuple(self.folder / name for name in ("first", "second"))
        for folder in self.folders:
            folder.mkdir()
        self.patch(launch, "UNIT_FOLDERS", self.folders)

    def unit(self, text: str, name: str = "mux.service", folder: int = 1) -> None:
        path = self.folders[folder] / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text.replace("FILE", str(self.rules)))

    def test_command(self) -> None:
        """A unit is that of the rules if its command runs them."""
        for command, is_it in {
            "/opt/txmux/bin/txmux run FILE": True,
            "/usr/bin/env python -m txmux run --log-level info FILE": True,
            "@/opt/txmux/bin/twist txmux --rules=FILE": True,
            "/opt/txmux/bin/txmux check FILE": False,
            "/opt/txmux/bin/txmux run FILE.other": False,
            "/opt/txmux/bin/txmux run 'FILE": False,
            "/bin/cat run FILE": False,
        }.items():
            self.unit(f"[Service]\nUser={_NOBODY}\nExecStart={command}\n")
            self.assertEqual(launch_of(self.rules).unit is not None, is_it, command)
        self.patch(launch, "RULES", self.rules)
        self.unit("[Service]\nExecStart=/usr/bin/txmux run\n")
        found = launch_of(self.rules)
        self.assertEqual((found.account, found.may_listen), (None, True))

    def test_settings(self) -> None:
        """Drop-ins of all folders change the unit, in the order of their names; a unit hides those behind it."""
        start = "ExecStart=/usr/bin/txmux run \\\n  FILE\n"
        self.unit(f"[Service]\nUser=no-such-user\n{start}")
        self.unit(f"[Unit]\nUser=no\n[Service]\n# User=no\nUser=root\n{start}", folder=0)
        found = launch_of(self.rules)
        self.assertEqual((found.unit, found.account), (self.folders[0] / "mux.service", None))
        entry = pwd.getpwnam(_NOBODY)
        self.unit(
            f"[Service]\nUser={_NOBODY}\nAmbientCapabilities=CAP_CHOWN\n", "mux.service.d/b.conf"
        )
        self.unit("[Service]\nUser=no-such-user\n", "mux.service.d/a.conf", 0)
        self.assertEqual(
            launch_of(self.rules).account, Account(_NOBODY, entry.pw_uid, entry.pw_gid)
        )
        self.assertFalse(launch_of(self.rules).may_listen)
        more = "SupplementaryGroups=12\nSupplementaryGroups=\nSupplementaryGroups=13 14\nGroup=15\nAmbientCapabilities=CAP_NET_BIND_SERVICE\nLogsDirectory=a b\nProtectHome=yes\n"
        self.unit(f"[Service]\n{more}", "mux.service.d/c.conf")
        found = launch_of(self.rules)
        self.assertEqual(found.account, Account(_NOBODY, entry.pw_uid, 15, (13, 14)))
        self.assertEqual(found.own, (Path("/var/log/a"), Path("/var/log/b")))
        self.assertEqual((found.may_listen, {*found.hidden.values()}), (True, {"ProtectHome"}))
        self.unit("[Service]\nBindReadOnlyPaths=/home/x\n", "mux.service.d/d.conf")
        self.assertEqual(launch_of(self.rules).hidden, {})
        for limit, most in {
            "2048": 2048,
            "1024:4096": 1024,
            "infinity": sys.maxsize,
            "": None,
        }.items():
            changed = self.folders[1] / "mux.service.d/e.conf"
            changed.write_text(f"[Service]\nLimitNOFILE={limit}\n")
            self.assertEqual(launch_of(self.rules).descriptors, most)

    def test_user_that_systemd_makes(self) -> None:
        """It is the one with the name of the unit, if there is one; the others have no name, and no file."""
        for name, is_made in (("no-such-user", True), (_NOBODY, False)):
            self.unit("[Service]\nDynamicUser=yes\nExecStart=txmux run FILE\n", f"{name}.service")
            found = launch_of(self.rules)
            assert found.account is not None
            self.assertEqual((found.account.user, found.is_dynamic), (name, is_made))
            self.assertEqual({*found.hidden.values()}, {"PrivateTmp"})
            (self.folders[1] / f"{name}.service").unlink()

    def test_unknown_user(self) -> None:
        self.unit("[Service]\nUser=no-such-user\nExecStart=/usr/bin/txmux run FILE\n")
        code, out, _ = self.run_main("check", self.rules)
        self.assertEqual(code, 1)
        self.assertIn(f"{self.folders[1]}/mux.service: user: there is no user 'no-such-user'", out)
        code, out, _ = self.run_main("check", "--as", "no-such-user", self.rules)
        self.assertEqual(code, 1)
        self.assertIn("--as: user: there is no user 'no-such-user'", out)

    def test_hidden(self) -> None:
        """What the unit hides is an error, whoever may read it: this folder is in /tmp."""
        self.unit("[Service]\nPrivateTmp=yes\nExecStart=/usr/bin/txmux run FILE\n")
        self.patch(launch, "_HIDING", {"PrivateTmp": (str(self.folder),)})
        code, out, _ = self.run_main("check", self.rules)
        self.assertEqual(code, 1)
        told = f"'{self.rules}' is in '{self.folder}', in which the service sees nothing (PrivateTmp= in "
        self.assertIn(told, out)

    def test_without_privilege(self) -> None:
        """A user who is not root learns that root can tell more."""
        self.unit(f"[Service]\nUser={_NOBODY}\nExecStart=/usr/bin/txmux run FILE\n")
        self.patch(os, "geteuid", lambda: 4711)
        code, out, _ = self.run_main("check", self.rules)
        self.assertEqual(code, 0)
        self.assertRegex(out, f"note: it is started as user 'nobody', .*txmux check {self.rules}\n")
        code, out, _ = self.run_main("check", "--as", _NOBODY, self.rules)
        self.assertEqual(code, 1)
        self.assertIn("--as: only root can open files as user 'nobody'", out)
