"""`txmux matchers`: the matchers that are installed, and how each is used."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import distributions

from txmux.cli._output import Output
from txmux.detection.registry import installed_matchers, transports_of
from txmux.interfaces import IProtocolMatcher, Option
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.matching import read_alternative
from txmux.rules.reading.values import split_words
from txmux.telemetry.formatting import plural


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="a matcher")


def run(arguments: argparse.Namespace) -> int:
    matchers = installed_matchers()
    for problem in matchers.problems:
        print(f"warning: {problem}", file=sys.stderr)
    output = Output()
    if arguments.name is None:
        origins = _origins(matchers.values())
        rows = [
            ((name, _transports(m), m.summary, origins[name]), "") for name, m in matchers.items()
        ]
        output.table(rows, ("matcher", "over", "recognises", "from"))
        return 0
    matcher = matchers.get(arguments.name)
    if matcher is None:
        # It raises the error of a rules file, with its hints.
        read_alternative(shlex.quote(arguments.name), matchers)
    else:
        _describe(output, matcher)
    return 0


def _describe(output: Output, matcher: IProtocolMatcher) -> None:
    output.line(f"{matcher.name}: {matcher.summary}", "bold")
    output.line(f"over {_transports(matcher)}, from {_origins([matcher])[matcher.name]}")
    output.line()
    if matcher.options:
        options = [((f"{option.name}=", option.meaning), "") for option in matcher.options]
        output.table(options, ("option", "meaning"))
    else:
        output.line("It has no options.")
    output.line()
    examples = [((f"match = {line.text}", _needs(line)), "") for line in _examples(matcher)]
    output.table(examples, ("in a rules file", "needs at most"))


def _transports(matcher: IProtocolMatcher) -> str:
    return ", ".join(sorted(transport.value for transport in transports_of(matcher)))


def _needs(line: Alternative) -> str:
    needs = [plural(line.predicate.longest, "byte")] if line.streams else []
    if line.datagrams is not None:
        needs.append(plural(line.datagrams.longest, "datagram"))
    return ", or ".join(needs)


def _examples(matcher: IProtocolMatcher) -> Iterator[Alternative]:
    """Make lines that can be used: without options, and for each option one, with another if it takes another."""
    options = matcher.options
    choices_of_options: list[list[tuple[Option, ...]]] = [[()]]
    for option in options:
        others = [(other, option) for other in options if other is not option]
        choices_of_options.append([(option,), *others])
    for choices in choices_of_options:
        for chosen in choices:
            words = (_word(option) for option in chosen)
            try:
                yield read_alternative(" ".join([matcher.name, *words]), {matcher.name: matcher})
            except InvalidValueError:
                continue
            break


def _word(option: Option) -> str:
    word = f"{option.name}={option.example}"
    is_one_word = split_words(word) == [word]
    return word if is_one_word else f"{option.name}={shlex.quote(option.example)}"


def _origins(matchers: Iterable[IProtocolMatcher]) -> dict[str, str]:
    """Name the distribution that each matcher is from, with its version; else its module."""
    modules = {matcher.name: matcher.__module__ for matcher in matchers}
    texts = {}
    for distribution in distributions():
        metadata = distribution.metadata  # read from its file with each access
        texts[distribution] = f"{metadata['Name']} {metadata['Version']}"
    by_package = {text.partition(" ")[0].replace("-", "_").lower(): text for text in texts.values()}
    # Every plugin file is in Twisted's package: only the lists of files, which are long, tell whose it is.
    by_package.pop("twisted", None)
    others = {
        f"{module.replace('.', '/')}.py": module
        for module in modules.values()
        if module.partition(".")[0] not in by_package
    }
    by_module: dict[str, str] = {}
    for distribution, text in texts.items() if others else ():
        listed = others.keys() & map(str, distribution.files or ())
        by_module.update((others[file], text) for file in listed)
    return {
        name: by_package.get(module.partition(".")[0])
        or by_module.get(module)
        or f"module {module}"
        for name, module in modules.items()
    }
