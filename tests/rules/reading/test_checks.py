"""Tests of ``check``, ``upload_rate`` and ``download_rate``."""

from hypothesis import given
from hypothesis import strategies as st

from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.model import Check
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.checks import check
from txmux.rules.reading.values import rate


class CheckTests(ReadingTestCase):
    def test_kinds(self) -> None:
        for text, expected in {
            "tcp": Check("tcp", interval=3.0, timeout=1.0, rise=2, fall=3),
            "redis interval=10s timeout=250ms rise=1 fall=5": Check("redis", 10.0, 0.25, 1, 5),
            "postgres": Check("postgres"),
            "ssh fall=1": Check("ssh", fall=1),
            "smtp timeout=10s": Check("smtp", timeout=10.0),
            "mysql": Check("mysql", user="txmux"),
            "mysql user=haproxy": Check("mysql", user="haproxy"),
            "http": Check("http", path="/", statuses=(range(200, 300), range(300, 400))),
            "http path=/health?x=1 expect=204,5xx host=a.b:80": Check(
                "http",
                path="/health?x=1",
                host="a.b:80",
                statuses=(range(204, 205), range(500, 600)),
            ),
            "http path=/h method=HEAD": Check("http", method="HEAD", path="/h"),
            "http method=GET": Check("http"),
            "http method=M-SEARCH": Check("http", method="M-SEARCH"),
            "http expect='2xx, 301'": Check("http", statuses=(range(200, 300), range(301, 302))),
            r"send=PING\r\n expect=+PONG rise=1": Check(
                "exchange", rise=1, send=b"PING\r\n", expect=b"+PONG"
            ),
            r"""expect='a b\x00' send="é 'x'" """: Check(
                "exchange", send="é 'x'".encode(), expect=b"a b\0"
            ),
            r"http send='HEAD / HTTP/1.0\r\n\r\n' expect=200-299,401": Check(
                "http", send=b"HEAD / HTTP/1.0\r\n\r\n", statuses=(range(200, 300), range(401, 402))
            ),
            "http expect=204-204": Check("http", statuses=(range(204, 205),)),
            "http port=8008 path=/x": Check("http", path="/x", port=8008),
            "dns name=a.example": Check("dns", name="a.example"),
            "tcp tls=yes sni=a.example": Check("tcp", tls=True, sni="a.example"),
            "redis tls=no": Check("redis", tls=False),
            "expect=220 interval=5s": Check("exchange", 5.0, expect=b"220"),
        }.items():
            self.assertEqual(check(text), expected, text)
        self.assertRaises(InvalidValueError, check, "interval=5s expect=220")

    def test_mistakes(self) -> None:
        begin = "must begin with tcp, http, redis, postgres, mysql, smtp, ssh, dns or send=TEXT expect=TEXT, not "
        for text, messages in {
            "htpt path=/": f"{begin}'htpt'; did you mean 'http'?",
            "off": f"{begin}'off'",
            "exchange": f"{begin}'exchange'",
            '""': f"{begin}''",
            "path=/x": f"{begin}'path=/x'",
            "http path=x expect=2x host='a b' rise=0": (
                "path: 'x' is not a path of HTTP; write one such as /health, with %20 for a blank\n"
                "expect: '2x' is not an HTTP status; write for example 2xx,3xx or 204\n"
                "host: 'a b' is not a host; write a name such as www.example.com\n"
                "rise: must be a whole number from 1 to 1000, not '0'"
            ),
            "redis path=/": (
                "unknown option 'path=/' (redis takes port=, tls=, sni=, interval=, timeout=, rise=, fall=)"
            ),
            "tcp fal=1": (
                "unknown option 'fal=1'; did you mean 'fall'? "
                "(tcp takes port=, tls=, sni=, interval=, timeout=, rise=, fall=)"
            ),
            "mysql user='a b'": "user: 'a b' is not a user of MySQL; write for example txmux",
            "http method=head": (
                "method: 'head' is not a method of HTTP, which has capital letters; did you mean 'HEAD'?"
            ),
            "http method='GET /'": (
                "method: 'GET /' is not a method of HTTP; write for example GET, HEAD or OPTIONS"
            ),
            "http method=ß": (
                "method: 'ß' is not a method of HTTP; write for example GET, HEAD or OPTIONS"
            ),
            "http method=": (
                "method: '' is not a method of HTTP; write for example GET, HEAD or OPTIONS"
            ),
            "http method=CONNECT": (
                "method: CONNECT asks for a tunnel, and has no path; write for example GET, HEAD or OPTIONS"
            ),
            "http send=x method=HEAD": "method: is a part of what send= says; write it there",
            "http send=x path=/": "path: is a part of what send= says; write it there",
            "http send=x host=a": "host: is a part of what send= says; write it there",
            "http expect=300-200": (
                "expect: '300-200' is not a range of HTTP statuses; write for example 200-399"
            ),
            "http expect=300-299": (
                "expect: '300-299' is not a range of HTTP statuses; write for example 200-399"
            ),
            "http expect=2xx-3xx": (
                "expect: '2xx-3xx' is not a range of HTTP statuses; write for example 200-399"
            ),
            "dns": "needs a name to ask for; write for example dns name=www.example.com",
            "tcp sni=a": "sni: is sent with TLS only; add tls=yes, or remove this",
            "tcp sni=a tls=no": "sni: is sent with TLS only; add tls=yes, or remove this",
            "tcp port=0": "port: must be a whole number from 1 to 65535, not '0'",
            "send=x": "send= needs the answer to look for; add expect=TEXT",
            r"send=\q expect=": (
                r"send: \q is not an escape; there are \r \n \t \0 \xNN, and \\ for a backslash"
                "\n"
                r"expect: is empty; write text, in which \r \n \t \0 \xNN have a meaning"
            ),
        }.items():
            self.assertEqual(self.complaint(check, text), messages)

    @given(st.binary(min_size=1), st.binary(min_size=1))
    def test_any_bytes_can_be_sent_and_expected(self, send: bytes, expect: bytes) -> None:
        texts = ["".join(rf"\x{byte:02x}" for byte in data) for data in (send, expect)]
        found = check(f"send={texts[0]} expect='{texts[1]}'")
        self.assertEqual((found.send, found.expect), (send, expect))

    @given(st.sampled_from(["", "http ", "send="]), st.text())
    def test_any_text(self, begin: str, text: str) -> None:
        try:
            self.assertIsInstance(check(begin + text), Check)
        except InvalidValueError as error:
            self.assertTrue(all(error.messages))


class RateTests(ReadingTestCase):
    def test_bytes_in_a_second(self) -> None:
        for text, expected in {"1/s": 1, "512KiB/s": 512 * 1024, "1024GiB/s": 1024**4}.items():
            self.assertEqual(rate(text), expected)

    def test_mistakes(self) -> None:
        forms = "write bytes per second as 500000/s, 512KiB/s or 10MiB/s"
        for text, message in {
            "10MiB": f"'10MiB' is not a rate; {forms}",
            "1MiB/m": f"'1MiB/m' is not a rate; {forms}",
            "0/s": "'0/s' is out of range; from 1/s to 1024GiB/s",
            "1025GiB/s": "'1025GiB/s' is out of range; from 1/s to 1024GiB/s",
        }.items():
            self.assertEqual(self.complaint(rate, text), message)
