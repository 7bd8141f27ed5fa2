"""A plugin that the second worker does not take. The tests copy it to where plugins are looked for."""

import ctypes
from collections.abc import Mapping

import attrs
from typing_extensions import override

from txmux.errors import OptionError
from txmux.interfaces import Predicate
from txmux.wire.plain import PlainMatcher
from txmux.wire.predicates import Pattern

_GET_NAME = 16  # prctl(2)


@attrs.frozen(slots=False)
class _Shy(PlainMatcher):
    @override
    def predicate(self, options: Mapping[str, str]) -> Predicate:
        name = ctypes.create_string_buffer(16)
        ctypes.CDLL(None).prctl(_GET_NAME, name)
        if name.value == b"txmux: worker 2":
            raise OptionError(None, "not in this worker")
        return super().predicate(options)


shy = _Shy("shy", "any client", Pattern(b"."))
