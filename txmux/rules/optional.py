"""Which features there are in `txmux.features`, and which are installed: a folder that is missing is left out.

The core knows them by this alone, and by what they add to rules: see `txmux.rules.installed`.
"""

from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

WORDS = {
    "acme": (
        *("acme", "acme_email", "acme_folder", "acme_ca", "acme_terms", "acme_profile", "acme_eab"),
    ),
    "consul": ("consul", "consul:"),
    "crowdsec": ("crowdsec_key", "crowdsec:"),
    "geo": ("geo_databases", "geo:", "as:"),
    "sharing": ("shared_limits",),
    "wake": ("wake",),
    "ech": ("ech_keys", "txmux ech"),
    "misdirected": (),
    "starttls": ("starttls", "starttls_banner", "stage starttls"),
    "tunnels": ("tunnel", "tunnel_users", "via", "stage tunnelling"),
    "page": (),
    "top": ("txmux top",),
    "docker": ("txmux provider docker",),
    "cancel_requests": ("stage cancelling",),
    "gateway": ("txmux provider gateway",),
    "test": ("txmux test",),
    "captures": ("txmux explain --pcap",),
    "trial": ("remember", "watch_rules_limit"),
}
"""All features, in the order in which they are asked, with what is unknown without each: its keys, how its networks or servers begin, the
stages of its connections, as ``stage NAME``, and its commands, as ``txmux NAME``, or words of those of the core."""

_FOLDER = "txmux.features"
_OWNERS = {word: name for name, words in WORDS.items() for word in words}


def load(name: str) -> Any:
    """Import a `Feature`; ``None`` if its folder is missing."""
    module = f"{_FOLDER}.{name}"
    try:
        return import_module(module).FEATURE
    except ModuleNotFoundError as problem:
        if problem.name != module:  # it lacks something itself
            raise
        return None


def missing(word: str) -> str:
    """Return why a word is unknown here, if a feature that is not installed knows it."""
    name = _OWNERS.get(word)
    if name is None or load(name) is not None:
        return ""
    return f"this needs the part {name}, which is not installed"


def that_have(words: str) -> Iterator[Any]:
    """Load the features that are there, and by which something is known that begins with these words."""
    names = dict.fromkeys(name for word, name in _OWNERS.items() if word.startswith(words))
    return filter(None, map(load, names))


def named(text: str) -> Any:
    """Import what is named as ``module:name``."""
    module, _, name = text.partition(":")
    return getattr(import_module(module), name)


def imported_late(text: str) -> Callable[..., Any]:
    """Return what imports a callable, named as ``module:name``, when it is called."""

    def call(*arguments: Any, **options: Any) -> Any:
        return named(text)(*arguments, **options)

    return call


def states() -> list[str]:
    return [state for state, name in words_after("stage").items() if find_spec(f"{_FOLDER}.{name}")]


def words_after(first: str) -> dict[str, str]:
    """Return the words that stand alone behind a first one, each with the name of its feature."""
    pairs = ((word.split(), name) for word, name in _OWNERS.items())
    return {words[1]: name for words, name in pairs if len(words) == 2 and words[0] == first}


def commands(names: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """Return the module and the summary of each command of features; of all, or of these ``names``."""
    owners = words_after("txmux")
    features = {name: load(owners[name]) for name in owners if not names or name in names}
    return {
        name: (f"{_FOLDER}.{feature.name}.{name}", feature.commands[name])
        for name, feature in features.items()
        if feature is not None
    }
