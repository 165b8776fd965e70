"""The place of one run: a directory with certificate, accounts and logs, the upstream, and every process that was started.

Everything a peer needs from outside itself is here. Nothing in it survives the run but what `target/compare` keeps.
"""

import base64
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
KEPT = os.path.join(ROOT, "target", "compare")
VENV = os.path.join(KEPT, "venv")
# Everybody's hashes, as `htpasswd -B` makes them by default: the cheapest that peers which hash each time may have.
BCRYPT_COST = 5
SMALL, LARGE = 10, 10_000


class Missing(Exception):
    """Something that a peer needs is not here; the text names it."""


def program(name):
    """The path of a program: of the environment that the comparison made, or of the system."""
    own = os.path.join(VENV, "bin", name)
    places = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
    found = own if os.access(own, os.X_OK) else shutil.which(name, path=places)
    if not found:
        raise Missing(name)
    return found


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def await_port(port, process):
    deadline = time.monotonic() + 60
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), 5).close()
        except OSError:
            if process.poll() is not None:
                raise Missing(f"a start that succeeds: it ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise Missing(f"a listener on port {port} after 60 s") from None
            time.sleep(0.01)


class Accounts:
    """Persons who sign in: each has a password of its own, and reads its own record."""

    def __init__(self, count):
        self.names = [f"ITAPYT{number:05}HON" for number in range(count)]
        self.passwords = [f"gnusolidario-{number}" for number in range(count)]
        self.hashes = bcrypt_hashes(self.passwords, BCRYPT_COST)

    def as_thalamus_makes_them(self):
        return bcrypt_hashes(self.passwords, 12)

    def credential(self, number=0, password=None):
        pair = f"{self.names[number]}:{password or self.passwords[number]}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    def lines(self):
        """The file of `htpasswd`, with bcrypt."""
        return "".join(f"{name}:{hashed}\n" for name, hashed in zip(self.names, self.hashes))

    def lines_of_sha1(self):
        digests = (base64.b64encode(hashlib.sha1(password.encode()).digest()).decode() for password in self.passwords)
        return "".join(f"{name}:{{SHA}}{digest}\n" for name, digest in zip(self.names, digests))


def bcrypt_hashes(passwords, cost):
    """Hashes of bcrypt. They are kept, because ten thousand take a while; Python itself has no bcrypt."""
    kept = os.path.join(KEPT, f"bcrypt-{cost}-{len(passwords)}")
    if not os.path.exists(kept):
        script = (f"import sys, bcrypt\nfor line in sys.stdin:\n"
                  f"    salt = bcrypt.gensalt({cost})\n"
                  f"    print(bcrypt.hashpw(line.strip().encode(), salt).decode().replace('$2b$', '$2y$'))")
        made = subprocess.run([os.path.join(VENV, "bin", "python"), "-c", script], input="\n".join(passwords),
                              capture_output=True, text=True)
        if made.returncode:
            sys.exit(f"no bcrypt: {made.stderr.strip()}")
        with open(kept, "w") as out:
            out.write(made.stdout)
    with open(kept) as text:
        return text.read().split()


class Place:
    def __init__(self, arguments):
        self.threads = arguments.threads
        self.programs = os.path.abspath(arguments.programs)
        self.directory = tempfile.mkdtemp(prefix="compare-")
        # Workers of some peers run as another user.
        os.chmod(self.directory, 0o755)
        self.started = []
        self.accounts = {"small": Accounts(SMALL), "large": Accounts(LARGE)}
        self.certificate, self.key, self.both = self.make_certificate()
        self.tools = self.built("compare_tools")
        self.port, self.socket = free_port(), self.path("upstream.sock")
        listen = [f"127.0.0.1:{self.port}", f"unix:{self.socket}"]
        await_port(self.port, self.start([self.tools, "upstream", *listen]))
        os.chmod(self.socket, 0o666)

    def path(self, name):
        return os.path.join(self.directory, name)

    def write(self, name, text):
        with open(self.path(name), "w") as out:
            out.write(text)
        return self.path(name)

    def built(self, name):
        found = os.path.join(self.programs, name)
        if not os.path.exists(found):
            raise Missing(f"{found} (cargo build)")
        return found

    def make_certificate(self):
        certificate, key = self.path("certificate.pem"), self.path("key.pem")
        subprocess.run(
            [program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
             "-days", "90", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", key, "-out",
             certificate], check=True, stderr=subprocess.DEVNULL)
        os.chmod(key, 0o600)
        texts = []
        for name in (certificate, key):
            with open(name) as part:
                texts.append(part.read())
        return certificate, key, self.write("both.pem", "".join(texts))

    def start(self, command, out=None, environment=None, folder=None):
        """Starts a process; `out` is the file of its stdout."""
        log = open(self.path(f"{os.path.basename(command[0])}.log"), "a")
        with log, open(out or os.devnull, "a") as stdout:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=log, cwd=folder,
                                       env={**os.environ, **(environment or {})})
        self.started.append(process)
        return process

    def stop(self, process, how=signal.SIGTERM):
        process.send_signal(how)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.started.remove(process)

    def end(self):
        for process in reversed(list(self.started)):
            self.stop(process, signal.SIGINT if process.args[0].endswith("fedgate") else signal.SIGTERM)
        shutil.rmtree(self.directory, ignore_errors=True)
