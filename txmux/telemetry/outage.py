"""Which reasons of an outage are logged."""

_MOST = 10


class OutageReasons:
    """Lets each reason of one outage be logged once, and ten at most: a proxy may number its answers."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def is_new(self, why: str) -> bool:
        if why in self._logged or len(self._logged) >= _MOST:
            return False
        self._logged.add(why)
        return True

    def clear(self) -> None:
        self._logged.clear()
