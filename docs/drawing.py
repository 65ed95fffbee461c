"""Draws a picture in box characters as SVG. It needs no other package and no program."""

from __future__ import annotations

import html
import re

#: Pixels of a character.
_WIDTH, _HEIGHT = 8, 18
#: The sides of its cell that a box character connects with the middle: left, right, up and down.
_SIDES = {
    "─": "lr", "│": "ud", "┌": "rd", "┐": "ld", "└": "ru", "┘": "lu", "├": "udr", "┤": "udl", "┬": "lrd", "┴": "lru",
    "┼": "lrud", "▶": "lr", "◀": "lr", "▲": "ud", "▼": "ud",
}  # fmt: skip
_ENDS = {"l": (-0.5, 0.0), "r": (0.5, 0.0), "u": (0.0, -0.5), "d": (0.0, 0.5)}
#: The side that an arrow points to.
_ARROWS = {"▶": "r", "◀": "l", "▲": "u", "▼": "d"}
_TEXT = re.compile(rf"[^\s{''.join(_SIDES)}]+(?: [^\s{''.join(_SIDES)}]+)*")


def draw(text: str, alt: str) -> str:
    """Return a picture as an SVG element.

    :param alt: what it shows, for those who do not see it.
    """
    lines = text.splitlines()
    width, height = _WIDTH * max(map(len, lines)), _HEIGHT * len(lines)
    parts = [part for row, line in enumerate(lines) for part in (*_texts(row, line), *_lines(row, line))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{html.escape(alt)}" width="{width}"'
        f' viewBox="0 0 {width} {height}" style="max-width: 100%; height: auto" font-family="monospace"'
        f' font-size="13" fill="currentColor" stroke-width="1.2">{"".join(parts)}</svg>\n'
    )


def _texts(row: int, line: str) -> list[str]:
    return [
        f'<text x="{_WIDTH * found.start()}" y="{_HEIGHT * row + 13}" textLength="{_WIDTH * len(found[0])}">'
        f"{html.escape(found[0])}</text>"
        for found in _TEXT.finditer(line)
    ]


def _lines(row: int, line: str) -> list[str]:
    parts = []
    for column, character in enumerate(line):
        x, y = _WIDTH * (column + 0.5), _HEIGHT * (row + 0.5)
        ends = [_ENDS[side] for side in _SIDES.get(character, "")]
        strokes = "".join(f"M{x:g} {y:g}L{x + _WIDTH * right:g} {y + _HEIGHT * down:g}" for right, down in ends)
        if strokes:
            parts.append(f'<path d="{strokes}" stroke="currentColor"/>')
        if character in _ARROWS:
            right, down = _ENDS[_ARROWS[character]]
            tip = (x + _WIDTH * right, y + _HEIGHT * down)
            corners = [(tip[0] - 16 * right + side * down, tip[1] - 16 * down + side * right) for side in (-8, 8)]
            points = " ".join(f"{left:g},{top:g}" for left, top in (tip, *corners))
            parts.append(f'<polygon points="{points}"/>')
    return parts
