#!/usr/bin/env python3
"""Measures how well the person index finds pairs of one person, beside splink: python3 benches/index.py

It builds the program `linkage` (crates/index/examples), makes an environment in target/index-tools, and installs
`recordlinkage`, which carries the files febrl3 and febrl4, and `splink`. No labels are used, except to count.

1. febrl3 and febrl4 (4: links across two files) on name, date of birth, suburb and postal code.
2. A file of benches/people.py: INDEX_PEOPLE people (20000) with Spanish, Portuguese and Arabic names, and their relatives.

For each it prints precision, recall and time of: the grades `certain` and `probable or better` of a learned model, and
splink at 0.5. The third file is not given to splink, whose rules would have to be chosen for it.
"""

import csv
import itertools
import os
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOOLS = os.path.join(ROOT, "target", "index-tools")
PACKAGES = ["recordlinkage==0.16", "splink==5.0.0"]
PEOPLE = os.environ.get("INDEX_PEOPLE", "20000")
FIELDS = ["given", "family", "birth_date", "city", "postal_code"]
COLUMNS = ["source", "id", *FIELDS]
FEBRL = ["given_name", "surname", "date_of_birth", "suburb", "postcode"]


def within_environment():
    """Runs this file again with the packages, which are installed at the first time."""
    python = os.path.join(TOOLS, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", TOOLS], check=True)
    if subprocess.run([python, "-c", "import recordlinkage, splink"], stderr=subprocess.DEVNULL).returncode:
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    os.execv(python, [python, os.path.abspath(__file__), "--measure"])


def febrl(number):
    from recordlinkage import datasets

    if number == 3:
        frame, links = datasets.load_febrl3(return_links=True)
        frames = [("a", frame)]
    else:
        one, other, links = datasets.load_febrl4(return_links=True)
        frames = [("a", one), ("b", other)]
    rows = []
    for source, frame in frames:
        for id, values in zip(frame.index, frame[FEBRL].itertuples(index=False)):
            texts = ["" if str(value) in ("nan", "None") else str(value) for value in values]
            rows.append(dict(zip(COLUMNS, [source, id, *texts])))
    return rows, {frozenset(link) for link in links}


def generated():
    program = os.path.join(ROOT, "benches", "people.py")
    text = subprocess.run([sys.executable, program, PEOPLE, "1"], check=True, capture_output=True, text=True).stdout
    rows = list(csv.DictReader(text.splitlines()))
    of = {}
    for row in rows:
        of.setdefault(row["person"], []).append(row["id"])
    return rows, {frozenset(pair) for ids in of.values() for pair in itertools.combinations(ids, 2)}


def write(rows, path):
    with open(path, "w", newline="") as file:
        out = csv.DictWriter(file, list(rows[0]))
        out.writeheader()
        out.writerows(rows)


def ours(rows):
    with tempfile.TemporaryDirectory(prefix="index-bench-") as directory:
        path = os.path.join(directory, "people.csv")
        write(rows, path)
        program = os.path.join(ROOT, "target", "release", "examples", "linkage")
        begin = time.monotonic()
        run = subprocess.run([program, path], check=True, capture_output=True, text=True)
        seconds = time.monotonic() - begin
    graded = [line.split(",") for line in run.stdout.splitlines()]
    pairs = {frozenset((one, other)): grade for one, other, _, grade in graded}
    return pairs, seconds


def splink(rows):
    import duckdb
    import splink.comparison_library as cl
    from splink import Linker, SettingsCreator, block_on
    from splink.internals.duckdb.database_api import DuckDBAPI

    import pandas

    frame = pandas.DataFrame(rows).rename(columns={"id": "unique_id"}).replace("", None)
    is_linkage = frame["source"].nunique() > 1
    begin = time.monotonic()
    api = DuckDBAPI(duckdb.connect())
    settings = SettingsCreator(
        link_type="link_only" if is_linkage else "dedupe_only",
        blocking_rules_to_generate_predictions=[
            block_on("given", "family"),
            block_on("birth_date"),
            block_on("family", "postal_code"),
            block_on("given", "postal_code"),
            block_on("city", "postal_code"),
            block_on("family", "city"),
            block_on("given", "city"),
        ],
        comparisons=[
            cl.NameComparison("given").configure(term_frequency_adjustments=True),
            cl.NameComparison("family").configure(term_frequency_adjustments=True),
            cl.DamerauLevenshteinAtThresholds("birth_date", [1, 2]),
            cl.JaroWinklerAtThresholds("city", [0.9, 0.7]).configure(term_frequency_adjustments=True),
            cl.DamerauLevenshteinAtThresholds("postal_code", [1, 2]),
        ],
        retain_intermediate_calculation_columns=False,
    )
    frames = [part for _, part in frame.groupby("source")] if is_linkage else [frame]
    linker = Linker([api.register(part) for part in frames], settings, log_level=40)
    training = linker.training
    training.estimate_probability_two_random_records_match(
        [block_on("given", "family", "birth_date"), block_on("family", "birth_date", "postal_code")], recall=0.7
    )
    training.estimate_u_using_random_sampling(max_pairs=2e6, seed=1)
    training.estimate_parameters_using_expectation_maximisation(block_on("birth_date"))
    training.estimate_parameters_using_expectation_maximisation(block_on("family", "given"))
    found = linker.inference.predict(threshold_match_probability=0.5).as_pandas_dataframe()
    pairs = {frozenset(pair) for pair in zip(found["unique_id_l"], found["unique_id_r"])}
    return pairs, time.monotonic() - begin


def report(name, found, true, seconds):
    right = len(found & true)
    precision, recall = right / max(1, len(found)), right / len(true)
    print(f"  {name:<24} precision {precision:.5f}  recall {recall:.5f}  wrong {len(found) - right:>5}  {seconds:6.1f} s")


def main():
    if "--measure" not in sys.argv:
        within_environment()
    build = ["cargo", "build", "--locked", "--release", "--package", "fedgate-index", "--example", "linkage"]
    subprocess.run(build, check=True, cwd=ROOT)
    for name, (rows, true) in [("febrl3", febrl(3)), ("febrl4", febrl(4)), (f"{PEOPLE} people", generated())]:
        print(f"{name}: {len(rows)} records, {len(true)} pairs of one person", flush=True)
        pairs, seconds = ours(rows)
        report("fedgate, certain", {pair for pair, grade in pairs.items() if grade == "certain"}, true, seconds)
        good = {pair for pair, grade in pairs.items() if grade in ("certain", "probable")}
        report("fedgate, probable", good, true, seconds)
        if name.startswith("febrl"):
            pairs, seconds = splink(rows)
            report("splink at 0.5", pairs, true, seconds)


if __name__ == "__main__":
    main()
