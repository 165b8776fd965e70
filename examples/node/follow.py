"""HUB_PASSWORD=… python3 follow.py https://hub.example ACCOUNT node.db"""
import base64, json, os, re, sqlite3, sys, time, urllib.parse, urllib.request

HUB, ACCOUNT, FILE = sys.argv[1:]
LOGIN = "Basic " + base64.b64encode(f"{ACCOUNT}:{os.environ['HUB_PASSWORD']}".encode()).decode()
db = sqlite3.connect(FILE)
db.execute("CREATE TABLE IF NOT EXISTS record (resource, person, id, data, PRIMARY KEY (resource, person, id))")

def ask(target):
    with urllib.request.urlopen(urllib.request.Request(HUB + target, headers={"Authorization": LOGIN}), timeout=60) as answer:
        next_place = re.search("after=([0-9.]+)", answer.headers.get("Link") or "")
        return json.load(answer), next_place and next_place[1]

def keep(*row, data): db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", (*row, json.dumps(data)))

def apply(method, data, row):
    known = db.execute("SELECT data FROM record WHERE (resource, person, id) = (?, ?, ?)", row).fetchone()
    db.execute("DELETE FROM record WHERE (resource, person, id) = (?, ?, ?)", row)
    if method in ("POST", "PUT") or method == "PATCH" and known:
        keep(*row, data={**json.loads(known[0]), **data} if method == "PATCH" else data)

def read_lists():
    position = ask("/messages?after=last")[1]  # before the lists: a change meanwhile is then seen again
    db.execute("DELETE FROM record")
    for [person] in ask("/people")[0]:
        keep("person", person["id"], person["id"], data=person)
        for [page] in ask("/pols/" + urllib.parse.quote(person["id"], safe=""))[0]:
            keep("page", page.get("book") or person["id"], page["id"], data=page)  # of a merged person, another id
    return position

while True:
    try:
        with db:  # one transaction for the position and for what led there
            position = db.execute("SELECT data FROM record WHERE resource = 'position'").fetchone()
            messages, after = ask(f"/messages?after={json.loads(position[0])}&wait=20") if position else ([{"method": "RESET"}], 0)
            if any(message["method"] in ("RESET", "MERGE", "UNMERGE") for message in messages):
                after, messages = read_lists(), []
            for m in messages:  # not those of nodes, which are in no list
                if m["resource"] in ("person", "page"):
                    apply(m["method"], m["data"], (m["resource"], m["person"], m["id"]))
            keep("position", "", "", data=after)
    except (OSError, ValueError) as error:  # the hub is away, or an answer was cut off: nothing was stored
        if getattr(error, "code", None) in (401, 403) or "CERTIFICATE" in str(error): raise
        if getattr(error, "code", None) in (409, 410):  # the hub has not got what follows this position
            db.executescript("DELETE FROM record")
        time.sleep(1)
