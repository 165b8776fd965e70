#!/usr/bin/env python3
"""A node: follows the hub into a local SQLite, posts its own pages, and shows what it has.

The one rule: the position and what the messages up to it did are stored in one transaction. So a node that is
killed at any moment goes on from a state that it really had. README.md says how to use it.
"""

import argparse
import base64
import functools
import http.client
import json
import os
import re
import sqlite3
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    resource TEXT, person TEXT, id TEXT, data TEXT NOT NULL, PRIMARY KEY (resource, person, id));
CREATE TABLE IF NOT EXISTS reached ("only" INTEGER PRIMARY KEY CHECK ("only" = 1), place TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outbox (
    id TEXT PRIMARY KEY, person TEXT NOT NULL, page TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'waiting');
"""


class HubAway(Exception):
    """The hub cannot answer now. The node asks again after some seconds."""

    def __init__(self, reason, pause=None):
        super().__init__(reason)
        self.pause = pause


class HubRefuses(Exception):
    """The hub has answered with an error."""

    def __init__(self, status, code):
        super().__init__(f"{status} {code}")
        self.status, self.code = status, code


class AnotherFollows(Exception):
    """Another process has moved the position of this database."""


class Hub:
    """The hub, as an account sees it."""

    def __init__(self, url, account, password, ca_file):
        self.url, self.account = url.rstrip("/"), account
        self.login = "Basic " + base64.b64encode(f"{account}:{password}".encode()).decode()
        self.tls = ssl.create_default_context(cafile=ca_file) if url.startswith("https:") else None

    def ask(self, target, method="GET", body=None, patience=30):
        """The parsed answer, and the target of its next page."""
        headers = {"Authorization": self.login, "Content-Type": "application/json"}
        data = None if body is None else body.encode()
        request = urllib.request.Request(self.url + target, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=patience, context=self.tls) as answer:
                link = re.match(r'<([^>]*)>; *rel="next"', answer.headers.get("Link") or "")
                return json.load(answer), link and link[1]
        except urllib.error.HTTPError as error:
            if error.code == 429 or error.code >= 500:
                pause = error.headers.get("Retry-After") or ""
                raise HubAway(f"status {error.code}", int(pause) if pause.isdigit() else None) from None
            raise HubRefuses(error.code, error_code(error)) from None
        # An answer that was cut off is no answer: it cannot be parsed.
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise HubAway(repr(error)) from None

    def rows(self, target):
        """All rows of a list, page by page."""
        target += ("&" if "?" in target else "?") + "limit=500"
        while target:
            rows, target = self.ask(target)
            yield from rows


def error_code(error):
    try:
        return json.load(error)["code"]
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return "without a code"


def quoted(text):
    return urllib.parse.quote(text, safe="")


def open_database(path):
    db = sqlite3.connect(path, timeout=60)
    db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;" + SCHEMA)
    return db


def reached(db):
    row = db.execute("SELECT place FROM reached").fetchone()
    return row and row[0]


def move(db, before, after):
    """Stores the position, in the transaction of what led there."""
    if before is None:
        moved = db.execute("INSERT OR IGNORE INTO reached VALUES (1, ?)", (after,)).rowcount
    else:
        moved = db.execute("UPDATE reached SET place = ? WHERE place = ?", (after, before)).rowcount
    if moved != 1:
        raise AnotherFollows("another process follows the hub into this database")


def keep(db, resource, person, record, data, table="record"):
    db.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?, ?, ?)", (resource, person, record, json.dumps(data)))


def apply(db, message):
    """Applies one message. To apply it again changes nothing, since it says what the record is or has."""
    # The id of a node's own message is one of its sender.
    owner = message["node"] if message["resource"] == "message" else message["person"]
    key = (message["resource"], owner or "", message["id"])
    if message["method"] == "DELETE":
        db.execute("DELETE FROM record WHERE (resource, person, id) = (?, ?, ?)", key)
    elif message["method"] == "PATCH":
        row = db.execute("SELECT data FROM record WHERE (resource, person, id) = (?, ?, ?)", key).fetchone()
        # A record that is not here was deleted before the lists were read. A message will say so.
        if row:
            keep(db, *key, {**json.loads(row[0]), **message["data"]})
    elif message["method"] in ("POST", "PUT"):  # also a message of a node
        keep(db, *key, message["data"])


def read_people(hub, is_own, fresh):
    """The records of the people within reach: of everybody, or of the own account."""
    people = [hub.ask(f"/people/{quoted(hub.account)}")[0]] if is_own else [row[0] for row in hub.rows("/people")]
    for person in people:
        fresh("person", person["id"], person["id"], person)
        try:
            read_book(hub, person["id"], fresh)
        except HubRefuses as refusal:
            # Deleted since the list of people was read. A message says so.
            if refusal.status != 404:
                raise


def read_book(hub, name, fresh):
    """The pages of one person, and the documents without their bytes, which are read where they are needed."""
    for [page] in hub.rows(f"/pols/{quoted(name)}"):
        # Of a merged person, each page and document is under the id that it was written under.
        fresh("page", page.get("book") or name, page["id"], page)
    for [owner, page, data, link] in hub.rows(f"/personal_docs/{quoted(name)}?document=link"):
        fresh("document", owner or name, urllib.parse.unquote(link.rsplit("/", 1)[1]), {"pol": page, "data": data})


def read_inbox(db, hub):
    """Takes the messages of other nodes that the hub keeps: they are in no list."""
    place, messages = "first", True
    while messages:
        messages, link = hub.ask(f"/messages?resource=message&limit=500&after={place}")
        place = place_of(link)
        for message in messages:
            apply(db, message)


def read_lists(db, hub, is_own):
    """Takes over the lists of the hub: the position first, so that a change meanwhile is seen after all."""
    before = reached(db)
    _, link = hub.ask("/messages?after=last")
    db.executescript(
        "DROP TABLE IF EXISTS temp.fresh;"
        "CREATE TEMP TABLE fresh (resource, person, id, data, PRIMARY KEY (resource, person, id));"
    )
    fresh = functools.partial(keep, db, table="temp.fresh")
    with db:
        read_people(hub, is_own, fresh)
        for resource, target in [("domiciliary_unit", "/domiciliary-units"), ("institution", "/institutions")]:
            for [unit] in hub.rows(target) if not is_own else ():
                # A row that another program wrote may have none: only its messages name it.
                if "id" in unit:
                    fresh(resource, "", unit["id"], unit)
        # Only now the node's own tables are locked.
        db.execute("DELETE FROM record WHERE resource <> 'message'")
        db.execute("INSERT INTO record SELECT * FROM temp.fresh")
        read_inbox(db, hub)
        move(db, before, place_of(link))
    print(f"read the lists, and follow from {place_of(link)}", flush=True)


def place_of(link):
    """The position that a link leads to, with the history that it belongs to."""
    return re.search(r"[?&]after=([0-9.]+)", link)[1]


def follow(db, hub, wait):
    """Reads the next messages and applies them. Returns how many there were; -1 if the lists must be read again."""
    position = reached(db)
    if position is None:
        return -1
    try:
        messages, link = hub.ask(f"/messages?after={position}&limit=500&wait={wait}", patience=wait + 30)
    except HubRefuses as refusal:
        # The hub keeps these messages no longer, or its history ended before this position.
        if refusal.code in ("messages_gone", "position_unknown"):
            return -1
        raise
    # After a merge, too, the lists say what the records are.
    if any(message["method"] in ("RESET", "MERGE", "UNMERGE") for message in messages):
        return -1
    with db:
        for message in messages:
            apply(db, message)
        if place_of(link) != position:
            move(db, position, place_of(link))
    return len(messages)


def send(db, hub):
    """Posts the pages of the outbox. A page is posted until the hub has answered, and the hub stores it once."""
    for page, person, text in db.execute("SELECT id, person, page FROM outbox WHERE state = 'waiting'").fetchall():
        state = "sent"
        try:
            hub.ask(f"/pols/{quoted(person)}/{quoted(page)}", "POST", text)
        except HubRefuses as refusal:
            if refusal.status == 401:
                raise
            # The id is random, so a page that exists is this one: it was stored, the answer was lost, and the page was
            # changed since.
            if refusal.code != "page_exists":
                state = f"refused: {refusal}"
        with db:
            db.execute("UPDATE outbox SET state = ? WHERE id = ?", (state, page))


def run(arguments):
    db = open_database(arguments.database)
    with open(arguments.password_file, encoding="utf-8") as file:
        hub = Hub(arguments.hub, arguments.account, file.read().strip(), arguments.ca)
    failures = 0
    while True:
        try:
            send(db, hub)
            count = follow(db, hub, 0 if arguments.once else arguments.wait)
            if count < 0:
                read_lists(db, hub, arguments.own)
            failures = 0
            if count == 0 and arguments.once:
                return
        except HubAway as away:
            failures += 1
            pause = away.pause or min(0.25 * 2 ** min(failures, 8), 30)
            print(f"the hub is away ({away}), asking again in {pause} s", file=sys.stderr, flush=True)
            time.sleep(pause)


def post(arguments):
    page = {**json.loads(arguments.page), "id": str(uuid.uuid4())}
    db = open_database(arguments.database)
    with db:
        row = (page["id"], arguments.person, json.dumps(page))
        db.execute("INSERT INTO outbox (id, person, page) VALUES (?, ?, ?)", row)
    print(page["id"])


def show(arguments):
    db = open_database(arguments.database)
    with db:
        # One snapshot for all of it.
        db.execute("BEGIN")
        records = db.execute("SELECT resource, person, id, data FROM record ORDER BY 1, 2, 3").fetchall()
        unsent = db.execute("SELECT id, person, state FROM outbox WHERE state <> 'sent' ORDER BY 1").fetchall()
        place = reached(db)
        print(json.dumps({"position": place and int(place.split(".")[0]), "records": len(records), "unsent": len(unsent)}))
    for resource, person, record, data in records:
        print(json.dumps({"resource": resource, "person": person, "id": record, "data": json.loads(data)}, sort_keys=True))
    for page, person, state in unsent:
        print(json.dumps({"unsent": page, "person": person, "state": state}))


def main():
    parser = argparse.ArgumentParser(description="A node of the federation.")
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="follow the hub, and post the pages of the outbox")
    running.add_argument("database", help="a SQLite file, which is made if it is missing")
    running.add_argument("--hub", required=True, help="the address of the gateway: https://hub.example")
    running.add_argument("--account", required=True, help="the account of this node")
    running.add_argument("--password-file", required=True, help="a file with its password, readable by this node alone")
    running.add_argument("--ca", help="certificates of authorities, if the system does not know the hub's")
    running.add_argument("--own", action="store_true", help="the account reaches the own record alone")
    running.add_argument("--wait", type=int, default=20, help="seconds that one question waits for a message (20)")
    running.add_argument("--once", action="store_true", help="stop when nothing is left to do")
    running.set_defaults(does=run)
    posting = commands.add_parser("post", help="put a page into the outbox")
    posting.add_argument("database")
    posting.add_argument("person")
    posting.add_argument("page", help="a JSON object; a random id is added if it has none")
    posting.set_defaults(does=post)
    showing = commands.add_parser("show", help="print what the node has, a line for each record")
    showing.add_argument("database")
    showing.set_defaults(does=show)
    arguments = parser.parse_args()
    try:
        arguments.does(arguments)
    except (HubRefuses, AnotherFollows) as error:
        sys.exit(f"node.py: {error}")
    except (KeyboardInterrupt, BrokenPipeError):
        os._exit(1)


if __name__ == "__main__":
    main()
