import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from unittest import SkipTest
from unittest.mock import Mock

import pytest

import txmux
from tests.support.changes import change_constants, install, lack_landlock
from tests.support.kit import CommandTestCase, has_ipv6, make_folder, run
from txmux import files
from txmux.backends.connect import source
from txmux.cli import COMMANDS, check
from txmux.detection.registry import UnusableMatcherError
from txmux.rules.optional import missing

GOOD = "[listen a]\nendpoint = :8443\ndefault = web\n[backend web]\nserver = 127.0.0.1:80\n"
BAD = "[listen a]\nendpoint = 443\npeek_limti = 5\n"
BAD_LINES = (
    "{0}:2: [listen a] endpoint: '443' is not an endpoint; did you mean ':443'?\n"
    "{0}:3: [listen a] peek_limti: unknown key; did you mean 'peek_limit'?\n"
)


class CheckTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.be_user(1000)
        self.good, self.bad = self.write("good.ini", GOOD), self.write("bad.ini", BAD)

    def test_one_line_for_a_good_file_and_for_each_error(self) -> None:
        # One bad file is enough for exit code 1.
        good = f"{self.good}: OK, 1 listener, 0 routes, 1 backend\n"
        bad = BAD_LINES.format(self.bad)
        self.assertEqual(self.run_main("check", self.good), (0, good, ""))
        self.assertEqual(self.run_main("check", self.bad), (1, bad, ""))
        self.assertEqual(self.run_main("check", self.bad, self.good), (1, bad + good, ""))
        why = "no/such/file.ini: cannot be read: No such file or directory\n"
        self.assertEqual(self.run_main("check", "no/such/file.ini"), (1, why, ""))
        done = run(sys.executable, "-m", "txmux", "check", "-", stdin=BAD.encode())
        self.assertEqual((done.returncode, done.stdout.decode()), (1, BAD_LINES.format("<stdin>")))
        # As a module, with relative paths.
        found = self.python("-m", "txmux", "check", self.bad.name)
        self.assertEqual(found, (1, BAD_LINES.format(self.bad.name), ""))
        out = self.told(0, self.python("-m", "txmux", "check", self.good.name))
        # Root is warned.
        self.assertIn(f"{self.good.name}: OK, 1 listener, 0 routes, 1 backend", out)
        # As JSON, with warnings.
        self.good.write_text(GOOD + "[backend idle]\nserver = h:1\n")
        code, out, err = self.run_main("check", "--json", self.good, self.bad)
        self.assertEqual((code, err), (1, ""))
        found = json.loads(out)
        self.assertEqual([one["ok"] for one in found["files"]], [True, False])
        self.assertEqual(found["files"][0]["listeners"], 1)
        warning, *errors = found["problems"]
        self.assertEqual((warning["severity"], warning["section"]), ("warning", "backend idle"))
        self.assertEqual(errors[-1], {
            "file": str(self.bad), "line": 3, "section": "listen a", "key": "peek_limti",
            "severity": "error", "message": "unknown key; did you mean 'peek_limit'?",
        })  # fmt: skip
        self.assertNotIn("servers", found)

    def test_what_a_start_refuses(self) -> None:
        listen = "[listen a]\nendpoint = :0\n"
        backend = "default = b\n[backend b]\nserver = 127.0.0.1:1\nsource = client\n"
        self.patch(source, "_make_transparent", Mock(side_effect=PermissionError(1, "no")))
        out = self.told(0, self.run_main("check", self.write("source.ini", listen + backend)))
        self.assertIn(":6: warning: [backend b] source: 'client': user ", out)
        self.assertIn("ip rule add from 127.0.0.1", out)  # the routes that it needs
        # What a start would refuse on this machine is a warning: it may be done on another one.
        text = "[txmux]\nsandbox = yes\n[listen a]\nendpoint = 127.0.0.1:1\n"
        lack_landlock(self)
        out = self.told(0, self.run_main("check", self.write("rules.ini", text)))
        self.assertIn("rules.ini:2: warning: [txmux] sandbox: this kernel has no Landlock", out)
        # An address of documentation (RFC 5737) stands for those.
        own, other = "127.0.0.1:8443", "192.0.2.1:8443"
        rules = self.write("a.ini", f"[listen a]\nendpoint = {own}\n  {other}\n")
        _, out, _ = self.run_main("check", rules)
        why = f"a.ini:3: warning: [listen a] endpoint: cannot listen at {other}: no interface"
        self.assertIn(why, out)
        self.assertNotIn(own, out)
        # A missing folder is an error, as at the start.
        self.good.write_text("[txmux]\naccess_log = no/log\n[listen a]\nendpoint = 127.0.0.1:0\n")
        told = f"{self.good}:2: [txmux] access_log: there is no folder '{self.good.parent}/no'; create it, or correct the path\n"
        self.assertEqual(self.run_main("check", self.good), (1, told, ""))
        # Staying root is a warning.
        self.be_user(0)
        self.good.write_text(GOOD)
        first, last = self.told(0, self.run_main("check", self.good)).splitlines()
        self.assertTrue(first.startswith(f"{self.good}: warning: [txmux] user: "))
        self.assertEqual(last, f"{self.good}: OK, 1 listener, 0 routes, 1 backend, 1 warning")

    def test_name_that_is_too_long(self) -> None:
        """As of a token in the place of its file."""
        name = "a" * 300
        cannot = rf": \[txmux\] access_log: .*{name} cannot be opened for appending: "
        token = ": warning: .*, not the token itself"
        for key, code, told in (("access_log", 1, cannot), ("admin_token", 0, token)):
            text = f"[txmux]\n{key} = {name}\n[listen a]\nendpoint = 127.0.0.1:0\n"
            its, out, _ = self.run_main("check", self.write("a.ini", text))
            self.assertEqual(its, code)
            self.assertRegex(out, f"a.ini:2{told}")

    def test_disk_that_does_not_answer(self) -> None:
        """What is on it is an error, beside all others."""
        late, is_back, looks_at = make_folder(self) / "late.pem", threading.Event(), Path.stat
        late.touch()

        def look(path: Path, **options: Any) -> os.stat_result:
            if path == late:
                is_back.wait(5)
            return looks_at(path, **options)

        change_constants(self, files, PATIENCE=0.05)
        self.patch(Path, "stat", look)
        self.addCleanup(is_back.set)
        # What to do about a file that is not there needs to look at its folder, which would wait, too.
        self.patch(os.path, "realpath", lambda path: self.assertNotEqual(path, late.parent) or path)
        tls = f"[route tls]\nmatch = tls\nterminate_tls = {late}\nbackend = web\nfrom = no\n"
        code, out, _ = self.run_main("check", self.write("a.ini", f"{GOOD}{tls}"))
        self.assertEqual(code, 1)
        self.assertRegex(out, "a.ini:8: .*late.pem': its disk has not answered for 0.05 s")
        self.assertIn("a.ini:10: [route tls] from: ", out)

    def test_address_of_another_interface(self) -> None:
        """Each interface may have the same link-local address, and the loopback has none."""
        if not has_ipv6():
            raise SkipTest("this machine has no IPv6")
        file = self.write("local.ini", GOOD.replace(":8443", "[fe80::1%lo]:8443"))
        out = self.told(0, self.run_main("check", file))
        self.assertIn("cannot listen at [fe80::1%lo]:8443: no interface of this machine has", out)

    def test_warnings_in_order_with_exit_code_0(self) -> None:
        self.good.write_text(
            "[txmux]\nadmin_token = token\n[listen a]\nendpoint = :8443\n"
            "[route b]\nmatch = any\nbackend = 127.0.0.1:1\n[route c]\nmatch = ssh\nbackend = close\n"
        )
        out = (
            f"{self.good}:2: warning: [txmux] admin_token: it is not used without 'admin = ADDRESS:PORT'; "
            "add that, or remove this\n"
            f"{self.good}:2: warning: [txmux] admin_token: it is the path of a file, not the token itself: "
            f"'{self.good.parent}/token' is created at the start; write for example /var/lib/txmux/token\n"
            f"{self.good}:6: warning: [route b] match: 'any' makes the later [route c] unreachable; "
            "put this route last\n"
            f"{self.good}: OK, 1 listener, 2 routes, 0 backends, 3 warnings\n"
        )
        self.assertEqual(self.run_main("check", self.good), (0, out, ""))
        # A secret where workers may read.
        token = Path(txmux.__file__).parent / "token"
        text = f"[txmux]\nadmin = 127.0.0.1:0\nadmin_token = {token}\nsandbox = auto\n[listen a]\nendpoint = :8443\n"
        told = f"{self.good}:3: warning: [txmux] admin_token: workers can read what is in "
        for setting, is_told in (("auto", True), ("off", False)):
            self.good.write_text(text.replace("auto", setting))
            self.assertEqual(told in self.run_main("check", self.good)[1], is_told)
        # Wrong tokens are errors, as at the start.
        tokens = self.good.parent / "tokens"
        self.good.write_text(
            "[txmux]\nadmin = 127.0.0.1:0\nadmin_token = token\nadmin_tokens = tokens\n"
            "[listen a]\nendpoint = 127.0.0.1:0\n"
        )
        wrong = f"{self.good}:4: [txmux] admin_tokens: {tokens}"
        missing = f"{wrong} cannot be read: No such file or directory\n"
        self.assertEqual(self.run_main("check", self.good), (1, missing, ""))
        secret = "long-enough-a-secret"
        tokens.write_text(f"a read too-short\nb read {secret}\nadmin all {secret}\n")
        out = (
            f"{wrong}:1: the secret must have at least 16 ASCII characters\n"
            f"{wrong}:3: the name is that of 'admin_token'; choose another one\n"
        )
        self.assertEqual(self.run_main("check", self.good), (1, out, ""))
        tokens.write_text("")
        self.assertEqual(self.run_main("check", self.good)[0], 0)

    def test_problems_of_plugins(self) -> None:
        # They are warnings.
        install(self, check, problem="the plugin module x cannot be used")
        warning = "warning: the plugin module x cannot be used\n"
        code, _, err = self.run_main("check", self.good)
        self.assertEqual((code, err), (0, warning))
        # Unless they clash.
        why = "two matchers are called 'x'"
        self.patch(check, "load", Mock(side_effect=UnusableMatcherError(why)))
        self.assertEqual(self.run_main("check", self.good), (1, "", f"{warning}txmux: {why}\n"))

    def test_wrong_usage(self) -> None:
        commands = "txmux: name a command\n"
        self.assertTrue(all(f"  {name}" in self.run_main()[2] for name in COMMANDS))
        for arguments, message in (((), commands), (("chekc",), ""), (("check",), "FILE")):
            err = self.told(2, self.run_main(*arguments))
            self.assertIn("usage: txmux", err)
            self.assertIn(message, err)
        # An unknown command has a suggestion.
        good = self.write("my rules", "")
        for word, advice in (
            ("rules.ini", "to run the service with that file: txmux run rules.ini"),
            (str(good), f"to run the service with that file: txmux run '{good}'"),
            ("chekc", "there is no command 'chekc'; did you mean 'check'?\n"),
            ("xyzzy", "there is no command 'xyzzy'; txmux --help lists those there are\n"),
            ("--vesion", "'--vesion' is not an option; did you mean '--version'?"),
        ):
            self.assertIn(advice, self.told(2, self.run_main(word, "--more")))
        # So has an unknown option.
        for option, meant in (("--admin-token", "--token-file"), ("--jsno", "--json")):
            err = self.told(2, self.run_main("status", option, "x"))
            self.assertIn(f"unrecognized arguments: {option} x; did you mean '{meant}'?\n", err)
        # Other words are named.
        first = "'-c' is not an option here; the command comes first, as in txmux run FILE"
        for line, advice in (
            ("-c rules.ini", first),
            ("test rules.ini", "mux.example:443; to check a rules file: txmux check rules.ini"),
            ("lint rules.ini", "there is no command 'lint'; txmux --help lists those there are"),
            ("run -c rules.ini", "unrecognized arguments: -c\n"),
            ("run --ssh", "argument --ssh: expected one argument"),
            ("check", "the following arguments are required: FILE"),
            ("drain web 10.0.0.5:80", "unrecognized arguments: 10.0.0.5:80\n"),
        ):
            if missing(f"txmux {line.split()[0]}"):
                continue
            self.assertIn(advice, self.told(2, self.run_main(*line.split())), line)
        # What is meant is done.
        version = (0, f"txmux {txmux.__version__}\n", "")
        for line in ("--version", "version", "-V", "-v", "run --version", "run -V"):
            self.assertEqual(self.run_main(*line.split()), version, line)
        for line, options in (("help", "--help"), ("help run", "run --help")):
            helped = self.run_main(*line.split())
            self.assertEqual(helped, self.run_main(*options.split()), line)
            self.assertEqual(helped[0], 0)

    def python(self, *words: str) -> tuple[int, str, str]:
        env = {**os.environ, "PYTHONPATH": str(Path(txmux.__file__).parent.parent)}
        how: dict[str, Any] = {"capture_output": True, "text": True, "cwd": self.good.parent}
        done = subprocess.run([sys.executable, *words], env=env, check=False, **how)
        return done.returncode, done.stdout, done.stderr

    @pytest.mark.by_turns(each=True)
    def test_closed_pipe_ends_any_command_as_sigpipe(self) -> None:
        good, package = str(self.good), Path(txmux.__file__).parent.parent
        other = self.write("haproxy.cfg", "listen a\n  bind :1\n  server s 127.0.0.1:2\n")
        # argparse itself passes over what it cannot write at once.
        buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        read, write = os.pipe()
        os.close(read)
        user, terminal = pty.openpty()
        os.close(user)
        pipe_ends = dict.fromkeys(("stdin", "stderr"), subprocess.PIPE)
        how: dict[str, Any] = {"cwd": package, "env": buffered, **pipe_ends}
        started = []
        with os.fdopen(write, "wb") as pipe, os.fdopen(terminal, "wb") as gone:
            for output, arguments in (
                *((pipe, its) for its in (
                    ("--help",), ("check", "--help"), ("check", good), ("check", "--json", good),
                    ("convert", str(other)), ("explain", good, "--text", "x"), ("fmt", "--check", good),
                    ("fmt", "-"), ("matchers",),
                )),
                (gone, ("check", good)), (gone, ("explain", good, "--text", "x")), (gone, ("matchers",)),
            ):  # fmt: skip
                words = [sys.executable, "-m", "txmux", *arguments]
                started.append((arguments, subprocess.Popen(words, stdout=output, **how)))
        for arguments, child in started:
            _, err = child.communicate(GOOD.encode(), timeout=300)
            self.assertEqual((child.returncode, err), (141, b""), arguments)

    def test_output_that_cannot_be_written(self) -> None:
        how: dict[str, Any] = {"cwd": self.good.parent, "stderr": subprocess.PIPE, "timeout": 300}
        for line in ("--help", f"check {self.good.name}", "check missing.ini", "matchers"):
            words = [sys.executable, "-m", "txmux", *line.split()]
            with Path("/dev/full").open("wb") as full:
                done = subprocess.run(words, stdout=full, check=False, **how)
            problem = b"txmux: cannot write to standard output: No space left on device\n"
            self.assertEqual((done.returncode, done.stderr), (1, problem), line)

    def test_imports(self) -> None:
        # No reactor is installed.
        script = (
            "import sys; from txmux.cli import main; main(sys.argv[1:]); "
            "sys.exit('twisted.internet.reactor' in sys.modules)"
        )
        self.good.write_text(GOOD + "[route a]\nmatch = nothing\nbackend = tls:a:1\n")
        out = self.told(0, self.python("-c", script, "check", self.good.name))
        self.assertIn("unknown matcher 'nothing'", out)
        # Only what the rules need is imported.
        script = (
            "import sys; begun = {*sys.modules}; from txmux.cli import main; main(sys.argv[1:]); "
            "heavy = {'OpenSSL', 'cryptography', 'twisted.internet.endpoints', 'twisted.names', 'importlib.metadata'}; "
            "print(*sorted(heavy & ({*sys.modules} - begun)))"
        )
        self.good.write_text(GOOD)
        out = self.told(0, self.python("-c", script, "check", self.good.name))
        self.assertEqual(out.splitlines()[-1], "")
