#!/usr/bin/env python3
"""Measures GET /people?q=… of fedhis: python3 benches/search.py target/release/fedhis [PEOPLE]

Loads PEOPLE records (100,000) of benches/people.py into SQLite and into PostgreSQL, waits until they are indexed, and asks
queries of several kinds whose words are taken from the records. It prints how long the index took, what it takes on
disk, and for each kind the percentiles of the time from the request to the whole answer, at fedhis itself.

It needs PostgreSQL's programs, and starts a private cluster in a temporary directory. SEARCH_ASKED is how often each kind
is asked (300), SEARCH_STORES which stores are measured (sqlite postgres).
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
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, os.path.dirname(__file__))
from people import COLUMNS  # noqa: E402
from relay import SECRET, Cluster, cpu_seconds  # noqa: E402

ASKED = int(os.environ.get("SEARCH_ASKED", "300"))
STORES = os.environ.get("SEARCH_STORES", "sqlite postgres").split()


def records(people):
    """The records, each with an id as GNU Health makes them."""
    script = os.path.join(os.path.dirname(__file__), "people.py")
    text = subprocess.run([sys.executable, script, str(people), "1"], check=True, capture_output=True, text=True).stdout
    ids = random.Random(2)
    rows = list(csv.DictReader(io.StringIO(text)))[:people]
    for number, row in enumerate(rows):
        letters = "".join(ids.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=6))
        document = {
            "id": f"ESP{letters[:3]}{number:07d}{letters[3:]}", "name": row["given"], "lastname": row["family"], "dob": row["birth_date"],
            "gender": row["gender"], "phone": row["phone"], "address": {"suburb": row["city"], "postcode": row["postal_code"]},
            "active": True, "roles": ["end_user"], "creation_info": {"user": "ESPHOS001ADM", "timestamp": "2026-11-30T09:00:00Z"},
        }
        yield document


class Hub:
    def __init__(self, program, store, people):
        self.program, self.store = program, store
        self.directory = tempfile.mkdtemp(prefix="search-bench-")
        self.socket, self.database = f"{self.directory}/his.sock", f"{self.directory}/his.db"
        with open(os.open(f"{self.directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(SECRET)
        self.cluster = Cluster() if store == "postgres" else None
        kind = f'kind = "sqlite"\npath = "{self.database}"\n'
        if self.cluster:
            self.cluster.sql("postgres", "CREATE DATABASE hub")
            kind = f'kind = "postgres"\nuri = "host={self.cluster.directory} user=postgres dbname=hub"\n'
        with open(f"{self.directory}/fedgate.toml", "w", encoding="utf-8") as file:
            file.write(f'[store]\n{kind}[assertion]\nsecret_file = "key"\n[his]\nlisten = "unix:{self.socket}"\n')
        config = ["--config", f"{self.directory}/fedgate.toml"]
        subprocess.run([program, "migrate", *config], check=True, stdout=subprocess.DEVNULL)
        self.load(people)
        before = self.size()
        began = time.monotonic()
        log = open(f"{self.directory}/log", "wb")
        self.process = subprocess.Popen([program, "serve", *config], stderr=log, stdout=log)
        while self.text("SELECT count(*) FROM fedgate_person_index WHERE upto IS NOT NULL") != "0":
            time.sleep(0.5)
        seconds = time.monotonic() - began
        while self.text("SELECT count(*) FROM fedgate_person_keys_due") != "0":
            time.sleep(0.5)
        print(f"{store}: {len(people)} records indexed in {seconds:.0f} s ({len(people) / seconds:.0f}/s), {self.size() - before} MiB on disk", flush=True)
        keys, words = (self.text(f"SELECT count(*) FROM {table}") for table in ("fedgate_person_keys", "fedgate_search_words"))
        print(f"{store}: {keys} keys, {words} words", flush=True)
        if self.cluster:
            self.cluster.sql("hub", "VACUUM ANALYZE")

    def load(self, people):
        # The walk of the index makes all keys, so the entries of the queue are taken out.
        if self.cluster:
            lines = "".join(f"{one['id']}\t{json.dumps(one)}\n" for one in people).replace("\\", "\\\\")
            self.copy("people (id, data)", lines)
            self.cluster.sql("hub", "DELETE FROM fedgate_person_keys_due")
        else:
            with sqlite3.connect(self.database) as connection:
                connection.executemany("INSERT INTO people (id, data) VALUES (?, ?)", ((one["id"], json.dumps(one)) for one in people))
                connection.execute("DELETE FROM fedgate_person_keys_due")
            connection.close()

    def copy(self, table, lines):
        command = ["psql", "-X", "-q", "-U", "postgres", "-h", self.cluster.directory, "-d", "hub", "-c", f"COPY {table} FROM STDIN"]
        subprocess.run(command, check=True, input=lines, text=True)

    def text(self, sql):
        if self.cluster:
            return self.cluster.sql("hub", sql)
        connection = sqlite3.connect(self.database)
        try:
            return str(connection.execute(sql).fetchone()[0])
        finally:
            connection.close()

    def size(self):
        if self.cluster:
            return int(self.cluster.sql("hub", "SELECT pg_database_size('hub')")) >> 20
        return sum(os.path.getsize(self.database + end) for end in ("", "-wal") if os.path.exists(self.database + end)) >> 20

    def stop(self):
        self.process.kill()
        self.process.wait()
        if self.cluster:
            self.cluster.stop()
        shutil.rmtree(self.directory)


class Client:
    def __init__(self, hub):
        self.connection = http.client.HTTPConnection("localhost")
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(hub.socket)

    def ask(self, query):
        def part(value):
            return base64.urlsafe_b64encode(value).rstrip(b"=")

        claims = {
            "iss": "fedgate", "aud": "fedhis", "sub": "BENCH", "roles": [], "endpoint": "people", "method": "GET", "path": "/people",
            "scope": "global", "subject": None, "grants": [], "rid": "r", "pol": "p", "iat": int(time.time()), "exp": int(time.time()) + 30,
        }
        signed = b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9." + part(json.dumps(claims).encode())
        token = signed + b"." + part(hmac.new(SECRET, signed, hashlib.sha256).digest())
        began = time.monotonic()
        self.connection.request("GET", "/people?limit=20&q=" + urllib.parse.quote(query), headers={"Fedgate-Assertion": token.decode()})
        answer = self.connection.getresponse()
        text = answer.read()
        took = time.monotonic() - began
        assert answer.status == 200, text
        return took, answer.getheader("fedgate-search"), json.loads(text)


def mistyped(word, dice):
    at = dice.randrange(1, len(word) - 1)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


def queries(one, dice):
    """Queries of each kind about one person. The kinds, and whether the person must be found if all were looked at."""
    given, family, born = one["name"].split()[0], one["lastname"].replace("-", " ").split()[-1], one["dob"]
    yield "id", one["id"]
    yield "beginning of an id", one["id"][:10]
    yield "telephone number", one["phone"] or one["id"]
    yield "date of birth", born or one["id"]
    yield "two names", f"{given} {family}"
    yield "two names, swapped, one mistyped", f"{mistyped(family, dice) if len(family) > 3 else family} {given}"
    yield "two names and year", f"{given} {family} {born[:4]}"
    yield "name and year", f"{family} {born[:4]}"
    yield "name and date", f"{given} {born}"
    yield "whole name", f"{one['name']} {one['lastname']}"
    yield "three letters of both names", f"{given[:3]} {family[:3]}"
    yield "beginning of a name", family[:4]
    yield "one name", given
    yield "maria", "maria"


def main():
    program, people = os.path.abspath(sys.argv[1]), list(records(int(sys.argv[2]) if len(sys.argv) > 2 else 100_000))
    assert COLUMNS
    for store in STORES:
        hub = Hub(program, store, people)
        try:
            client, dice, times = Client(hub), random.Random(3), {}
            for number in range(ASKED + 20):
                if number in (0, 20):
                    processes = [hub.process.pid, *(hub.cluster.processes() if hub.cluster else [])]
                one = dice.choice(people)
                for kind, query in queries(one, dice):
                    if len(query.split()) > 8:
                        continue
                    before = cpu_seconds(processes)
                    took, looked, answer = client.ask(query)
                    row = times.setdefault(kind, [[], 0, 0, 0.0])
                    # The first ones fill caches.
                    if number >= 20:
                        row[0].append(took * 1000)
                        row[1] += looked == "partial"
                        row[2] += len(answer)
                        row[3] += (cpu_seconds(processes) - before) * 1000
            for kind, (took, partial, found, cpu) in times.items():
                took.sort()
                at = lambda share: took[min(int(len(took) * share), len(took) - 1)]  # noqa: E731
                print(
                    f"{store:9} {kind:34} p50 {at(0.5):6.1f} ms  p95 {at(0.95):6.1f} ms  p99 {at(0.99):6.1f} ms"
                    f"  CPU {cpu / len(took):5.1f} ms  partial {100 * partial // len(took):3} %  rows {found / len(took):5.1f}",
                    flush=True,
                )
        finally:
            hub.stop()


if __name__ == "__main__":
    main()
