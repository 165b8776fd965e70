"""The loads: what is sent to a peer, and what came back.

A load knows nothing of the peer but its port. Each returns the same counts, whatever tool made it.
"""

import os
import re
import resource
import subprocess
import threading
import time

from place import HERE, program

# How long after the end of a load an answer may still come.
PATIENCE = 30


class Load:
    """One kind of load. `only` is what a peer must be able to do: `checks`, `reload`, `unix`, `h2`."""

    def __init__(self, name, title, run, only=(), warm=True):
        self.name, self.title, self.run, self.only, self.warm = name, title, run, only, warm


class Sender:
    """Sends loads to peers. `place` has the accounts, `seconds` is how long each lasts."""

    def __init__(self, place):
        self.place = place
        self.wrk, self.h2load = program("wrk"), program("h2load")

    def lines(self, accounts, path, count=None, password=None):
        """The file of requests for the script of wrk."""
        known = self.place.accounts[accounts]
        count = count or len(known.names)
        text = "".join(f"{path.format(known.names[number])}\t{known.credential(number, password)}\n"
                       for number in range(count))
        return self.place.write(f"requests-{threading.get_ident()}-{password or 'right'}", text)

    def keep(self, peer, seconds, connections=64, path="/people/{}", method="GET", body=0, count=1, accounts="small"):
        """Connections that stay."""
        command = self.of_wrk(peer, seconds, connections, self.lines(accounts, path, count), method, body)
        return counted(command)

    def of_wrk(self, peer, seconds, connections, lines, method="GET", body=0):
        return [self.wrk, "-t1", f"-c{connections}", f"-d{seconds}s", f"--timeout={PATIENCE}s",
                "-s", os.path.join(HERE, "load.lua"), f"https://127.0.0.1:{peer.port}/", "--", method, str(body), lines]

    def wrong(self, peer, seconds):
        """One of a hundred connections sends wrong passwords; the others are what is counted."""
        wrong = self.lines("small", "/people/{}", 2, password="wrong")
        beside = subprocess.Popen(self.of_wrk(peer, seconds, 1, wrong), stdout=subprocess.PIPE, text=True)
        counts = self.keep(peer, seconds, 99)
        refused = parse(beside.communicate()[0])
        # A wrong password that succeeds would be an error of the worst kind.
        counts["failed"] += refused["good"]
        counts["all"] += refused["good"] + refused["other"]
        counts["refused"] = refused["other"]
        return counts

    def http2(self, peer, seconds):
        """16 connections with 16 requests at a time."""
        log = self.place.path("h2load.log")
        if os.path.exists(log):
            os.remove(log)
        account = self.place.accounts["small"]
        command = [self.h2load, "-c16", "-m16", "-t1", f"-D{int(seconds * 1000)}ms", f"--log-file={log}", "-H",
                   f"Authorization: {account.credential()}", f"https://127.0.0.1:{peer.port}/people/{account.names[0]}"]
        begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        out = subprocess.run(command, capture_output=True, text=True).stdout
        elapsed, share = time.monotonic() - begin, share_since(used, begin)
        with open(log) as lines:
            answers = [line.split("\t") for line in lines]
        times = sorted(int(answer[2]) for answer in answers if answer[1] == "200")
        good, other = len(times), sum(answer[1] not in ("200", "-1") for answer in answers)
        failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", out)
        # Requests that the end of the time cut off count as failed with h2load, and are none.
        failed = 0 if good else max(1, int(failed[1]) if failed else 1)
        at = [times[good * part // 1000] if good else 0 for part in (500, 990, 999)]
        return {"good": good, "other": other, "failed": failed, "p50": at[0], "p99": at[1], "p999": at[2],
                "seconds": min(elapsed, seconds) if good else elapsed, "all": good + other, "generator": share}

    def connect(self, peer, seconds, connections=16):
        """A connection, with a whole handshake, for each request."""
        account = self.place.accounts["small"]
        command = [self.place.tools, "connect", f"127.0.0.1:{peer.port}", f"/people/{account.names[0]}",
                   account.credential(), str(connections), str(seconds)]
        return counted(command)

    def reload(self, peer, seconds):
        """The policy is loaded anew every 100 ms."""
        end, faults = threading.Event(), []

        def repeat():
            number = 0
            while not end.wait(0.1):
                number += 1
                try:
                    peer.reload(number)
                except Exception as fault:  # the peer's own ways to fail are many; each is an error of the round
                    faults.append(fault)

        thread = threading.Thread(target=repeat)
        thread.start()
        try:
            counts = self.keep(peer, seconds)
        finally:
            end.set()
            thread.join()
        counts["failed"] += len(faults)
        return counts

    def restart(self, peer, seconds):
        """The peer has just started; ten accounts sign in at once."""
        return self.keep(peer, seconds, count=len(self.place.accounts["small"].names))


def share_since(used, begin):
    """The share of a core that the children took that have ended since."""
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime) / (time.monotonic() - begin)


def counted(command):
    begin, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    out = subprocess.run(command, capture_output=True, text=True)
    counts = parse(out.stdout, out.stderr)
    counts["generator"] = share_since(used, begin)
    return counts


def parse(out, error=""):
    line = re.search(r"^counts (.*)$", out, re.M)
    if not line:
        raise RuntimeError(f"the load generator said: {out.strip()} {error.strip()}")
    good, other, failed, p50, p99, p999, elapsed = (int(word) for word in line[1].split())
    return {"good": good, "other": other, "failed": failed, "p50": p50, "p99": p99, "p999": p999,
            "seconds": elapsed / 1e6, "all": good + other}


def loads(sender):
    keep = sender.keep
    return {load.name: load for load in (
        Load("keep64", "64 kept connections", keep),
        Load("keep256", "256 kept connections", lambda peer, seconds: keep(peer, seconds, 256)),
        Load("h2", "HTTP/2, 16 connections of 16 streams", sender.http2, ("h2",)),
        Load("new", "a new connection for each request, 16 at a time", sender.connect),
        Load("page", "pages of 16 KiB, 64 connections",
             lambda peer, seconds: keep(peer, seconds, path="/pols/{}/page-1"), ("bodies",)),
        Load("post", "POST of 4 KiB, 64 connections",
             lambda peer, seconds: keep(peer, seconds, path="/pols/{}/page-1", method="POST", body=4096), ("bodies",)),
        Load("wrong", "one of 100 connections sends wrong passwords", sender.wrong, ("checks", "h2")),
        Load("restart", "right after a restart, ten accounts, 64 connections", sender.restart, ("checks", "h2"), False),
        Load("reload", "a new policy every 100 ms, 64 connections", sender.reload, ("reload",)),
        Load("unix", "upstream on a Unix socket, 64 connections", keep, ("unix",)),
        Load("accounts", "10,000 accounts in turn, 64 connections",
             lambda peer, seconds: keep(peer, seconds, count=None, accounts="large"), ("checks", "h2")),
    )}  # fmt: skip
