import json
import os
import socket
import sys
import threading
from unittest import SkipTest

from tests.support.kit import CommandTestCase, ThreadServer, run_text
from tests.support.proc import forked
from txmux.rules.optional import missing

_ERRORS = [
    "rules.ini:3: [listen a] peek_limti: unknown key; did you mean 'peek_limit'?",
    "rules.ini:9: \x1b[2J",
]


class AskingTests(CommandTestCase):
    def refused(self, *arguments: str) -> str:
        return self.told(3, self.ask("stop", *arguments))

    def test_timeout_of_a_server_that_says_nothing(self) -> None:
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        path = self.run_folder / "rules.sock"
        listening.bind(str(path))
        listening.listen()
        told = f"txmux: the service at {path} (the only socket) has not answered within 0.1 s\n"
        self.assertEqual(self.refused("--timeout", "0.1"), told)

    def test_other_server_that_answers(self) -> None:
        self.answering(document=b"<html>", status=404)
        self.assertIn("is not txmux (HTTP status 404); name another endpoint", self.refused())
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        port = listening.getsockname()[1]

        def greet(greeting: bytes) -> None:
            with listening.accept()[0] as client:
                client.sendall(greeting)
                client.recv(1000)

        for greeting, told in (
            (b"SSH-2.0-x\r\n", "what answers at {} (--admin) is not txmux; name another"),
            (b"", "the service at {} (--admin) has ended before it answered"),
        ):
            thread = threading.Thread(target=greet, args=[greeting])
            thread.start()
            self.assertIn(told.format(f"127.0.0.1:{port}"), self.refused("--admin", f":{port}"))
            thread.join()
        listening.shutdown(socket.SHUT_RDWR)  # it keeps its port, so that nobody else gets it
        told = f"no service listens at 127.0.0.1:{port} (--admin);"
        self.assertIn(told, self.refused("--admin", f":{port}"))
        told = f"no service listens at {self.folder} (--admin), no socket; start it"
        self.assertIn(told, self.refused("--admin", f"unix:{self.folder}"))
        # The name of no host.
        for host in ("a..b", "a" * 64):
            told = f"{host}:1 (--admin) is not the name of a host; name another endpoint"
            self.assertIn(told, self.refused("--admin", f"{host}:1"))
        # A missing socket is named.
        err = self.refused("--admin", "unix:/no/such.sock")
        self.assertIn("there is no socket /no/such.sock (--admin); start the service", err)
        err = self.refused("--admin", "/" + "x" * 200)
        self.assertIn("cannot be reached: AF_UNIX path too long", err)

    def test_json_of_something_else(self) -> None:
        server = self.answering()
        for command, document in (
            ("status", []), ("status", {"pid": 1, "version": 1, "listeners": [5]}),
            ("status", {"pid": 1, "started": 1e300}), ("top", []), ("top", {}), ("connections", {"x": 1}),
            ("status --json", {"a": 1}), ("bans --json", {"a": 1}), ("stop", {"a": 1}), ("stop", []),
            ("reload --json", {"a": 1}), ("explain --connection x", {"a": 1}),
        ):  # fmt: skip
            if missing(f"txmux {command}"):
                continue
            server.document = document
            code, out, told = self.ask(*command.split())
            self.assertEqual((code, told.count("\n")), (3, 1), (command, document, told))
            self.assertTrue(not out or command == "status", out)  # it may have begun
            self.assertRegex(told, "what answers (at .* )?is not txmux")
        server.document, server.status = {"errors": 5}, 409
        self.assertEqual(self.ask("reload"), (1, "", "HTTP status 409\n"))
        # Deeply nested.
        server.document, server.status = b"[" * 100_000, 200
        self.assertIn("is not txmux (HTTP status 200); name another endpoint", self.refused())

    def test_endless_answer(self) -> None:
        def answer(client: socket.socket) -> None:
            client.recv(1000)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1%b\r\n\r\n{" % (b"0" * 18))
            client.shutdown(socket.SHUT_WR)
            while client.recv(1000):  # what is not read would have it reset the connection
                pass

        server = ThreadServer(answer)
        self.addCleanup(server.end)
        self.assertIn("is not txmux", self.refused("--admin", f":{server.port}"))

    def test_owner_of_a_socket_that_may_not_be_opened(self) -> None:
        if os.getuid():
            raise SkipTest("only root can become somebody else")
        self.answering()
        socket_file = self.run_folder / "rules.sock"
        self.run_folder.chmod(0o755)
        admin = "--admin", str(socket_file)
        for mode, who in ((0o600, ""), (0o660, ", or in that group")):
            socket_file.chmod(mode)
            owner = f"which belongs to root:root with mode 0{mode:o}; try as that user{who}\n"
            for arguments in ((), admin):
                err = self.as_nobody(*arguments)
                self.assertIn(f"no permission to open {socket_file}", err)
                self.assertIn(owner, err)
        self.run_folder.chmod(0o700)
        folder = f"{self.run_folder}, which belongs to root:root with mode 0700"
        self.assertIn(f"no permission to look into {folder}", self.as_nobody())
        self.assertIn(f", in {folder}", self.as_nobody(*admin))

    def as_nobody(self, *arguments: str) -> str:
        read, write = os.pipe()

        def ask() -> int:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code, _, err = self.ask("stop", *arguments)
            os.write(write, err.encode())
            return code

        pid = forked(ask)
        os.close(write)
        with open(read) as said:  # noqa: PTH123 - it is a descriptor
            err = said.read()
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 3, err)
        return err

    def test_changes_are_posted_as_json_and_reported(self) -> None:
        server = self.answering(document={"ok": True, "changes": "1 route new (a)", "errors": []})
        said = {
            "reload": "rules reloaded: 1 route new (a)\n",
            "upgrade": "upgraded: 1 route new (a)\n",
            "stop": "the service is shutting down; existing connections get 'drain_timeout' to finish\n",
        }
        for name, line in said.items():
            self.assertEqual(self.ask(name), (0, line, ""))
            asked = server.asked.pop()
            self.assertEqual((asked.method, asked.path, asked.body), ("POST", f"/api/{name}", {}))
            self.assertEqual(asked.headers["Content-Type"], "application/json")
            self.assertEqual(asked.headers["Host"], "localhost")
            self.assertNotIn("Origin", asked.headers)
        # An error of the service, and advice on a missing token.
        server.document, server.status = {"error": "a secret is needed"}, 403
        self.assertEqual(self.ask("stop"), (1, "", "a secret is needed\n"))
        server.status = 401
        err = self.told(1, self.ask("stop"))
        self.assertIn(f"the service at {server.at} (the only socket) needs a token; pass", err)
        self.assertIn("; pass --token-file FILE, a file with a token of 'admin_token'", err)
        self.assertNotIn("a secret is needed", err)
        err = self.ask("stop", "--admin", f"unix:{server.at}", TXMUX_ADMIN_TOKEN="wrong")[2]
        self.assertIn(f"this is not the token of the service at {server.at}", err)
        server.document = {}
        for status in (300, 500):
            server.status = status
            self.assertEqual(self.ask("stop"), (1, "", f"HTTP status {status}\n"))

    def test_clients_of_which_a_trial_knows_nothing(self) -> None:
        rest = [{"count": 3, "listener": "dns", "why": "no bytes are stored"}]
        found = {"ok": True, "changes": "none would go", "since": None, "clients": 3}
        self.answering(document={**found, "incomplete": [], "moves": [], "unknowns": rest})
        table = "clients  listener  not known\n      3  dns       no bytes are stored\n"
        self.assertEqual(self.told(0, self.ask("reload", "--try")), f"none would go\n\n{table}")

    def test_upgrade(self) -> None:
        # One that has left connections behind fails.
        document = {"ok": True, "changes": "process 2 serves", "complete": False}
        server = self.answering(document=document)
        self.assertEqual(self.ask("upgrade"), (1, "upgraded: process 2 serves\n", ""))
        code, out, _ = self.ask("upgrade", "--json")
        self.assertEqual((code, json.loads(out)), (1, document))
        # Its check changes nothing; reasons come first, and fail it.
        document = {"ok": True, "changes": "would hand over: 2", "ready": True, "refusals": []}
        server.document = document
        server.asked.clear()
        self.assertEqual(self.ask("upgrade", "--check"), (0, "would hand over: 2\n", ""))
        self.assertEqual(server.asked.pop().path, "/api/upgrade/check")
        server.document = {**document, "ready": False, "refusals": ["a", "b"]}
        said = "would be refused: a\nwould be refused: b\nwould hand over: 2\n"
        self.assertEqual(self.ask("upgrade", "--check"), (1, said, ""))

    def test_refusals_are_printed_as_by_check_without_control_characters(self) -> None:
        document = {"ok": True, "changes": "é", "errors": [], "more": 1}
        server = self.answering(document=document)
        self.assertEqual(json.loads(self.told(0, self.ask("reload", "--json"))), document)
        for arguments in (["--colour"], ["more"], ["--timeout", "soon"], ["--timeout", "0"]):
            self.assertEqual(self.ask("reload", *arguments)[0], 2)
        # Refusals are printed as by `check`, without control characters.
        document = {"ok": False, "changes": "", "errors": _ERRORS}
        server.document = document
        for status in (200, 409, 422):
            server.status = status
            told = f"{_ERRORS[0]}\nrules.ini:9: \\x1b[2J\n"
            self.assertEqual(self.ask("reload"), (1, "", told))
            code, out, err = self.ask("reload", "--json")
            self.assertEqual((code, json.loads(out), err), (1, document, told))

    # These commands are quick, since they leave out what a service needs.
    def test_heavy_packages_are_not_imported(self) -> None:
        server = self.answering()
        rules = self.write("rules.ini", f"[txmux]\nadmin = unix:{server.at}\n")
        code = (
            "import atexit, sys\n"
            "begun = {*sys.modules}\n"  # by what is installed beside it
            "atexit.register(lambda: print(*{n.partition('.')[0] for n in {*sys.modules} - begun}))\n"
            "from txmux.cli import main\n"
            "sys.exit(main(sys.argv[1:]))"
        )
        heavy = {"twisted", "OpenSSL", "cryptography", "zope", "rich", "attr", "asyncio"}
        for arguments, needed in (
            (["--help"], set[str]()),
            (["reload", "--admin", server.at], set()),
            (["reload", "--rules", str(rules)], {"attr"}),
        ):
            env = {"PYTHONPATH": os.pathsep.join(sys.path)}
            done = run_text(sys.executable, "-c", code, *arguments, env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            names = set(done.stdout.splitlines()[-1].split())
            self.assertIn("txmux", names)
            self.assertEqual(names & heavy, needed)
