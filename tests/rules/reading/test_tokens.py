from twisted.trial.unittest import SynchronousTestCase

from txmux.rules.reading.tokens import OWN, SHORTEST_TOKEN, AdminToken, read_tokens

_SECRET, _OTHER = "x" * SHORTEST_TOKEN, "y" * SHORTEST_TOKEN
_ADMIN = AdminToken(OWN, "all", "z" * SHORTEST_TOKEN)


class TokensTest(SynchronousTestCase):
    def test_lines(self) -> None:
        text = f"# who\n\nann read {_SECRET}\nbob all {_OTHER}\n"
        made = [AdminToken("ann", "read", _SECRET), AdminToken("bob", "all", _OTHER)]
        for encoded in (text.encode(), text.replace("# who\n\n", "").encode("utf-8-sig")):
            tokens, problems = read_tokens(encoded, _ADMIN)
            self.assertEqual((tokens, problems), (made, []))

    def test_what_is_no_secret_of_its_own(self) -> None:
        for line in (
            f"bob read {_SECRET[1:]}", f"bob read {_SECRET}\u00e9", f"bob read {_SECRET}",
            f"bob read {_ADMIN.secret}", f"ann read {_OTHER}", f"{OWN} read {_OTHER}",
            f"bob every {_OTHER}", "bob read",
        ):  # fmt: skip
            _, problems = read_tokens(f"ann read {_SECRET}\n{line}\n".encode(), _ADMIN)
            self.assertEqual(len(problems), 1, line)
            self.assertTrue(problems[0].startswith(":2: "), problems)
