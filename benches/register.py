#!/usr/bin/env python3
"""Measures the index of persons at scale: python3 benches/register.py target/release/fedhis 1000000 [postgres|sqlite]

It makes so many people with Spanish, Portuguese and Arabic names, three in a hundred of whom are recorded twice, and prints:

1. `fedhis index dedupe`: time, memory, pairs judged, and how many of the pairs that are one person it finds.
2. How long all keys take to be made while `fedhis serve` runs, and the room that they take.
3. `POST /index/match` with a corrupted record, by one client: the time of an answer, and how often the person is found.
4. Registrations in a second with `?on_match=refuse`, by eight clients.
5. A POST of a person with the index and the relay, as a ratio to one without: CPU of fedhis and PostgreSQL together.

It needs PostgreSQL's programs, and starts a private cluster in a temporary directory. REGISTER_PROBES is how many persons
are asked for (500).
"""

import http.client
import itertools
import json
import os
import random
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import people  # noqa: E402
import relay  # noqa: E402

PROBES = int(os.environ.get("REGISTER_PROBES", "500"))
TWICE = 0.03
SYLLABLES = "al an ar as ba be ca co da de el en er fa fer ga go gu her in ja la le lo lu ma me mo na ne no ol or os pe pi qui ra re ri ro sa se so ta te to tu va ve vi za zu".split()


class Land(people.Town):
    """A town with as many surnames as a country has."""

    def __init__(self, seed):
        super().__init__(seed)
        source = random.Random(seed)
        made = {"".join(source.choices(SYLLABLES, k=source.choice([2, 3, 3, 4]))).capitalize() for _ in range(20_000)}
        self.lists = {id(names): names for names in (people.WOMEN, people.MEN, people.ARABIC)}
        self.lists[id(people.IBERIAN)] = [*people.IBERIAN, *sorted(made)]
        self.weights = {
            key: list(itertools.accumulate(1 / (place + 3) for place in range(len(names))))
            for key, names in self.lists.items()
        }

    def pick(self, names):
        return self.random.choices(self.lists[id(names)], cum_weights=self.weights[id(names)])[0]

    def household(self):
        home = super().household()
        return home | {"postal_code": f"{self.random.randint(1, 52):02d}{self.random.randint(1, 120):03d}"}


def document(record):
    text = {"name": record["given"], "lastname": record["family"], "gender": record["gender"], "roles": ["end_user"]}
    if record["birth_date"]:
        text["dob"] = record["birth_date"]
    if record["phone"]:
        text["phone"] = record["phone"]
    text["address"] = {"suburb": record["city"], "postcode": record["postal_code"], "street": "Calle Mayor 1"}
    return json.dumps(text, ensure_ascii=False)


def register(count):
    """Ids with documents, the pairs that are one person, and some corrupted records with their ids."""
    land = Land(11)
    rows, pairs, probes = [], [], []
    number = 0
    while len(rows) < count:
        person = land.person()
        number += 1
        one = f"ESP{number:09d}ORG"
        rows.append((one, document(person)))
        if land.random.random() < TWICE:
            copy = person
            for _ in range(land.random.choice([0, 1, 1, 2])):
                copy = land.error(copy)
            number += 1
            rows.append((f"ESP{number:09d}ORG", document(copy)))
            pairs.append((one, rows[-1][0]))
        elif len(probes) < PROBES and land.random.random() < PROBES / count * 4:
            probes.append((one, document(land.error(person))))
    return rows, pairs, probes


