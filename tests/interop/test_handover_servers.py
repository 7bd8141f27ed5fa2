"""Real servers that txmux hands sockets to: the examples, OpenSSH started as by inetd, and ``twist web``."""

import subprocess
import sys
from itertools import product
from pathlib import Path

from tests.interop.servers import start_sshd
from tests.programs import require_program
from tests.support.kit import Child, InteropTestCase, eventually, is_gone, output_of, run, write
from tests.support.services import Service, twist_command

_EXAMPLES = Path(__file__).parents[2] / "examples/handover"
_PLACE = "127.0.0.1:0\n    [::1]:0\ndetect_timeout = 1h"


def rules_in(folder: Path) -> str:
    """Give the example's rules, with its files in a folder and any free port."""
    text = (_EXAMPLES / "rules.ini").read_text()
    # A client that says the rest after an upgrade may take its time.
    return text.replace("/run/handover", str(folder)).replace(":443", _PLACE)


def curl(port: int, host: str, address: str) -> tuple[str, str]:
    """Ask for a page of a host; give it with the client's own port."""
    given = ("-g", "--silent", "--fail", "-H", f"Host: {host}", "-w", "%{local_port}")
    page, _, own = output_of("curl", *given, f"http://{address}:{port}/").decode().rpartition("\n")
    return page, own


class ExampleTests(InteropTestCase):
    """``examples/handover``, with `sshd` behind ``recvmsg_server.py``."""

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.ssh = cls.share(start_sshd(cls.folder))
        sshd = (require_program("sshd"), "-i", "-e", "-f", str(cls.folder / "sshd_config"))
        others = (("api", "asyncio_server.py"), ("web", "twisted_server.py"))
        for name, program, *command in (("ssh", "recvmsg_server.py", *sshd), *others):
            path, ready = cls.folder / f"{name}.sock", "clients are taken at"
            words = (sys.executable, str(_EXAMPLES / program), str(path), *command)
            cls.share(Child(*words, ready=ready))
        cls.mux = cls.share(Service(cls.folder, rules_in(cls.folder), "workers = 2"))

    def login(self, port: int, command: str) -> subprocess.CompletedProcess[bytes]:
        return run("ssh", *self.ssh.options, "-p", str(port), "127.0.0.1", command)

    def hold(self, mux: Service) -> Child:
        to = ("-p", str(mux.port), "127.0.0.1")
        held = self.own(Child("ssh", *self.ssh.options, *to, "cat", stdin=True))
        self.assertEqual(mux.take_one()["reason"], "handed-over")
        return held

    def test_ssh_and_web(self) -> None:
        """SSH has the true address, its input and its status."""
        done = self.login(self.mux.port, "echo $SSH_CONNECTION; exit 7")
        self.assertEqual(done.returncode, 7)
        client, port, local, own = done.stdout.decode().split()
        self.assertEqual((client, local, own), ("127.0.0.1", "127.0.0.1", str(self.mux.port)))
        line = self.mux.take_one()
        self.assertEqual((line["reason"], line["client"]), ("handed-over", f"127.0.0.1:{port}"))
        self.assertEqual((line["bytes_in"], line["bytes_out"]), (0, 0))
        self.assertEqual(line["backend"], f"handover:{self.folder}/ssh.sock")
        self.assertRegex(line["facts"]["software"], "^OpenSSH_")

        # The web by asyncio and Twisted, of both families, and by both workers.
        hosts = {"api.example.com": "asyncio", "www.example.com": "Twisted"}
        ports = {"127.0.0.1": self.mux.port}
        ports["[::1]"] = int(self.mux.child.wait_for(r"listening on \[::1\]:(\d+) for")[1])
        owners: set[str] = set()
        for number in range(200):
            if number and len(owners) > 1:
                break
            for (host, name), address in product(hosts.items(), ports):
                page, own = curl(ports[address], host, address)
                whom = f"{address.strip('[]')} port {own}"
                self.assertEqual(page, f"Hello by {name}, {whom}, who asked for {host}.")
                identity, *fields = self.mux.take_fields("id", "reason", "client")
                self.assertEqual(fields, ["handed-over", f"{address}:{own}"])
                owners.add(identity.partition("-")[0])
        self.assertEqual(len(owners), 2)

    def test_changes(self) -> None:
        """After a reload and an upgrade clients are handed over, and those that were before go on, even when txmux has ended; whoever had said half of what decides says the rest."""
        mux = Service(self.folder, rules_in(self.folder))
        self.addCleanup(mux.kill_all)
        held = [self.hold(mux)]
        self.assertIn("rules reloaded", mux.reload((r"\[route ssh\]", "[route renamed]")))
        self.assertEqual(self.login(mux.port, "echo after").stdout, b"after\n")
        self.assertEqual(mux.take_one()["route"], "renamed")
        held.append(self.hold(mux))
        with mux.connect() as client:
            client.sendall(b"GET / HT")
            mux.ask()
            old = mux.switched()
            self.assertEqual(self.login(mux.port, "echo after").stdout, b"after\n")
            client.sendall(b"TP/1.1\r\nHost: www.example.com\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            self.assertIn(f"port {client.getsockname()[1]}, who asked for".encode(), answer)
        self.assertEqual([line["reason"] for line in mux.take(2)], ["handed-over"] * 2)
        eventually(lambda: all(map(is_gone, old)), "the old workers have ended")
        mux.stop()
        for one in held:
            one.say(b"still here\n")
            one.wait_for("still here")
            self.assertEqual(one.wait(), 0)


class TwistWebTests(InteropTestCase):
    def test_served_with_the_clients_address(self) -> None:
        """By a program that knows nothing of txmux but the endpoint string."""
        place = write(self.make_folder() / "hello", "hello\n").parent
        listen = (f"--listen=txmux:{place}/web.sock:mode=666", f"--path={place}")
        command = (*twist_command(), "--log-format=text", "web", *listen)
        web = self.own(Child(*command, ready="Starting reactor"))
        rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = handover:{place}/web.sock\n"
        mux = self.own(Service(self.folder, rules))
        page = output_of("curl", "--silent", "--fail", f"http://127.0.0.1:{mux.port}/hello")
        self.assertEqual(page, b"hello\n")
        self.assertEqual(mux.take_one()["reason"], "handed-over")
        web.wait_for(r'"127\.0\.0\.1" - - .*"GET /hello HTTP/1\.1" 200')
