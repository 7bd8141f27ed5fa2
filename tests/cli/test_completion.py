import sys

from tests.cli.support import CommandTestCase
from tests.support.changes import lack_modules
from txmux.cli import names_of_commands
from txmux.cli.completion import SHELLS

_BACKENDS = [
    {"name": "web", "servers": [{"server": "10.0.0.5:8443"}, {"server": "10.0.0.6:8443"}]},
    {"name": "other", "servers": [{"server": "10.0.0.5:8443"}]},
    {"name": "127.0.0.1:1", "servers": [{"server": "127.0.0.1:1"}]},
]


class CompletionTests(CommandTestCase):
    """The scripts; that shells take them is told by the tests with real shells."""

    def names(self, kind: str, *words: str) -> list[str]:
        out = self.told(0, self.ask("completion", "bash", "--names", kind, "txmux", *words))
        return out.splitlines()

    def test_names_of_the_service_that_the_line_selects(self) -> None:
        """Without a service there are none, and no error."""
        words = ("completion", "bash", "--names", "backends", "txmux", "drain")
        self.assertEqual(self.ask(*words), (0, "", ""))
        self.answering(document=b"<html>")
        self.assertEqual(self.ask(*words), (0, "", ""))
        for document in ([{"backend": "a"}], ["a"], 5):
            self.assertEqual(self.ask(*words, "--admin", self.folder / "none.sock"), (0, "", ""))
            server = self.answering(self.folder / f"{document!r}.sock"[-9:], document=document)
            self.assertEqual(self.ask(*words, "--admin", server.at), (0, "", ""))
        server = self.answering(self.folder / "a.sock")
        server.others = {
            "/api/backends": _BACKENDS,
            "/api/routes": [{"name": "site"}, {"name": "\x1b[31m\n"}, {"name": "$(id)"}],
            "/api/status": {"pid": 1, "listeners": [{"name": "public"}]},
        }
        servers = ["10.0.0.5:8443", "10.0.0.6:8443"]
        alone = "127.0.0.1:1"
        targets = ["web", *(f"web/{one}" for one in servers), "other", f"other/{servers[0]}", alone]
        for kind, wanted in (
            ("backends", ["web", "other", alone]), ("servers", [*servers, alone]),
            ("targets", targets), ("routes", ["site"]), ("listeners", ["public"]),
        ):  # fmt: skip
            given = ("drain", "--admin", server.at, "--close", "we")
            self.assertEqual(self.names(kind, *given), wanted)

    def test_script_of_each_shell_has_all_commands(self) -> None:
        for shell in SHELLS:
            script = self.told(0, self.run_main("completion", shell))
            for command in names_of_commands():
                self.assertIn(command, script)
            self.assertNotIn("bash_completion/", script)
            self.assertNotIn("zsh_completion/", script)
        # An unknown shell: the known ones are named.
        said = self.told(2, self.run_main("completion", "ksh"))
        # Versions of Python differ in the quotes.
        self.assertIn("ksh (choose from bash, zsh, fish)", said.replace("'", ""))
        lack_modules(self, "shtab")
        code, script, said = self.run_main("completion", "bash")
        self.assertEqual((code, script), (1, ""))
        self.assertIn(f"{sys.prefix}/bin/pip install 'txmux[completion]'", said)
        self.assertEqual(len(said.splitlines()), 1)