def configuration(directory, store):
    with open(os.open(f"{directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
        file.write(relay.SECRET)
    config = f"{directory}/fedgate.toml"
    with open(config, "w", encoding="utf-8") as file:
        file.write(f"[store]\n{store}[assertion]\nsecret_file = \"key\"\n[his]\nlisten = \"unix:{directory}/his.sock\"\n")
    return config


def postgres(cluster, rows):
    cluster.sql("postgres", "CREATE DATABASE register")
    cluster.sql("register", "CREATE TABLE people (id varchar PRIMARY KEY, data jsonb)")
    copy = subprocess.Popen(
        ["psql", "-X", "-q", "-U", "postgres", "-h", cluster.directory, "-d", "register", "-c", "COPY people (id, data) FROM STDIN"],
        stdin=subprocess.PIPE, text=True,
    )  # fmt: skip
    for person, text in rows:
        escaped = text.replace("\\", "\\\\")
        copy.stdin.write(f"{person}\t{escaped}\n")
    copy.stdin.close()
    assert copy.wait() == 0
    cluster.sql("register", "ANALYZE people")


def run(program, *arguments):
    """The last line of a command, with its time (on the clock, and on a processor) and memory."""
    began = time.monotonic()
    child = subprocess.Popen([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    text = child.stdout.read()
    _, status, used = os.wait4(child.pid, 0)
    assert status == 0, text
    seconds = time.monotonic() - began, used.ru_utime + used.ru_stime
    return text.strip().splitlines()[-1] if text.strip() else "", seconds, used.ru_maxrss / 1024


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Asker:
    """A connection that is kept, with the assertions of a gateway."""

    def __init__(self, place):
        self.connection = http.client.HTTPConnection("his", timeout=60)
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(place)

    def ask(self, method, target, body, endpoint, grants=()):
        """Status and text of an answer."""
        path = target.split("?")[0]
        now = int(time.time())
        claims = {
            "iss": "fedgate", "aud": "fedhis", "sub": "NODE", "roles": [], "endpoint": endpoint, "method": method,
            "path": path, "scope": "global", "subject": path.split("/")[2] if endpoint == "person" else None,
            "grants": list(grants), "rid": "r", "pol": "p", "iat": now, "exp": now + 30,
        }  # fmt: skip
        headers = {"Fedgate-Assertion": relay.token(claims), "Content-Type": "application/json"}
        self.connection.request(method, target, body.encode(), headers)
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def main():
    program, count = sys.argv[1], int(sys.argv[2])
    kind = sys.argv[3] if len(sys.argv) > 3 else "postgres"
    began = time.monotonic()
    rows, pairs, probes = register(count)
    print(f"{len(rows)} persons, {len(pairs)} of them recorded twice, made in {time.monotonic() - began:.0f} s", flush=True)
    directory = tempfile.mkdtemp(prefix="register-bench-")
    cluster = None
    if kind == "postgres":
        cluster = relay.Cluster()
        postgres(cluster, rows)
        store = f'kind = "postgres"\nuri = "host={cluster.directory} user=postgres dbname=register"\n'
    else:
        store = f'kind = "sqlite"\npath = "{directory}/his.db"\n'
    config = configuration(directory, store)
    _, (seconds, _), _ = run(program, "migrate", "--config", config)
    print(f"migrate: {seconds:.1f} s", flush=True)
    if cluster is None:
        with sqlite3.connect(f"{directory}/his.db") as database:
            database.create_function("fedgate", 0, lambda: 1)
            names = database.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'people'").fetchall()
            for name, _ in names:
                database.execute(f"DROP TRIGGER {name}")
            database.executemany("INSERT INTO people (id, data) VALUES (?, ?)", ((person, text.replace("{", '{"id": "%s", ' % person, 1)) for person, text in rows))
        run(program, "migrate", "--config", config)
    text, (seconds, cpu), mib = run(program, "index", "--json", "dedupe", "--config", config)
    told = json.loads(text)
    sql = "SELECT one || ' ' || other FROM fedgate_person_pairs"
    if cluster:
        listed = set(cluster.sql("register", sql).splitlines())
    else:
        with sqlite3.connect(f"{directory}/his.db") as database:
            listed = {row[0] for row in database.execute(sql)}
    wanted = {" ".join(sorted(pair)) for pair in pairs}
    print(
        f"dedupe: {seconds:.0f} s, {cpu:.0f} s of CPU, {mib:.0f} MiB, {told['judged']} pairs judged, {told['found']} on the list, "
        f"{told['keys_left_out']} keys left out; of {len(wanted)} pairs that are one person {len(wanted & listed)} are on it",
        flush=True,
    )
    serve(program, config, directory, cluster, probes)
    if cluster:
        cost(program, cluster)
        cluster.stop()


def serve(program, config, directory, cluster, probes):
    service = subprocess.Popen([program, "serve", "--config", config], stderr=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        state = "SELECT coalesce(upto, 'all') FROM fedgate_person_index"

        def upto():
            if cluster:
                return cluster.sql("register", state)
            with sqlite3.connect(f"{directory}/his.db", timeout=60) as database:
                return database.execute(state).fetchone()[0]

        while upto() != "all":
            time.sleep(1)
        processes = [service.pid, *(cluster.processes() if cluster else [])]
        spent = relay.cpu_seconds(processes)
        print(f"keys of all persons: {time.monotonic() - began:.0f} s, {spent:.0f} s of CPU", flush=True)
        if cluster:
            size = "SELECT (pg_total_relation_size('fedgate_person_keys') + pg_total_relation_size('fedgate_compared_persons')) / 1048576"
            print(f"room of the keys: {cluster.sql('register', size)} MiB", flush=True)
            cluster.sql("register", "VACUUM ANALYZE fedgate_person_keys")
        while not os.path.exists(f"{directory}/his.sock"):
            time.sleep(0.1)
        hub = Asker(f"{directory}/his.sock")
        times, found = [], 0
        for round_ in (0, 1):
            before = relay.cpu_seconds(processes)
            for person, text in probes:
                began = time.monotonic()
                status, answer = hub.ask("POST", "/index/match", text, "match")
                assert status == 200, answer
                if round_:
                    times.append(time.monotonic() - began)
                    found += any(candidate["person"] == person for candidate in json.loads(answer))
        print(
            f"match: p50 {quantile(times, 0.5) * 1000:.1f} ms, p95 {quantile(times, 0.95) * 1000:.1f} ms, "
            f"{(relay.cpu_seconds(processes) - before) / len(probes) * 1000:.1f} ms of CPU; "
            f"{found} of {len(probes)} corrupted records find their person",
            flush=True,
        )
        registrations(directory, service, cluster)
    finally:
        service.terminate()
        service.wait()


def registrations(directory, service, cluster):
    """New persons by eight clients, each asked of the index first."""
    land, lock = Land(12), threading.Lock()
    each, clients = 250, 8
    documents = [[document(land.person()) for _ in range(each)] for _ in range(clients)]
    answers = []

    def client(number):
        hub = Asker(f"{directory}/his.sock")
        for at, text in enumerate(documents[number]):
            target = f"/people/PRT{number}{at:06d}ORG"
            status, _ = hub.ask("POST", f"{target}?on_match=refuse", text, "person", ["match", "account"])
            with lock:
                answers.append(status)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    processes = [service.pid, *(cluster.processes() if cluster else [])]
    began, before = time.monotonic(), relay.cpu_seconds(processes)
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    seconds, cpu = time.monotonic() - began, relay.cpu_seconds(processes) - before
    stored = answers.count(200)
    print(f"registrations with a match: {len(answers) / seconds:.0f} in a second, {cpu / len(answers) * 1000:.1f} ms of CPU each; {stored} of {len(answers)} stored", flush=True)


def cost(program, cluster):
    """A POST of a person with relay and index, as a ratio to one without their triggers: CPU of all processes."""
    hubs = [relay.Hub(program, cluster, "beside"), relay.Hub(program, cluster, "without")]
    names = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'people'::regclass AND (tgname LIKE 'fedgate_message%' OR tgname LIKE 'fedgate_person%')"
    for name in cluster.sql("without", names).splitlines():
        cluster.sql("without", f"DROP TRIGGER {name} ON people")
    land, spent = Land(13), {hub: [] for hub in hubs}
    each, clients, rounds = 60, 8, 7
    for turn in range(rounds + 1):
        for hub in hubs:
            documents = [[document(land.person()) for _ in range(each)] for _ in range(clients)]

            def client(number):
                asker = Asker(hub.socket)
                for at, text in enumerate(documents[number]):
                    target = f"/people/R{turn}C{number}N{at}"
                    status, answer = asker.ask("POST", target, text, "person", ["account"])
                    assert status == 200, answer

            processes = [hub.process.pid, *cluster.processes()]
            before = relay.cpu_seconds(processes)
            threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
            [thread.start() for thread in threads]
            [thread.join() for thread in threads]
            # The index has followed: its work belongs to the POST.
            due = "SELECT (SELECT count(*) FROM fedgate_person_keys_due) + (SELECT count(*) FROM fedgate_person_pairs_due)"
            while cluster.sql(hub.database, due) != "0":
                time.sleep(0.05)
            if turn > 0:
                spent[hub].append((relay.cpu_seconds(processes) - before) / (each * clients) * 1e6)
    [beside, without] = [statistics.median(spent[hub]) for hub in hubs]
    print(f"a POST of a person: {beside:.0f} µs CPU with relay and index, {without:.0f} without: {beside / without:.2f} times")
    [hub.stop() for hub in hubs]


if __name__ == "__main__":
    main()
