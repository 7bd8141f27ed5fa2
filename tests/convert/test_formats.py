import re
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted
from tests.support.changes import lack_modules
from txmux.detection.registry import installed_matchers
from txmux.wire.globs import names
from txmux_convert import Program
from txmux_convert.formats import convert
from txmux_convert.terms import common_names
from txmux_convert.writer import ConvertError

_PAGES = Path(__file__).parents[2] / "docs/how-to"


_NAMES = st.text("ab.", min_size=1, max_size=6).filter(lambda name: name[0] != ".")
_PATTERNS = (
    st.builds("{}*{}".format, st.text("ab", max_size=4), st.text("ab.", max_size=4)) | _NAMES
)


class FormatsTests(SynchronousTestCase):
    def test_errors_name_what_is_wrong(self) -> None:
        quoted = "listen: ( { host: \u201cx\u201d; } );\n"
        error = self.assertRaises(ConvertError, converted, quoted, "sslh")
        self.assertIn("line 1 has U+201C (LEFT DOUBLE QUOTATION MARK)", str(error))
        self.assertIn("\u201cx\u201d", str(error))
        error = self.assertRaises(ConvertError, converted, "\u2013 x\n", "haproxy")
        self.assertIn("'\u2013' comes before the first section", str(error))
        text = "[s]\nclient = yes\naccept = a:1\nconnect = 2\n"
        error = self.assertRaises(ConvertError, converted, text)
        self.assertIn("could have; line 3: endpoint = a:1: ", str(error))
        text = (
            'listen x\n    bind :1\n{{range gets "/members/*"}}    server {{base .Key}}\n{{end}}\n'
        )
        error = self.assertRaises(ConvertError, converted, text, "haproxy")
        expected = "x.cfg:3: this is a template; convert the file that is made of it"
        self.assertEqual(str(error), expected)

    def test_error_names_the_missing_package(self) -> None:
        files: list[tuple[Program, str, str, str]] = [
            ("nginx", "x.conf", "stream {}", "crossplane"),
            ("sslh", "x.cfg", "listen: ();", "libconf"),
            ("traefik", "x.yml", "tcp: {}", "PyYAML"),
        ]
        lack_modules(self, "crossplane", "libconf", "yaml")
        for program, name, text, package in files:
            error = self.assertRaises(ConvertError, converted, text, program, name)
            self.assertRegex(str(error), f"needs the package {package}.*; install it: ")
            self.assertIn("pip install 'txmux[convert]'", str(error))

    def test_examples_of_the_pages(self) -> None:
        for name in ("sslh.cfg", "haproxy.cfg", "nginx.conf"):
            page = (_PAGES / f"come-from-{name.partition('.')[0]}.md").read_text()
            path = f"/etc/{name}" if name == "sslh.cfg" else name
            example = page.partition(f"With this `{path}`:")[2]
            source, printed, rules = re.findall("```[a-z]+\n(.*?)```", example, re.DOTALL)[:3]
            matchers, port_of = installed_matchers(), socket.getservbyname
            output = convert(source.encode(), name, matchers, port_of, is_guarded=lambda _: False)
            self.assertEqual(output.text, rules)
            self.assertEqual(printed.splitlines()[1:], list(output.warnings))

    patterns = st.lists(_PATTERNS, min_size=1, max_size=3)

    @given(patterns, patterns, _NAMES)
    def test_common_names_fit_exactly_what_fits_both(
        self, first: list[str], second: list[str], name: str
    ) -> None:
        a, b = ",".join(first), ",".join(second)
        both = common_names(a, b)
        assert both is not None
        fits = bool(both) and names(both).matches(name)
        self.assertEqual(fits, names(a).matches(name) and names(b).matches(name), both)

    def test_two_expressions_at_once_are_inexpressible(self) -> None:
        for a, b in (("~a.*", "~.*b"), ("~a.*", "*b"), ("*a*", "*b*"), ("a?", "*b")):
            self.assertIsNone(common_names(a, b))
        self.assertEqual(common_names("~a.*", "ab,b"), "ab")
