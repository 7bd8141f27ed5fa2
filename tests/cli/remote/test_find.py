import os
import socket
from pathlib import Path

from tests.cli.remote.answering import Answering
from tests.support.kit import CommandTestCase, change_constants, free_port, pretend_user
from txmux import files
from txmux.cli.remote.find import address_of, find

_DONE = (0, "rules reloaded: nothing changed\n", "")


class FindTests(CommandTestCase):
    def assert_asks(self, server: Answering, *arguments: str | Path, **environ: str | Path) -> None:
        self.assertEqual(self.ask("reload", *arguments, **environ), _DONE)
        paths = [asked.path for asked in server.asked if asked.path not in server.others]
        self.assertEqual(paths, ["/api/reload"])
        server.asked.clear()

    def write_rules(self, settings: str, name: str = "rules.ini") -> Path:
        return self.write(name, f"[txmux]\n{settings}\n[listen a]\nendpoint = :443\n")

    @staticmethod
    def runs(server: Answering, rules: Path) -> None:
        server.others["/api/status"] = {"pid": 1, "rules_path": str(rules)}

    def test_only_socket_needs_no_argument(self) -> None:
        server = self.answering()
        (self.run_folder / "notes.sock").touch()
        (self.run_folder / "txmux.pid").touch()
        self.assert_asks(server)
        # A relative path.
        self.addCleanup(os.chdir, os.getcwd())  # noqa: PTH109
        os.chdir(self.run_folder)
        for endpoint in ("./rules.sock", "unix:rules.sock"):
            self.assert_asks(server, "--admin", endpoint)
        # Invalid rules still name their service.
        rules = self.write_rules("colour = blue\nnonsense")
        self.runs(server, rules)
        self.assert_asks(server, "--rules", rules)
        # The socket of a provider is no service.
        self.answering(self.run_folder / "wake.sock").others["/api/status"] = {"pid": -1}
        self.assert_asks(server)

    def test_rules_may_have_the_name_of_that_socket(self) -> None:
        folder = self.users / "1000" / "txmux"
        folder.mkdir(parents=True)
        server, rules = self.answering(folder / "wake.sock"), self.write_rules("", "wake.ini")
        self.runs(server, rules)
        pretend_user(self, 0)
        self.assert_asks(server, "--rules", rules)

    def test_folders_of_the_unit_and_of_the_user(self) -> None:
        own, user = self.folder / "own", self.folder / "user"
        own.mkdir()
        (user / "txmux").mkdir(parents=True)
        server = self.answering(own / "a.sock")
        self.assert_asks(server, RUNTIME_DIRECTORY=f"{self.run_folder}:{own}")
        (self.run_folder / "b.sock").symlink_to(own / "a.sock")
        self.assert_asks(server, RUNTIME_DIRECTORY=own)
        (self.run_folder / "b.sock").unlink()
        self.assert_asks(self.answering(user / "txmux" / "b.sock"), XDG_RUNTIME_DIR=user)

    def test_several_sockets_are_those_of_one_service_or_are_named(self) -> None:
        servers = [self.answering(self.run_folder / name) for name in ("b.sock", "a.sock")]
        for number, server in enumerate(servers):
            server.others["/api/status"] = {"pid": number}
        err = self.told(2, self.ask("reload"))
        both = f"{self.run_folder}/a.sock, {self.run_folder}/b"
        self.assertIn(f"there are several services: {both}", err)
        self.assertIn("--admin", err)
        self.assertEqual({one.path for server in servers for one in server.asked}, {"/api/status"})
        for server in servers:
            server.others["/api/status"] = {"pid": 7}
            server.asked.clear()
        self.assertEqual(self.ask("reload"), _DONE)
        self.assertEqual([one.path for one in servers[0].asked], ["/api/status"])

    def test_stale_files_do_not_count_beside_running_services(self) -> None:
        """One alone is named with why it was looked at."""
        paths = [self.run_folder / name for name in ("old.sock", "older.sock")]
        listed = f"any of {paths[0]}, {paths[1]}; "
        for count, where in (
            (1, f"{paths[0]} (the only socket); the file is left over"),
            (2, listed),
        ):
            with socket.socket(socket.AF_UNIX) as ended:
                ended.bind(str(paths[count - 1]))
            self.assertIn(f"no service listens at {where}", self.told(3, self.ask("reload")))
        self.assert_asks(self.answering(self.run_folder / "a.sock"))

    def test_no_socket_names_what_was_looked_for(self) -> None:
        run = f"{self.run_folder}/*.sock"
        user, unset = "/nowhere/txmux/*.sock", "$XDG_RUNTIME_DIR/txmux/*.sock (it is not set)"
        users = f"{self.users}/*/txmux/*.sock"
        for uid, environ, listed in (
            (1, {"XDG_RUNTIME_DIR": "/nowhere"}, (run, user)),
            (1, {}, (run, unset)),
            (0, {}, (run, users)),
        ):
            pretend_user(self, uid)
            err = self.told(3, self.ask("reload", **environ))
            nowhere = f": neither {' nor '.join(listed)}, nor the rules file {files.RULES}"
            self.assertIn(nowhere, err)

    def test_root_looks_at_services_of_ordinary_users(self) -> None:
        """`sudo` takes away XDG_RUNTIME_DIR. What a user has linked is not asked, and what the system or the rules name comes first."""
        own = self.users / "1000" / "txmux"
        other = self.users / "1001" / "txmux"
        for folder in (own, other):
            folder.mkdir(parents=True)
        elsewhere = self.answering(self.folder / "x.sock")
        (other / "rules.sock").symlink_to(elsewhere.at)
        server = self.answering(own / "rules.sock")
        rules = self.write_rules("")
        self.runs(server, rules)
        pretend_user(self, 1)
        self.assertEqual(self.ask("reload")[0], 3)
        pretend_user(self, 0)
        for arguments in ((), ("--rules", rules)):
            self.assertEqual(self.ask("reload", *arguments, TXMUX_ADMIN_TOKEN="x"), _DONE)
        for asked in server.asked:  # the token is not that user's
            self.assertNotIn("Authorization", asked.headers)
        server.asked.clear()
        self.assert_asks(server)
        self.assert_asks(server, "--rules", rules)
        named = self.answering(self.folder / "named.sock")
        self.assert_asks(named, "--rules", self.write_rules(f"admin = unix:{named.at}"))
        self.write_rules("")
        system = self.answering()
        self.runs(system, self.folder / "other.ini")
        self.assert_asks(system)
        self.assert_asks(server, "--rules", rules)

    def test_named_endpoint_comes_first(self) -> None:
        self.answering()
        server = self.answering(self.folder / "my socket.sock")
        odd = self.answering(self.folder / "a:b=c\\d.sock")
        self.assert_asks(odd, "--admin", rf"unix:{self.folder}/a\:b\=c\\d.sock:mode=660")
        tcp = self.answering(("127.0.0.1", free_port()))  # nobody else has it at `::1`
        for endpoint in (server.at, f"unix:{server.at}:mode=660"):
            self.assert_asks(server, "--admin", endpoint, TXMUX_ADMIN="/nowhere/else")
        for endpoint in (
            f"tcp:{tcp.port}:interface=127.0.0.1", f"tcp:{tcp.port}",
            f"tcp:{tcp.port}:interface=0.0.0.0", f"tcp:127.0.0.1:{tcp.port}",
            f"tcp:host=localhost:port={tcp.port}", rf"TCP:{tcp.port}:interface=\:\:ffff\:127.0.0.1",
            f"127.0.0.1:{tcp.port}", f":{tcp.port}", f"http://127.0.0.1:{tcp.port}/",
        ):  # fmt: skip
            self.assert_asks(tcp, "--admin", endpoint)
        self.assertEqual(address_of("http://localhost/api"), ("localhost", 80))
        # The environment comes before the rules.
        rules = self.write_rules(f"admin = unix:{self.run_folder}/rules.sock")
        self.assert_asks(server, "--rules", rules, TXMUX_ADMIN=server.at)

    def test_endpoint_of_the_rules(self) -> None:
        # Relative to their folder.
        named = self.answering(self.folder / "own.sock")
        for endpoint in (f"unix:{self.folder}/own.sock:mode=600", "unix:own.sock"):
            self.assert_asks(named, "--rules", self.write_rules(f"admin = {endpoint}"))
        rules = self.write_rules("admin =\n    unix:gone.sock\n    unix:own.sock")
        self.runs(named, rules)
        self.assert_asks(named, "--rules", rules)
        # The automatic socket comes before other endpoints.
        rules = self.write_rules("admin = unix:own.sock")
        self.assert_asks(named, "--rules", rules)
        automatic = self.answering()
        self.runs(automatic, rules)
        self.assert_asks(automatic, "--rules", rules)
        self.runs(automatic, self.folder / "another" / "rules.ini")
        self.assert_asks(named, "--rules", rules)
        self.assert_asks(named, "--rules", self.write_rules("admin = unix:own.sock\n    off"))

    def test_automatic_socket_of_the_rules_in_the_first_folder(self) -> None:
        self.answering()
        own = self.folder / "own"
        own.mkdir()
        other = self.answering(self.run_folder / "other.sock")
        for settings in ("", "admin = auto"):
            rules = self.write_rules(settings, "other.ini")
            self.runs(other, rules)
            self.assert_asks(other, "--rules", rules, RUNTIME_DIRECTORY=own)
        server = self.answering(own / "other.sock")
        self.runs(server, rules)
        self.assert_asks(server, "--rules", rules, RUNTIME_DIRECTORY=own)
        self.runs(server, self.folder / "another" / "other.ini")
        code, _, err = self.ask("stop", "--rules", rules, RUNTIME_DIRECTORY=own)
        self.assertEqual((code, [asked.path for asked in server.asked]), (3, ["/api/status"]))
        self.assertIn(f"not {rules}: not contacting it", err)

    def test_default_rules_where_there_is_no_socket(self) -> None:
        server = self.answering(self.folder / "own.sock")
        change_constants(self, files, RULES=self.write_rules("admin = unix:own.sock\n    off"))
        (found,) = find(None, None, None, {})
        self.assertEqual((str(found.address), server.asked), (str(self.folder / "own.sock"), []))
        token = self.write("token", "secret-of-this-test")
        listed = f"admin =\n    off\n    127.0.0.1:8440\n    [::1]:8440\nadmin_token = {token}"
        self.write_rules(listed)
        endpoints = [*find(None, None, None, {})]
        self.assertEqual(
            [(str(one.address), one.token) for one in endpoints],
            [(address, "secret-of-this-test") for address in ("127.0.0.1:8440", "[::1]:8440")],
        )

    def test_rules_without_an_endpoint(self) -> None:
        # A missing socket of the rules is named.
        self.answering(self.run_folder / "other.sock")
        err = self.told(3, self.ask("reload", "--rules", self.write_rules("")))
        self.assertIn(f"there is no socket {self.run_folder}/rules.sock or ", err)
        self.assertIn("rules.ini running?", err)
        # Rules without an endpoint.
        err = self.told(3, self.ask("reload", "--rules", self.write_rules("admin = off")))
        self.assertIn("has 'admin = off', so the service cannot be reached", err)
        # Rules that cannot be read, and an invalid endpoint, are wrong usage.
        err = self.told(2, self.ask("reload", "--rules", "no/such.ini"))
        self.assertEqual(err, "txmux: no/such.ini cannot be read: No such file or directory\n")
        for endpoint in (
            "rules", "unix:", "tcp:", "tcp:0", "tcp:localhost", ":70000", "http://",
            "systemd:domain=INET:index=0", "https://localhost:9000",
        ):  # fmt: skip
            err = self.told(2, self.ask("reload", "--admin", endpoint))
            self.assertIn("write for example", err, endpoint)


class TokenTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.server = self.answering(("127.0.0.1", 0))
        self.admin = f"tcp:{self.server.port}:interface=127.0.0.1"

    def sent(self, *arguments: str | Path, **environ: str | Path) -> str | None:
        self.assertEqual(self.ask("reload", *arguments, **environ)[0], 0)
        return self.server.asked.pop().headers.get("Authorization")

    def test_file_then_environment_then_rules(self) -> None:
        (self.folder / "own").write_text("from-rules\n")
        named = self.write("named", "from-file\n")
        rules = self.write("rules.ini", f"[txmux]\nadmin = {self.admin}\nadmin_token = own\n")
        of_rules, at = ("--rules", rules), ("--admin", self.admin)
        named_file, environ = ("--token-file", named), {"TXMUX_ADMIN_TOKEN": "x"}
        self.assertEqual(self.sent(*of_rules), "Bearer from-rules")
        self.assertEqual(self.sent(*of_rules, **environ), "Bearer x")
        self.assertEqual(self.sent(*of_rules, *named_file, **environ), "Bearer from-file")
        self.assertEqual(self.sent(*at, **environ), "Bearer x")
        self.assertIsNone(self.sent(*at))
        # A token that HTTP cannot carry.
        named = self.write("named", "two\nlines\n")
        told = "does not hold one line of ASCII characters"
        for source, arguments, environ in (
            (f"{named}, the file of --token-file", ("--token-file", named), {}),
            ("TXMUX_ADMIN_TOKEN", (), {"TXMUX_ADMIN_TOKEN": "€uro"}),
        ):
            code, _, err = self.ask("reload", "--admin", self.admin, *arguments, **environ)
            self.assertEqual((code, err), (2, f"txmux: {source} {told}\n"))
        self.assertEqual(self.server.asked, [])
        # A file that cannot be read is named.
        rules = self.write("rules.ini", f"[txmux]\nadmin = {self.admin}\nadmin_token = no\n")
        err = self.told(2, self.ask("reload", "--rules", rules))
        file = f"{self.folder}/no, the file of 'admin_token' of {rules}"
        self.assertIn(f"{file}, cannot be read", err)
        self.assertEqual(self.server.asked, [])
