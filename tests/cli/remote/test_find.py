"""Tests of how a command finds its service."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from tests.cli.remote.answering import Answering, RemoteTestCase
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

_DONE = (0, "rules reloaded: nothing changed\n", "")


class FindTests(RemoteTestCase):
    """Each way to name it, and what is said when it is not clear."""

    def assert_asks(self, server: Answering, *arguments: str | Path, **environ: str | Path) -> None:
        """See which service is asked."""
        self.assertEqual(self.ask("reload", *arguments, **environ), _DONE)
        paths = [asked.path for asked in server.asked if asked.path not in server.others]
        self.assertEqual(paths, ["/api/reload"])
        server.asked.clear()

    def rules(self, settings: str, name: str = "rules.ini") -> Path:
        """Write a rules file."""
        return self.write(name, f"[txmux]\n{settings}\n[listen a]\nendpoint = :443\n")

    @staticmethod
    def runs(server: Answering, rules: Path) -> None:
        """Have a service say which rules it runs."""
        server.others["/api/status"] = {"rules_path": str(rules)}

    def test_the_only_one(self) -> None:
        """Nothing has to be said where there is one socket; other files do not count."""
        server = self.answering()
        (self.run_folder / "notes.sock").touch()
        (self.run_folder / "txmux.pid").touch()
        self.assert_asks(server)

    def test_folders(self) -> None:
        """It may be in the folder of the service's unit, which may be the same one, or in that of the user."""
        own, user = self.folder / "own", self.folder / "user"
        own.mkdir()
        (user / "txmux").mkdir(parents=True)
        server = self.answering(own / "a.sock")
        self.assert_asks(server, RUNTIME_DIRECTORY=f"{self.run_folder}:{own}")
        (self.run_folder / "b.sock").symlink_to(own / "a.sock")
        self.assert_asks(server, RUNTIME_DIRECTORY=own)
        (self.run_folder / "b.sock").unlink()
        self.assert_asks(self.answering(user / "txmux" / "b.sock"), XDG_RUNTIME_DIR=user)

    def test_several(self) -> None:
        """Where there are several sockets, all are named, and none is asked."""
        servers = [self.answering(self.run_folder / name) for name in ("b.sock", "a.sock")]
        code, out, err = self.ask("reload")
        self.assertEqual((code, out), (2, ""))
        self.assertIn(
            f"there are several services: {self.run_folder}/a.sock, {self.run_folder}/b", err
        )
        self.assertIn("--admin", err)
        self.assertEqual([server.asked for server in servers], [[], []])

    def test_left_over_beside_others(self) -> None:
        """Files of services that have ended do not count beside those of services that run; alone, they are told."""
        for name in ("old.sock", "older.sock"):
            with socket.socket(socket.AF_UNIX) as ended:
                ended.bind(str(self.run_folder / name))
        code, out, err = self.ask("reload")
        self.assertEqual((code, out), (3, ""))
        self.assertIn(
            f"no service listens at any of {self.run_folder}/old.sock, {self.run_folder}/older.sock; ",
            err,
        )
        self.assert_asks(self.answering(self.run_folder / "a.sock"))

    def test_none(self) -> None:
        """Where there is none, the folders are named."""
        code, out, err = self.ask("reload", XDG_RUNTIME_DIR="/nowhere")
        self.assertEqual((code, out), (3, ""))
        self.assertIn(
            f"no socket of a service in {self.run_folder} or /nowhere/txmux; start it", err
        )

    def test_admin(self) -> None:
        """An endpoint that is named comes before everything else."""
        self.answering()
        server = self.answering(self.folder / "my socket.sock")
        odd = self.answering(self.folder / "a:b=c\\d.sock")
        self.assert_asks(odd, "--admin", rf"unix:{self.folder}/a\:b\=c\\d.sock:mode=660")
        tcp = self.answering(("127.0.0.1", free_port()))  # nobody else has it at `::1`
        for endpoint in (server.at, f"unix:{server.at}:mode=660"):
            self.assert_asks(server, "--admin", endpoint, TXMUX_ADMIN="/nowhere/else")
        for endpoint in (
            f"tcp:{tcp.port}:interface=127.0.0.1",
            f"tcp:{tcp.port}",
            f"tcp:{tcp.port}:interface=0.0.0.0",
            f"tcp:127.0.0.1:{tcp.port}",
            f"tcp:host=localhost:port={tcp.port}",
            rf"TCP:{tcp.port}:interface=\:\:ffff\:127.0.0.1",
            f"127.0.0.1:{tcp.port}",
            f":{tcp.port}",
            f"http://127.0.0.1:{tcp.port}/",
        ):
            self.assert_asks(tcp, "--admin", endpoint)

    def test_relative(self) -> None:
        """A path may be relative."""
        server = self.answering()
        self.addCleanup(os.chdir, os.getcwd())  # noqa: PTH109
        os.chdir(self.run_folder)
        for endpoint in ("./rules.sock", "unix:rules.sock"):
            self.assert_asks(server, "--admin", endpoint)

    def test_bad_endpoint(self) -> None:
        """What cannot be an endpoint is wrong usage, with an example."""
        for endpoint in (
            "rules",
            "unix:",
            "tcp:",
            "tcp:0",
            "tcp:localhost",
            ":70000",
            "http://",
            "systemd:domain=INET:index=0",
            "https://localhost:9000",
        ):
            code, out, err = self.ask("reload", "--admin", endpoint)
            self.assertEqual((code, out), (2, ""), endpoint)
            self.assertIn("write for example", err)

    def test_environment(self) -> None:
        """`TXMUX_ADMIN` comes before the rules."""
        self.answering()
        server = self.answering(self.folder / "x.sock")
        rules = self.rules(f"admin = unix:{self.run_folder}/rules.sock")
        self.assert_asks(server, "--rules", rules, TXMUX_ADMIN=server.at)

    def test_rules(self) -> None:
        """The rules tell the endpoint; a relative path starts at their folder."""
        server = self.answering(self.folder / "own.sock")
        for endpoint in (f"unix:{self.folder}/own.sock:mode=600", "unix:own.sock"):
            self.assert_asks(server, "--rules", self.rules(f"admin = {endpoint}"))

    def test_rules_auto(self) -> None:
        """Without one it is the socket of the file's name, in the first folder that has it."""
        self.answering()
        own = self.folder / "own"
        own.mkdir()
        other = self.answering(self.run_folder / "other.sock")
        for settings in ("", "admin = auto"):
            rules = self.rules(settings, "other.ini")
            self.runs(other, rules)
            self.assert_asks(other, "--rules", rules, RUNTIME_DIRECTORY=own)
        server = self.answering(own / "other.sock")
        self.runs(server, rules)
        self.assert_asks(server, "--rules", rules, RUNTIME_DIRECTORY=own)
        self.runs(server, self.folder / "another" / "other.ini")
        code, _, err = self.ask("stop", "--rules", rules, RUNTIME_DIRECTORY=own)
        self.assertEqual((code, [asked.path for asked in server.asked]), (3, ["/api/status"]))
        self.assertIn(f"not {rules}: not contacting it", err)

    def test_rules_not_there(self) -> None:
        """If that is not there, it is named, and so is what to do."""
        self.answering(self.run_folder / "other.sock")
        code, out, err = self.ask("reload", "--rules", self.rules(""))
        self.assertEqual((code, out), (3, ""))
        self.assertIn(f"there is no socket {self.run_folder}/rules.sock; is the service of", err)

    def test_rules_broken(self) -> None:
        """Whatever else is wrong in the rules, and that is what a reload tells, their service is found."""
        server, rules = self.answering(), self.rules("colour = blue\nnonsense")
        self.runs(server, rules)
        self.assert_asks(server, "--rules", rules)

    def test_rules_off(self) -> None:
        """A service without an endpoint cannot be asked."""
        code, _, err = self.ask("reload", "--rules", self.rules("admin = off"))
        self.assertEqual(code, 3)
        self.assertIn("has 'admin = off', so the service cannot be reached", err)

    def test_rules_unreadable(self) -> None:
        """A rules file that is not there is wrong usage."""
        code, _, err = self.ask("reload", "--rules", "no/such.ini")
        self.assertEqual(
            (code, err), (2, "txmux: no/such.ini cannot be read: No such file or directory\n")
        )

    def test_left_over(self) -> None:
        """A socket that nobody listens on any more is told."""
        path = self.run_folder / "rules.sock"
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
        code, out, err = self.ask("reload")
        self.assertEqual((code, out), (3, ""))
        self.assertIn(f"no service listens at {path} (the only socket); the file is left over", err)


