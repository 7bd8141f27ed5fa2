import random
import traceback

from twisted.trial.unittest import SynchronousTestCase

from campaign.fuzz import corpus, costs, target
from campaign.fuzz.asking import of_streams
from campaign.fuzz.catastrophic import PATTERNS
from campaign.fuzz.changing import changed
from campaign.fuzz.files import no_files
from campaign.fuzz.targets import answers_to_commands

_TRIES = 120
_SLOW = {"api": 60, "worker_messages": 60}
"""How often those are tried whose inputs take milliseconds."""


class ShortTests(SynchronousTestCase):
    def test_corpus_breaks_nothing_and_is_small(self) -> None:
        for name in target.names():
            inputs = corpus.kept(name)
            self.assertTrue(inputs, name)
            for data in inputs:
                self.attempt(name, data)

    def test_mutations_break_nothing(self) -> None:
        for name in target.names():
            made = target.load(name)
            inputs = [*made.seeds(), *corpus.kept(name)]
            for number in range(_SLOW.get(name, _TRIES)):
                chance = random.Random(f"{name} {number}")
                data = changed(chance.choice(inputs), inputs, made.words, chance)
                self.attempt(name, data[: made.longest])

    def test_right_answer_is_shown(self) -> None:
        """What commands raise of an answer is told in a line, so nothing else would show that none is read."""
        with answers_to_commands.asked(answers_to_commands.TARGET.seeds()[0]) as ask:  # type: ignore[index]
            answers_to_commands.show_status(ask)
            answers_to_commands.show_top(ask)

    def attempt(self, name: str, data: bytes) -> None:
        try:
            target.load(name).check(data)
            self.flushLoggedErrors()  # what a message makes fail is logged
        except Exception:  # noqa: BLE001 - whatever it is, the input is told
            self.fail(f"{name} breaks by {data!r}:\n{traceback.format_exc()}")

    def test_dearest_input_of_each_matcher(self) -> None:
        known = costs.kept()
        self.assertEqual(sorted(known), sorted(of_streams()))
        for line, dear in known.items():
            costs.check_growth(line, dear)

    def test_hostile_patterns_of_users(self) -> None:
        for pattern in PATTERNS:
            costs.check_pattern(pattern)

    def test_no_file_until_it_is_over(self) -> None:
        with no_files():
            self.assertRaises(FileNotFoundError, open, "/etc/passwd")
        with open("/etc/passwd"):  # noqa: PTH123 - as above
            pass
