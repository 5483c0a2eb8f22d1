"""Back-off: the pauses between tries of what is away."""

from collections.abc import Iterator


def back_off(first_s: float, longest_s: float) -> Iterator[float]:
    """Yield seconds to wait before the next try: `first_s`, then twice as long each time, at most `longest_s`."""
    while True:
        yield first_s
        first_s = min(2 * first_s, longest_s)
