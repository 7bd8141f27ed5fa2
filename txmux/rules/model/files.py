"""The files that rules were read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Files"]


@attrs.frozen
class Files:
    """What was in the files when they were read: enough to read the same rules again, whoever edits them meanwhile.

    Attributes:
        texts: By path; the main file is the first.
        included: The paths that each item of ``include`` led to.
    """

    texts: Mapping[str, str] = attrs.field(factory=dict)
    included: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
