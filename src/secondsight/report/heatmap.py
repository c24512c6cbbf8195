"""Heat maps of blocks over time, side by side: for a terminal as text, for people to keep as SVG or HTML.

         PRIMARY      REFERENCED    SECONDARY     HUGE          a row of panels for each of a comparison's columns (SVG)
      0  ..........   ..........    ..::##@@@@    ......####    address, growing downwards, a row a band of blocks
    1 G  ..........   ..........    ........::    ..........
         0       12m  0       12m   0       12m   0       12m   time, growing to the right

A cell's shade is the share of its pages, on a logarithmic scale from 1 of 512 to all: one young page matters to khugepaged.
"""

from __future__ import annotations

import base64
import html
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.text import Text

from secondsight.geometry import HPAGE_PMD_NR, PMD_ORDER

Floats = npt.NDArray[np.float32]

#: Shades without colours, and where each begins (share of pages).
SHADES = "·░▒▓█"
STEPS = (1 / HPAGE_PMD_NR, 1 / 32, 1 / 4, 1.0)
UNKNOWN = "?"
#: At most so many rows and columns of a picture in a page: more are merged.
_EMBEDDED = 2 << 8
#: Colours from none to all: dark violet to yellow, equally far apart to the eye and in print (viridis).
_RAMP = ("1b1030", "443983", "31688e", "21918c", "35b779", "90d743", "fde725")
_GREY = "777777"


@dataclass(frozen=True, slots=True)
class Panel:
    """*values* float32[blocks, T]: share of each block's pages, NaN where it is not known."""

    title: str
    values: Floats


def level(share: Floats) -> Floats:
    """0 for no page, then logarithmic from 1 of 512 (0.1) to all (1)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.where(
            share > 0,
            0.1 + 0.9 * np.clip(1 + np.log2(np.maximum(share, 1 / HPAGE_PMD_NR)) / PMD_ORDER, 0, 1),
            0,
        )
    return np.where(np.isnan(share), np.nan, out).astype(np.float32)


def shrink(values: Floats, rows: int, columns: int) -> Floats:
    """*values* in at most *rows* bands of blocks and *columns* parts of time: a band's mean, each block at its most young in the part."""
    blocks, times = values.shape
    rows, columns = min(rows, blocks), min(columns, times)
    edge = np.linspace(0, times, columns + 1).astype(int)[:-1]
    known = np.where(np.isnan(values), -1, values)
    most = np.maximum.reduceat(known, edge, axis=1)
    seen = (most >= 0).astype(np.float32)
    edge = np.linspace(0, blocks, rows + 1).astype(int)[:-1]
    number = np.add.reduceat(seen, edge, axis=0)
    total = np.add.reduceat(np.where(most >= 0, most, 0), edge, axis=0)
    with np.errstate(invalid="ignore"):
        return np.where(number > 0, total / number, np.nan).astype(np.float32)


def _colours(levels: Floats) -> npt.NDArray[np.uint8]:
    """RGB uint8[..., 3] of *levels*."""
    ramp = np.array([[int(c[i : i + 2], 16) for i in (0, 2, 4)] for c in _RAMP], np.float32)
    at = np.nan_to_num(levels) * (len(ramp) - 1)
    low = np.minimum(at.astype(int), len(ramp) - 2)
    out = ramp[low] + (ramp[low + 1] - ramp[low]) * (at - low)[..., None]
    out[np.isnan(levels)] = [int(_GREY[i : i + 2], 16) for i in (0, 2, 4)]
    return out.round().astype(np.uint8)


