from twisted.trial.unittest import SynchronousTestCase

from txmux.errors import OptionError
from txmux.interfaces import Datagrams, Option, Transport, Verdict
from txmux.testing import check_datagrams, facts
from txmux.wire.cursor import Cursor, MalformedError
from txmux.wire.globs import hosts
from txmux.wire.messages import MessageMatcher


class Reader:
    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, cursor: Cursor) -> dict[str, str]:
        self.asked += 1
        cursor.literal(b"!")
        name = cursor.take(cursor.number(1, 0, 40)).decode("latin-1")
        cursor.end()
        return {"host": name, "secret": "x"} if name else {}


def made() -> tuple[MessageMatcher, Reader]:
    reader = Reader()
    options = (Option("host", "patterns of the host", "a.example"), Option("secret", "it", "x"))
    patterns = {"host": hosts}
    matcher = MessageMatcher(
        "loud", "Loud", reader, options=options, patterns=patterns, facts=("host",)
    )
    return matcher, reader


class MatcherTests(SynchronousTestCase):
    def test_contract(self) -> None:
        """It keeps the contract, with options and without; those that cannot be used are an error."""
        matcher, _ = made()
        samples, others = [b"!\x09a.example", b"!\x03a\n\xff"], [b"!\x02a", b"!\x01ab", b"?", b"!)"]
        check_datagrams(matcher, samples, others, examples=30)
        check_datagrams(
            matcher, [b"!\x09A.example"], [b"!\x01b", b"!\0"], {"host": "a.example"}, examples=30
        )
        self.assertEqual((matcher.transports, matcher.__module__), ((Transport.UDP,), __name__))
        self.assertEqual(getattr(matcher.predicate({}), "first_bytes", None), frozenset(b"!"))
        error = self.assertRaises(OptionError, matcher.predicate, {"host": "a..b"})
        self.assertIn("host: ", str(error))

    def test_many_lines_read_a_datagram_once_and_none_that_all_refuse(self) -> None:
        matcher, reader = made()
        lines = [matcher.predicate({"host": f"{number}.example"}) for number in range(20)]
        lines.append(matcher.predicate({"host": "*.example", "secret": "x"}))
        seen = Datagrams((b"!\x09a.example",))
        self.assertEqual([line(seen) for line in lines], [Verdict.NO] * 20 + [Verdict.MATCH])
        self.assertEqual(reader.asked, 1)

        def refuse(_: Cursor) -> dict[str, str]:
            raise MalformedError

        predicate = MessageMatcher("never", "Never", refuse).predicate({})
        self.assertIs(predicate(Datagrams((b"x",))), Verdict.NO)
        self.assertEqual(getattr(predicate, "first_bytes", None), frozenset())

    def test_only_what_is_told_to_be_a_fact_is_one_and_it_is_made_safe(self) -> None:
        matcher, _ = made()
        predicate = matcher.predicate({})
        self.assertEqual(facts(predicate, Datagrams((b"!\x03a\n\xff",))), {"host": "a\\n\\xff"})
        self.assertEqual(facts(predicate, Datagrams((b"!\0",))), {})
        self.assertEqual(facts(predicate, Datagrams((b"?",))), {})
