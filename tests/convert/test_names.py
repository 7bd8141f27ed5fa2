from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txmux.wire.globs import names
from txmux_convert.terms import common_names

_NAMES = st.text("ab.", min_size=1, max_size=6).filter(lambda name: name[0] != ".")
_PATTERNS = (
    st.builds("{}*{}".format, st.text("ab", max_size=4), st.text("ab.", max_size=4)) | _NAMES
)


class CommonNamesTests(SynchronousTestCase):
    @given(
        st.lists(_PATTERNS, min_size=1, max_size=3),
        st.lists(_PATTERNS, min_size=1, max_size=3),
        _NAMES,
    )
    def test_common_names_fit_exactly_what_fits_both(
        self, first: list[str], second: list[str], name: str
    ) -> None:
        a, b = ",".join(first), ",".join(second)
        both = common_names(a, b)
        assert both is not None
        fits = bool(both) and names(both).matches(name)
        self.assertEqual(fits, names(a).matches(name) and names(b).matches(name), both)

    def test_two_expressions_at_once_are_inexpressible(self) -> None:
        for a, b in (("~a.*", "~.*b"), ("~a.*", "*b"), ("*a*", "*b*"), ("a?", "*b")):
            self.assertIsNone(common_names(a, b))
        self.assertEqual(common_names("~a.*", "ab,b"), "ab")
