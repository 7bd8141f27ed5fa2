from tests.convert.converting import converted, rules_of
from txmux.rules.model import Backend, Outcome
from txmux_convert.formats import Conversion

_GROUPS = "".join(
    f"upstream {name} {{ server 127.0.0.{n}:9; }}\n" for n, name in enumerate("abcd", 1)
)


def stream(text: str) -> Conversion:
    return converted(f"stream {{\n{text}\n{_GROUPS}}}\n", name="nginx.conf")


def server(text: str, more: str = "") -> Conversion:
    return stream(f"{more}\nserver {{ listen 443; {text} }}")


def mapped(source: str, *entries: str, more: str = "") -> Conversion:
    lines = "\n".join(f"{entry};" for entry in entries)
    return server("ssl_preread on; proxy_pass $up;", f"{more}\nmap {source} $up {{\n{lines}\n}}")


def routes(output: Conversion) -> list[tuple[list[str], str]]:
    rules = rules_of(output)
    led = [([a.text for a in r.alternatives], name_of(r.outcome)) for r in rules.routes]
    return [*led, (["default"], name_of(rules.listeners[0].default))]


def name_of(outcome: Outcome | None) -> str:
    return outcome.name if isinstance(outcome, Backend) else "close"


def backend(text: str, more: str = "server 127.0.0.1:1;") -> Backend:
    (output,) = rules_of(
        server(f"proxy_pass x; {text}", f"upstream x {{ {more} }}")
    ).backends.values()
    return output
