"""Rules files with another text in the place of a file that they include."""

from pathlib import Path

import attrs

from txmux.detection.registry import installed_matchers
from txmux.rules.model import Rules
from txmux.rules.problems import Problem, RulesError
from txmux.rules.reading.files import SourceFile, read_source
from txmux.rules.reading.parser import RulesParser, last_of, remembered


@attrs.frozen
class Draft:
    """What rules would be with a file that is not written yet.

    Attributes:
        rules: ``None`` if they would have errors.
        is_included: Whether the rules include that file.
    """

    rules: Rules | None
    problems: tuple[Problem, ...]
    is_included: bool


def try_draft(path: Path, draft: SourceFile, *, remember: bool = True) -> Draft:
    """Read a rules file with a draft in the place of a file that it includes.

    Args:
        path: The rules file; `OSError` if it cannot be read.
        draft: The text of the included file.
        remember: Whether the next one is likely to be much the same, which then takes little time.
    """
    main, matchers = read_source(path), installed_matchers()
    problems: tuple[Problem, ...] = ()
    is_included = False
    for last in [*filter(None, [last_of(main, matchers)]), None]:
        parser = RulesParser(main, matchers, draft=draft, last=last)
        try:
            rules = remembered(parser) if remember else parser.rules()
        except RulesError as error:
            problems, is_included = error.problems, draft.path in parser._files.files().texts
        else:
            return Draft(rules, (), draft.path in rules.files.texts)
    return Draft(None, problems, is_included)
