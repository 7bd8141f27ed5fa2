import re
import socket
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from tests.convert.converting import converted, looks, rules_of
from txmux.detection.registry import installed_matchers
from txmux_convert import Program
from txmux_convert.formats import convert
from txmux_convert.writer import ConvertError

_LISTEN = "listen x\n    bind :1\n    server s 127.0.0.1:9 "


class TypographyTests(SynchronousTestCase):
    def test_typographic_signs_are_named(self) -> None:
        for text, sign, plain in (
            ("send\u2013proxy", "U+2013 (EN DASH)", "-"),
            ("send\u2011proxy", "U+2011 (NON-BREAKING HYPHEN)", "-"),
            ("\u2212check", "U+2212 (MINUS SIGN)", "-"),
            ("\u201cx\u201d", "U+201C (LEFT DOUBLE QUOTATION MARK)", '"'),
            ("\u2019x", "U+2019 (RIGHT SINGLE QUOTATION MARK)", "'"),
            ("weight\xa03", "U+00A0 (NO-BREAK SPACE)", " "),
        ):
            output = looks(converted(f"# a \u2013 b\n{_LISTEN}{text} # \u2013\n"))
            self.assertIn(f"line 4: has {sign}, which is not {plain!r}; correct it there", output)

    def test_error_names_typographic_signs(self) -> None:
        error = self.assertRaises(
            ConvertError, converted, "listen: ( { host: \u201cx\u201d; } );\n", "sslh"
        )
        self.assertIn("line 1 has U+201C (LEFT DOUBLE QUOTATION MARK)", str(error))
        self.assertIn("\u201cx\u201d", str(error))
        error = self.assertRaises(ConvertError, converted, "\u2013 x\n", "haproxy")
        self.assertIn("'\u2013' comes before the first section", str(error))

    def test_quoted_bytes_are_shown_as_characters(self) -> None:
        for line in (
            "use_backend \u201ca\u201d", "use_backend x \u2013 y",
            "use_backend x if { src \u201310.0.0.1 }", "use_backend x if { req.len gt \u2013 }",
            "use_backend x if { req.ssl_sni a\u2013* }",
            "use_backend x if { req.payload(0,1) \u2013 }",
        ):  # fmt: skip
            text = f"frontend f\n    bind :1\n    {line}\n    default_backend x\nbackend x\n    server s 127.0.0.1:9\n"
            warnings = "".join(converted(text, "haproxy").warnings)
            self.assertIn(line, warnings)
            self.assertNotRegex(warnings, "\\\\x|\xe2")

    def test_other_letters_are_fine(self) -> None:
        self.assertEqual(looks(converted(f"{_LISTEN}id 3\n    description \u00e9\u4e2d\n")), [])


class CommentTests(SynchronousTestCase):
    def test_comment_of_other_languages(self) -> None:
        """HAProxy and nginx do not know it either; what is behind it is read as what was meant."""
        cases: list[tuple[str, Program, list[int]]] = [
            ("// x\nlisten x\n    bind :1 // y\n    server s 127.0.0.1:9\n//\n", "haproxy",
             [1, 3, 5]),
            (
                "stream {\n    server { listen 1; // y\n    // z\n        proxy_pass 127.0.0.1:9; //z\n}}",
                "nginx",
                [2, 3, 4],
            ),
        ]  # fmt: skip
        for text, program, lines in cases:
            output = converted(text, program)
            message = f"has //, which {program} does not know as a comment either; write #"
            self.assertEqual(looks(output), [f"line {n}: {message}" for n in lines])
            self.assertEqual(len(rules_of(output).listeners), 1)

    def test_slashes_that_are_no_comment(self) -> None:
        text = "frontend f\n    bind :1\n    acl a path_beg //\n    acl b path '/a // b' # // x\n    default_backend c\n"
        self.assertNotIn("write #", f"{looks(converted(text, 'haproxy'))}")
        text = 'listen: ( { host: "::1"; port: "1"; } ); // x\n'
        self.assertEqual(looks(converted(text, "sslh")), [])

    def test_template(self) -> None:
        text = (
            'listen x\n    bind :1\n{{range gets "/members/*"}}    server {{base .Key}}\n{{end}}\n'
        )
        error = self.assertRaises(ConvertError, converted, text, "haproxy")
        self.assertEqual(
            str(error), "x.cfg:3: this is a template; convert the file that is made of it"
        )

    def test_error_names_the_missing_package(self) -> None:
        files: list[tuple[Program, str, str, str]] = [
            ("nginx", "x.conf", "stream {}", "crossplane"),
            ("sslh", "x.cfg", "listen: ();", "libconf"),
            ("traefik", "x.yml", "tcp: {}", "PyYAML"),
        ]
        for program, name, text, package in files:
            with patch("txmux_convert.writer.import_module", side_effect=ModuleNotFoundError):
                error = self.assertRaises(ConvertError, converted, text, program, name)
            self.assertRegex(str(error), f"needs the package {package}.*; install it: ")
            self.assertIn("pip install 'txmux[convert]'", str(error))


class RefusedTests(SynchronousTestCase):
    def test_positions_are_of_the_configuration(self) -> None:
        self.assertIn(
            "line 7: endpoint = 0.0.0.0:1: '0.0.0.0:1' is taken by '0.0.0.0:1' at line 2; "
            "remove one of the two, or change its port or path",
            looks(converted(_LISTEN + "\nlisten y\n    server s 127.0.0.1:8\n\n    bind :1\n")),
        )

    def test_error_says_why_no_listener_is_left(self) -> None:
        error = self.assertRaises(ConvertError, converted, _LISTEN.replace(":1\n", ":99999\n"))
        self.assertIn("no listener that txmux could have; line 2: endpoint = ", str(error))
        self.assertIn("99999", str(error))
        text = "stream { server { listen addr:port; proxy_pass 127.0.0.1:1; } }"
        error = self.assertRaises(ConvertError, converted, text)
        self.assertIn("; line 1: listen addr:port: is left out: ", str(error))
        many = "[s]\naccept = 1\nconnect = 2\n" * 99  # none has a certificate
        error = self.assertRaises(ConvertError, converted, many)
        self.assertLess(len(str(error)), 500)
        text = "[s]\nclient = yes\naccept = a:1\nconnect = 2\n"
        error = self.assertRaises(ConvertError, converted, text)
        self.assertIn("could have; line 3: endpoint = a:1: ", str(error))

    def test_error_says_what_was_left_out(self) -> None:
        text = _LISTEN.replace("bind :1", "bind :1 interface lo")
        error = self.assertRaises(ConvertError, converted, text)
        self.assertIn("line 2: bind :1 interface lo: is left out; interface: ", str(error))

    def test_rules_of_txmux(self) -> None:
        for text in ("[listen l]\nendpoint = :1\n", "\n[route r]\nbackend = 127.0.0.1:1\n"):
            error = self.assertRaises(ConvertError, converted, text)
            self.assertIn("this is a rules file of txmux already", str(error))


_PAGES = Path(__file__).parents[2] / "docs/how-to"


class DocumentedTests(SynchronousTestCase):
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
