"""What a peer is: a proxy with one configuration, which can be started, stopped and loaded.

A scene is what all peers share at a time: whether they log, where the upstream is, and which accounts there are.
"""

import glob
import os
import signal

import database
from place import ROOT, Missing, await_port, free_port, program


class Scene:
    def __init__(self, name, log=True, unix=False, accounts="small"):
        self.name, self.log, self.unix, self.accounts = name, log, unix, accounts


class Peer:
    """A proxy. A subclass writes its configuration and says how it is started."""

    name = title = ""
    # What it can do: `checks` passwords, `reload` its policy, `unix` upstreams, `h2`, pass `bodies`.
    can = {"unix", "h2", "bodies"}
    # Whether it remembers passwords: then all accounts sign in once before they are measured.
    learns = False
    # A round lasts so many times as long: for who answers a handful of requests a second.
    patience = 1
    # Whether a scene without logs has it, and what its log is.
    silent = True
    log_kind = "buffered"

    def __init__(self, place, scene):
        self.place, self.scene = place, scene
        self.port, self.processes = free_port(), []
        self.listen = f"127.0.0.1:{self.port}"
        self.file = f"{self.name}-{scene.name}"
        self.accounts = place.accounts[scene.accounts]
        self.log = place.path(f"{self.file}-access.log")
        self.prepare()
        self.start()

    @property
    def upstream(self):
        return f"unix:{self.place.socket}" if self.scene.unix else f"127.0.0.1:{self.place.port}"

    def prepare(self):
        """Writes the configuration."""

    def command(self):
        raise NotImplementedError

    def options(self):
        """Of `Place.start`: `out`, `environment`, `folder`."""
        return {}

    def start(self):
        process = self.place.start(self.command(), **self.options())
        self.processes.insert(0, process)
        await_port(self.port, process)

    def restart(self):
        self.place.stop(self.processes.pop(0), self.stops_by)
        self.start()

    stops_by = signal.SIGTERM

    def stop(self):
        for process in self.processes:
            self.place.stop(process, self.stops_by)
        self.processes = []

    def reload(self, number):
        raise NotImplementedError

    def authorizer(self):
        """Starts the service that answers subrequests; returns its address. Its cost counts as the peer's."""
        port = free_port()
        names = range(len(self.accounts.names))
        lines = "".join(self.accounts.credential(number) + "\n" for number in names)
        known = self.place.write(f"{self.file}-credentials", lines)
        process = self.place.start([self.place.tools, "authorizer", f"127.0.0.1:{port}", known])
        await_port(port, process)
        self.processes.append(process)
        return f"127.0.0.1:{port}"


class Bare(Peer):
    name, title = "bare", "pingora, bare"
    log_kind = "none"

    def command(self):
        return [self.place.built("bare_proxy"), self.listen, self.upstream, self.place.certificate, self.place.key,
                str(self.place.threads)]


class Fedgate(Peer):
    """The gateway. Its records are in a file, written together as the logs of the others are."""

    name, title = "fedgate", "**fedgate**"
    can = {"checks", "reload", "unix", "h2", "bodies"}
    learns = True
    stops_by = signal.SIGINT
    durable, file_of_records, upgrade = False, True, True

    def prepare(self):
        fedhis = self.place.built("fedhis")
        directory = self.place.path(self.file)
        # The policy is watched by its directory, so it has one of its own.
        self.policy = os.path.join(directory, "policy", "roles.cfg")
        os.makedirs(os.path.dirname(self.policy))
        with open(os.path.join(ROOT, "policies", "roles.cfg")) as roles:
            self.roles = roles.read()
        self.write_policy(0)
        secret = os.path.join(directory, "secret")
        with open(secret, "w") as out:
            out.write("0123456789abcdef" * 4)
        os.chmod(secret, 0o600)
        file = self.log if self.file_of_records else ""
        self.config = self.place.write(f"{self.file}/fedgate.toml", f"""
[gateway]
listen = ["{self.listen}"]
admin = []
threads = {self.place.threads}
[limits]
requests_per_connection = 100000000
[tls]
certificate = "{self.place.certificate}"
key = "{self.place.key}"
[policy]
roles = "{self.policy}"
history = ""
[records]
file = "{file}"
stdout = {str(not file).lower()}
durable = {str(self.durable).lower()}
[authentication]
upgrade_hashes = {str(self.scene.accounts == "small").lower()}
[store]
kind = "sqlite"
path = "{directory}/store.db"
[assertion]
secret_file = "{secret}"
[his]
listen = "{self.upstream}"
""")
        people = "".join(
            f'{{"id": "{name}", "name": "A", "active": true, "roles": ["end_user"], "password": "{hashed}"}}\n'
            for name, hashed in zip(self.accounts.names, self.accounts.hashes))
        self.run(fedhis, "migrate")
        self.run(fedhis, "import", "people", self.place.write(f"{self.file}-people.jsonl", people))

    def run(self, *command):
        process = self.place.start([*command, "--config", self.config])
        if process.wait():
            raise Missing(f"{' '.join(command)}: ended with status {process.returncode}")
        self.place.started.remove(process)

    def write_policy(self, number):
        """Replaces the file in one step; the white space at its end makes another policy of it."""
        with open(self.policy + ".new", "w") as out:
            out.write(self.roles.rstrip() + "\n" * (1 + number % 2))
        os.replace(self.policy + ".new", self.policy)

    def reload(self, number):
        self.write_policy(number)

    def command(self):
        return [self.place.built("fedgate"), "serve", "--config", self.config]

    def options(self):
        return {"out": None if self.file_of_records else self.log}


class FedgateDurable(Fedgate):
    name, title = "fedgate-durable", "**fedgate**, durable records"
    durable, silent = True, False
    log_kind = "refusals and writes on the disk before the answer"


class FedgateStdout(Fedgate):
    name, title = "fedgate-stdout", "**fedgate**, records on stdout"
    file_of_records, silent = False, False


class Thalamus(Peer):
    """The original, as its own guide starts it, but with as many workers as the others have threads, and its own hashes."""

    name, title = "thalamus", "Thalamus"
    can = {"checks"}
    patience = 3
    log_kind = "each line"

    def prepare(self):
        self.environment = database.of_thalamus(self.place, self.accounts)
        found = glob.glob(os.path.join(os.path.dirname(self.gunicorn()), "..", "lib", "*", "site-packages", "thalamus"))
        if not found:
            raise Missing("thalamus")
        self.folder = found[0]

    def gunicorn(self):
        return program("gunicorn")

    def command(self):
        log = ["--access-logfile", self.log] if self.scene.log else []
        return [self.gunicorn(), "--bind", self.listen, "--workers", str(self.place.threads), "--timeout", "120",
                "--certfile", self.place.certificate, "--keyfile", self.place.key, *log, "thalamus:app"]

    def options(self):
        return {"environment": self.environment, "folder": self.folder}
