#!/usr/bin/env python3
"""Measures reads by a replica: python3 benches/replicas.py target/release/fedhis [SECONDS]

Starts a primary and a standby on this machine, and two processes of fedhis on the same database: one reads from the standby,
one has no replicas. wrk asks each in turns, and with --writes while pages are written beside. For each kind of read it prints
the medians of the rounds: reads in a second, the CPU time that the primary, the standby and fedhis take for one, and how many
reads share a question to the primary. All programs share the cores of this machine, so the rates say little of two machines:
what the primary is spared is its CPU time.

It needs PostgreSQL's programs and wrk.
"""

import argparse
import importlib.machinery
import importlib.util
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import types
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
loader = importlib.machinery.SourceFileLoader("his_bench", os.path.join(HERE, "his"))
his = importlib.util.module_from_spec(importlib.util.spec_from_loader("his_bench", loader))
loader.exec_module(his)

LIMIT = 50
his.KINDS["list"] = (f"GET /people?gender=f&limit={LIMIT}", "GET", "/people")


class Standby(his.relay.Cluster):
    """A standby of a cluster."""

    def __init__(self, primary):
        self.directory = tempfile.mkdtemp(prefix="relay-bench-")
        self.programs, self.user = primary.programs, primary.user
        if self.user:
            shutil.chown(self.directory, "postgres")
        data = f"{self.directory}/data"
        self.run("pg_basebackup", "-U", "postgres", "-h", primary.directory, "--write-recovery-conf", "--checkpoint=fast", "-D", data)
        options = f"-k {self.directory} -c listen_addresses=''"
        self.run("pg_ctl", "-D", data, "-w", "-l", f"{self.directory}/log", "-o", options, "start")


class Reader:
    """fedhis on the filled database, with replicas or without."""

    def __init__(self, arguments, cluster, replica):
        self.port, self.admin = his.common.free_port(), his.common.free_port()
        self.directory = tempfile.mkdtemp(prefix="his-bench-")
        with open(os.open(f"{self.directory}/key", os.O_CREAT | os.O_WRONLY, 0o600), "wb") as file:
            file.write(his.relay.SECRET)
        uri = "host={} user=postgres dbname=his"
        read = f'read_uris = ["{uri.format(replica.directory)}"]\n' if replica else ""
        with open(f"{self.directory}/fedgate.toml", "w", encoding="utf-8") as file:
            file.write(
                f'[store]\nkind = "postgres"\nuri = "{uri.format(cluster.directory)}"\n{read}'
                f"pool_size = {arguments.connections}\n[assertion]\nsecret_file = \"key\"\n"
                f'[his]\nlisten = "127.0.0.1:{self.port}"\nadmin = ["127.0.0.1:{self.admin}"]\n'
            )
        log = open(f"{self.directory}/log", "wb")
        command = [arguments.program, "serve", "--config", f"{self.directory}/fedgate.toml"]
        self.process = subprocess.Popen(command, stderr=log, stdout=log)
        his.common.await_port(self.port, self.process)
        while replica and self.figures().get('fedhis_replica_up{replica="1"}') != 1:
            time.sleep(0.1)
        self.processes, self.patience = [self.process], 1

    def figures(self):
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics").read().decode()
        return {name: float(value) for name, value in re.findall(r"^(\S+) (\S+)$", text, re.M) if not name.startswith("#")}

    def stop(self):
        self.process.terminate()
        self.process.wait()


def used(cluster):
    return his.measure.used(types.SimpleNamespace(processes=[types.SimpleNamespace(pid=cluster.processes()[0])]))[0]


class ListLoad(his.Load):
    """Pages of a list that many people are in."""

    def lines(self, seconds):
        self.is_ready = True
        now = int(time.time())
        with open(self.file, "w", encoding="ascii") as file:
            for at in range(200):
                claims = {
                    "iss": "fedgate", "aud": "fedhis", "sub": f"NODE{at % his.ACCOUNTS}", "roles": ["health_professional"],
                    "endpoint": "people", "method": "GET", "path": "/people", "scope": "global", "grants": [],
                    "rid": "01JDKQ3T5XG3Z6", "pol": "p", "iat": now, "exp": now + 3600,
                }  # fmt: skip
                path = f"/people?gender=f&limit={LIMIT}&after={his.FIRST + at * 9}"
                file.write(f"GET\t{path}\t{his.relay.token(claims)}\t\n")


