from tests.convert.converting import converted, rules_of
from txmux_convert.formats import Conversion

LISTEN = 'listen: ( { host: "0.0.0.0"; port: "443"; } );\n'
_SSH = '{ name: "ssh"; host: "localhost"; port: "22"; }'


def with_protocols(*protocols: str, more: str = "") -> Conversion:
    return converted(f"{more}{LISTEN}protocols: ( {', '.join([_SSH, *protocols])} );")


def with_protocol(settings: str) -> Conversion:
    return with_protocols(
        f'{{ host: "10.0.0.1"; port: "80"; {settings} }}',
        '{ name: "anyprot"; host: "::1"; port: "9"; }',
    )


def match_of(settings: str) -> list[str]:
    (route,) = rules_of(with_protocol(settings)).routes[1:]
    return [alternative.text for alternative in route.alternatives]
