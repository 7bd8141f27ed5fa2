import grp
import os
import pwd
import sys
from collections.abc import Iterable

from twisted.internet.threads import deferToThread
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.admin.asking import JSON, LISTEN, AdminCase, Told
from tests.admin.test_guards import basic
from tests.processes.test_privileges import python_for_everybody, require_root
from tests.support.kit import change_constants, pretend_user, run
from txmux.admin import access
from txmux.net.turns import look_in_thread
from txmux.rules.lint.warnings import lint

LINE = "ci   read  the-secret-of-the-build\n"
TOKENS = (
    f"# who may come in\n\n{LINE}alice steer the-secret-of-alice\nbob all the-secret-of-bob-bob\n"
)
RULES = f"{LISTEN}[route all]\nmatch = any\nbackend = b\n[backend b]\nserver = 127.0.0.1:1\n"
STEERING = (
    ("/api/backends/b/servers/127.0.0.1:1", '{"weight": 2}'),
    ("/api/backends/b", '{"state": "drain"}'),
    ("/api/backends/b/hold", "{}"),
    ("/api/backends/b/release", "{}"),
    ("/api/listeners/x", '{"accepting": true}'),
    ("/api/bans", '{"network": "192.0.2.1"}'),
    ("/api/bans/remove", '{"network": "192.0.2.1"}'),
    ("/api/connections/close", '{"route": "no"}'),
)
READING = ("/api/status", "/api/backends", "/healthz")
_AS_ANOTHER = """
import socket, sys
for method, path in (
    ("GET", "/api/status"), ("POST", "/api/backends/b/release"), ("POST", "/api/reload")
):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(sys.argv[1])
        head = f"{method} {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n"
        client.sendall(f"{head}Content-Type: application/json\\r\\n\\r\\n".encode())
        print(client.recv(100).split()[1].decode(), end=" ")
"""


def lines_of(events: Iterable[LogEvent]) -> list[str]:
    lines = map(str, map(formatEvent, events))
    return [line for line in lines if line.startswith(("admin: ", "[txmux]"))]


