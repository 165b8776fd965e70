"""The plots of docs/plots: CPU time for a request as bars, the cheapest first, with a line from lowest to highest.

A bar that is much longer than most is cut, and its end says so. Written by hand as SVG: it needs no library.
"""

import html
import os
import statistics

from place import ROOT

PLOTTED = ("keep64", "keep256", "h2", "new")
FOLDER = os.path.join(ROOT, "docs", "plots")
WIDTH, LEFT, BAR, GAP, TOP = 860, 270, 18, 8, 46
LENGTH = WIDTH - LEFT - 130
# The longest bar that is drawn whole, in medians of all.
MOST = 3
COLOURS = {"fedgate": "#1b6e3c", "checks": "#3b6fb6", "plain": "#8a8f98"}
PLAIN = ("bare", "nginx", "haproxy", "envoy")


def colour(name):
    kind = "fedgate" if name.startswith("fedgate") else "plain" if name in PLAIN else "checks"
    return COLOURS[kind]


def text(x, y, words, **attributes):
    extra = "".join(f' {key.replace("_", "-")}="{value}"' for key, value in attributes.items())
    return f'<text x="{x:.1f}" y="{y:.1f}"{extra}>{html.escape(words)}</text>'


def plot(title, rounds, titles):
    costs = {name: sorted(one["cpu"] for one in each) for name, each in rounds.items() if each}
    order = sorted(costs, key=lambda name: statistics.median(costs[name]))
    middle = {name: statistics.median(costs[name]) for name in order}
    most = min(max(middle.values()) * 1.05, MOST * statistics.median(middle.values()))
    height = TOP + len(order) * (BAR + GAP) + 34

    def across(value):
        return LEFT + LENGTH * min(value, most) / most

    parts = [text(10, 24, f"CPU time of the proxy for a request, µs: {title}", font_size=15, font_weight="bold")]
    for at, name in enumerate(order):
        y = TOP + at * (BAR + GAP)
        low, value, high = costs[name][0], middle[name], costs[name][-1]
        plain = titles[name].replace("*", "").replace("`", "")
        parts.append(text(LEFT - 8, y + 13, plain, text_anchor="end", font_weight="bold" if "fedgate" in name else "normal"))
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{across(value) - LEFT:.1f}" height="{BAR}" fill="{colour(name)}"/>')
        if value <= most:
            parts.append(f'<line x1="{across(low):.1f}" x2="{across(high):.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}" '
                         'stroke="#000000" stroke-width="1.5"/>')
        label = f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
        cut = " (bar cut)" if value > most else ""
        parts.append(text(max(across(value), across(high)) + 6, y + 13, label + cut))
    y = height - 12
    for at, (kind, words) in enumerate((("fedgate", "authorizes and records"), ("checks", "checks passwords"),
                                        ("plain", "checks nothing"))):
        x = LEFT + at * 180
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{COLOURS[kind]}"/>')
        parts.append(text(x + 18, y, words))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            f'font-family="sans-serif" font-size="12" role="img" aria-label="{html.escape(title)}">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n' + "\n".join(parts) + "\n</svg>\n")


def write(logged, titles, named):
    os.makedirs(FOLDER, exist_ok=True)
    for load in PLOTTED:
        if load in logged:
            with open(os.path.join(FOLDER, f"{load}.svg"), "w") as out:
                out.write(plot(named[load], logged[load]["rounds"], titles))
