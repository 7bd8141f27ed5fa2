from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import attempt, converted
from txmux_convert.writer import ConvertError

_PIECES = (
    *("listener 443 {", "listen 1.2.3.4 80 {\n", "}", "\n", "table {", "table t {", "proto http\n"),
    *("fallback 1.2.3.4:5\n", "source client\n", "a.example *:1 2\n", ".* *\n", "\\\\.b\\.c [::1]"),
    *('"', "#", ";", "resolver {", "nameserver ::1\n", "user x\n", "^(a|$ 1.1.1.1\n", "("),
)


class SniproxyTests(SynchronousTestCase):
    def test_errors(self) -> None:
        for text, said in (
            ("table {\n}\n", "there is no listener in it"),
            ("listener 443\n{\n}\n", "x.cfg:2: '{' is not expected there"),
            ("a { " * 9, "'{' is not expected there"),
        ):
            self.assertIn(said, str(self.assertRaises(ConvertError, converted, text, "sniproxy")))

    @given(st.lists(st.sampled_from(_PIECES)).map(" ".join))
    def test_anything_becomes_rules_or_an_error(self, text: str) -> None:
        attempt(text, "sniproxy")
