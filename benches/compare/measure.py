"""What a peer used for its requests: CPU time, context switches, memory, system calls.

All of it is read from the kernel, for the processes of the peer with their children, whatever the peer itself says.
"""

import glob
import os
import re
import shutil
import signal
import subprocess
import time

TICK = 1_000_000 / os.sysconf("SC_CLK_TCK")


def family(pid):
    """A process and its children: nginx, HAProxy, Apache and gunicorn have workers."""
    pids = [pid]
    for children in glob.glob(f"/proc/{pid}/task/*/children"):
        try:
            with open(children) as text:
                found = text.read().split()
        except OSError:
            continue
        for child in found:
            pids += family(int(child))
    return pids


def all_of(peer):
    return [pid for process in peer.processes for pid in family(process.pid)]


def read(path):
    try:
        with open(path) as text:
            return text.read()
    except OSError:
        return ""


def used(peer):
    """CPU time in microseconds, and context switches: waits of its own accord, and preemptions."""
    cpu = waits = preemptions = 0
    for pid in all_of(peer):
        try:
            # The clock of a process, in nanoseconds, has its ended threads too (clock_getcpuclockid(3)).
            cpu += time.clock_gettime_ns((~pid << 3) | 2) / 1000
        except OSError:
            continue
        # Children that have ended, such as workers that a reload replaced: only in ticks.
        of_ended = read(f"/proc/{pid}/stat").rpartition(")")[2].split()[13:15]
        cpu += sum(int(ticks) for ticks in of_ended) * TICK
        for status in glob.glob(f"/proc/{pid}/task/*/status"):
            text = read(status)
            waits += sum(int(count) for count in re.findall(r"\nvoluntary_ctxt_switches:\s+(\d+)", text))
            preemptions += sum(int(count) for count in re.findall(r"nonvoluntary_ctxt_switches:\s+(\d+)", text))
    return cpu, waits, preemptions


def memory(peer):
    """Memory in MiB; what several processes share counts once."""
    sizes = (re.search(r"^Pss:\s+(\d+)", read(f"/proc/{pid}/smaps_rollup"), re.M) for pid in all_of(peer))
    return sum(int(size[1]) for size in sizes if size) / 1024


def measure(peer, load, seconds):
    """One round: what came back, and what it cost for each request that the peer answered."""
    seconds *= peer.patience
    before = used(peer)
    counts = load.run(peer, seconds)
    cpu, waits, preemptions = (max(0, after - earlier) for after, earlier in zip(used(peer), before))
    answered = max(1, counts["all"])
    return {**counts, "rate": counts["good"] / counts["seconds"], "cpu": cpu / answered, "waits": waits / answered,
            "preemptions": preemptions / answered, "memory": memory(peer)}


def system_calls(peer, load, seconds):
    """System calls for a request, by name, the most frequent first. strace slows the peer: only counts are used."""
    if not shutil.which("strace"):
        return {}
    traced = [word for pid in all_of(peer) for word in ("-p", str(pid))]
    strace = subprocess.Popen(["strace", "-c", "-f", *traced], stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    counts = load.run(peer, seconds * peer.patience)
    strace.send_signal(signal.SIGINT)
    calls = {}
    for line in strace.communicate()[1].splitlines():
        words = line.split()
        if len(words) >= 5 and words[0][0].isdigit() and words[-1] != "total":
            calls[words[-1]] = int(words[3]) / max(1, counts["all"])
    return dict(sorted(calls.items(), key=lambda call: -call[1]))
