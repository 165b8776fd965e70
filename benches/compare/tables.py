"""The tables of docs/BENCHMARKS.md, written between two marks of that file; its prose is written by hand.

Medians of the rounds count. A ratio is taken within each round, because machines change between rounds: its median
stands before its lowest and highest value.
"""

import os
import re
import statistics
import textwrap

import plots
from loads import loads
from place import ROOT

DOCUMENT = os.path.join(ROOT, "docs", "BENCHMARKS.md")
BEGIN, END = "<!-- figures, written by benches/compare/run -->", "<!-- end of the figures -->"
BASE = "bare"
# The title of each peer, set by the command.
TITLES = {}
SHORT = {"keep64": "64 kept", "keep256": "256 kept", "h2": "HTTP/2", "new": "new each", "page": "16 KiB", "post": "POST",
         "wrong": "wrong", "restart": "restart", "reload": "reload", "unix": "Unix", "accounts": "10,000"}  # fmt: skip


def load_titles():
    class Nothing:
        keep = http2 = connect = wrong = restart = reload = None

    return {name: load.title for name, load in loads(Nothing).items()}


def median(rounds, key):
    return statistics.median(one[key] for one in rounds)


def number(value):
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(micro):
    return number(micro / 1000)


def ratios(rounds, base, key="cpu"):
    return [one[key] / other[key] for one, other in zip(rounds, base) if other[key]]


def with_spread(values):
    middle, low, high = statistics.median(values), min(values), max(values)
    digits = 2 if high < 10 else 0
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def row(cells):
    return "| " + " | ".join(cells) + " |"


def table(heads, rows):
    return "\n".join([row(heads), "|" + "---|" * len(heads), *map(row, rows)])


def errors(rounds):
    bad = sum(one["other"] + one["failed"] for one in rounds)
    return f"{bad:,} of {sum(one['good'] for one in rounds) + bad:,}" if bad else "0"


def of_load(found):
    """The whole table of one load, the cheapest peer first."""
    rounds = found["rounds"]
    # Loads with wrong passwords have no bare pingora: it would serve them.
    to = next(name for name in (BASE, "fedgate", *rounds) if rounds.get(name))
    base = rounds[to]
    rows = []
    for name, each in sorted(rounds.items(), key=lambda pair: median(pair[1], "cpu")):
        calls = found["calls"].get(name)
        rows.append([
            TITLES[name], number(median(each, "rate")),
            " / ".join(milliseconds(median(each, key)) for key in ("p50", "p99", "p999")),
            number(median(each, "cpu")), with_spread(ratios(each, base)),
            f"{median(each, 'waits'):.2f} + {median(each, 'preemptions'):.2f}",
            *([f"{sum(calls.values()):.1f}" if calls else "–"] if found["calls"] else []), errors(each)])
    heads = ["peer", "requests/s", "p50 / p99 / p99.9, ms", "CPU, µs", f"to {TITLES[to].replace('*', '')}", "switches"]
    return table([*heads, *(["calls"] if found["calls"] else []), "errors"], rows)


def against(scenes):
    """fedgate's CPU time in proportion to each peer's, for every load."""
    loads = {(scene, load): scenes[scene][load]["rounds"] for load in SHORT for scene in ("logged", "unix", "accounts")
             if "fedgate" in scenes.get(scene, {}).get(load, {"rounds": ()})["rounds"]}
    rows = []
    for name in TITLES:
        cells = []
        for rounds in loads.values():
            if name in rounds and name != "fedgate" and rounds[name]:
                value = statistics.median(ratios(rounds["fedgate"], rounds[name]))
                shown = f"{value:.2f}" if value >= 0.01 else f"{value:.4f}"
                cells.append(f"**{shown}**" if value < 0.995 else shown)
            else:
                cells.append("–")
        if any(cell != "–" for cell in cells):
            rows.append([TITLES[name], *cells])
    return table(["fedgate's CPU time in proportion to", *(SHORT[load] for _, load in loads)], rows)


