import time
from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.mux import backend_at
from txmux.backends.health.probes import Probe, UnhealthyError, probe, shown, with_hint
from txmux.interfaces import Peeked, Verdict
from txmux.matchers.postgres import postgres
from txmux.matchers.redis import redis
from txmux.matchers.ssh import ssh
from txmux.rules.model import Check

HTTP = Check("http")
REDIS, POSTGRES, SSH = (
    probe(Check(kind), "", 0, tls=False) for kind in ("redis", "postgres", "ssh")
)


def http(
    check: Check = HTTP, name: str = "10.0.0.1", port: int = 80, *, tls: bool = False
) -> Probe:
    return probe(check, name, port, tls=tls)


def message(kind: bytes, body: bytes) -> bytes:
    return kind + (4 + len(body)).to_bytes(4, "big") + body


def error(code: bytes, text: bytes) -> bytes:
    return message(b"E", b"SFATAL\0VFATAL\0C" + code + b"\0M" + text + b"\0Fpostmaster.c\0\0")


ASKS_FOR_PASSWORD = message(b"R", b"\0\0\0\x0aSCRAM-SHA-256\0\0")


def said(question: Probe, answer: bytes) -> tuple[str, int]:
    count, question = 0, deepcopy(question)
    try:
        while not question.is_healthy(answer[:count]):
            if count == len(answer):
                return "undecided", count
            count += 1
    except UnhealthyError as problem:
        return str(problem), count
    return "well", count


def assert_said(case: SynchronousTestCase, question: Probe, answer: bytes, verdict: str) -> None:
    case.assertEqual(said(question, answer)[0], verdict)


class HttpTests(SynchronousTestCase):
    def test_request(self) -> None:
        lines = http(Check("http", path="/health")).request.split(b"\r\n")
        self.assertEqual(lines[:2], [b"GET /health HTTP/1.1", b"Host: 10.0.0.1"])
        self.assertIn(b"Connection: close", lines)
        self.assertEqual(lines[-2:], [b"", b""])
        for method, has_length in (("HEAD", False), ("OPTIONS", False), ("POST", True)):  # method
            lines = http(Check("http", method=method, path="/health")).request.split(b"\r\n")
            self.assertEqual(lines[0], method.encode() + b" /health HTTP/1.1")
            self.assertEqual(b"Content-Length: 0" in lines, has_length)
        named = Check("http", host="www.example.com")
        for question, host in (
            (http(name="a.example"), b"a.example"),
            (http(name="a.example", port=8080), b"a.example:8080"),
            (http(name="a.example", port=443), b"a.example:443"),
            (http(name="a.example", port=443, tls=True), b"a.example"),
            (http(name="2001:db8::1", port=81), b"[2001:db8::1]:81"),
            (http(name="", port=0), b"localhost"),
            (http(named, port=8080), b"www.example.com"),
        ):
            self.assertIn(b"\r\nHost: " + host + b"\r\n", question.request)

    def test_interim_answers(self) -> None:
        """Fifty of them are passed over, and no more: a server could keep this process busy with thousands."""
        question, interim = http(Check("http")), b"HTTP/1.1 100 Continue\r\nx: y\r\n\r\n"
        assert_said(self, question, interim * 50 + b"HTTP/1.1 200 OK\r\n", "well")
        message = "more than 50 interim answers of HTTP"
        self.assertEqual(said(question, interim * 60), (message, 51 * len(interim)))

    def test_statuses(self) -> None:
        hints, ok = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n", b"HTTP/1.1 200 OK\r\n"
        for statuses, verdicts in (
            (HTTP.statuses, {
                ok: "well", b"HTTP/1.0 302\r\n": "well", b"HTTP/1.1 404 Not Found\r\n": "HTTP 404",
                b"HTTP/1.1 503 Service Unavailable\r\n": "HTTP 503", hints: "undecided",
                hints * 2 + ok: "well", hints + b"HTTP/1.1 500 Oh\r\n": "HTTP 500",
                b"HTTP/1.1 101 Switching Protocols\r\n": "HTTP 101", b"HTTP/1.1 20": "undecided",
                b"SSH-2.0-x\r\n": "no HTTP answer: SSH-2.0-x",
                b"HTTP/2 200\r\n": "no HTTP answer: HTTP/2 200",
            }),
            ((range(204, 205), range(400, 500)), {
                b"HTTP/1.1 204 No Content\r\n": "well", ok: "HTTP 200",
                b"HTTP/1.1 401 Unauthorized\r\n": "well",
            }),
            ((range(100, 200),), {hints: "well"}),
        ):  # fmt: skip
            for answer, verdict in verdicts.items():
                assert_said(self, http(Check("http", statuses=statuses)), answer, verdict)


