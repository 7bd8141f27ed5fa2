from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.errors import OptionError
from txmux.wire.globs import hosts, names, option_globs

_PARTS = st.tuples(st.sampled_from("ab["), st.sampled_from(("{}", "?", "*", "{}*", "*{}")))


class NamesTests(SynchronousTestCase):
    def test_patterns(self) -> None:
        for text, matching, others in (
            # Without wildcards it is the name itself.
            ("h2", ["h2"], ["H2", "h2c"]),
            # A star is any run of characters, a question mark one.
            ("a*b", ["ab", "axb", "a\n/.b"], ["a", "b", "xab", "abx", "ab\n"]),
            ("HTTP/1.?", ["HTTP/1.1"], ["HTTP/1."]),
            # Any of a list is enough, and blanks around them do not count.
            (" a , b* ,?c", ["a", "b", "bb", "xc"], ["", " a", "xa", "c"]),
        ):
            for name in (*matching, *others):
                self.assertIs(names(text).matches(name), name in matching, (text, name))

    def test_other_characters_stand_for_themselves(self) -> None:
        for text in ("[ab]", "a[", "]", "[!a]", "a.b", "a+", "(a|b)", "\\d"):
            self.assertTrue(names(text).matches(text))
            self.assertTrue(names(f"{text}*").matches(f"{text}x"))
            self.assertFalse(names(f"{text}*").matches("a"))
        for text in ("", " ", ",", "a,", ",a", "a,,b"):
            self.assertIn("empty", str(self.assertRaises(ValueError, names, text)))
        globs = names("/api/*,/v?/x,/health")
        for prefix in ("", "/", "/a", "/api/", "/api/x", "/v", "/v1/y", "/health"):
            self.assertTrue(globs.could_match_prefix(prefix), prefix)
        for prefix in ("a", "/b", "/api-", "/healthy"):
            self.assertFalse(globs.could_match_prefix(prefix), prefix)

    def test_known(self) -> None:
        """Where all names are known, a pattern that matches none is an error with the one that is meant, whatever its case and what others write before it, or with the first ones."""
        self.assertTrue(names("1.*", known=("1.0", "1.1")).matches("1.1"))
        some = tuple(f"X-METHOD-{number}" for number in range(40))
        methods = *some, "GET", "HEAD"
        http, tls = ("1.0", "1.1", "2", "2.0"), ("ssl3", "1.2", "1.3")
        for text, known, told in (
            ("get", methods, "did you mean 'GET'?"), ("HAED", methods, "did you mean 'HEAD'?"),
            ("HTTP/1.1", http, "did you mean '1.1'?"), ("HTTP/2.0", http, "did you mean '2.0'?"),
            ("TLSv1.3", tls, "did you mean '1.3'?"), ("SSLv3", tls, "did you mean 'ssl3'?"),
            ("1.0,3", ("1.0", "1.1"), "possible are 1.0, 1.1"),
            ("?", some, "there are 40 names such as X-METHOD-0, X-METHOD-1, X-METHOD-2"),
        ):  # fmt: skip
            error = self.assertRaises(ValueError, names, text, known)
            self.assertEqual(str(error), f"{text.split(',')[-1]!r} matches nothing; {told}")

    @given(st.lists(_PARTS, min_size=1, max_size=8), st.text("ab*?[", min_size=1, max_size=4))
    def test_prefix_of_match(self, parts: list[tuple[str, str]], other: str) -> None:
        """No beginning of a name that matches is ever ruled out."""
        name = "".join(letter for letter, _ in parts)
        globs = names(",".join(("".join(form.format(letter) for letter, form in parts), other)))
        self.assertTrue(globs.matches(name))
        for length in range(len(name) + 1):
            self.assertTrue(globs.could_match_prefix(name[:length]))


def _forms(network: str) -> st.SearchStrategy[str]:
    """Make addresses of a network, in forms that not all match."""
    forms = (str, lambda address: address.exploded, "::ffff:{}".format)
    return st.builds(
        lambda form, its: form(its), st.sampled_from(forms), st.ip_addresses(network=network)
    )


