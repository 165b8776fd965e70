#!/usr/bin/env python3
"""Measures the message server on PostgreSQL: python3 benches/relay.py target/release/fedhis

1. A POST of a page with its message, as a ratio to one without: CPU of fedhis and PostgreSQL together, and time. The
   baseline is a second database of the same run whose triggers were dropped.
2. How many waiting messages get their positions in a second.
3. From the acknowledgement of a write to a reader, by long poll and by event stream.
4. What a POST costs while people wait for messages about themselves, as a ratio to one while nobody waits.

It needs PostgreSQL's programs, and starts a private cluster in a temporary directory. RELAY_POSTS is how many pages each
round posts (400), RELAY_CLIENTS how many clients post them at once (8), and RELAY_READERS how many people wait (500).
"""

import base64
import glob
import hashlib
import hmac
import http.client
import json
import multiprocessing
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

SECRET = b"a secret of thirty-two bytes ...."
POSTS = int(os.environ.get("RELAY_POSTS", "400"))
CLIENTS = int(os.environ.get("RELAY_CLIENTS", "8"))
READERS = int(os.environ.get("RELAY_READERS", "500"))
ROUNDS = 7
WAITING = 100_000
PEOPLE = 100
PAGE = {
    "page_date": "1985-10-04T13:05:00Z", "page_type": "medical", "medical_context": "birth", "relevance": "important",
    "health_condition_code": "O80", "health_condition_text": "Single spontaneous delivery", "summary": "Birth in Italy",
    "info": "Born at Milano General Hospital.", "node": "Milano General Hospital", "author": "Cameron Cordara",
}  # fmt: skip


class Cluster:
    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="relay-bench-")
        programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda path: int(path.split("/")[4]))
        self.programs = programs[-1] + "/" if programs else ""
        # PostgreSQL refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.user:
            shutil.chown(self.directory, "postgres")
        self.run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "-D", f"{self.directory}/data")
        options = f"-k {self.directory} -c listen_addresses=''"
        self.run("pg_ctl", "-D", f"{self.directory}/data", "-w", "-l", f"{self.directory}/log", "-o", options, "start")

    def run(self, program, *arguments):
        command = [*self.user, self.programs + program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, cwd="/")

    def sql(self, database, text):
        command = ["psql", "-X", "-q", "-A", "-t", "-U", "postgres", "-h", self.directory, "-d", database, "-c", text]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def processes(self):
        with open(f"{self.directory}/data/postmaster.pid", encoding="ascii") as file:
            server = int(file.readline())
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(server)], capture_output=True, text=True, check=True)
        return [server, *map(int, listed.stdout.split())]

    def stop(self):
        self.run("pg_ctl", "-D", f"{self.directory}/data", "-m", "immediate", "stop")
        shutil.rmtree(self.directory)


