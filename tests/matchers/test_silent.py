from tests.matchers.all_samples import NO

VERDICTS = tuple(
    (options, bytes([byte]), NO, 1) for options in ("", "after=1s") for byte in (0, 10, 0x16, 255)
)
