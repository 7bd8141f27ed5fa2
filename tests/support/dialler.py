from collections.abc import Callable
from typing import Any

from typing_extensions import override

from txmux.backends.connect.dial import Dialler
from txmux.classes import frozen
from txmux.rules.model import Server


@frozen(eq=False)
class PlayedDialler(Dialler):
    """Leaves what follows when a server is dialled to a function, which takes what `Dialler.dial` takes."""

    play: Any = None

    @override
    def dial(self, server: Server, factory: Any, timeout: float, **its: Any) -> Callable[[], None]:
        stop: Callable[[], None] = self.play(server, factory, timeout, **its)
        return stop


def played(play: Callable[..., Any], clock: Any = None) -> PlayedDialler:
    nothing: Any = None
    return PlayedDialler(nothing, clock, nothing, play=play)
