import builtins
from pathlib import Path
from unittest import SkipTest
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted, rules_of
from tests.programs import require_program
from txmux.rules.model import Backend
from txmux_convert.writer import ConvertError

_LISTEN = 'listen: ( { host: "0.0.0.0"; port: "443"; } );'

_TOKENS = (
    *("listen", "protocols", "name", "host", "port", '"tls"', '"ssh"', '"443"', "true"),
    *('"\\n[x]"', '"# a"', "sni_hostnames", "regex_patterns", '"^a$"', '"\\xff"', *"{}():;,[]7"),
)


class FileTests(SynchronousTestCase):
    def test_shipped_example(self) -> None:
        require_program("sslh")
        example = Path("/usr/share/doc/sslh/examples/example.cfg")
        if not example.exists():
            raise SkipTest("the package has no example")
        rules = rules_of(converted(example.read_bytes(), name="example.cfg"))
        self.assertGreater(len(rules.routes), 5)
        self.assertIsInstance(rules.listeners[0].silent[0].outcome, Backend)

    def test_unreadable_file_is_one_error(self) -> None:
        for text in (
            "listen: (", "listen: @", 'listen: "\\xzz";', "timeout: 09;", "listen: " + "(" * 3000,
        ):  # fmt: skip
            error = self.assertRaises(ConvertError, converted, text, "sslh")
            self.assertIn("is not a file that libconfig reads", str(error))

    @given(st.text())
    def test_any_text(self, text: str) -> None:
        with patch.object(builtins, "open", side_effect=OSError):
            attempt(text, "sslh")

    @given(st.lists(st.sampled_from(_TOKENS)))
    def test_any_tokens(self, tokens: list[str]) -> None:
        for text in (" ".join(tokens), f"{_LISTEN} protocols: ( {{ {' '.join(tokens)} }} );"):
            attempt(text, "sslh")
