from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.reading.tokens import OWN, SHORTEST_TOKEN, AdminToken, read_tokens

_SECRET, _OTHER = "x" * SHORTEST_TOKEN, "y" * SHORTEST_TOKEN
_ADMIN = AdminToken(OWN, "all", "z" * SHORTEST_TOKEN)
_SECRETS = "the-first-secret-here", "the-second-secret-here"
_WORDS = ("a", "read", "all", "stop", "é", "#", "short", *_SECRETS)
_LINES = b"ann all the-first-secret-here", b"bob all the-second-secret-here"


class TokensTest(SynchronousTestCase):
    def test_each_line_has_a_secret_of_its_own(self) -> None:
        data = b"\r\n# a comment\n  ci\tread  0123456789abcdef\n\n#\nops@x.example all \xc2\xa0#secret-of-the-operator"
        ops = "#secret-of-the-operator"
        made = [
            AdminToken("ci", "read", "0123456789abcdef"),
            AdminToken("ops@x.example", "all", ops),
        ]
        for encoded in (data, b"\xef\xbb\xbf" + data[data.index(b"ci") :]):
            self.assertEqual(read_tokens(encoded, _ADMIN), (made, []))
        self.assertNotIn("0123", repr(made))
        for line in (
            f"bob read {_SECRET[1:]}", f"bob read {_SECRET}\u00e9", f"bob read {_SECRET}",
            f"bob read {_ADMIN.secret}", f"ann read {_OTHER}", f"{OWN} read {_OTHER}",
            f"bob every {_OTHER}", "bob read",
        ):  # fmt: skip
            _, problems = read_tokens(f"ann read {_SECRET}\n{line}\n".encode(), _ADMIN)
            self.assertEqual(len(problems), 1, line)
            self.assertTrue(problems[0].startswith(":2: "), problems)

    @given(st.lists(st.sampled_from(_WORDS), max_size=5).map(" ".join))
    def test_problems_name_the_line_and_no_word(self, line: str) -> None:
        first = "the-second-secret-here all the-first-secret-here"
        tokens, problems = read_tokens(f"{first}\n\n{line}\n".encode())
        for problem in problems:
            self.assertTrue(problem.startswith(":3: "), problem)
            self.assertNotIn("secret-here", problem)
        is_line = bool(line) and not line.startswith("#")
        self.assertEqual(len(tokens) + len(problems), 1 + is_line)

    @given(st.lists(st.sampled_from(_LINES) | st.binary()).map(b"\n".join))
    def test_anything(self, data: bytes) -> None:
        tokens, _ = read_tokens(data)
        self.assertEqual(len({token.secret for token in tokens}), len(tokens))