class OtherTests(SynchronousTestCase):
    def test_requests_are_of_the_protocol(self) -> None:
        for question, predicate in (
            (REDIS, redis.predicate({})),
            (POSTGRES, postgres.predicate({"user": "txmux"})),
            (SSH, ssh.predicate({})),
        ):
            self.assertIs(predicate(Peeked(question.request)), Verdict.MATCH)
        check = Check("expect=", send=b"stats\r\n", expect=b"\r\nSTAT uptime")
        question = probe(check, "", 0, tls=False)
        self.assertEqual(question.request, b"stats\r\n")
        assert_said(self, question, b"STAT pid 1\r\nSTAT uptime 9\r\n", "well")
        assert_said(self, question, b"ERROR\r\n", "undecided")
        self.assertEqual(question.expected, "'STAT uptime' in the answer")
        question = probe(Check("tcp"), "", 0, tls=False)
        self.assertEqual((question.request, said(question, b"")), (b"", ("well", 0)))

    def test_endless_line(self) -> None:
        """A line without an end that comes byte by byte is looked at once, and not again with each byte."""
        judge = probe(Check("ssh"), "h", 22, tls=False).is_healthy
        answer, began = bytes(65536), time.process_time()
        for count in range(30_000, len(answer)):
            self.assertFalse(judge(answer[:count]))
        self.assertLess(time.process_time() - began, 3)
        self.assertTrue(judge(answer + b"\nSSH-"))

    def test_answers_of_dns_and_ssh(self) -> None:
        question = probe(Check("dns", name="a.example"), "", 0, tls=False)
        for code, said in ((5, "^DNS REFUSED$"), (2, "^DNS SERVFAIL$"), (12, "response code 12")):
            answer = question.request[:2] + bytes([0x81, 0x80 | code]) + bytes(8)
            self.assertRaisesRegex(UnhealthyError, said, question.is_healthy, answer)
        number, flags = question.request[:2], b"\x81\x80"
        for answer, is_healthy in (
            (number + flags + bytes(8), True), (number + flags + bytes(7), False),
            (b"??" + flags + bytes(8), False), (number + b"\1\x80" + bytes(8), False),
        ):  # fmt: skip
            self.assertIs(question.is_healthy(answer), is_healthy, answer)
        for answer, verdict in {
            b"SSH-2.0-OpenSSH_9.2\r\n": "well",
            b"Welcome\r\nSSH-2.0-OpenSSH_9.2\r\n": "well",
            b"220 mail.example.com not SSH-2.0\r\n": "undecided",
        }.items():
            assert_said(self, SSH, answer, verdict)
        self.assertEqual(shown(b"\r\n one\x1b[31m\xff\r\ntwo"), "one\\x1b[31m\\xff")
        self.assertEqual(shown(b"x" * 81), shown(b"x" * 80) + "…")

    pieces = (
        b"HTTP/1.1 ", b"200 OK\r\n", b"103 x\r\n\r\n", b"+PONG", b"\r\n", b"\n", ASKS_FOR_PASSWORD,
        error(b"57P03", b"no"), b"SSH-",
    )  # fmt: skip

    @given(
        st.sampled_from([http(), REDIS, POSTGRES, SSH]),
        st.lists(st.binary(max_size=20) | st.sampled_from(pieces), min_size=2),
    )
    def test_any_answer(self, question: Probe, pieces: list[bytes]) -> None:
        """Whatever comes, it raises nothing else, and what is clear with fewer bytes remains so with more."""
        answer = b"".join(pieces)
        verdict, count = said(question, answer)
        if verdict == "undecided":
            return
        for longer in range(count, len(answer) + 1):
            try:
                found = deepcopy(question).is_healthy(answer[:longer])
            except UnhealthyError:
                found = False
            self.assertEqual(found, verdict == "well")

    def test_redis(self) -> None:
        for answer in (b"+PONG", b"-NOAUTH Authentication required.", b"-NOPERM this user has no permissions"):  # fmt: skip
            assert_said(self, REDIS, answer + b"\r\n", "well")
        for answer in (
            b"-LOADING Redis is loading the dataset in memory",
            b"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            b"-ERR max number of clients reached",
            b"HTTP/1.1 400 Bad Request",
        ):
            told, _ = said(REDIS, answer + b"\r\n")
            self.assertTrue(told.startswith("no PONG: " + answer.decode()[:60]), told)

    def test_postgres(self) -> None:
        starting, other = b"the database system is starting up", "not an answer from PostgreSQL: "
        for answer, verdict in {
            message(b"R", bytes(4)): "well", ASKS_FOR_PASSWORD: "well",
            error(b"28000", b'role "txmux" does not exist'): "well",
            error(b"53300", b"sorry, too many clients already"): "well",
            error(b"57P03", starting): starting.decode(), error(b"57P01", b""): "57P01",
            b"Ecould not fork\n\0": f"{other}Ecoul",
            message(b"R", b""): rf"{other}R\x00\x00\x00\x04",
        }.items():  # fmt: skip
            assert_said(self, POSTGRES, answer, verdict)
        self.assertEqual(said(POSTGRES, b"SSH-2.0"), (f"{other}S", 1))

    def test_smtp(self) -> None:
        smtp = probe(Check("smtp"), "", 0, tls=False)
        for answer, verdict in {
            b"220 a ESMTP\r\n": "well", b"220\r\n": "well", b"220-a\r\n220 b\r\n": "well", b"220 a\n": "well",
            b"220 a": "undecided", b"220-a\r\n": "undecided", b"": "undecided", b"220-a\r\n22": "undecided",
            b"421 busy\r\n": "SMTP 421 busy", b"554-no\r\n554 go\r\n": "SMTP 554-no",
            b"SSH-2.0-x\r\n": "no greeting of SMTP: SSH-2.0-x",
        }.items():  # fmt: skip
            assert_said(self, smtp, answer, verdict)

    def test_hint_at_the_proxy_protocol(self) -> None:
        """Only what one side that uses the PROXY protocol alone would meet has the hint, and it is no more than that."""
        expects = "; it may expect a PROXY header: see proxy_protocol"
        refuses = "; it may not expect the header of proxy_protocol = v1"
        for why, off, v1 in (
            ("reset before its first byte, 3 of 3 in 2 s", expects, refuses),
            ("connection closed without an answer", expects, refuses),
            ("it closed the connection instead of answering with TLS", expects, refuses),
            ("it answered with something that is not TLS", expects, refuses),
            ("no byte from it to 5 clients in a row for 15 s", expects, refuses),
            ("HTTP 400", "", refuses),
            ("HTTP 503", "", ""),
            ("connection refused", "", ""),
            ("timed out after 2 s", "", ""),
        ):
            hosts = backend_at(1), backend_at(1, proxy_protocol="v1")
            self.assertEqual([with_hint(why, its) for its in hosts], [why + off, why + v1])


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes([number]) + body