class TokenTests(RemoteTestCase):
    """Where the secret comes from; it is never an argument."""

    def setUp(self) -> None:
        """Start a service."""
        super().setUp()
        self.server = self.answering(("127.0.0.1", 0))
        self.admin = f"tcp:{self.server.port}:interface=127.0.0.1"

    def sent(self, *arguments: str | Path, **environ: str | Path) -> str | None:
        """Ask, and give what the service has been told."""
        self.assertEqual(self.ask("reload", *arguments, **environ)[0], 0)
        return self.server.asked.pop().headers.get("Authorization")

    def test_sources(self) -> None:
        """It is from a file that is named, else from the environment, else from the file that the rules name."""
        (self.folder / "own").write_text("from-rules\n")
        named = self.write("named", "from-file\n")
        rules = self.write("rules.ini", f"[txmux]\nadmin = {self.admin}\nadmin_token = own\n")
        self.assertEqual(self.sent("--rules", rules), "Bearer from-rules")
        self.assertEqual(self.sent("--rules", rules, TXMUX_ADMIN_TOKEN="x"), "Bearer x")
        self.assertEqual(
            self.sent("--rules", rules, "--token-file", named, TXMUX_ADMIN_TOKEN="x"),
            "Bearer from-file",
        )
        self.assertEqual(self.sent("--admin", self.admin, TXMUX_ADMIN_TOKEN="x"), "Bearer x")
        self.assertIsNone(self.sent("--admin", self.admin))

    def test_unsendable(self) -> None:
        """What HTTP cannot carry is told of by where it is from, and nobody is asked."""
        named = self.write("named", "two\nlines\n")
        told = "does not hold one line of ASCII characters"
        for source, arguments, environ in (
            (f"{named}, the file of --token-file", ("--token-file", named), {}),
            ("TXMUX_ADMIN_TOKEN", (), {"TXMUX_ADMIN_TOKEN": "€uro"}),
        ):
            code, _, err = self.ask("reload", "--admin", self.admin, *arguments, **environ)
            self.assertEqual((code, err), (2, f"txmux: {source} {told}\n"))
        self.assertEqual(self.server.asked, [])

    def test_unreadable(self) -> None:
        """A file that cannot be read is named."""
        rules = self.write("rules.ini", f"[txmux]\nadmin = {self.admin}\nadmin_token = no\n")
        code, _, err = self.ask("reload", "--rules", rules)
        self.assertEqual(code, 2)
        self.assertIn(
            f"{self.folder}/no, the file of 'admin_token' of {rules}, cannot be read", err
        )
        self.assertEqual(self.server.asked, [])
