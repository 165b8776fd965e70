"""What the measurements of this folder share: a store with many accounts, a gateway on it, and what it used.

Accounts are called A0, A1, … and have the password "canary". Their hash is cheap where a measurement is not about hashing.
Needs nothing but Python's standard library.
"""

import base64
import glob
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time

PASSWORD = "canary"
# Its hash by bcrypt at cost 4: a millisecond.
CHEAP = "$2b$04$abcdefghijklmnopqrstuuDID1/tx.qq/9b0XGGVoFA5x6CWhZpGW"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port, process=None):
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            if time.monotonic() > deadline or (process and process.poll() is not None):
                sys.exit(f"nothing listens on {port}")
            time.sleep(0.05)


def login(number):
    return "Basic " + base64.b64encode(f"A{number}:{PASSWORD}".encode()).decode()


def cpu(pid):
    """CPU time in microseconds of all threads (nanoseconds of schedstat, not the ticks of stat)."""
    total = 0
    for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
        try:
            with open(path) as text:
                total += int(text.read().split()[0]) / 1000
        except OSError:
            pass
    return total


def resident(pid):
    """VmRSS in KiB."""
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


class Place:
    """A directory with the demo's configuration and a store, and the processes on it."""

    def __init__(self, programs, directory):
        self.programs, self.directory = os.path.abspath(programs), directory
        self.demo = os.path.join(directory, "demo")
        self.started = []
        port = free_port()
        demo = self.start([self.program("fedgate"), "demo", "--listen", f"127.0.0.1:{port}", "--dir", self.demo], port)
        self.stop(demo)

    def program(self, name):
        return os.path.join(self.programs, name)

    def start(self, command, port, **others):
        log = open(os.path.join(self.directory, f"log-{len(self.started)}-{port}"), "w")
        process = subprocess.Popen(command, **{"stdout": subprocess.DEVNULL, "stderr": log, **others})
        self.started.append(process)
        await_port(port, process)
        return process

    def stop(self, process):
        process.send_signal(signal.SIGTERM)
        process.wait()
        self.started.remove(process)

    def end(self):
        for process in reversed(self.started):
            process.kill()
            process.wait()

    def hash_of(self, cheap):
        if cheap:
            return CHEAP
        command = [self.program("fedgate"), "hash-password"]
        out = subprocess.run(command, input=PASSWORD + "\n", capture_output=True, text=True, check=True)
        return out.stdout.strip()

    def add_accounts(self, count, cheap=True):
        """Directly into the embedded store, while no program uses it."""
        store = sqlite3.connect(os.path.join(self.demo, "fedgate.db"))
        store.execute("PRAGMA synchronous = OFF")
        of_all = self.hash_of(cheap)
        rows = ((f"A{n}", f'{{"id": "A{n}", "password": "{of_all}", "active": true, "roles": ["end_user"]}}')
                for n in range(count))  # fmt: skip
        store.executemany("INSERT INTO people (id, data) VALUES (?, ?)", rows)
        store.commit()
        store.close()

    def upstream(self):
        """fedhis; returns its port."""
        port = free_port()
        environment = dict(os.environ, FEDGATE_HIS_LISTEN=f"127.0.0.1:{port}")
        config = os.path.join(self.demo, "fedgate.toml")
        self.start([self.program("fedhis"), "serve", "--config", config], port, env=environment)
        return port

    def gateway(self, upstream, under=(), **settings):
        """fedgate, perhaps under another program; returns the process and its ports for TLS, HTTP and the operator."""
        tls, plain, admin = free_port(), free_port(), free_port()
        settings = {
            "GATEWAY_LISTEN": f"127.0.0.1:{tls}", "GATEWAY_LISTEN_PLAIN": f"127.0.0.1:{plain}",
            "GATEWAY_ADMIN": f"127.0.0.1:{admin}", "HIS_LISTEN": f"127.0.0.1:{upstream}", "GATEWAY_THREADS": "2",
            "RECORDS_FILE": os.path.join(self.directory, f"records-{tls}"), "RECORDS_STDOUT": "false",
            "LIMITS_REQUESTS_PER_CONNECTION": "100000000", "LIMITS_CONNECTIONS_PER_SOURCE": "20000",
            "AUTHENTICATION_UPGRADE_HASHES": "false", **settings,
        }  # fmt: skip
        environment = dict(os.environ, **{f"FEDGATE_{name}": value for name, value in settings.items()})
        command = [*under, self.program("fedgate"), "serve", "--config", os.path.join(self.demo, "fedgate.toml")]
        process = self.start(command, tls, env=environment)
        await_port(plain, process)
        return process, tls, plain, admin


def metric(admin, name):
    with socket.create_connection(("127.0.0.1", admin), 10) as stream:
        stream.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        text = b""
        while more := stream.recv(65536):
            text += more
    return int(re.search(rf"^{name} (\d+)$", text.decode(), re.M)[1])