class Hub:
    """A process of fedhis on a database of its own, with some people."""

    def __init__(self, program, cluster, database):
        self.cluster, self.database = cluster, database
        self.directory = tempfile.mkdtemp(prefix="relay-bench-")
        self.socket = f"{self.directory}/his.sock"
        with open(os.open(f"{self.directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(SECRET)
        config = f"{self.directory}/fedgate.toml"
        with open(config, "w", encoding="utf-8") as file:
            file.write(
                f'[store]\nkind = "postgres"\nuri = "host={cluster.directory} user=postgres dbname={database}"\n'
                f'[assertion]\nsecret_file = "key"\n[his]\nlisten = "unix:{self.socket}"\n'
            )
        cluster.sql("postgres", f"CREATE DATABASE {database}")
        subprocess.run([program, "migrate", "--config", config], check=True, stdout=subprocess.DEVNULL)
        cluster.sql(database, f"INSERT INTO people (id, data) SELECT 'P' || n, '{{}}' FROM generate_series(0, {2 * PEOPLE}) n")
        log = open(f"{self.directory}/log", "wb")
        self.process = subprocess.Popen([program, "serve", "--config", config], stderr=log, stdout=log)
        while not os.path.exists(self.socket):
            time.sleep(0.01)
        time.sleep(0.2)

    def stop(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.directory)


class Client:
    """A connection that is kept, with the assertions of a gateway."""

    def __init__(self, hub):
        self.connection = http.client.HTTPConnection("his", timeout=60)
        self.connection.sock = socket.socket(socket.AF_UNIX)
        self.connection.sock.connect(hub.socket)

    def open(self, method, target, body=None, accept="application/json"):
        self.begin(method, target, body, accept)
        return self.connection.getresponse()

    def begin(self, method, target, body=None, accept="application/json", account="NODE", scope="global"):
        path = target.split("?")[0]
        subject = path.split("/")[2] if path.startswith("/pols/") else None
        now = int(time.time())
        claims = {
            "iss": "fedgate", "aud": "fedhis", "sub": account, "roles": [], "endpoint": "page" if subject else "messages",
            "method": method, "path": path, "scope": scope, "subject": subject, "grants": [], "rid": "r", "pol": "p",
            "iat": now, "exp": now + 30,
        }  # fmt: skip
        headers = {"Fedgate-Assertion": token(claims), "Accept": accept, "Content-Type": "application/json"}
        self.connection.request(method, target, body, headers)

    def ask(self, method, target, body=None):
        answer = self.open(method, target, body)
        text = answer.read()
        assert answer.status == 200, (answer.status, text)
        return json.loads(text), answer.headers.get("Link")

    def post_page(self):
        page = str(uuid.uuid4())
        self.ask("POST", f"/pols/P{uuid.uuid4().int % PEOPLE}/{page}", json.dumps({"id": page, **PAGE}))
        return page


def token(claims):
    def plain(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    text = plain(b'{"alg":"HS256","typ":"JWT"}') + b"." + plain(json.dumps(claims).encode())
    return (text + b"." + plain(hmac.digest(SECRET, text, hashlib.sha256))).decode()


def cpu_seconds(processes):
    """The time on a processor of all threads of these processes (proc(5), schedstat: nanoseconds)."""
    spent = 0
    for process in processes:
        for path in glob.glob(f"/proc/{process}/task/*/schedstat"):
            try:
                with open(path, encoding="ascii") as file:
                    spent += int(file.read().split()[0])
            except OSError:
                pass
    return spent / 1e9


def post_pages(clients):
    posting = [threading.Thread(target=lambda c=c: [c.post_page() for _ in range(POSTS // CLIENTS)]) for c in clients]
    for thread in posting:
        thread.start()
    for thread in posting:
        thread.join()


def measure_posts(cluster, hubs):
    """For each hub the CPU and the time of a POST, in µs: the medians of the rounds, which alternate.

    The other hub looks for messages meanwhile, on the same cluster, in every round alike.
    """
    clients = {hub: [Client(hub) for _ in range(CLIENTS)] for hub in hubs}
    found = {hub: ([], []) for hub in hubs}
    for turn in range(ROUNDS + 1):
        for hub in hubs:
            processes = [hub.process.pid, *cluster.processes()]
            before, began = cpu_seconds(processes), time.monotonic()
            post_pages(clients[hub])
            took, spent = time.monotonic() - began, cpu_seconds(processes) - before
            # The first round fills caches and pools.
            if turn > 0:
                found[hub][0].append(spent / POSTS * 1e6)
                found[hub][1].append(took / POSTS * 1e6)
    return [[statistics.median(values) for values in found[hub]] for hub in hubs]


def measure_positions(cluster, hub):
    """Messages in a second, of many that are committed at once to a hub that knew few so far."""
    client = Client(hub)
    for _ in range(20):
        client.post_page()
    insert = f"INSERT INTO dus (id, data) SELECT 'U' || n, '{{}}' FROM generate_series(1, {WAITING}) n"
    done = f"SELECT position >= {WAITING} FROM fedgate_relay"
    cluster.sql(hub.database, insert)
    began = time.monotonic()
    while cluster.sql(hub.database, done) != "t":
        time.sleep(0.02)
    return WAITING / (time.monotonic() - began)


def follow_stream(hub, after, stop, found):
    answer, seen = Client(hub).open("GET", f"/messages?after={after}", accept="text/event-stream"), {}
    while not stop.is_set():
        line = answer.readline()
        if line.startswith(b"data: "):
            seen[json.loads(line[6:])["id"]] = time.monotonic()
    found.put(seen)


def follow_polls(hub, after, stop, found):
    client, seen = Client(hub), {}
    while not stop.is_set():
        messages, link = client.ask("GET", f"/messages?after={after}&wait=2")
        now = time.monotonic()
        seen.update({message["id"]: now for message in messages})
        after = link.split("after=")[1].split(">")[0].split("&")[0]
    found.put(seen)


def measure_latency(hub, rate=25, seconds=12):
    """From the acknowledgement of a POST to a reader, in ms. Readers are processes, so that none waits for another."""
    after = Client(hub).ask("GET", "/messages?after=last")[1].split("after=")[1].split(">")[0].split("&")[0]
    stop, found = multiprocessing.Event(), {"long poll": multiprocessing.Queue(), "event stream": multiprocessing.Queue()}
    for follow, queue in zip((follow_polls, follow_stream), found.values()):
        multiprocessing.Process(target=follow, args=(hub, after, stop, queue), daemon=True).start()
    client, acknowledged, took = Client(hub), {}, []
    for _ in range(rate * seconds):
        began = time.monotonic()
        acknowledged[client.post_page()] = time.monotonic()
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(1 / rate)
    time.sleep(2)
    stop.set()
    # A last message ends their waits.
    client.post_page()
    seen = {name: queue.get(timeout=30) for name, queue in found.items()}
    late = {name: [max(seen[name][page] - at, 0) * 1e3 for page, at in acknowledged.items()] for name in seen}
    return {name: statistics.quantiles(values, n=100) for name, values in {"baseline, the POST itself": took, **late}.items()}


def measure_waiting(cluster, hub):
    """The CPU of a POST in µs, without and with people who wait for messages about themselves, and get none."""
    clients, processes = [Client(hub) for _ in range(CLIENTS)], lambda: [hub.process.pid, *cluster.processes()]

    def spent():
        before = cpu_seconds(processes())
        post_pages(clients)
        return (cpu_seconds(processes()) - before) / POSTS * 1e6

    alone = statistics.median(spent() for _ in range(3))
    readers = [Client(hub) for _ in range(READERS)]
    for number, reader in enumerate(readers):
        account = f"P{PEOPLE + number % PEOPLE}"
        reader.begin("GET", "/messages?after=last&wait=60", account=account, scope="own")
    time.sleep(2)
    return alone, statistics.median(spent() for _ in range(3))


def main():
    program = os.path.abspath(sys.argv[1])
    cluster = Cluster()
    hubs = []
    try:
        hubs.append(Hub(program, cluster, "with_messages"))
        hubs.append(Hub(program, cluster, "without"))
        cluster.sql("without", "DROP TRIGGER fedgate_message ON pols")
        (cpu, took), (cpu_without, took_without) = measure_posts(cluster, hubs)
        print(f"POST of a page by {CLIENTS} clients: CPU {cpu:.0f} µs with its message, {cpu_without:.0f} without: {cpu / cpu_without:.2f}")
        print(f"POST of a page by {CLIENTS} clients: time {took:.0f} µs with, {took_without:.0f} without: {took / took_without:.2f}", flush=True)
        for name, of in measure_latency(hubs[0]).items():
            print(f"acknowledgement to reader: {name}: p50 {of[49]:.1f} ms, p95 {of[94]:.1f} ms, p99 {of[98]:.1f} ms", flush=True)
        alone, beside = measure_waiting(cluster, hubs[0])
        print(f"POST of a page while {READERS} people wait: CPU {beside:.0f} µs, {alone:.0f} while nobody waits: {beside / alone:.2f}", flush=True)
        hubs.append(Hub(program, cluster, "many"))
        print(f"positions: {measure_positions(cluster, hubs[2]):.0f} waiting messages in a second")
    finally:
        for hub in hubs:
            hub.stop()
        cluster.stop()


if __name__ == "__main__":
    main()