class HostsTests(SynchronousTestCase):
    def test_neither_case_nor_a_final_dot_counts(self) -> None:
        for text in ("www.example.com", "WWW.Example.Com", "www.example.com.", "*.EXAMPLE.com."):
            for name in ("www.example.com", "www.EXAMPLE.com", "www.example.com."):
                self.assertTrue(hosts(text).matches(name), (text, name))
        self.assertTrue(hosts("example.com").could_match_prefix("example.com."))
        self.assertFalse(hosts("example.com").could_match_prefix("example.org"))
        self.assertFalse(hosts("*.a*.b*.*.c,*.*.*.*.x").matches("a." * 30_000))

    def test_patterns(self) -> None:
        for text, matching, others in (
            # A star and a dot are one or more labels, none of them empty.
            ("*.example.com", ["a.example.com", "a.b.example.com"], [
                "example.com", ".example.com", "a..example.com", ".a.example.com",
                "\n..example.com", "a.example.com..", "aexample.com", "a.example.com.evil",
            ]),
            # A dot before a name is the name itself and all below it.
            (".example.com", ["example.com", "EXAMPLE.com.", "a.example.com", "a.b.example.com"],
                [".example.com", "anexample.com", "com"]),
            # Anywhere else a star is any run of characters.
            ("www*.example.com", ["www1.a.example.com"], []),
            ("www.example.*", ["www.example.co.uk"], []), ("*", ["anything.at.all"], []),
            # IPv6 addresses may stand in brackets, and have several forms.
            ("[::1]", ["::1"], []), ("2001:db8::1", ["2001:DB8::1"], []),
            ("::1", ["0:0:0:0:0:0:0:1"], ["0:0:0:0:0:0:0:10.test"]),
            ("127.0.*", ["::ffff:127.0.0.2"], ["::ffff:127.0.0.20.test"]),
            ("2001:db8:*", ["2001:0DB8::1"], ["2001:0DB8::10.test"]),
        ):  # fmt: skip
            for name in (*matching, *others):
                self.assertIs(hosts(text).matches(name), name in matching, (text, name))

    @given(
        st.one_of(
            st.sampled_from(
                (
                    ("::1", "0:0:0:0:0:0:0:1"), ("::1", "0::1"), ("::1", "::0.0.0.1"),
                    ("127.0.0.2", "0:0:0:0:0:FFFF:127.0.0.2"), ("::ffff:127.0.0.2", "::ffff:7f00:2"),
                    ("127.0.0.2", "127.0.0.2."), ("2001:db8::1", "2001:DB8::0:1"),
                )
            ),
            st.tuples(st.just("127.0.*"), _forms("127.0.0.0/16")),
            st.tuples(st.just("10.*"), _forms("10.0.0.0/8")),
            st.tuples(st.just("2001:db8:*"), _forms("2001:db8::/32")),
        )
    )  # fmt: skip
    def test_prefix_of_address(self, case: tuple[str, str]) -> None:
        """No beginning of an address, in any form, is ruled out if the address matches."""
        text, name = case
        if hosts(text).matches(name):
            for length in range(len(name) + 1):
                self.assertTrue(hosts(text).could_match_prefix(name[:length]), name[:length])

    def test_unusable(self) -> None:
        """What can be no host name is an error, which names the option; one that is not there has no patterns."""
        for text, words in (
            (".", "empty part"), ("a..b", "empty part"), ("..a", "empty part"),
            ("example.com:443", "without scheme and port"), ("https://example.com", "without scheme and port"),
            ("bücher.example", "ASCII"), ("a,", "empty item"),
        ):  # fmt: skip
            self.assertIn(words, str(self.assertRaises(ValueError, hosts, text)))
        self.assertIsNone(option_globs({}, "sni"))
        error = self.assertRaises(OptionError, option_globs, {"sni": "a,"}, "sni", hosts)
        self.assertEqual(error.option, "sni")
        self.assertIn("sni: 'a,' has an empty item", str(error))

    def test_whole_name(self) -> None:
        """After a ``~`` stands one regular expression instead of patterns, about the whole name, with or without anchors; a comma belongs to it."""
        for text in ("~(www|api)[.]example[.]com", "~^(www|api)[.]example[.]com$"):
            found = names(text)
            self.assertTrue(found.matches("api.example.com"))
            self.assertFalse(found.matches("api.example.com.evil.test"))
            self.assertFalse(found.matches("xapi.example.com"))
            self.assertTrue(found.could_match_prefix("zzz"))
        self.assertTrue(names(r"~a{1,3}\$").matches("aa$"))
        self.assertFalse(names("~a").matches("A"))
        # In hosts it is without case and final dot.
        self.assertTrue(hosts(r"~\w+\.Example\.com").matches("WWW.example.COM."))
        for text in ("~", "~^$", "~(", "~a(?=b)"):
            self.assertRaises(ValueError, names, text)
            self.assertRaises(ValueError, hosts, text)
