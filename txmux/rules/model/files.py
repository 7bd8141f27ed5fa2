"""The files that rules were read from."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import attrs
from attrs.validators import deep_iterable, deep_mapping, instance_of, optional

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["OPTIONS", "Files"]

_TEXT = instance_of(str)

OPTIONS = "<options>"
"""The name of what is not in a file, but was said by the options of a command."""


@attrs.frozen
class Files:
    """What was in the files when they were read: enough to read the same rules again, whoever edits them meanwhile.

    Attributes:
        texts: By path; the main file is the first.
        included: The paths that each item of ``include`` led to.
        variables: Those of the environment that values name; ``None`` for one that was not set.
    """

    texts: Mapping[str, str] = attrs.field(factory=dict, validator=deep_mapping(_TEXT, _TEXT))
    included: Mapping[str, Sequence[str]] = attrs.field(
        factory=dict,
        validator=deep_mapping(_TEXT, deep_iterable(_TEXT, instance_of((list, tuple)))),
    )
    variables: Mapping[str, str | None] = attrs.field(
        factory=dict, validator=deep_mapping(_TEXT, optional(_TEXT))
    )

    @property
    def sha256(self) -> str:
        """The SHA-256 of the texts in their order, in hexadecimal: of one file, what ``sha256sum`` says; empty if there is none."""
        texts = "".join(self.texts.values()).encode()
        return hashlib.sha256(texts).hexdigest() if self.texts else ""