class TokensTests(AdminCase):
    async def setUp(self) -> None:  # type: ignore[override]
        super().setUp()
        self.tokens = self.folder / "tokens"
        self.tokens.write_text(TOKENS)
        self.tokens.chmod(0o600)
        self.settings = f"admin = 127.0.0.1:0\n    unix:{self.socket}\nadmin_tokens = {self.tokens}"
        self.clock = self.virtual()
        await self.start(self.settings, RULES, use=self.clock)
        sockets = self.endpoints.store.sockets().items()
        self.port = next(opened.getsockname()[1] for key, opened in sockets if "unix" not in key)

    async def write_tokens(self, text: str) -> None:
        """Replace the file in place, and let the service look."""
        self.tokens.write_text(text)
        self.tokens.chmod(0o600)
        await self.look()

    async def look(self) -> None:
        for _ in range(2):
            self.clock.advance(5)
            await look_in_thread(int)  # after the looks of the service

    async def asked(self, secret: str, path: str, body: str | None = None, **headers: str) -> Told:
        has = {"Authorization": f"Bearer {secret}", **headers, **(JSON if body else {})}
        return await self.ask("POST" if body else "GET", path, has, body or "", to=self.port)

    async def status_of(self, secret: str) -> int:
        return (await self.asked(secret, "/api/status")).status

    async def attention(self) -> list[str]:
        status = (await self.get("/api/status")).json
        return [one["text"] for one in status["attention"] if one["what"] == "token"]

    async def test_each_right_includes_those_before(self) -> None:
        with capturedLogs() as events:
            told = await self.asked("the-secret-of-the-build", "/api/reload", "{}")
            steered = await self.asked("the-secret-of-alice", "/api/stop", "{}")
        why = "the token 'ci' may only read; POST /api/reload needs 'all'"
        self.assertEqual(told.error, why)
        self.assertIn("'alice' may only read and steer; POST /api/stop", steered.error)
        self.assertRegex(lines_of(events)[0], rf"by token 'ci' from 127.0.0.1:\d+: refused: {why}")
        self.assertIsNone(self.running.control.last_reload)
        with capturedLogs() as events:
            await self.asked("the-secret-of-alice", *STEERING[0])
        what = "POST /api/backends/b/servers/127.0.0.1:1"
        who = r"by token 'alice' from 127.0.0.1:\d+"
        self.assertRegex(lines_of(events)[0], rf"^admin: {what} {who}: backend")
        secrets = "the-secret-of-the-build", "the-secret-of-alice", "the-secret-of-bob-bob"
        for right, secret in enumerate(secrets):
            for path in READING:
                self.assertEqual((await self.asked(secret, path)).status, 200, path)
            told = await self.asked(secret, "/api/explain", '{"text": "x"}')
            self.assertEqual(told.status, 200)
            for path, body in STEERING:
                told = await self.asked(secret, path, body)
                self.assertEqual(told.status, 200 if right else 403, path)
            for path in ("/api/reload", "/api/certificates/a.example/renew"):
                told = await self.asked(secret, path, "{}")
                self.assertEqual(told.status == 403, right < 2, path)
        self.assertEqual((await self.asked(secret, "/api/status", Host="evil.example")).status, 403)
        for given in ("Bearer the-secret-of-bob-bo", "Bearer bob", ""):
            told = await self.asked(secret, f"/api/status?token={secret}", Authorization=given)
            self.assertEqual(told.status, 401, given)

    async def test_browser_has_the_right_of_its_token_until_that_is_removed(self) -> None:
        for secret, status in (("the-secret-of-the-build", 403), ("the-secret-of-bob-bob", 200)):
            headers = {**JSON, **basic(secret)}
            told = await self.ask("POST", "/api/reload", headers, "{}", to=self.port)
            self.assertEqual(told.status, status)
        await self.write_tokens(TOKENS.replace(LINE, ""))
        for secret, status in (("the-secret-of-the-build", 401), ("the-secret-of-bob-bob", 200)):
            told = await self.ask("GET", "/api/status", basic(secret), to=self.port)
            self.assertEqual(told.status, status)

    async def test_stream_of_a_removed_token_ends(self) -> None:
        peers = []
        for secret in ("the-secret-of-the-build", "the-secret-of-alice"):
            peers.append(await self.connect(self.port))
            peers[-1].send(
                b"GET /api/events HTTP/1.1\r\nHost: localhost\r\n"
                b"Authorization: Bearer %s\r\n\r\n" % secret.encode()
            )
        while len(self.running.control.events.followers) < 2:
            await self.get("/healthz")
        await self.write_tokens(TOKENS.replace(LINE, ""))
        await self.look()
        await peers[0].is_lost()
        self.assertIsNone(peers[1].lost)

    async def test_changed_file_is_read_without_a_reload(self) -> None:
        self.assertEqual(await self.status_of("the-secret-of-the-build"), 200)
        new = self.folder / "new"
        new.write_text("carol read the-secret-of-carol\n")
        new.rename(self.tokens)
        await self.look()
        self.assertEqual(await self.status_of("the-secret-of-the-build"), 401)
        self.assertEqual(await self.status_of("the-secret-of-carol"), 200)
        await self.write_tokens("")
        self.assertEqual(await self.status_of("the-secret-of-carol"), 401)
        line = "n{0} read the-secret-of-number-{0}\n"
        await self.write_tokens(lines := "".join(map(line.format, range(10_000))))
        for number in (0, 9_999):
            self.assertEqual(await self.status_of(f"the-secret-of-number-{number}"), 200)
        await self.write_tokens(lines * 20)  # more than a megabyte
        self.assertIn("larger than 1 MiB", (await self.attention())[0])

    async def test_wrong_file_keeps_the_tokens_and_says_so_once(self) -> None:
        secret = "the-secret-of-bob-bob"
        with capturedLogs() as events:
            for _ in range(3):
                await self.write_tokens(f"{TOKENS}dave {secret}x\n")
        why = f"[txmux] admin_tokens: {self.tokens}:6: a line has three words: a name, its right and its secret; the tokens read before stay valid until this is right"
        self.assertEqual(lines_of(events), [why])
        self.assertEqual(await self.attention(), [why])
        self.assertEqual(await self.status_of(secret), 200)
        await self.write_tokens(f"{TOKENS}dave\nerin\n")
        self.assertIn(
            "words: a name, its right and its secret (and 1 more line: txmux check); ",
            (await self.attention())[0],
        )
        report = await self.running.reload()
        self.assertFalse(report.ok)
        self.assertNotIn(secret, str(report.errors))
        self.tokens.unlink()
        await self.look()
        self.assertIn("cannot be read: No such file", (await self.attention())[0])
        self.assertEqual(await self.status_of(secret), 200)
        await self.write_tokens(TOKENS)
        self.assertEqual(await self.attention(), [])

    async def test_readable_by_all_needs_attention(self) -> None:
        self.tokens.chmod(0o644)
        self.folder.chmod(0o755)
        await self.look()
        [text] = await self.attention()
        self.assertIn(f"every user of this machine can read '{self.tokens}'", text)
        warned = [one for one in lint(self.running.control.rules) if one.key == "admin_tokens"]
        self.assertEqual([one.message.partition("; ")[0] for one in warned], [text])

    async def test_own_token_is_admin_with_all_rights(self) -> None:
        own = self.folder / "token"
        own.write_text("the-secret-of-the-admin\n")
        own.chmod(0o600)
        await self.change(self.text(f"{self.settings}\nadmin_token = {own}", RULES))
        with capturedLogs() as events:
            told = await self.asked("the-secret-of-the-admin", "/api/reload", "{}")
        self.assertEqual(told.status, 200)
        self.assertIn("by token 'admin' from", lines_of(events)[-1])
        await self.write_tokens("admin read another-secret-of-it\n")
        self.assertIn("the name is that of 'admin_token'", (await self.attention())[0])
        await self.write_tokens("dave read the-secret-of-the-admin\n")
        self.assertIn("the secret is that of 'admin_token'", (await self.attention())[0])


