import shlex
from ipaddress import ip_network
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading import cases
from txmux.rules.reading import values


class DurationTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text, seconds in {
            "250ms": 0.25, "5s": 5.0, "1.5s": 1.5, "10m": 600.0, "1h": 3600.0, "2d": 172800.0,
            "0s": 0.0,
        }.items():  # fmt: skip
            self.assertEqual(values.duration(text), seconds, text)

    def test_others_are_refused(self) -> None:
        for text in ("", "-5s", "+5s", "5 x", ".5s", "1.s", "٣s", "nan", "1e3s"):
            message = cases.complaint(values.duration, text)
            self.assertTrue(message.endswith("1h or 2d"), message)

    def test_bounds(self) -> None:
        self.assertEqual(values.duration("3650d"), 3650 * 86400)
        said = cases.complaint(values.duration, "3651d")
        self.assertEqual(said, "'3651d' is too long; at most 3650d")
        self.assertEqual(values.positive_duration("1ms"), 0.001)
        self.assertIn("must be more than 0", cases.complaint(values.positive_duration, "0s"))
        self.assertIsNone(values.positive_duration_or_none("none"))
        self.assertEqual(values.positive_duration_or_none("1d"), 86400.0)
        said = cases.complaint(values.positive_duration_or_none, "0")
        self.assertTrue(said.endswith("; for no limit, write none"), said)


class SizeTests(SynchronousTestCase):
    def test_forms(self) -> None:
        read = values.size(1, 4 * 1024**3)
        for text, number in {
            "512": 512, "16KiB": 16384, "1MiB": 1048576, "1GiB": 1073741824,
        }.items():  # fmt: skip
            self.assertEqual(read(text), number, text)

    def test_bounds_in_their_units(self) -> None:
        read = values.size(512, 64 * 1024)
        self.assertEqual((read("512"), read("64KiB")), (512, 65536))
        for text in ("511", "65KiB"):
            told = f"{text!r} is out of range; from 512 to 64KiB"
            self.assertEqual(cases.complaint(read, text), told)


class WordTests(SynchronousTestCase):
    def test_whole_number(self) -> None:
        read = values.whole_number(0, 10)
        self.assertEqual((read("0"), read("10")), (0, 10))
        for text in ("11", "+1", "1_0", "1.0", "", "٣", "9" * 5000):
            told = f"must be a whole number from 0 to 10, not {text!r}"
            self.assertEqual(cases.complaint(read, text), told)
        said = cases.complaint(values.whole_number(1, 2, "a port"), "3")
        self.assertEqual(said, "a port must be a whole number from 1 to 2, not '3'")

    def test_boolean(self) -> None:
        self.assertEqual((values.boolean("yes"), values.boolean("no")), (True, False))
        for text, meant in {"yse": "yes", "noo": "no"}.items():
            self.assertIn(f"did you mean {meant!r}?", cases.complaint(values.boolean, text))
        for text in ("perhaps", "on", "Yes", "true", "0"):
            told = f"must be yes or no, not {text!r}"
            self.assertEqual(cases.complaint(values.boolean, text), told)

    def test_choice(self) -> None:
        read = values.choice("off", "v1", "v2")
        self.assertEqual(read("v2"), "v2")
        told = "must be off, v1 or v2, not 'V1'; did you mean 'v1'?"
        self.assertEqual(cases.complaint(read, "V1"), told)

    def test_path(self) -> None:
        self.assertEqual(values.file_path("/run/a b"), Path("/run/a b"))
        self.assertIn("NUL", cases.complaint(values.file_path, "a\0b"))


class NetworkTests(SynchronousTestCase):
    def test_forms(self) -> None:
        for text in ("10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::1", "0.0.0.0/0", "::/0"):
            self.assertEqual(values.network(text), ip_network(text))
        self.assertIn("is not a network; write", cases.complaint(values.network, ""))


class SplitWordsTests(SynchronousTestCase):
    def test_words(self) -> None:
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

    def test_open_quotes(self) -> None:
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
