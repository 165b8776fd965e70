#!/usr/bin/env python3
"""Measures lists of people by their members: python3 benches/lists.py target/release/fedhis [PEOPLE]

Fills a database as Thalamus would have left it with PEOPLE (1,000,000) whose ids are random, from a sample of
benches/people.py, lets `fedhis migrate` build the indexes, and asks fedhis for pages of 50, each time with members of somebody
in the database. It prints what the migration took, what the indexes take, and the percentiles of the time from the request to
the whole answer; at the end the same for one list without its indexes.

It needs PostgreSQL's programs, and starts a private cluster in a temporary directory. LISTS_ASKED is how often each kind is
asked (400). The index of persons is left empty.
"""

import base64
import csv
import hashlib
import hmac
import http.client
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(__file__))
from relay import SECRET, Cluster  # noqa: E402

ASKED = int(os.environ.get("LISTS_ASKED", "400"))
SAMPLE = 50_000


def sample():
    script = os.path.join(os.path.dirname(__file__), "people.py")
    text = subprocess.run([sys.executable, script, str(SAMPLE // 2), "1"], check=True, capture_output=True, text=True).stdout
    return list(csv.DictReader(io.StringIO(text)))


def fill(cluster, people):
    """The tables of Thalamus, with documents of about 400 bytes."""
    cluster.sql("hub", "CREATE TABLE people (id varchar PRIMARY KEY, data jsonb); CREATE TABLE sample (n serial, given text, family text, gender text)")
    rows = sample()
    lines = "".join(f"{row['given']}\t{row['family']}\t{row['gender']}\n" for row in rows)
    command = ["psql", "-X", "-q", "-U", "postgres", "-h", cluster.directory, "-d", "hub", "-c", "COPY sample (given, family, gender) FROM STDIN"]
    subprocess.run(command, check=True, input=lines, text=True)
    cluster.sql(
        "hub",
        f"""INSERT INTO people SELECT id, jsonb_build_object('id', id, 'name', given, 'lastname', family, 'gender', gender,
            'dob', (date '1930-01-01' + (random() * 33000)::int)::text, 'active', true, 'roles', '["end_user"]'::jsonb, 'phone',
            (random() * 1e9)::int::text, 'address', jsonb_build_object('street', md5(id), 'suburb', left(md5(id || 'x'), 9)),
            'creation_info', '{{"user": "ESPHOS001ADM", "timestamp": "2026-11-30T09:00:00Z"}}'::jsonb)
            FROM (SELECT sample.*, 'ESP' || upper(substr(md5(n || 'x' || turn), 1, 12)) AS id
                  FROM generate_series(1, {people // len(rows) + 1}) AS turn CROSS JOIN sample ORDER BY random() LIMIT {people}) AS drawn
            ON CONFLICT DO NOTHING""",
    )
    cluster.sql("hub", "VACUUM ANALYZE people")


class Client:
    def __init__(self, path):
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(path)

    def ask(self, target):
        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=")

        claims = {
            "iss": "fedgate", "aud": "fedhis", "sub": "BENCH", "roles": [], "endpoint": "people", "method": "GET", "path": "/people",
            "scope": "global", "subject": None, "grants": [], "rid": "r", "pol": "p", "iat": int(time.time()), "exp": int(time.time()) + 30,
        }  # fmt: skip
        signed = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + part(json.dumps(claims).encode())
        token = signed + b"." + part(hmac.new(SECRET, signed, hashlib.sha256).digest())
        began = time.monotonic()
        self.connection.request("GET", target, headers={"Fedgate-Assertion": token.decode()})
        answer = self.connection.getresponse()
        text = answer.read()
        took = (time.monotonic() - began) * 1000
        return took, answer.status, json.loads(text)


def kinds(one, dice):
    given, family, born, gender = (one[name] for name in ("name", "lastname", "dob", "gender"))
    yield "lastname", {"lastname": family}
    yield "lastname, a later page", {"lastname": family, "after": f"ESP{dice.randrange(16**12):012X}"}
    yield "name", {"name": given}
    yield "dob", {"dob": born}
    yield "gender", {"gender": gender}
    yield "gender of nobody", {"gender": "x"}
    yield "lastname and name", {"lastname": family, "name": given}
    yield "lastname, name and gender", {"lastname": family, "name": given, "gender": gender}
    yield "frequent lastname and name", {"lastname": "García", "name": "María"}
    yield "lastname and dob", {"lastname": family, "dob": born}
    yield "name and another's lastname", {"name": given, "lastname": "Etxeberria"}
    yield "all four", {"lastname": family, "name": given, "dob": born, "gender": gender}
    yield "no filter", {"after": f"ESP{dice.randrange(16**12):012X}"}


def target(members):
    return "/people?limit=50&" + urllib.parse.urlencode(members)


def main():
    program, people = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    directory, cluster, process = tempfile.mkdtemp(prefix="lists-bench-"), Cluster(), None
    try:
        cluster.sql("postgres", "CREATE DATABASE hub")
        began = time.monotonic()
        fill(cluster, people)
        print(f"{cluster.sql('hub', 'SELECT count(*) FROM people')} people filled in {time.monotonic() - began:.0f} s", flush=True)
        config, path = f"{directory}/fedgate.toml", f"{directory}/his.sock"
        with open(os.open(f"{directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(SECRET)
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[store]\nkind = "postgres"\nuri = "host={cluster.directory} user=postgres dbname=hub"\n[assertion]\nsecret_file = "key"\n[his]\nlisten = "unix:{path}"\n')
        began = time.monotonic()
        told = subprocess.run([program, "migrate", "--config", config], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
        print("".join(f"  {line}\n" for line in told.splitlines() if "building" in line), end="")
        sizes = cluster.sql("hub", "SELECT string_agg(indexrelname || ' ' || pg_relation_size(indexrelid) / 1048576 || ' MiB', ', ') FROM pg_stat_user_indexes WHERE relname = 'people'")
        print(f"migrated in {time.monotonic() - began:.0f} s; table {cluster.sql('hub', 'SELECT pg_table_size($$people$$) / 1048576')} MiB, {sizes}", flush=True)
        cluster.sql("hub", "UPDATE fedgate_person_index SET upto = NULL; DELETE FROM fedgate_person_keys_due")
        cluster.sql("hub", "VACUUM ANALYZE")
        known = [json.loads(line) for line in cluster.sql("hub", "SELECT data FROM people TABLESAMPLE SYSTEM (1) LIMIT 20000").splitlines()]
        log = open(f"{directory}/log", "wb")
        process = subprocess.Popen([program, "serve", "--config", config], stderr=log, stdout=log)
        while not os.path.exists(path):
            time.sleep(0.05)
        time.sleep(0.5)
        client, dice, times = Client(path), random.Random(3), {}
        for number in range(ASKED + 20):
            for kind, members in kinds(dice.choice(known), dice):
                took, status, answer = client.ask(target(members))
                assert status == 200, answer
                # The first ones fill caches.
                if number >= 20:
                    times.setdefault(kind, []).append((took, len(answer)))
        for kind, asked in times.items():
            took, rows = sorted(one[0] for one in asked), sum(one[1] for one in asked) / len(asked)
            at = lambda share: took[min(int(len(took) * share), len(took) - 1)]  # noqa: E731
            print(f"{kind:28} p50 {at(0.5):6.1f} ms  p99 {at(0.99):6.1f} ms  most {took[-1]:6.1f} ms  rows {rows:5.1f}", flush=True)
        for name in ("dob", "lastname", "name", "gender"):
            cluster.sql("hub", f"DROP INDEX fedgate_people_{name}")
        took, status, _ = client.ask(target({"lastname": "Casadevall", "name": "Nobody"}))
        print(f"without the indexes, a lastname that few have: {took:.0f} ms, status {status}", flush=True)
    finally:
        if process:
            process.kill()
            process.wait()
        cluster.stop()
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
