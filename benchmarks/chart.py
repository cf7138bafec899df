"""A bar chart as SVG, drawn by hand: cost of each workload as a multiple of the baseline's."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contenders import ASYNCIO, BASELINE, NATIVE
from benchmarks.report import Results, ratio

SHOWN = (NATIVE, BASELINE, "nginx", "Envoy", ASYNCIO)
COLOURS = {NATIVE: "#0a7d5a", BASELINE: "#8a8f98", "nginx": "#b9bdc4", "Envoy": "#d5d8dc", ASYNCIO: "#7cc4ad"}
LEFT, BAR, GAP, WIDTH, MOST = 170, 13, 14, 760, 2.5


def chart(results: Results) -> str:
    """The whole picture. A bar longer than the picture ends at its edge, and its number tells."""
    lines = list(_lines(results))
    height = max(int(each.split('"')[1]) for each in lines if each.startswith("<!--")) if lines else 0
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="11">',
            f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
            f'<text x="8" y="16" font-size="13">CPU for the same work, {BASELINE} = 1: less is better</text>',
            *lines,
            "</svg>\n",
        ]
    )


def _lines(results: Results) -> Iterator[str]:
    y = 50
    x = LEFT
    for name in SHOWN:
        yield f'<rect x="{x}" y="24" width="10" height="10" fill="{COLOURS[name]}"/><text x="{x + 14}" y="33">{name}</text>'
        x += 24 + 7 * len(name)
    scale = (WIDTH - LEFT - 50) / MOST
    for workload, samples in results.samples.items():
        shown = [name for name in SHOWN if samples.get(name)]
        if not shown or BASELINE not in shown:
            continue
        yield f'<text x="8" y="{y + BAR}">{workload.name.partition(",")[0]}</text>'
        for name in shown:
            value = ratio(samples, name).median
            wide = min(value, MOST) * scale
            yield (
                f'<rect x="{LEFT}" y="{y}" width="{wide:.0f}" height="{BAR - 2}" fill="{COLOURS[name]}"/>'
                f'<text x="{LEFT + wide + 4:.0f}" y="{y + BAR - 3}">{value:.2f}</text>'
            )
            y += BAR
        y += GAP
    one = LEFT + scale
    yield f'<line x1="{one:.0f}" y1="42" x2="{one:.0f}" y2="{y}" stroke="#444" stroke-dasharray="3 3"/>'
    yield f'<!-- "{y}" -->'
