import re
import shlex
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.reading import values


class ValuesTests(SynchronousTestCase):
    def test_forms(self) -> None:
        networks = "10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/0", "::/0"
        rows: tuple[tuple[Callable[[str], object], dict[str, object]], ...] = (
            (values.duration, {
                "250ms": 0.25, "5s": 5.0, "1.5s": 1.5, "10m": 600.0, "1h": 3600.0, "2d": 172800.0,
                "0s": 0.0, "3650d": 3650 * 86400.0,
            }),
            (values.positive_duration, {"1ms": 0.001}),
            (values.positive_duration_or_none, {"none": None, "1d": 86400.0}),
            (values.size(1, 4 * 1024**3),
             {"512": 512, "16KiB": 16384, "1MiB": 1048576, "1GiB": 1073741824}),
            (values.size(512, 64 * 1024), {"512": 512, "64KiB": 65536}),
            (values.whole_number(0, 10), {"0": 0, "10": 10}),
            (values.boolean, {"yes": True, "no": False}),
            (values.choice("off", "v1", "v2"), {"v2": "v2"}),
            (values.file_path, {"/run/a b": Path("/run/a b")}),
            (values.network, {text: ip_network(text) for text in networks}),
        )  # fmt: skip
        for read, forms in rows:
            for text, value in forms.items():
                self.assertEqual(read(text), value, text)

    def test_other_forms_are_refused(self) -> None:
        rows: tuple[tuple[Callable[[str], object], str, tuple[str, ...]], ...] = (
            (values.duration, ".*1h or 2d", ("", "-5s", "+5s", "5 x", ".5s", "1.s", "٣s", "nan", "1e3s")),
            (values.duration, "TEXT is too long; at most 3650d", ("3651d",)),
            (values.positive_duration, ".*must be more than 0.*", ("0s",)),
            (values.positive_duration_or_none, ".*; for no limit, write none", ("0",)),
            (values.size(512, 64 * 1024), "TEXT is out of range; from 512 to 64KiB", ("511", "65KiB")),
            (values.whole_number(0, 10), "must be a whole number from 0 to 10, not TEXT",
             ("11", "+1", "1_0", "1.0", "", "٣", "9" * 5000)),
            (values.whole_number(1, 2, "a port"), "a port must be a whole number from 1 to 2, not TEXT", ("3",)),
            (values.boolean, ".*did you mean 'yes'[?].*", ("yse",)),
            (values.boolean, ".*did you mean 'no'[?].*", ("noo",)),
            (values.boolean, "must be yes or no, not TEXT", ("perhaps", "on", "Yes", "true", "0")),
            (values.choice("off", "v1", "v2"), "must be off, v1 or v2, not TEXT; did you mean 'v1'[?]", ("V1",)),
            (values.file_path, ".*NUL.*", ("a\0b",)),
            (values.network, ".*is not a network; write.*", ("",)),
        )  # fmt: skip
        for read, told, texts in rows:
            for text in texts:
                pattern = told.replace("TEXT", re.escape(repr(text)))
                self.assertRegex(cases.complaint(read, text), f"(?s)^{pattern}$")
        for text, words in (
            ("""tls  sni='a b' "x y"\talpn=h2,"http/1.1" ''""",
             ["tls", "sni=a b", "x y", "alpn=h2,http/1.1", ""]),
            # Outside quotes a backslash escapes little, inside even less.
            (r"""text=\r\n\x00 pattern=^\d+\s\\a a\ b \'c \"d e\ """ + "\\",
             [r"text=\r\n\x00", r"pattern=^\d+\s\a", "a b", "'c", '"d', "e \\"]),
            (r""" "a\"b\\c\d" 'e\d\\' """, [r'a"b\c\d', r"e\d\\"]),
            ("payload text=#1 # x", ["payload", "text=#1", "#", "x"]),
        ):  # fmt: skip
            self.assertEqual(values.split_words(text), words)
        for text in ("'a", 'a"b', r'"a\"', "it's", r"\\'"):
            self.assertIn("a quote is not closed", cases.complaint(values.split_words, text))

    @given(st.lists(st.text()))
    def test_quoted_words_come_back(self, words: list[str]) -> None:
        self.assertEqual(values.split_words(shlex.join(words)), words)

    @given(st.lists(st.sampled_from([*"ab= \t'\"", "\\\\", "\\ ", "\\'", '\\"'])).map("".join))
    def test_like_shlex(self, text: str) -> None:
        try:
            expected = shlex.split(text)
        except ValueError:
            cases.complaint(values.split_words, text)
        else:
            self.assertEqual(values.split_words(text), expected)
