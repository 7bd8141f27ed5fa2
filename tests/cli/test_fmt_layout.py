from pathlib import Path

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.rules.reading.test_ini import FILES
from tests.support.installed import names_missing
from txmux.cli.fmt import laid_out, meaning
from txmux.rules.reading.files import SourceFile
from txmux.rules.reading.ini import LineKind, lines_of, read_ini
from txmux.rules.reading.parser import errors_alone, parse

_EXAMPLES = Path(__file__).parents[2] / "examples"

BEFORE = """\ufeff; first

\t
# second
[ txmux ]
include=a.ini,b.ini


workers  =  2
[listen   a]

 endpoint = :8443
    # an old one
 # within

    127.0.0.1:1
 # about silent
 silent = close
   # indented, so of silent
 \r
# alone

# about x
[route x]
match = ssh
  regex pattern=a,b
from = 10.0.0.0/8, 192.0.2.1,
  ${OFFICE:-10.1.0.0/16, 10.2.0.0/16}
# about x, too

# the end
"""

AFTER = """; first

# second
[txmux]
include = a.ini
    b.ini

workers = 2

[listen a]
endpoint = :8443
    # an old one
    # within
    127.0.0.1:1
# about silent
silent   = close
    # indented, so of silent

# alone

# about x
[route x]
match = ssh
    regex pattern=a,b
from  = 10.0.0.0/8
    192.0.2.1
    ${OFFICE:-10.1.0.0/16, 10.2.0.0/16}
# about x, too

# the end
"""


class LayoutTests(SynchronousTestCase):
    maxDiff = None

    def test_whole_layout(self) -> None:
        self.assertEqual(laid_out(BEFORE), AFTER)
        # Examples mean the same.
        for path in _EXAMPLES.rglob("*.ini"):
            text = path.read_text()
            if not names_missing(text):
                self.assertEqual(said(laid_out(text), path), said(text, path), path)

    def test_parts(self) -> None:
        # A comment right above a header is about that section, so the blank line goes before it; one further up stays where it is.
        text = laid_out("[a]\nk = 1\n# of b\n# of b, too\n[b]\n\n\n# of c\n[c]\n")
        self.assertEqual(text, "[a]\nk = 1\n\n# of b\n# of b, too\n[b]\n\n# of c\n[c]\n")
        # A value below its key.
        text = laid_out("[a]\nk =\n  b\nlong =\n  # c\n  d\n")
        self.assertEqual(text, "[a]\nk    = b\nlong =\n    # c\n    d\n")
        # What is like a comment, and the file of the reference, stay.
        text = "[a]\nk = # no comment\n    b\n    # a comment\n"
        self.assertEqual(laid_out(text), text)
        text = "[route a]\nfrom = a,#b\n"
        self.assertEqual(laid_out(text), text)
        text = (_EXAMPLES / "rules.ini").read_text()
        self.assertEqual(laid_out(text), text)

    def found(self, text: str) -> list[str]:
        return [f"{p.line} {p.key}: {p.message}" for p in errors_alone(SourceFile("x.ini", text))]

    def test_errors_of_a_part_of_a_whole(self) -> None:
        """Only what no other file can put right is an error."""
        text = (
            "[txmux]\ninclude = no/such.ini\nuser = ${USER_THAT_IS_NOT_SET}\n"
            "[route r]\nmatch = ssh\nbackend = elsewhere\nunder = there\nfrom = @nets.txt\n"
            "terminate_tls = no.pem\n[listen l]\nendpoint = ${ADDRESS_THAT_IS_NOT_SET}:1\nsilent = there\n"
        )
        self.assertEqual(self.found(text), [])
        text = "[route r]\nmatch = shh\nbackend = 22\nfrom = ${X\nfrmo = 1\n"
        self.assertEqual([line.partition(";")[0] for line in self.found(text)], [
            "2 match: unknown matcher 'shh'", "3 backend: '22' is not a server",
            "4 from: '${X' does not name a variable", "5 frmo: unknown key",
        ])  # fmt: skip


def said(text: str, path: Path | str = "x.ini") -> object:
    apart = {"section", "files", "predicate", "datagrams"}
    return attrs.asdict(parse(text, path), filter=lambda one, _: one.name not in apart)


def comments(text: str) -> list[str]:
    return [line.text for line in lines_of(text) if line.kind is LineKind.COMMENT]


NOISE = st.sampled_from(
    ["\n", "\n\n", "\n# c\n", "\n\n\n; c\n\n", "\n    # c\n", "\r\n", "\n \t\n"]
)
EQUALS = st.sampled_from(["=", " = ", "  =\t"])
NETWORKS = st.sampled_from(["10.0.0.0/8", "::1", "${NETWORKS:-192.0.2.1, 192.0.2.2}"])
MATCHES = st.sampled_from(["ssh", "tls sni=a.example,*.b.example", "regex pattern='a #,b'"])
VALUES = {name: st.lists(its, min_size=1) for name, its in (("from", NETWORKS), ("match", MATCHES))}
VALUES["log"] = st.just(["errors"])


@st.composite
def routes(draw: st.DrawFn) -> str:
    text = "[listen a]" + draw(NOISE) + "endpoint" + draw(EQUALS) + ":1" + draw(NOISE)
    for number in range(draw(st.integers(0, 3))):
        indent = draw(st.sampled_from(["", " "]))
        text += f"[route r{number}]{draw(NOISE)}{indent}backend{draw(EQUALS)}close"
        for key in draw(st.permutations(["from", "match", "log"])):
            values = draw(VALUES[key])
            between = f",{indent}" if key == "from" and draw(st.booleans()) else ""
            joint = between or f"{draw(NOISE)}{indent}   "
            text += f"{draw(NOISE)}{indent}{key}{draw(EQUALS)}{joint.join(values)}"
            # Without a match, a route has no meaning.
        text += draw(NOISE)
    return text


def _readable(text: str) -> str:
    """Leave out the lines of a file that are told of as wrong, until none is."""
    while wrong := {problem.line for problem in read_ini(text, "x")[1]}:
        lines = enumerate(text.split("\n"), 1)
        text = "\n".join(line for number, line in lines if number not in wrong)
    return text


class PropertyTests(SynchronousTestCase):
    @given(FILES.map(_readable))
    def test_any_form_means_the_same_and_is_stable(self, text: str) -> None:
        after = laid_out(text)
        self.assertEqual(read_ini(after, "x")[1], [])
        self.assertEqual(meaning(after), meaning(text))
        self.assertEqual(comments(after), comments(text))
        self.assertEqual(laid_out(after), after)

    @given(routes())
    def test_any_rules_mean_the_same_and_are_stable(self, text: str) -> None:
        after = laid_out(text)
        self.assertEqual(said(after), said(text))
        self.assertEqual(comments(after), comments(text))
        self.assertEqual(laid_out(after), after)
