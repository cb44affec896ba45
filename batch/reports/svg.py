"""matplotlib figures in, inline SVG out: drawn in stand-in colours that become the page's CSS variables.

So one drawing serves the light and the dark theme, and its text takes the page's font. Every id carries the chart's
own, since several drawings share a page, and equal figures give equal bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from xml.sax.saxutils import escape

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

VARIABLES = (
    "ink", "muted", "rule", "page",
    "kept", "aside-1", "aside-2", "aside-3", "fault-1", "fault-2", "fault-3",
    "real", "fake", "unknown",
    "stage-1", "stage-2", "stage-3", "stage-4", "stage-5", "stage-6", "stage-7", "stage-8",
)  # fmt: skip
"""Names of the page's colours, without the leading dashes of CSS."""

_STAND_INS = {name: f"#0f1e{index:02x}" for index, name in enumerate(VARIABLES)}
_COLOURS = {code: f"var(--{name})" for name, code in _STAND_INS.items()}
_PX_PER_INCH = 72.0
# Any: which keys there are differs between matplotlib's versions, and so does their type.
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    # Folder names may hold a dollar sign.
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 12.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
}


def colour(name: str) -> str:
    """The stand-in to draw with for one of VARIABLES."""
    return _STAND_INS[name]


def figure(width_px: float, height_px: float) -> Figure:
    """A transparent figure of this size in CSS pixels, without pyplot's global state."""
    made = Figure(figsize=(width_px / _PX_PER_INCH, height_px / _PX_PER_INCH), dpi=_PX_PER_INCH)
    made.patch.set_visible(False)
    return made


@contextmanager
def style() -> Iterator[None]:
    """Draws the figures of the block in the page's manner."""
    with rc_context(_STYLE):
        yield


def plain_axes(axes: Axes, below: str, beside: str) -> None:
    """Axes as quiet as they can be: two labels, a grid behind, no frame."""
    axes.tick_params(length=0, pad=6, labelcolor=colour("muted"))
    axes.set_xlabel(below, color=colour("muted"))
    axes.set_ylabel(beside, color=colour("muted"))
    axes.grid(color=colour("rule"), linewidth=1)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(colour("muted"))


def inline_svg(
    drawn: Figure, chart_id: str, title: str, description: str, tips: Mapping[str, str] | None = None, *,
    stretch: bool = False,
) -> Markup:  # fmt: skip
    """Saves a figure as an `<svg>` element to stand in a page.

    `title` and `description` are what a screen reader says. `tips` gives artists, named by `set_gid`, a text for the
    pointer. `stretch` lets the drawing fill any width at a fixed height: for drawings without text.
    """
    out = io.StringIO()
    with warnings.catch_warnings(), rc_context({**_STYLE, "svg.hashsalt": chart_id}):
        # Letters that matplotlib's own font lacks: the page's font draws them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn.savefig(out, format="svg", transparent=True, metadata=_NO_METADATA)
    text = out.getvalue()
    body = text[text.index(">", text.index("<svg")) + 1 : text.rindex("</svg>")]
    width, height = (float(side) * _PX_PER_INCH for side in drawn.get_size_inches())
    fit = ' preserveAspectRatio="none"' if stretch else ""
    head = (
        f'<svg viewBox="0 0 {width:g} {height:g}"{fit} role="img" class="chart"'
        f' aria-labelledby="{chart_id}-title {chart_id}-desc">'
        f'<title id="{chart_id}-title">{escape(title)}</title>'
        f'<desc id="{chart_id}-desc">{escape(description)}</desc>'
    )
    # What matplotlib wrote escapes the texts that were drawn; the rest is escaped above.
    return Markup(head + _themed(_with_tips(body, tips or {}), chart_id) + "</svg>")  # noqa: S704


_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}


def _with_tips(body: str, tips: Mapping[str, str]) -> str:
    for gid, tip in tips.items():
        mark = f'<g id="{gid}">'
        body = body.replace(mark, f"{mark}<title>{escape(tip)}</title>")
    return body


def _themed(body: str, chart_id: str) -> str:
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # The file's own style element would apply to the whole page.
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r'(?<= )id="', f'id="{chart_id}-', body)
    body = body.replace("url(#", f"url(#{chart_id}-").replace('href="#', f'href="#{chart_id}-')
    # The page's font instead. Size and family stand in one declaration or in two, by matplotlib's version.
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    body = re.sub("#0f1e[0-9a-f]{2}", lambda match: _COLOURS[match[0]], body)
    return re.sub(r"\n\s*", "\n", body).strip()
