from time import monotonic
from typing import Any

import bcrypt
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase

from tests.support.kit import change_constants, make_folder
from txmux.features.tunnels import users
from txmux.features.tunnels.dialogue import Login
from txmux.features.tunnels.users import TunnelUsers

_COSTS = {"cheap": 4, "middle": 6, "dear": 7}


def _row(user: str, password: str, cost: int) -> str:
    return f"{user}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()}\n"


class TunnelUsersTest(TestCase):
    def setUp(self) -> None:
        self.file = make_folder(self) / "users"
        self.file.write_text("".join(_row(name, name, cost) for name, cost in _COSTS.items()))
        self.users = TunnelUsers("r", self.file)
        self.work: list[int] = []
        hash_one = self.users.hash_password

        def hashed(password: bytes, salt: bytes) -> bytes:
            self.work.append(2 ** int(salt.split(b"$")[2]))
            return hash_one(password, salt)

        self.users.hash_password = hashed

    def check(self, user: str, password: bytes, source: int = 1) -> Deferred[bool | None]:
        answer = self.users.check(source, Login(user, password))
        assert isinstance(answer, Deferred)
        return answer

    async def test_as_much_work_for_each_user(self) -> None:
        """Also for right passwords, for users that do not exist, and for passwords that bcrypt would cut."""
        for user in (*_COSTS, "nobody", "", "x" * 300):
            for password in (b"wrong", user.encode(), user.encode() + b"x" * 80, b"a\0b", b""):
                self.work.clear()
                is_right = await self.check(user, password)
                self.assertEqual(is_right, user in _COSTS and password == user.encode())
                self.assertEqual(sum(self.work), 2**7, (user, password))

    async def test_right_one_is_remembered_until_it_is_pushed_out(self) -> None:
        self.assertTrue(await self.check("dear", b"dear"))
        self.work.clear()
        known: Any = self.users.check(2, Login("dear", b"dear"))
        self.assertIs(known, True)  # noqa: FBT003 - at once
        self.assertFalse(await self.check("cheap", b"dear"))
        # It learns so at once: of one source, the fourth; of new sources, the one that has waited longest.
        checks = [self.check("dear", b"%d" % number) for number in range(3)]
        self.assertIsNone(self.users.check(1, Login("dear", b"3")))
        self.assertEqual(await gatherResults(checks), [False] * 3)
        self.assertIsNone(self.users.crowded())
        change_constants(self, users, _MOST=2)
        checks = [self.check("dear", b"wrong", source) for source in range(4)]
        self.assertIsNone(self.successResultOf(checks.pop(1)))
        self.assertEqual(await gatherResults(checks), [False] * 3)

    async def test_connections_at_once(self) -> None:
        """One check is enough for several connections with one login."""
        for user, password, sources in (
            ("dear", b"dear", (1, 1, 1, 1)), ("nobody", b"dear", (1, 1, 1, 1)), ("cheap", b"cheap", range(7)),
        ):  # fmt: skip
            self.work.clear()
            checks = [self.check(user, password, source) for source in sources]
            gone = checks.pop()
            gone.cancel()
            await self.assertFailure(gone, CancelledError)
            self.assertEqual(await gatherResults(checks), [user != "nobody"] * len(checks))
            self.assertEqual((sum(self.work), self.users.checks), (2**7, {}))

    async def test_client_that_has_left(self) -> None:
        """What waits is not hashed for it; what is being hashed is, and the next one has its turn."""
        first, second = self.check("dear", b"1", 1), self.check("dear", b"2", 2)
        third = self.check("dear", b"3", 3)
        for gone in (first, second):
            gone.cancel()
            await self.assertFailure(gone, CancelledError)
        self.assertFalse(await third)
        self.assertEqual((sum(self.work), len(self.users.queue)), (2 * 2**7, 0))

    async def test_first_login_beside_wrong_ones(self) -> None:
        """With wrong ones of 20 sources waiting, a right first login of another one is the next that is checked."""
        for source in range(20):
            await self.check("cheap", b"wrong", source)
        waiting = [self.check("cheap", b"%d" % n, source) for source in range(20) for n in range(2)]
        self.work.clear()
        self.assertTrue(await self.check("cheap", b"cheap", 100))
        self.assertLessEqual(sum(self.work), 2 * 2**7)
        found: Any = self.users.crowded()
        self.assertGreaterEqual(found[0], 16)
        await gatherResults(waiting)
        now = monotonic()
        self.patch(users, "monotonic", lambda: now + 70)
        self.assertIsNone(self.users.crowded())

    async def test_changed_file(self) -> None:
        """Right logins of before count no more: of a user that has gone, and of one that has another password; few are remembered."""
        change_constants(self, users, _MOST_KNOWN=2)
        for user in _COSTS:
            self.assertTrue(await self.check(user, user.encode()))
            self.assertIn(len(self.users.known), {1, 2})
        self.file.write_text(_row("dear", "cheap", 4))
        self.users.read_again()()
        for user in _COSTS:
            self.assertFalse(await self.check(user, user.encode()))

    def test_changes_in_the_log(self) -> None:
        """A wrong file has its error, and what is in use after that is said, too; one that is not there is one, too."""
        self.addCleanup(self.flushLoggedErrors)
        none = TunnelUsers("r", self.file.with_name("none"))
        self.assertIn("none cannot be read: No such file or directory; nobody", none.trouble)
        right = self.file.read_text()
        for content, last in (
            ("nonsense", "no user is in it, so nobody can log in"),
            (right, "[route r] tunnel_users: users reloaded"),
            (f"{right}nonsense", ":4: no USER:HASH of bcrypt with a cost up to 14; run 'htpasswd -nB USER'"),
            (right, "[route r] tunnel_users: users reloaded"),
        ):  # fmt: skip
            self.file.write_text(content)
            with capturedLogs() as logs:
                self.users.read_again()()
            self.assertTrue(str(eventAsText(logs[-1])).endswith(last), last)