def terminal(
    panels: Sequence[Panel], labels: Sequence[str], *, end: str, width: int, height: int, colour: bool
) -> Text:
    """The panels side by side in *width* columns.

    *labels*: one a block, printed at each line's first; *end*: the time at the right edge. With *colour* a line holds two bands
    (half blocks), without it one, in shades.
    """
    blocks = panels[0].values.shape[0]
    margin = max(map(len, labels)) + 1
    columns = max(8, (width - margin) // len(panels) - 2)
    bands = min(blocks, height * 2 if colour else height)
    small = [shrink(p.values, bands, columns) for p in panels]
    columns = small[0].shape[1]
    out = Text()
    out.append(
        " " * margin + "  ".join(f"{p.title:<{columns}.{columns}}" for p in panels) + "\n", style="bold"
    )
    first = np.linspace(0, blocks, bands + 1).astype(int)[:-1]
    step = 2 if colour else 1
    drawn = [_colours(level(s)) for s in small]
    lines = range(0, bands, step)
    for number, band in enumerate(lines):
        label = labels[int(first[band])] if number % 4 == 0 else ""
        out.append(f"{label:>{margin - 1}} ")
        for i, panel in enumerate(small):
            if i:
                out.append("  ")
            if colour:
                for column in range(columns):
                    top = drawn[i][band, column]
                    below = drawn[i][band + 1, column] if band + 1 < bands else None
                    under = "" if below is None else f" on #{_hex(below)}"
                    out.append("▀", style=f"#{_hex(top)}{under}")
            else:
                out.append("".join(_shade(float(v)) for v in panel[band]))
        out.append("\n")
    axis = f"0{end:>{columns - 1}}"
    out.append(" " * margin + "  ".join([axis] * len(panels)) + "\n", style="dim")
    return out


def _hex(colour: npt.NDArray[np.uint8]) -> str:
    return "".join(f"{int(c):02x}" for c in colour)


def _shade(share: float) -> str:
    if share != share:
        return UNKNOWN
    return SHADES[sum(share >= step for step in STEPS[:-1]) + (share >= STEPS[-1] - 1e-6)]


def legend(colour: bool) -> Text:
    """What the shades mean."""
    out = Text("share of pages: ")
    if colour:
        for share, word in (
            (0.0, "none"),
            (1 / HPAGE_PMD_NR, "1 of 512"),
            (1 / 16, ""),
            (1 / 4, ""),
            (1.0, "all"),
        ):
            out.append("■", style=f"#{_hex(_colours(level(np.array(share, np.float32))))}")
            out.append(f" {word} " if word else " ")
    else:
        out.append(
            f"{SHADES[0]} none  {SHADES[1]} 1 of 512  {SHADES[2]} 1/32  {SHADES[3]} 1/4  {SHADES[4]} all"
        )
    return out


# -- pictures ----------------------------------------------------------------------------------------------------


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """RGB uint8[h, w, 3] as a PNG file."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    h, w, _ = pixels.shape
    lines = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(lines, zlib.Z_BEST_COMPRESSION))
        + chunk(b"IEND", b"")
    )


WIDTH, HEIGHT, LEFT, TOP, GAP, FOOT = 240, 150, 130, 60, 16, 24
_LETTER = 8  # the width of one of a row's name
#: The marks of a picture's key: shares of a band's pages, and what they are called; NaN for what is not known.
_KEY = (
    (0.0, "none"),
    (1 / HPAGE_PMD_NR, "1 of 512"),
    (1 / 32, "1/32"),
    (1 / 4, "1/4"),
    (1.0, "all"),
    (float("nan"), "not known"),
)


def svg(rows: Sequence[tuple[str, Sequence[Panel]]], labels: Sequence[str], *, title: str, end: str) -> str:
    """Rows of panels as one SVG: *rows* (name, panels), at most 512 bands by 512 parts of time each; a row may end early."""
    titles = [panel.title for panel in max((panels for _, panels in rows), key=len)]
    left = max(LEFT, 16 + _LETTER * max(len(name) for name, _ in rows))
    wide = left + len(titles) * (WIDTH + GAP)
    high = TOP + len(rows) * (HEIGHT + FOOT) + 40
    text = html.escape
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        'font-family="sans-serif" font-size="12" fill="#222">',
        f'<rect width="{wide}" height="{high}" fill="#fff"/>',
        f'<text x="8" y="20" font-size="15">{text(title)}</text>',
    ]
    for i, panel_title in enumerate(titles):
        out.append(
            f'<text x="{left + i * (WIDTH + GAP)}" y="{TOP - 8}" font-weight="bold">{text(panel_title)}</text>'
        )
    for r, (name, panels) in enumerate(rows):
        y = TOP + r * (HEIGHT + FOOT)
        out.append(f'<text x="8" y="{y + 14}" font-weight="bold">{text(name)}</text>')
        # The first address stands below the row's name.
        for at, label in ((30, labels[0]), (HEIGHT - 4, labels[-1])):
            out.append(
                f'<text x="{left - 6}" y="{y + at}" text-anchor="end" fill="#666">{text(label)}</text>'
            )
        for i, panel in enumerate(panels):
            x = left + i * (WIDTH + GAP)
            image = base64.b64encode(
                _png(_colours(level(shrink(panel.values, _EMBEDDED, _EMBEDDED))))
            ).decode()
            out.append(
                f'<image x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" preserveAspectRatio="none" '
                f'style="image-rendering:pixelated" href="data:image/png;base64,{image}">'
                f"<title>{text(name)}: {text(panel.title)}</title></image>"
            )
            if r == len(rows) - 1:
                out.append(f'<text x="{x}" y="{y + HEIGHT + 15}" fill="#666">0</text>')
                out.append(
                    f'<text x="{x + WIDTH}" y="{y + HEIGHT + 15}" text-anchor="end" fill="#666">{text(end)}</text>'
                )
    out.append(_key(high - 16))
    out.append("</svg>")
    return "".join(out)


def _key(y: int) -> str:
    """What the colours and the axes mean, on a line at *y*."""
    out = [f'<text x="8" y="{y}" fill="#666">share of pages</text>']
    x = LEFT
    for share, word in _KEY:
        colour = _hex(_colours(level(np.array(share, np.float32))))
        out.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="#{colour}"/>')
        out.append(f'<text x="{x + 17}" y="{y}" fill="#666">{word}</text>')
        x += 36 + 7 * len(word)
    out.append(
        f'<text x="{x + 12}" y="{y}" fill="#666">addresses grow downwards, blocks never touched left out; time grows to the right</text>'
    )
    return "".join(out)


def page(drawing: str, title: str) -> str:
    """*drawing* (SVG) as a page of its own."""
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>svg{{max-width:100%;height:auto}}</style><body>{drawing}</body></html>\n"
    )