class UsersTest(AdminCase):
    """The service's own user, as which the tests run, may always do everything."""

    def as_another(self) -> None:
        change_constants(self, access, _ROOT=-2)
        pretend_user(self, -2)

    async def statuses(self, users: str) -> tuple[int, int, int]:
        await self.change(self.text(f"admin_users = {users}" if users else "", RULES))
        read = await self.get("/api/status")
        steered = await self.post("/api/backends/b/release")
        changed = await self.post("/api/certificates/a.example/renew")  # there is none
        return read.status, steered.status, changed.status

    async def test_users_and_groups_by_name_and_number(self) -> None:
        await self.start(rules=RULES)
        user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
        self.assertEqual(await self.statuses("12345:read"), (200, 200, 404))
        self.as_another()
        for users, statuses in (
            ("", (200, 200, 404)),
            ("12345:all, nobody-of-that-name:all", (403, 403, 403)),
            (f"{user}:read", (200, 403, 403)),
            (f"{os.getuid()}:steer", (200, 200, 403)),
            (f"@{group}:all", (200, 200, 404)),
            (f"@{os.getgid()}:steer\n    {user}:read", (200, 200, 403)),
            (f"@{12345}:all", (403, 403, 403)),
        ):
            self.assertEqual(await self.statuses(users), statuses, users)

    async def test_other_users_and_their_groups(self) -> None:
        require_root()
        self.folder.chmod(0o755)
        settings = f"admin = unix:{self.socket}:mode=666\nadmin_users = nobody:read, @games:steer"
        await self.start(settings, RULES)
        games = grp.getgrnam("games").gr_gid
        for user, groups, statuses in (
            ("nobody", [], "200 403 403"), ("nobody", [games], "200 200 403"),
            ("daemon", [games], "200 200 403"), ("daemon", [], "403 403 403"),
            ("root", [], "200 200 200"),
        ):  # fmt: skip
            who = [f"--reuid={user}", "--regid=nogroup"]
            who += [f"--groups={group}" for group in groups] or ["--clear-groups"]
            words = sys.executable, "-S", "-c", _AS_ANOTHER, str(self.socket)
            child = await deferToThread(run, *python_for_everybody(), "setpriv", *who, *words)
            self.assertEqual(child.stdout.decode().strip(), statuses, (user, groups, child.stderr))

    async def test_messages(self) -> None:
        await self.start("admin_users = 12345:all", RULES)
        self.as_another()
        user = pwd.getpwuid(os.getuid()).pw_name
        told = await self.get("/healthz")
        why = f"'admin_users' of the rules names neither {user} nor a group of it"
        self.assertEqual((told.status, told.error), (403, why))
        await self.change(self.text(f"admin_users = {os.getuid()}:read", RULES))
        with capturedLogs() as events:
            told = await self.post("/api/stop")
        self.assertEqual(told.error, f"{user} may only read; POST /api/stop needs 'all'")
        who = rf"{user} \(UID {os.getuid()}, PID {os.getpid()}\)"
        self.assertRegex(lines_of(events)[0], f"^admin: POST /api/stop by {who}: refused: ")
