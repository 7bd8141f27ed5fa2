from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import PORTS, attempt, converted, looks, rules_of
from txmux.detection.registry import installed_matchers
from txmux_convert.formats import Conversion, convert_command_line
from txmux_convert.writer import ConvertError

_LISTEN = ("-p", "127.0.0.1:443")
_WORDS = (
    *("-p", "-f", "-F", "-t", "--ssh", "--listen", "a:1", "127.0.0.1:2"),
    *("--", "=", "--timeout", "3", "-v", "--tls", ":"),
)


def of(*words: str) -> Conversion:
    return convert_command_line(words, installed_matchers(), PORTS.get)


class ArgumentTests(SynchronousTestCase):
    def test_unknown_option_or_missing_value(self) -> None:
        output = of(*_LISTEN, "--ssh", "h:22", "--gopher", "h:70")
        self.assertIn("--gopher h:70: is not an option of sslh", looks(output)[0])
        for words in ((*_LISTEN, "--ssh"), ("--ssh", "h:22"), ("-F/no/such", *_LISTEN)):
            self.assertRaises(ConvertError, of, *words)
        error = self.assertRaises(ConvertError, of, "--listen", "<change-me>:443", "--ssh", "h:22")
        self.assertIn("write an address of this machine", str(error))

    def test_options_beside_a_file(self) -> None:
        file = Path(self.mktemp())
        file.write_text(
            'timeout: 7;\nlisten: ( { host: "127.0.0.1"; port: "444"; } );\n'
            'protocols: ( { name: "ssh"; host: "h"; port: "22"; service: "ssh"; } );\n'
        )
        output = of("sslh", "-F", str(file), *_LISTEN, "--http", "h:80")
        rules = rules_of(output)
        self.assertEqual(rules.listeners[0].endpoints, ("127.0.0.1:444", "127.0.0.1:443"))
        self.assertEqual(rules.listeners[0].detect_timeout, 7)
        self.assertEqual([route.name for route in rules.routes], ["ssh", "http"])
        self.assertIn(f"{file}:3: LOOK: service", output.warnings[0])
        again = of("-F", str(file), "--ssh", "other:22")
        self.assertIn("--ssh: ", looks(again)[0])
        self.assertIn("\nserver = other:22\n", again.text)

    @given(st.lists(st.sampled_from(_WORDS)))
    def test_any_words(self, words: list[str]) -> None:
        try:
            rules_of(of(*words))
        except ConvertError as error:
            self.assertNotIn("\n", str(error))

    def test_shell_code_is_an_error_and_does_not_run(self) -> None:
        mark = Path(self.mktemp())
        for text in (
            f'DAEMON_OPTS="$(touch {mark})"', f"DAEMON_OPTS=`touch {mark}`", 'DAEMON_OPTS="$OTHER"',
        ):  # fmt: skip
            error = self.assertRaises(ConvertError, converted, f"{text}\n")
            self.assertIn("write 'txmux convert sslh -- ARGUMENTS'", str(error))
        self.assertFalse(mark.exists())

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        attempt(f"DAEMON_OPTS={text}", "sslh")
