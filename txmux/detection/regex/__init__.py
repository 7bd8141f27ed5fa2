"""Regular expressions for streams: read once, then followed byte by byte in linear time.

A pattern is parsed by `re`'s own parser (``syntax``), becomes an automaton (``positions``) that knows how far each of
its states is from a match (``automaton``), and is run as a deterministic one that is built as bytes ask for it
(``stream``). Nothing backtracks, so no bytes can make a pattern slow.
"""

from txmux.detection.regex.stream import Progress, StreamPattern, compile_pattern
from txmux.detection.regex.syntax import PatternError

__all__ = ["PatternError", "Progress", "StreamPattern", "compile_pattern"]
