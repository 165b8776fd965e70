#!/usr/bin/env python3
"""Measures how many bytes each table of PostgreSQL takes: python3 benches/sizes.py target/release/fedhis [PEOPLE]

Fills a database with PEOPLE (50,000) and ten pages each, lets fedhis make everything that it keeps beside them, and prints for
each table the rows, and the bytes of table and indexes for each person and each page. docs/SCALE.md multiplies them.

SIZES_PARTITIONS is the number of partitions of pages and documents (none).

It needs PostgreSQL's programs, and starts a private cluster in a temporary directory.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from lists import fill  # noqa: E402
from relay import PAGE, SECRET, Cluster  # noqa: E402

PAGES = 10


def main():
    program, people = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50_000
    directory, cluster, process = tempfile.mkdtemp(prefix="sizes-bench-"), Cluster(), None
    try:
        cluster.sql("postgres", "CREATE DATABASE hub")
        fill(cluster, people)
        cluster.sql("hub", "DROP TABLE sample")
        people = int(cluster.sql("hub", "SELECT count(*) FROM people"))
        config, path = f"{directory}/fedgate.toml", f"{directory}/his.sock"
        with open(os.open(f"{directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(SECRET)
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[store]\nkind = "postgres"\nuri = "host={cluster.directory} user=postgres dbname=hub"\n[assertion]\nsecret_file = "key"\n[his]\nlisten = "unix:{path}"\n')
        subprocess.run([program, "migrate", "--config", config], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        began = time.monotonic()
        cluster.sql(
            "hub",
            f"""INSERT INTO pols (id, book, data) SELECT page, id, jsonb_build_object('id', page, 'book', id) || '{json.dumps(PAGE)}'
                FROM (SELECT gen_random_uuid()::text AS page, id FROM people CROSS JOIN generate_series(1, {PAGES}) ORDER BY random()) AS drawn""",
        )
        print(f"{people} people; {people * PAGES} pages stored in one statement in {time.monotonic() - began:.0f} s", flush=True)
        log = open(f"{directory}/log", "wb")
        process = subprocess.Popen([program, "serve", "--config", config], stderr=log, stdout=log)
        due = "SELECT (SELECT count(*) FROM fedgate_person_keys_due) + (SELECT count(*) FROM fedgate_person_index WHERE upto IS NOT NULL)"
        waiting = f"SELECT ({due}) + (SELECT count(*) FROM (SELECT 1 FROM fedgate_waiting LIMIT 1) AS waits)"
        while cluster.sql("hub", waiting) != "0":
            time.sleep(1)
        process.terminate()
        process.wait()
        process = None
        if partitions := os.environ.get("SIZES_PARTITIONS"):
            subprocess.run([program, "migrate", "--partition", partitions, "--config", config], check=True)
        cluster.sql("hub", "VACUUM ANALYZE")
        tables = cluster.sql(
            "hub",
            """SELECT coalesce(parent.relname, own.relname), sum(greatest(own.reltuples, 0))::bigint, sum(pg_table_size(own.oid))::bigint,
                    sum(pg_indexes_size(own.oid))::bigint
               FROM pg_class AS own LEFT JOIN pg_inherits ON inhrelid = own.oid LEFT JOIN pg_class AS parent ON parent.oid = inhparent
               WHERE own.relkind = 'r' AND own.relnamespace = 'public'::regnamespace GROUP BY 1
               HAVING sum(pg_total_relation_size(own.oid)) > 262144 ORDER BY sum(pg_total_relation_size(own.oid)) DESC""",
        )
        total = 0
        for line in tables.splitlines():
            name, rows, table, indexes = line.split("|")
            rows, table, indexes = int(rows), int(table), int(indexes)
            total += table + indexes
            print(f"{name:28} {rows:9} rows  a row: table {table / max(rows, 1):6.0f} bytes, indexes {indexes / max(rows, 1):6.0f}  for each person {(table + indexes) / people:7.0f}")
        print(f"{'all':28} {total / people:.0f} bytes for each person with {PAGES} pages; write-ahead log {int(cluster.sql('hub', 'SELECT pg_current_wal_lsn() - $$0/0$$').split('.')[0]) / people:.0f}")
    finally:
        if process:
            process.kill()
            process.wait()
        cluster.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
