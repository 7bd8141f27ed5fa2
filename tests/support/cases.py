"""Files of several cases, each of them below a line ``#### TITLE``, or ``####`` where the title is that of the one before."""

import re
from collections.abc import Callable, Iterator

_TITLE = re.compile(r"^####(?: .+)?\n", re.MULTILINE)


def cases_of(text: str) -> list[str]:
    _, *cases = _TITLE.split(text)
    return cases


def titled_cases(text: str) -> Iterator[tuple[str, str]]:
    titles = (line.removeprefix("####").strip() for line in _TITLE.findall(text))
    yield from zip(titles, cases_of(text), strict=True)


def with_each(text: str, change: Callable[[str], str]) -> str:
    begin, *cases = _TITLE.split(text)
    titles = _TITLE.findall(text)
    return begin + "".join(title + change(case) for title, case in zip(titles, cases, strict=True))
