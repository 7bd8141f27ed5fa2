import configparser
import io

import attrs
from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.model import KeyEntry, Section, ValueLine
from txmux.rules.reading.ini import read_ini


def sections(text: str) -> list[Section]:
    found, problems = read_ini(text, "rules.ini")
    assert not problems, problems
    return found


def problems(text: str) -> list[str]:
    return [str(problem) for problem in read_ini(text, "rules.ini")[1]]


BLANKS = st.sampled_from(["", " ", "  ", "\t", "    "])
WORDS = st.text(alphabet="ab=#;:[]%é \u00a0\u2028\x0b\x1c", max_size=8)
LINES = st.one_of(
    st.builds("{}[{}]{}".format, BLANKS, st.text("ab c", min_size=1, max_size=2), BLANKS),
    st.builds("{}{}{}={}{}".format, BLANKS, st.text("abcdef", max_size=2), BLANKS, BLANKS, WORDS),
    st.builds("{}{}{}".format, BLANKS, WORDS, BLANKS),
    st.builds("{}: {}= {}".format, st.text("abcdef", max_size=2), BLANKS, WORDS),
    st.builds("{}#{}".format, BLANKS, WORDS),
    BLANKS,
)
FILES = st.builds(
    lambda end, lines: end.join(["[top]", "k = v", *lines]),
    st.sampled_from(["\n", "\r\n"]),
    st.lists(LINES, max_size=12),
)


def by_configparser(text: str) -> list[tuple[str, dict[str, list[str]]]] | None:
    parser = configparser.RawConfigParser(
        delimiters=("=",),
        comment_prefixes=("#", ";"),
        inline_comment_prefixes=None,
        strict=True,
        interpolation=None,
        empty_lines_in_values=True,
        default_section="no default section",
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_file(io.StringIO(text, newline=None))
    except configparser.Error:
        return None
    return [
        (
            " ".join(name.split()),
            {
                key: [line.strip() for line in value.split("\n") if line.strip()]
                for key, value in parser.items(name)
            },
        )
        for name in parser.sections()
    ]


class ReadingTests(SynchronousTestCase):
    def test_lines_are_kept_and_look_comments_are_errors(self) -> None:
        text = "# LOOK: line 3: a\n[a]\nk = 1\n  ; LOOK: b\n  2\n# look: c\n#  LOOK at d\nl = # LOOK: e\n"
        these = "1: LOOK: line 3: a", "4: LOOK: b"
        found = [f"rules.ini:{one}; fix that, then remove this line" for one in these]
        self.assertEqual(problems(text), found)
        (section,) = read_ini(text, "rules.ini")[0]
        self.assertEqual([item.text for item in section.entries["k"].items], ["1", "2"])
        text = "# first\n\n[route ssh]\nmatch = ssh\n  # not this\n\n   tls  \nlog =\n  yes\n"
        (section,) = sections(text)
        self.assertEqual((section.header, section.line), ("route ssh", 3))
        match, log = section.entries.values()
        self.assertEqual((match.key, section.line_of(match)), ("match", 4))
        self.assertEqual(match.items, (ValueLine(1, "ssh"), ValueLine(4, "tls")))
        self.assertEqual((log.below, log.items), (5, (ValueLine(6, "yes"),)))

    def test_values_are_what_is_written(self) -> None:
        """Only ``=`` separates, nothing is interpolated or a comment behind it, and an indented header continues a value."""
        for text, header, entries in (
            ("[  route \t ssh ]", "route ssh", {}),
            ("[a]\nhost:port = x=y = z\n", "a", {"host:port": [(1, "x=y = z")]}),
            ("[a]\nk = 100% ${x} # ; rest\n", "a", {"k": [(1, "100% ${x} # ; rest")]}),
            ("[a]\nk = 1\nK = 2\n", "a", {"k": [(1, "1")], "K": [(2, "2")]}),
            *((f"\ufeff[a]{end}k = 1{end}  2{end}", "a", {"k": [(1, "1"), (2, "2")]}) for end in ("\n", "\r\n", "\r")),
            ("[a]\nendpoint =\n  [::1]:22\n", "a", {"endpoint": [(2, "[::1]:22")]}),
        ):  # fmt: skip
            (section,) = sections(text)
            found = {key: [*map(attrs.astuple, its.items)] for key, its in section.entries.items()}
            self.assertEqual((section.header, found), (header, entries))
        # A header without an end begins a section, and a repeated key goes on. Of one header both are given; the parser says where the other one is, in whichever file. DEFAULT is one like others.
        whole, broken, other = read_ini("[a]\nk = 1\n[route b\nk = 1\n[c]\nk\n= 1\n", "x")[0]
        self.assertEqual((broken.header, list(broken.entries)), ("route b", ["k"]))
        self.assertEqual([s.unread for s in (whole, broken, other)], [(), (3,), (6, 7)])
        (section,) = read_ini("[a]\nk = 1\nother = x\nk = 2\n  3\nk = 4\n", "x")[0]
        values = (ValueLine(1, "1"), ValueLine(3, "2"), ValueLine(4, "3"), ValueLine(5, "4"))
        self.assertEqual(section.entries["k"], KeyEntry(1, "k", values, 3))
        self.assertEqual([s.line for s in sections("[a]\n[a]\n")], [1, 2])
        default, other = sections("[DEFAULT]\nk = 1\n[a]\n")
        self.assertEqual((default.header, dict(other.entries)), ("DEFAULT", {}))
        # Of thousands of routes to a few servers, each has what it shares with none, and where it stands.
        routes = "[route a]\nmatch = tls sni=a.example\nbackend = :1\n\n# other\n[route b]\nmatch = tls sni=b.example\nbackend = :1\n"
        one, other = sections(routes)
        self.assertIs(one.entries["backend"], other.entries["backend"])
        self.assertEqual(str(other.problem("x", "backend")), "rules.ini:8: [route b] backend: x")

    @given(FILES)
    @example("[top]\na:\t= b")
    @example("[top]\na: b = c")
    def test_same_language(self, text: str) -> None:
        """What `configparser` accepts is refused only if a line begins like a header, or a colon follows a key."""
        expected = by_configparser(text)
        found, problems = read_ini(text, "x")
        if expected is None:
            twice = len({section.header for section in found}) < len(found)
            again = any(e.repeated_at for section in found for e in section.entries.values())
            self.assertTrue(problems or twice or again)
        elif problems:
            self.assertRegex(problems[0].message, "header|a key is followed by '=', not ':'")
        else:
            every = ((s.header, s.entries.items()) for s in found)
            ours = [(of, {k: [item.text for item in e.items] for k, e in its}) for of, its in every]
            self.assertEqual(ours, expected)

    @given(FILES)
    def test_items_stand_in_their_lines(self, text: str) -> None:
        lines = list(io.StringIO(text.removeprefix("\ufeff"), newline=None))
        for section in read_ini(text, "x")[0]:
            for entry in section.entries.values():
                self.assertIn(entry.key, lines[section.line_of(entry) - 1])
                for item in entry.items:
                    self.assertIn(item.text, lines[section.line_of(item) - 1])
