from textwrap import indent

from tests.convert.converting import converted, rules_of
from txmux.rules.model import Backend
from txmux_convert.formats import Conversion

BACKENDS = """
backend a
    server a 127.0.0.1:9
backend b
    server b 127.0.0.1:2
"""


def frontend(*lines: str, bind: str = "bind 127.0.0.1:443") -> Conversion:
    text = indent("\n".join([bind, *lines]), "    ")
    return converted(f"frontend f\n{text}\n{BACKENDS}")


def routes(*lines: str) -> list[tuple[list[str], str]]:
    return [
        (
            [alternative.text for alternative in route.alternatives],
            route.outcome.name if isinstance(route.outcome, Backend) else "close",
        )
        for route in rules_of(frontend(*lines)).routes
    ]
