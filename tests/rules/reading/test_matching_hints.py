"""What is said of what people write who come from other programs."""

from __future__ import annotations

from tests.rules.reading.cases import ReadingTestCase
from txmux.rules.problems import RulesError
from txmux.rules.reading.parser import parse


class HintTests(ReadingTestCase):
    def refuses_match(self, line: str, *told: str) -> None:
        self.refuses(f"{self.listen}[route r]\nmatch = {line}\nbackend = close\n", *told)

    def test_several_matchers(self) -> None:
        message = "is not an option; write one matcher a line (ssh takes software=)"
        self.refuses_match("ssh tls", f"4 match: 'tls' {message}")
        self.refuses_match("ssh or tls", f"4 match: 'or' {message}")
        self.refuses_match("ssh || tls", f"4 match: '||' {message}")
        self.refuses_match(
            "ssh and not tls",
            "4 match: 'and' is not an option; write one matcher a line, any of which is enough; "
            "exclude clients with an earlier route (ssh takes software=)",
        )

    def test_blanks_beside_equals(self) -> None:
        message = "no blank may be beside '='; write 'software=x' (ssh takes software=)"
        for line in ("ssh software = x", "ssh software= x", "ssh software =x"):
            self.refuses_match(line, f"4 match: {message}")

    def test_values_without_commas(self) -> None:
        self.refuses_match(
            "ssh software=x y",
            "4 match: 'y' is not an option; several values have commas between them: 'software=x,y' "
            "(ssh takes software=)",
        )

    def test_no_matcher(self) -> None:
        for line, hint in {
            "sni=a.example": "the matcher comes first, as in 'tls sni=a.example'",
            "software=x": "the matcher comes first, as in 'ssh software=x'",
            "what=x": "the matcher comes first, as in 'MATCHER what=x'",
            "tls(sni=a.example)": "write 'tls sni=a.example'",
            "ssh()": "write 'ssh'",
            "anyprot": "write 'any'",
            "req.ssl_sni": "write 'tls sni=www.example.com'",
            "host": "write 'http host=www.example.com'",
            "https": "write 'tls'",
        }.items():
            self.refuses_match(line, f"4 match: unknown matcher {line!r}; {hint}")
        self.refuses_match(
            "https host=a.example", "4 match: unknown matcher 'https'; write 'tls sni=a.example'"
        )
        self.refuses_match(
            "not not ssh",
            "4 match: unknown matcher 'not'; write 'not' once, and a matcher after it",
        )

    def test_colon(self) -> None:
        for line, meant in (
            ("match: ssh", "match = ssh"),
            ("match : tls sni=a.example", "match = tls sni=a.example"),
            ("match:", "match = VALUE"),
            ("match:=ssh", "match = ssh"),
        ):
            self.refuses(
                f"{self.listen}[route r]\n{line}\nbackend = close\n",
                f"4 : a key is followed by '=', not ':'; write {meant!r}",
            )

    def test_comment_behind_a_value(self) -> None:
        message = "a comment needs its own line; put '# the ssh, and tls route' above this one"
        self.refuses_match("ssh  # the ssh, and tls route", f"4 match: {message}")
        self.refuses(
            f"{self.listen}allow = 10.0.0.0/8, ::1 # the ssh, and tls route\n",
            f"3 allow: {message}",
        )
        self.refuses(
            f"{self.listen}[backend b]\nserver = a:1 # the ssh, and tls route\n",
            f"4 server: {message}",
        )

    def test_comment_behind_a_wrong_value(self) -> None:
        self.refuses_match(
            "ssh sofware=x ; old",
            "4 match: a comment needs its own line; put '; old' above this one",
            "4 match: unknown option 'sofware'; did you mean 'software'? (ssh takes software=)",
        )

    def test_hash_in_a_value(self) -> None:
        self.read(f"{self.listen}[route r]\nmatch = ssh software='a #b'\nbackend = close\n")

    def test_several_servers(self) -> None:
        for servers in ("a:1, b:2", "a:1,b:2"):
            self.refuses(
                f"{self.listen}[backend b]\nserver = {servers}\n",
                "4 server: takes one server a line; write them without commas",
            )
            self.refuses(
                f"{self.listen}default = {servers}\n",
                "3 default: takes one server; for several write a [backend] with one server a line, "
                "and its name here",
            )

    def test_broken_expression(self) -> None:
        text = (
            f"{self.listen}[route r]\nmatch = regex pattern=(ab\n tls sni=~(ab\nbackend = close\n"
        )
        with self.assertRaises(RulesError) as caught:
            parse(text, "x.ini")
        said = "'(ab' is not a regular expression: missing ), unterminated subpattern at position 0"
        self.assertEqual(
            str(caught.exception).splitlines(),
            [
                f"x.ini:4: [route r] match: regex pattern: {said}",
                f"x.ini:5: [route r] match: tls sni: {said}",
            ],
        )