_SALT = bytes(4) + b"saltsalt\0" + bytes(18) + b"saltsaltsalt\0caching_sha2_password\0"
_GREETING = packet(0, b"\x0a8.4.0\0" + _SALT)
_OK = packet(2, b"\0\0\0\2\0\0\0")


class MysqlTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.probe = probe(Check("mysql", user="me"), "", 0, tls=False)

    def test_verdicts(self) -> None:
        denied = packet(2, b"\xff\x15\x04#28000Access denied")
        many = packet(2, b"\xff\x10\x04#08004Too many connections")
        for answer, verdict in {
            _GREETING: "undecided", _GREETING + _OK: "well", _GREETING + denied: "well",
            _GREETING + many: "MySQL error 1040: #08004Too many connections",
            packet(0, b"\xff\x69\x04Host is blocked"): "MySQL error 1129: Host is blocked",
            b"HTTP/1.1 400 Bad\r\n": "not an answer from MySQL: HTTP/",
        }.items():  # fmt: skip
            assert_said(self, self.probe, answer, verdict)
        greeting = packet(0, b"\x0a8.4.0\0" + bytes(31) + b"salt\0" + b"m" * 60_000 + b"\0")
        for user in ("u" * 32, "u" * 300):  # a long name and method
            login = probe(Check("mysql", user=user), "", 0, tls=False).reply(greeting)
            self.assertEqual(int.from_bytes(login[:3], "little"), len(login) - 4)
            self.assertIn(user.encode() + b"\0\0" + b"m" * 60_000, login)

    def test_one_reply_to_each_packet(self) -> None:
        login = self.probe.reply(_GREETING)
        self.assertEqual(login[3], 1)
        self.assertEqual(login[12:], b"\x21" + bytes(23) + b"me\0\0caching_sha2_password\0")
        self.assertEqual(int.from_bytes(login[:3], "little"), len(login) - 4)
        self.assertEqual(self.probe.reply(_GREETING), b"")
        switch = packet(2, b"\xfemysql_native_password\0saltsaltsaltsaltsalt\0")
        self.assertEqual(said(self.probe, _GREETING + switch)[0], "undecided")
        self.assertEqual(self.probe.reply(_GREETING + switch), b"\0\0\0\3")
        assert_said(self, self.probe, _GREETING + switch + _OK, "well")

    def test_numbers_of_packets_begin_again_after_255(self) -> None:
        """Of a server that asks for one method after another, until the check's timeout."""
        answer, numbers = _GREETING, []
        for number in range(300):
            numbers.append(self.probe.reply(answer)[3])
            answer += packet((2 * number + 2) % 256, b"\xfesha256_password\0salt")
        self.assertEqual(numbers, [(2 * n + 1) % 256 for n in range(300)])

    @given(st.binary(max_size=200))
    def test_any_answer(self, data: bytes) -> None:
        for answer in (data, _GREETING + data):
            said(self.probe, answer)
            deepcopy(self.probe).reply(answer)
