"""What a message may have: another process may be hostile."""

import math
from typing import Any

import attrs
from twisted.trial.unittest import SynchronousTestCase

from txmux.net.channel.message import NOTHING, Field, InvalidMessageError, Message

_NUMBER, _TEXT = Field(int, most=9, least=2), Field(str, most=3)
_OBJECT = Field(dict, fields={"a": _NUMBER, "b": attrs.evolve(_TEXT, is_optional=True)})
_CASES: tuple[tuple[Field, tuple[Any, ...], tuple[Any, ...]], ...] = (
    (_NUMBER, (2, 9), (1, 10, 2.0, "2", True, None, [])),
    (attrs.evolve(_NUMBER, is_nullable=True), (None, 2), (1, "")),
    (Field(int), (0, 2**63), (-1, 2**63 + 1)),
    (Field(float, most=1), (0, 1, 0.5), (1.5, -0.5, 2, math.nan, math.inf, "1")),
    (Field(bool), (True, False), (1, 0, None)),
    (_TEXT, ("", "abc"), ("abcd", b"abc", ["a"])),
    (Field(str, words=frozenset({"a", "b"})), ("a", "b"), ("", "ab")),
    (Field(list, most=2, of=_NUMBER), ([], [2, 9]), ([2, 2, 2], [1], ["2"], {})),
    (Field(list, row=(_NUMBER, _TEXT)), ([2, "a"],), ([], [2], [2, "a", 2], ["a", 2])),
    (Field(dict, most=1, of=_NUMBER), ({}, {"x": 2}), ({"x": 1}, {"x": 2, "y": 2}, [])),
    (_OBJECT, ({"a": 2}, {"a": 2, "b": "x"}), ({}, {"a": 1}, {"b": "x"}, {"a": 2, "b": 2})),
    (NOTHING, (None,), (0, "")),
    (Field(object), (None, [{"x": 1}], "x"), ()),
)


class FieldTest(SynchronousTestCase):
    def test_what_fits(self) -> None:
        for field, fitting, others in _CASES:
            for value in fitting:
                self.assertEqual(field.read(value), value)
            for value in others:
                with self.assertRaises(ValueError, msg=(field, value)):
                    field.read(value)
        self.assertEqual(_OBJECT.read({"a": 2, "c": 3}), {"a": 2}, "unknown fields are left out")


class MessageTest(SynchronousTestCase):
    def test_bounds(self) -> None:
        fields = {"a": _NUMBER, "b": attrs.evolve(_TEXT, is_optional=True)}
        message = Message("x", "one", "other", "", _NUMBER, 0, 10, 20, fields)
        self.assertEqual(message.read({"a": 2, "c": 3}, 10), {"a": 2})
        self.assertEqual(message.read_answer(9, 20), 9)
        named, unanswered = (attrs.evolve(message, answer=one) for one in (_OBJECT, None))
        for call, why in (
            (lambda: message.read({"a": 2}, 11), "x: 11 bytes are too many"),
            (lambda: message.read({"b": "x"}, 1), "x: 'a' is missing"),
            (lambda: message.read({"a": 2, "b": "long"}, 1), "x: 'b' is 'long'"),
            (lambda: message.read_answer(9, 21), "x: an answer of 21 bytes is too long"),
            (lambda: message.read_answer(1, 1), "x: its answer is 1"),
            (lambda: named.read_answer({"a": 1}, 1), "x: 'a' is 1"),
            (lambda: unanswered.read_answer(None, 1), "x: its answer is None"),
        ):
            with self.assertRaises(InvalidMessageError) as raised:
                call()
            self.assertEqual(str(raised.exception), why)

    def test_no_worker_sends_what_has_no_bounds(self) -> None:
        """A worker reads what clients send, so the supervisor does not trust it."""
        inside = Field(list, of=Field(dict, fields={"x": Field(list)}))
        for free in (Field(object), Field(dict), Field(list), inside):
            for sender, answer, fields in (("worker", None, {"a": free}), ("supervisor", free, {})):
                with self.assertRaises(TypeError):
                    Message("x", sender, "worker", "", answer, 0, 1, 1, fields)
            Message("x", "supervisor", "worker", "", None, 0, 1, 1, {"a": free})
        later = Field(list, of=attrs.evolve(Field(dict), is_read_later=True))
        Message("x", "worker", "supervisor", "", None, 0, 1, 1, {"a": later, "b": _OBJECT})
