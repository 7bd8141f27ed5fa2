from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants
from txmux.features.tunnels import users
from txmux.features.tunnels.users import LoginQueue

_STEP = st.tuples(st.sampled_from(("add", "wrong", "right", "leave")), st.integers(0, 5))
_STEPS = st.lists(_STEP, min_size=20, max_size=60)


class LoginQueueTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.queue = LoginQueue[str](lambda: self.now)

    def fill(self, sources: int) -> None:
        for source in range(sources):
            for number in range(2):
                self.queue.add(source, f"{source} {number}")

    def take_wrong(self) -> str | None:
        login = self.queue.take()
        if login is not None:
            source = int(login.split()[0])
            self.queue.judged(source, is_right=False)
            self.queue.add(source, f"{source} next")
        return login

    def test_first_login_beside_100_sources_with_wrong_ones(self) -> None:
        self.fill(100)
        for _ in range(1000):
            self.take_wrong()
        self.assertIsNone(self.queue.add(1000, "1000 right"))
        self.assertEqual(self.take_wrong(), "1000 right")

    def test_first_login_beside_100_new_sources(self) -> None:
        """It does not wait for those that came before, of which each has its turn in time; who was wrong once waits behind those who never were, and before those who often were."""
        self.fill(100)
        self.queue.add(1002, "1002 right")
        taken = [self.take_wrong() for _ in range(401)]
        self.assertEqual(taken[0], "1002 right")
        self.assertEqual(len({login.split()[0] for login in taken[:101] if login}), 101)
        self.queue.judged(1000, is_right=False)
        self.queue.add(1000, "1000 right")
        self.queue.add(1001, "1001 right")
        self.assertEqual([self.take_wrong(), self.take_wrong()], ["1001 right", "1000 right"])

    def test_wrong_logins_are_forgotten(self) -> None:
        for source in (1, 2):
            self.queue.judged(source, is_right=False)
        self.now = 600
        self.queue.add(3, "second")
        self.queue.add(1, "first")
        self.assertEqual([self.queue.take(), self.queue.take()], ["first", "second"])
        self.queue.judged(2, is_right=True)
        self.assertIsNone(self.queue.take())
        # Of very many sources, those with the oldest wrong logins are forgotten.
        change_constants(self, users, _REMEMBERED=2)
        for source in (1, 2, 1, 3):
            self.queue.judged(source, is_right=False)
        for source in (3, 2, 1):
            self.queue.add(source, f"of {source}")
        self.assertEqual([self.queue.take() for _ in range(3)], ["of 2", "of 3", "of 1"])

    def test_full(self) -> None:
        """A new source takes the place of one with wrong logins; of those that are new as well, the one that has waited longest leaves."""
        change_constants(self, users, _MOST=4)
        self.fill(2)
        self.assertEqual(self.queue.add(0, "third"), "third")
        self.queue.judged(1, is_right=False)
        self.assertEqual((self.queue.worst(), self.queue.add(2, "new")), (1, "1 1"))
        self.assertEqual(self.queue.add(3, "new, too"), "1 0")
        self.assertEqual(self.queue.add(1, "wrong again"), "wrong again")
        self.assertEqual(self.queue.add(4, "newest"), "0 1")
        self.assertEqual(self.queue.add(4, "one too many"), "one too many")
        self.assertEqual((self.queue.add(5, "newer still"), len(self.queue)), ("0 0", 4))

    @given(_STEPS)
    def test_turns(self, steps: list[tuple[str, int]]) -> None:
        """The next one is of a source with the fewest wrong logins; what has left is not taken; the count is right."""
        queue, wrong = LoginQueue[str](float), dict.fromkeys(range(6), 0)
        waiting: list[str] = []
        for number, (what, source) in enumerate(steps):
            if what == "add":
                login = f"{source} {number}"
                is_full = sum(one.startswith(f"{source} ") for one in waiting) == 2
                self.assertEqual(queue.add(source, login), login if is_full else None)
                waiting += [] if is_full else [login]
            elif what == "leave":
                for login in [one for one in waiting if one.startswith(f"{source} ")][:1]:
                    self.assertTrue(queue.remove(source, login))
                    self.assertFalse(queue.remove(source, login))
                    waiting.remove(login)
                    wrong[source] += 1
            else:
                taken = queue.take()
                self.assertEqual(taken is None, not waiting)
                if taken is not None:
                    waiting.remove(taken)
                    its = int(taken.split()[0])
                    fewest = min(wrong[int(one[0])] for one in [*waiting, taken])
                    self.assertEqual(wrong[its], fewest)
                    wrong[its] = 0 if what == "right" else wrong[its] + 1
                    queue.judged(its, is_right=what == "right")
            self.assertEqual(len(queue), len(waiting))
