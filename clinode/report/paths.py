"""Paths of a picture, written short: each place told from the one before.

A page holds thousands of places, so lines are told to a tenth of a unit, and shapes to a whole one,
which is about a pixel. Steps are differences of rounded places, so that no error adds up.
"""

from collections.abc import Iterable, Sequence

Place = tuple[float | int, float | int]


def polyline(places: Sequence[Place], *, whole: bool = False) -> str:
    """A line through places, to a tenth of a unit or to whole ones.

    Example:
        >>> polyline([(10, 20), (10.5, 19.96), (30.04, 24)])
        'M10 20l.5 0 19.5 4'
    """
    if not places:
        return ""
    first, *rest = _tenths([(round(x), round(y)) for x, y in places] if whole else places)
    steps = " ".join(_pair(*step) for step in _steps(first, rest))
    return f"M{_pair(*first)}" + (f"l{_close_up(steps)}" if rest else "")


def dots(places: Sequence[Place]) -> str:
    """A dot at each place: a line of no length, which round ends make visible.

    Example:
        >>> dots([(10, 20), (9, 21.25)])
        'M10 20h0m-1 1h0'
    """
    return shapes([(place, "h0") for place in places])


def shapes(placed: Sequence[tuple[Place, str]]) -> str:
    """Shapes at places.

    Args:
        placed: Where each begins, and itself: a path of relative steps that ends where it began.

    Example:
        >>> shapes([((10, 20), "h4l-2-3z"), ((14.3, 20), "h0")])
        'M10 20h4l-2-3zm4 0h0'
    """
    if not placed:
        return ""
    first, *rest = _tenths([(round(x), round(y)) for (x, y), _ in placed])
    d = f"M{_pair(*first)}{placed[0][1]}"
    for step, (_, shape) in zip(_steps(first, rest), placed[1:], strict=True):
        d += f"m{_close_up(_pair(*step))}{shape}"
    return d


def short(value: float | int) -> str:
    """A number to a tenth, without what says nothing.

    Example:
        >>> [short(v) for v in (3.04, -0.26, 12)]
        ['3', '-.3', '12']
    """
    return _number(round(10 * value))


def _tenths(places: Iterable[Place]) -> list[tuple[int, int]]:
    return [(round(10 * x), round(10 * y)) for x, y in places]


def _steps(first: tuple[int, int], rest: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    return [(x - a, y - b) for (a, b), (x, y) in zip([first, *rest], rest, strict=False)]


def _pair(x: int, y: int) -> str:
    return f"{_number(x)} {_number(y)}"


def _number(tenths: int) -> str:
    whole, part = divmod(abs(tenths), 10)
    text = (str(whole) if whole or not part else "") + (f".{part}" if part else "")
    return f"-{text}" if tenths < 0 else text


def _close_up(numbers: str) -> str:
    return numbers.replace(" -", "-")
