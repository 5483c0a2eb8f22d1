"""Back-off: the pauses between retries of a dependency that does not answer."""

from collections.abc import Iterator


def back_off(first_s: float, longest_s: float) -> Iterator[float]:
    """Yield the seconds to wait before each retry: `first_s`, then twice as long each time, at most `longest_s`."""
    while True:
        yield first_s
        first_s = min(2 * first_s, longest_s)