def of_memory(memory):
    columns = [(scene, load) for scene, load in (("logged", "keep64"), ("logged", "keep256"), ("logged", "new"),
                                                 ("accounts", "accounts")) if load in memory.get(scene, {})]
    names = [name for name in TITLES if any(name in memory[scene][load] for scene, load in columns)]
    rows = [[TITLES[name], *(number(memory[scene][load][name]) if name in memory[scene][load] else "–"
                             for scene, load in columns)] for name in names]
    return table(["MiB after the loads of", *(SHORT[load] for _, load in columns)], rows)


def of_reload(logged):
    """What a reload adds to p99, beside the same load without one."""
    rows = []
    for name, each in logged["reload"]["rounds"].items():
        if each and logged["keep64"]["rounds"].get(name):
            quiet = logged["keep64"]["rounds"][name]
            rows.append([TITLES[name], milliseconds(median(quiet, "p99")), milliseconds(median(each, "p99")),
                         f"{100 * (median(each, 'p99') / median(quiet, 'p99') - 1):+.0f} %",
                         f"{median(each, 'rate') / median(quiet, 'rate'):.2f}"])
    return table(["peer", "p99 without, ms", "p99 with, ms", "added", "requests/s in proportion"], rows)


def about(machine):
    state = (f"Measured on {machine['date']} at `{machine['commit']}`: profile `{machine['profile']}`, {machine['cores']} cores "
             f"({machine['model']}), Linux {machine['kernel']}; {machine['state']}. Medians of "
             f"{machine['rounds']} rounds (the four main loads) or {machine['other_rounds']} (the others), each of "
             f"{machine['seconds']} s; {machine['threads']} threads for every peer. The whole run took {machine['minutes']:.0f} minutes.")
    versions = {name: re.search(r"\d+\.\d+(\.\d+)?", text) for name, text in machine["versions"].items()}
    return state, "Versions: " + ", ".join(f"{name} {found[0]}" for name, found in versions.items() if found) + "."


def generator_note(scenes):
    shares = [(one["generator"], name, load) for every in scenes.values() for load, found in every.items()
              for name, each in found["rounds"].items() for one in each]
    share, name, load = max(shares)
    return f"The load generator took at most {share:.2f} of a core ({TITLES[name]}, {SHORT[load]})."


def figures(results):
    scenes, named = results["scenes"], load_titles()
    parts = [*about(results["machine"]), generator_note(scenes)]
    if results["resumed"]:
        peers = ", ".join(sorted({TITLES[name] for name in results["resumed"]}))
        parts.append(f"These would resume a session if a client offered one, which no load does: {peers}.")
    if results["lacking"]:
        parts.append("Left out: " + ", ".join(f"{TITLES[name]} ({why})" for name, why in results["lacking"].items()) + ".")
    if "logged" in scenes:
        parts += ["### Summary", against(scenes)]
    logged = scenes.get("logged", {})
    parts += ["### With an access log"]
    for load in (load for load in SHORT if load in logged):
        found = logged[load]
        parts.append(f"#### {named[load][0].upper()}{named[load][1:]}")
        if load in plots.PLOTTED:
            parts.append(f"![CPU time for a request: {named[load]}](plots/{load}.svg)")
        parts.append(of_load(found))
        if load == "reload" and "keep64" in logged:
            parts.append(of_reload(logged))
    heads = {"silent": "Without an access log: ", "unix": "", "accounts": ""}
    if scenes.get("silent"):
        parts.append("### Without an access log")
    for scene, prefix in heads.items():
        if scene == "unix" and (scenes.get("unix") or scenes.get("accounts")):
            parts.append("### With an access log, other surroundings")
        for load, found in scenes.get(scene, {}).items():
            title = prefix + named[load] if prefix else named[load][0].upper() + named[load][1:]
            parts += [f"#### {title}", of_load(found)]
    if results["memory"]:
        parts += ["### Memory", of_memory(results["memory"])]
    return "\n\n".join(part if part[0] in "|#!" else textwrap.fill(part, 118) for part in parts)


def write(results, peers):
    TITLES.update({name: peer.title for name, peer in peers.items()})
    with open(DOCUMENT) as text:
        document = text.read()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    with open(DOCUMENT, "w") as out:
        out.write(f"{before}{BEGIN}\n\n{figures(results)}\n\n{END}{after}")
    plots.write(results["scenes"].get("logged", {}), TITLES, load_titles())
    print(f"wrote {os.path.relpath(DOCUMENT, ROOT)} and docs/plots")