def turn(arguments, load, reader, primary, standby):
    before = reader.figures(), used(primary), used(standby), his.measure.used(reader)[0]
    found = load.run(reader, arguments.seconds)
    after = reader.figures(), used(primary), used(standby), his.measure.used(reader)[0]
    grown = lambda name: after[0].get(name, 0) - before[0].get(name, 0)  # noqa: E731
    spent = [(then - now) / found["all"] for then, now in zip(after[1:], before[1:])]
    questions = grown("fedhis_position_questions_total")
    outcomes = [re.search('"(.*)"', name)[1] for name in after[0] if name.startswith("fedhis_replica_reads_total")]
    reads = {name: grown(f'fedhis_replica_reads_total{{outcome="{name}"}}') for name in outcomes}
    all_reads = sum(reads.values()) or 1
    return {
        "rate": found["good"] / found["seconds"], "primary": spent[0], "standby": spent[1], "fedhis": spent[2],
        "shared": grown("fedhis_position_answers_total") / questions if questions else 0,
        "replica": reads.get("replica", 0) / all_reads, "lag": reads.get("lag", 0) / all_reads,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="fedhis")
    parser.add_argument("--kinds", default="page,book,list", help="which requests: %(default)s")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of each turn: %(default)s")
    parser.add_argument("--connections", type=int, default=16, help="of wrk and of each pool: %(default)s")
    parser.add_argument("--writes", type=float, default=0, help="pages written in a second beside: %(default)s")
    arguments = parser.parse_args()
    arguments.his, arguments.writers = "", 1
    primary = his.relay.Cluster()
    standby, readers, filler = None, [], None
    with tempfile.TemporaryDirectory(prefix="his-bench-") as arguments.place:
        try:
            filler = his.Service(arguments, primary, "his")
            filler.stop()
            standby = Standby(primary)
            readers = [Reader(arguments, primary, None), Reader(arguments, primary, standby)]
            is_over = threading.Event()

            def write():
                script = f"{arguments.place}/write.sql"
                with open(script, "w", encoding="ascii") as file:
                    file.write(f"UPDATE pols SET data = data || '{{\"info\": \"x\"}}' WHERE book = '{his.FIRST}' AND id = '{his.FIRST * his.PAGES}';")
                command = ["pgbench", "-n", "-f", script, "-c", "2", "-R", str(arguments.writes), "-T", "600", "-h", primary.directory, "-U", "postgres", "his"]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                is_over.wait()
                process.kill()

            writer = threading.Thread(target=write)
            if arguments.writes:
                writer.start()
            for kind in arguments.kinds.split(","):
                load = (ListLoad if kind == "list" else his.Load)(arguments, kind)
                turns = {False: [], True: []}
                for number in range(arguments.rounds + 1):
                    for at in (0, 1) if number % 2 else (1, 0):
                        found = turn(arguments, load, readers[at], primary, standby)
                        # The first turns fill caches and pools.
                        if number:
                            turns[bool(at)].append(found)
                print(his.KINDS[kind][0])
                for has_replica, of in turns.items():
                    middle = lambda name: statistics.median(one[name] for one in of)  # noqa: E731,B023
                    print(
                        f"    {'with a replica' if has_replica else 'without one  '}: {middle('rate'):.0f}/s; CPU, µs: primary "
                        f"{middle('primary'):.1f}, standby {middle('standby'):.1f}, fedhis {middle('fedhis'):.1f}; reads for a "
                        f"question {middle('shared'):.1f}; by the replica {middle('replica'):.3f}, late {middle('lag'):.3f}",
                        flush=True,
                    )
            is_over.set()
        finally:
            [reader.stop() for reader in readers]
            if standby:
                standby.stop()
            primary.stop()


if __name__ == "__main__":
    main()
