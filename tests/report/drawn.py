"""Where a path goes, read by the rules of SVG and not by how it was written."""

import re

NUMBER = r"-?(?:\d+\.?\d*|\.\d+)"


def corners(d: str) -> list[list[tuple[float, float]]]:
    """The corners of every part of a path of the commands M, L, H, V, Z, great or small."""
    parts: list[list[tuple[float, float]]] = []
    x = y = 0.0
    for command, text in re.findall(r"([MmLlHhVvZz])([^MmLlHhVvZz]*)", d):
        numbers = [float(number) for number in re.findall(NUMBER, text)]
        assert re.sub(NUMBER, "", text).strip(" ,") == "", text
        if command in "Zz":
            x, y = parts[-1][0]
            continue
        along = {"h": (1, 0), "v": (0, 1)}.get(command.lower())
        pairs = (
            list(zip(numbers[::2], numbers[1::2], strict=True))
            if along is None
            else [(along[0] * value, along[1] * value) for value in numbers]
        )
        for number, (a, b) in enumerate(pairs):
            if command.islower():
                x, y = x + a, y + b
            else:
                x, y = (x if command == "V" else a), (y if command == "H" else b)
            if command in "Mm" and number == 0:
                parts.append([])
            parts[-1].append((x, y))
    return parts
