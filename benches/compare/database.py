"""The PostgreSQL of Thalamus: a server of its own, on a socket in its own directory, removed at the end."""

import json
import os
import shutil
import subprocess
import tempfile

from get import postgres_programs
from place import Missing

# What Thalamus's own `federation_schema.sql` makes, as far as it is read here.
SCHEMA = """
CREATE TABLE people (id varchar PRIMARY KEY, data jsonb);
CREATE TABLE pols (id varchar PRIMARY KEY, book varchar REFERENCES people (id), data jsonb);
"""


class Server:
    """Looks like a process, so that it ends with the others."""

    def __init__(self, directory, run):
        self.directory, self.run, self.args = directory, run, ["postgres"]

    def send_signal(self, _):
        subprocess.run(self.run("pg_ctl", "-D", f"{self.directory}/data", "-m", "immediate", "stop"),
                       stdout=subprocess.DEVNULL)
        shutil.rmtree(self.directory, ignore_errors=True)

    def wait(self, *_):
        return 0


def of_thalamus(place, accounts):
    """Starts the server with the accounts; returns the environment that leads libpq to it."""
    programs = postgres_programs()
    if not programs:
        raise Missing("postgresql")
    directory = tempfile.mkdtemp(prefix="compare-pg-")
    # PostgreSQL does not run as root.
    other_user = [] if os.geteuid() else ["runuser", "-u", "postgres", "--"]
    if other_user:
        shutil.chown(directory, "postgres")

    def run(name, *arguments):
        return [*other_user, os.path.join(programs, name), *arguments]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/"}
    data = f"{directory}/data"
    subprocess.run(run("initdb", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "-D", data), check=True, **quiet)
    options = f"-k {directory} -c listen_addresses=''"
    subprocess.run(run("pg_ctl", "-D", data, "-w", "-l", f"{directory}/log", "-o", options, "start"), check=True, **quiet)
    place.started.append(Server(directory, run))
    statements = ["CREATE DATABASE federation", r"\c federation", SCHEMA]
    for name, hashed in zip(accounts.names, accounts.as_thalamus_makes_them()):
        person = {"id": name, "name": "A", "active": True, "roles": ["end_user"], "password": hashed.replace("$2y$", "$2b$")}
        statements.append(f"INSERT INTO people (id, data) VALUES ('{name}', '{json.dumps(person)}');")
    text = ";\n".join(statements[:1]) + ";\n" + "\n".join(statements[1:]) + "\n"
    subprocess.run(run("psql", "-q", "-X", "-h", directory, "-U", "postgres"), input=text, text=True, check=True, **quiet)
    return {"PGHOST": directory, "PGUSER": "postgres"}
