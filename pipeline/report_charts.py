"""Training curves as inline SVG: matplotlib draws, the page's CSS colours, the reader zooms.

A chart is made to stand beside others in one HTML page: colours are CSS variables (so that light
and dark need one drawing), text stays text in the page's own font, ids carry the chart's name, and
nothing refers outside the page.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from pipeline.svg import svg_document

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_UNITS_PER_INCH = 72
_PANEL_HEIGHT = 140
_DASHES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": (0, (1, 1.6))}
_FONT_FAMILY = re.compile(r"font-family: [^;]*; ")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        colour: a CSS variable's name without the dashes, like "joint".
        x, y: the same number of points.
        dash: "solid", "dashed" or "dotted".
        mark: index of the point to mark with a dot, like the kept epoch.
    """

    colour: str
    x: Sequence[float]
    y: Sequence[float]
    dash: str = "solid"
    mark: int | None = None


@dataclass(frozen=True)
class Panel:
    """One set of axes."""

    title: str
    lines: Sequence[Line] = field(default_factory=tuple)


def curves(
    name: str,
    panels: Sequence[Panel],
    *,
    x_label: str,
    description: str,
    width: int = 300,
    x_names: Sequence[str] = (),
) -> Markup:
    """Draw panels above one another with a shared x axis.

    Args:
        name: prefix of every id in the SVG; must differ from chart to chart of a page.
        panels: what to draw, from above.
        x_label: what x counts.
        description: what a reader who cannot see the chart is told.
        width: in CSS pixels, at which text has its natural size.
        x_names: what stands at x = 0, 1, 2 ...; without them x are numbers.

    Returns:
        An <svg> element, safe to place into HTML.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    theme = _Theme()
    style = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
        "font.size": 10.5,
        "axes.linewidth": 0.8,
    }
    size = (width / _UNITS_PER_INCH, (_PANEL_HEIGHT * len(panels) + 26) / _UNITS_PER_INCH)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(h_pad=5 / _UNITS_PER_INCH))
        figure.patch.set_alpha(0)
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, panel in zip(axes, panels, strict=True):
            _draw(axis, panel, theme)
        if x_names:
            axes[-1].set_xticks(range(len(x_names)), x_names, fontsize=9)
        axes[-1].set_xlabel(x_label, color=theme.hex("muted"))
        drawn = svg_document(figure)
    return Markup(theme.applied(_inline(drawn.encode(), name, description)))


class _Theme:
    """Stand-in colours for matplotlib, exchanged for CSS variables in its output."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def hex(self, name: str) -> str:
        if name not in self._names:
            self._names.append(name)
        return f"#fe01{self._names.index(name):02x}"

    def applied(self, svg: str) -> str:
        for place, name in enumerate(self._names):
            svg = svg.replace(f"#fe01{place:02x}", f"var(--{name})")
        return svg


def _draw(axis: Any, panel: Panel, theme: _Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.patch.set_alpha(0)
    axis.set_title(panel.title, loc="left", color=theme.hex("ink"), fontsize=10.5)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.spines["bottom"].set_color(theme.hex("line"))
    axis.grid(axis="y", color=theme.hex("hair"), linewidth=0.8)
    axis.tick_params(length=0, labelcolor=theme.hex("muted"))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4))
    for line in panel.lines:
        colour = theme.hex(line.colour)
        only_point = "o" if len(line.x) == 1 else None
        axis.plot(
            *(line.x, line.y),
            color=colour,
            linestyle=_DASHES[line.dash],
            linewidth=1.8,
            marker=only_point,
            markersize=4,
        )
        if line.mark is not None:
            at = (line.x[line.mark], line.y[line.mark])
            axis.plot(*at, "o", color=colour, markersize=5.5, clip_on=False)


def _inline(svg: bytes, name: str, description: str) -> str:
    """Make matplotlib's document an element: no prolog, no global style, ids of its own."""
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # A <style> inside an inline SVG would style the whole page.
            if child.tag in (f"{{{_SVG}}}style", f"{{{_SVG}}}metadata"):
                parent.remove(child)
    for element in root.iter():
        # Inside HTML the elements need no namespace, and the page's own font is wanted.
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        element.attrib = dict(_adapted(key, value, name) for key, value in element.items())
    root.attrib = {"viewBox": root.attrib["viewBox"], "class": "chart", "role": "img"}
    root.set("aria-labelledby", f"{name}-title")
    title = ET.Element("title", {"id": f"{name}-title"})
    title.text = _CONTROL.sub("", description)
    root.insert(0, title)
    return ET.tostring(root, encoding="unicode")


def _adapted(key: str, value: str, name: str) -> tuple[str, str]:
    """An attribute with its ids and references moved into the chart's own name space."""
    if key == "id":
        return key, f"{name}-{value}"
    if key in ("href", f"{{{_XLINK}}}href"):
        return "href", value.replace("#", f"#{name}-", 1)
    return key, _FONT_FAMILY.sub("", value).replace("url(#", f"url(#{name}-")
