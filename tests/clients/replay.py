#!/usr/bin/env python3
"""Replays what the two real clients of the federation send, with the library they send it with (python-requests).

Every request is a TLS connection of its own, without a session and without a Content-Type, as MyGNUHealth and the HMIS
make them; then the browser of the portal, and a person changing a password. Expects the demo federation.

Usage: replay.py URL [CA-FILE]     prints a line for each case; exit 1 when one failed
"""

import base64
import json
import re
import sys
import uuid

import requests
import urllib3

URL = sys.argv[1].rstrip("/")
# The clients do not verify by default; with a CA file this script does.
VERIFY = sys.argv[2] if len(sys.argv) > 2 else False
urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)

ANA = ("ESPGNU777ORG", "gnusolidario")
NODE = ("ITAPYT999HON", "gnusolidario")
ROOT = ("ARGBUE111FAV", "freedom")
WRONG = (ANA[0], "wrong")
passed, failed = 0, 0


def send(method, path, auth=None, document=None, **options):
    """One request as the clients send it: JSON escaped to ASCII, as a plain string, so that no Content-Type is set."""
    data = json.dumps(document) if document is not None else None
    answer = requests.request(method, URL + path, auth=auth, data=data, verify=VERIFY, timeout=60, allow_redirects=False, **options)
    if document is not None:
        assert "Content-Type" not in answer.request.headers, "the clients send none"
    return answer


def case(name, holds, answer):
    global passed, failed
    passed, failed = (passed + 1, failed) if holds else (passed, failed + 1)
    print(("ok     " if holds else "FAILED ") + name + ("" if holds else f": {answer.status_code} {answer.text[:300]}"))


def status(name, expected, answer):
    case(f"{name} -> {expected}", answer.status_code == expected, answer)
    return answer


def phone():
    """MyGNUHealth: connection test, then its pages, one after the other; a lost answer makes it send a page again."""
    answer = status("phone: connection test", 200, send("GET", f"/people/{ANA[0]}", ANA))
    case("phone: its own record, without the password hash", answer.json()["id"] == ANA[0] and "password" not in answer.json(), answer)
    status("phone: connection test with a wrong password", 401, send("GET", f"/people/{ANA[0]}", WRONG))
    status("phone: connection test with an unknown account", 401, send("GET", "/people/NOBODY", ("NOBODY", "x")))
    status("phone: another's record", 403, send("GET", f"/people/{NODE[0]}", ANA))
    page_id = str(uuid.uuid4())
    page = {
        "id": page_id, "book": ANA[0], "page_date": "2026-11-24T08:30:00", "domain": "medical", "context": "health_condition",
        "measurements": [{"bp": {"systolic": 116, "diastolic": 79}, "hr": {"heart_rate": 71}, "t": 36.6}, {"wt": 61.25}],
        "genetic_info": None, "privacy": True, "fsynced": False, "relevance": "normal", "summary": "Fühlt sich gut \u2014 走り",
        "info": "x" * 18000, "node": None, "author": None, "author_acct": None,
        "creation_info": {"user": ANA[0], "timestamp": "2026-11-24 08:30:00", "node": "phone"},
    }
    path = f"/pols/{ANA[0]}/{page_id}"
    answer = status("phone: push a page", 200, send("POST", path, ANA, page))
    case("phone: the answer to a push is null", answer.json() is None, answer)
    status("phone: the same page again, its answer was lost", 200, send("POST", path, ANA, page))
    status("phone: another page under the same id", 422, send("POST", path, ANA, page | {"summary": "other"}))
    answer = status("phone: read it back", 200, send("GET", path, ANA))
    case("phone: the page is what was sent", answer.json() == page, answer)
    answer = status("phone: its book", 200, send("GET", f"/pols/{ANA[0]}", ANA))
    case("phone: a book is a list of lists of one page", all(len(row) == 1 for row in answer.json()) and [page] in answer.json(), answer)
    status("phone: a page into another's book", 403, send("POST", f"/pols/{NODE[0]}/{uuid.uuid4()}", ANA, page))
    status("phone: a page that names another book", 422, send("POST", f"/pols/{ANA[0]}/{uuid.uuid4()}", ANA, {"id": "x", "book": NODE[0]}))


def hmis():
    """The HMIS node: one account, the institution's, sends its queue for all patients."""
    status("hmis: connection test", 200, send("GET", f"/people/{NODE[0]}", NODE))
    person_id = "it" + uuid.uuid4().hex[:10]
    stored_id = person_id.upper()
    person = {
        "name": "Renée", "lastname": "Müller", "dob": "1972-03-01", "gender": "f", "id": stored_id,
        "creation_info": {"user": NODE[0], "timestamp": "2026-11-24 08:30:00", "node": "hospital"},
    }
    answer = status("hmis: a new person", 200, send("POST", f"/people/{person_id}", NODE, person))
    case("hmis: the answer to a new person is null", answer.json() is None, answer)
    status("hmis: the same person again", 200, send("POST", f"/people/{person_id}", NODE, person))
    answer = status("hmis: another person under the id", 422, send("POST", f"/people/{stored_id}", NODE, person | {"name": "Other"}))
    case("hmis: it is told why", answer.json()["error"] == "User already exists", answer)
    answer = status("hmis: the id is stored in upper case", 200, send("GET", f"/people/{stored_id}", NODE))
    case("hmis: roles default to end_user", answer.json()["roles"] == ["end_user"] and answer.json()["lastname"] == "Müller", answer)
    change = {"lastname": "Mueller", "modification_info": {"user": NODE[0], "timestamp": "2026-11-24 09:00:00", "node": "hospital"}}
    status("hmis: a change", 200, send("PATCH", f"/people/{stored_id}", NODE, change))
    status("hmis: a change that repeats the id", 200, send("PATCH", f"/people/{stored_id}", NODE, change | {"id": stored_id}))
    status("hmis: a change of the id", 422, send("PATCH", f"/people/{stored_id}", NODE, {"id": "OTHER"}))
    status("hmis: a change of roles", 403, send("PATCH", f"/people/{stored_id}", NODE, {"roles": ["root"]}))
    status("hmis: a change of an unknown person", 404, send("PATCH", "/people/UNKNOWN", NODE, change))
    answer = send("GET", f"/people/{stored_id}", NODE)
    case("hmis: the changed keys changed, the others did not", (answer.json()["lastname"], answer.json()["name"], answer.json()["roles"]) == ("Mueller", "Renée", ["end_user"]), answer)
    page_id = str(uuid.uuid4())
    page = {
        "id": page_id, "book": stored_id, "page_date": "2026-11-24T08:30:00", "age": "54y 8m 23d", "page_type": "medical",
        "relevance": "important", "medical_context": "encounter", "health_condition_text": None, "health_condition_code": "O80",
        "procedure_text": None, "procedure_code": None, "gene": None, "phenotype": None, "natural_variant": None,
        "social_context": None, "summary": "Single spontaneous delivery", "info": "", "measurements": {}, "node": "hospital",
        "author": "Cameron Cordara", "author_acct": NODE[0],
        "creation_info": {"user": NODE[0], "timestamp": "2026-11-24 08:30:00", "node": "hospital"},
    }
    path = f"/pols/{stored_id}/{page_id}"
    status("hmis: a page", 200, send("POST", path, NODE, page))
    status("hmis: the same page again", 200, send("POST", path, NODE, page))
    status("hmis: a change of the page", 200, send("PATCH", path, NODE, {"summary": "Delivery", "id": page_id}))
    answer = status("hmis: the page", 200, send("GET", path, NODE))
    case("hmis: the page is merged", answer.json() == page | {"summary": "Delivery"}, answer)
    status("hmis: a page for a person who is not there", 404, send("POST", f"/pols/UNKNOWN/{page_id}", NODE, page | {"book": "UNKNOWN"}))
    status("hmis: another's page under this book", 404, send("GET", f"/pols/{ANA[0]}/{page_id}", NODE))
    answer = status("hmis: all people", 200, send("GET", "/people", NODE))
    case("hmis: people are a list of lists of one person, none with a hash", all(len(row) == 1 and "password" not in row[0] for row in answer.json()) and len(answer.json()) >= 4, answer)
    status("hmis: an unknown person", 404, send("GET", "/people/UNKNOWN", NODE))
    answer = status("hmis: an unknown book", 200, send("GET", "/pols/UNKNOWN", NODE))
    case("hmis: an unknown book is empty", answer.json() == [], answer)
    answer = status("hmis: login", 200, send("GET", "/login", NODE))
    case("hmis: login is true", answer.json() is True, answer)
    answer = send("GET", "/login")
    case("hmis: the challenge", answer.status_code == 401 and answer.text == "Unauthorized Access" and answer.headers["WWW-Authenticate"] == 'Basic realm="Authentication Required", charset="UTF-8"', answer)
    status("root: an active person is not deleted", 422, send("DELETE", f"/people/{stored_id}", ROOT))
    status("root: switch the person off", 200, send("PATCH", f"/people/{stored_id}", ROOT, {"active": False}))
    status("root: a person with pages is not deleted", 409, send("DELETE", f"/people/{stored_id}", ROOT))
    status("root: delete the page", 200, send("DELETE", path, ROOT))
    status("root: delete the person", 200, send("DELETE", f"/people/{stored_id}", ROOT))
    status("root: it is gone", 404, send("GET", f"/people/{stored_id}", ROOT))


def merged():
    """Two records of one person are merged, and the clients go on with the id that has become old."""
    kept, old = ("KEPT" + uuid.uuid4().hex[:8].upper(), "OLD" + uuid.uuid4().hex[:8].upper())
    for who, name in ((kept, "Ana"), (old, "Anna")):
        person = {"name": name, "lastname": "Betz", "dob": "1985-10-04", "id": who, "password": "gnusolidario"}
        status("merge: a person", 200, send("POST", f"/people/{who}", NODE, person | {"only " + name: 1.50}))
    page = {"id": str(uuid.uuid4()), "book": old, "page_date": "2026-11-24T08:30:00", "summary": "from the phone"}
    path = f"/pols/{old}/{page['id']}"
    status("merge: a page of the old id", 200, send("POST", path, NODE, page))
    status("merge: not by a professional", 403, send("POST", "/index/merges", NODE, {"old": old, "survivor": kept}))
    order = {"old": old, "survivor": kept, "why": "the same woman"}
    answer = status("merge: by root", 200, send("POST", "/index/merges", ROOT, order))
    merge = answer.json()["merge"]
    answer = status("merge: the same again", 200, send("POST", "/index/merges", ROOT, order))
    case("merge: it is the same merge", answer.json() == {"merge": merge, "old": old, "survivor": kept}, answer)
    for target, where in ((f"/people/{old}?a=b", f"/people/{kept}?a=b"), (path, path.replace(old, kept)), (f"/pols/{old}", f"/pols/{kept}")):
        answer = status(f"merge: GET {target.split('/')[1]} of the old id", 307, send("GET", target, NODE))
        case("merge: the way to the surviving id", (answer.headers["Location"], answer.headers["Cache-Control"]) == (where, "no-store"), answer)
        status("merge: HEAD as GET", 307, send("HEAD", target, NODE))
    # As the real clients do, which follow.
    answer = requests.get(URL + f"/people/{old}", auth=NODE, verify=VERIFY, timeout=60)
    case("merge: the connection test of the HMIS", (answer.status_code, answer.json().get("id")) == (200, kept), answer)
    mine = (old, "gnusolidario")
    answer = wait_for(200, lambda: requests.get(URL + f"/people/{old}", auth=mine, verify=VERIFY, timeout=60))
    case("merge: the connection test of the phone", (answer.status_code, answer.json().get("id")) == (200, kept), answer)
    answer = requests.get(URL + f"/pols/{old}", auth=mine, verify=VERIFY, timeout=60)
    case("merge: the phone reads the book", answer.status_code == 200 and [page] in answer.json(), answer)
    answer = status("merge: the page of the old id in the book that stays", 200, send("GET", f"/pols/{kept}", NODE))
    case("merge: it is there as it was sent", [page] in answer.json(), answer)
    status("merge: the phone sends the page again", 200, send("POST", path, mine, page))
    more = page | {"id": str(uuid.uuid4()), "summary": "after the merge"}
    status("merge: the phone sends another page", 200, send("POST", f"/pols/{old}/{more['id']}", mine, more))
    change = {"lastname": "Mueller", "weight": 61.250, "modification_info": {"user": NODE[0], "node": "hospital"}}
    status("merge: the HMIS changes the old id", 200, send("PATCH", f"/people/{old}", NODE, change))
    status("merge: and repeats the id", 200, send("PATCH", f"/people/{old}", NODE, change | {"id": old}))
    status("merge: it changes the page", 200, send("PATCH", path, NODE, {"summary": "changed", "id": page["id"]}))
    answer = status("merge: the survivor", 200, send("GET", f"/people/{kept}", NODE))
    told = {name: answer.json().get(name) for name in ("id", "name", "lastname", "weight", "only Ana", "only Anna")}
    case("merge: it has the members of both and the change", list(told.values()) == [kept, "Ana", "Mueller", 61.25, 1.5, 1.5], answer)
    answer = status("merge: all people", 200, send("GET", "/people", NODE))
    case("merge: the old id is left out", [row[0]["id"] for row in answer.json() if row[0]["id"] in (old, kept)] == [kept], answer)
    status("merge: switch the person off", 200, send("PATCH", f"/people/{kept}", ROOT, {"active": False}))
    answer = status("merge: a merged person is not deleted", 409, send("DELETE", f"/people/{kept}", ROOT))
    case("merge: it is told why", answer.json()["code"] == "person_merged", answer)
    status("merge: it ends", 200, send("DELETE", f"/index/merges/{merge}", ROOT))
    answer = status("merge: the old id again", 200, send("GET", f"/people/{old}", NODE))
    case("merge: with what was written to it", (answer.json()["name"], answer.json()["lastname"], "only Ana" in answer.json()) == ("Anna", "Mueller", False), answer)
    answer = status("merge: the other one", 200, send("GET", f"/people/{kept}", NODE))
    case("merge: without that", (answer.json()["lastname"], "only Anna" in answer.json(), "weight" in answer.json()) == ("Betz", False, False), answer)
    answer = status("merge: the book of the old id", 200, send("GET", f"/pols/{old}", NODE))
    case("merge: has its pages", len(answer.json()) == 2, answer)
    answer = status("merge: the other book", 200, send("GET", f"/pols/{kept}", NODE))
    case("merge: has none", answer.json() == [], answer)
    answer = status("merge: who merged, and why", 200, send("GET", f"/index/merges/{merge}", ROOT))
    case("merge: it is told", (answer.json()["by"], answer.json()["why"], answer.json()["undone_by"]) == (ROOT[0], "the same woman", ROOT[0]), answer)


def documents():
    """Personal documents, domiciliary units and institutions."""
    page = "119b352e-8e4f-4847-9f05-53462cf94f10"
    answer = status("documents: the list of a person", 200, send("GET", f"/personal_docs/{ANA[0]}", ANA))
    account, on_page, data, document = answer.json()[0]
    picture = base64.b64decode(document)
    case("documents: rows of four, with the bytes", (account, on_page) == (ANA[0], page) and picture[:3] == b"\xff\xd8\xff", answer)
    answer = status("documents: one, as bytes", 200, send("GET", f"/personal_docs/{ANA[0]}/{page}/8789981f-4e31-48d5-8eb8-1774dac8b8f6", ANA))
    case("documents: the same bytes, with their type", answer.content == picture and answer.headers["Content-Type"] == "image/jpeg", answer)
    path = f"/personal_docs/{ANA[0]}/{page}/{uuid.uuid4()}"
    body = bytes(range(256)) * 64
    answer = requests.post(URL + path, auth=ANA, data=body, headers={"Content-Type": "application/pdf"}, verify=VERIFY, timeout=60)
    status("documents: a new one", 200, answer)
    answer = send("GET", path, ANA, headers={"Range": "bytes=256-511"})
    case("documents: a range of it", answer.status_code == 206 and answer.content == bytes(range(256)), answer)
    status("documents: another's", 403, send("GET", path.replace(ANA[0], NODE[0]), ANA))
    for kind in ("domiciliary-units", "institutions"):
        unit = f"/{kind}/{uuid.uuid4()}"
        status(f"{kind}: create", 200, send("POST", unit, ROOT, {"name": "Centro de salud", "id": unit.rsplit("/", 1)[1]}))
        status(f"{kind}: change", 200, send("PATCH", unit, ROOT, {"name": "Hospital"}))
        answer = status(f"{kind}: list", 200, send("GET", f"/{kind}", NODE))
        case(f"{kind}: rows of one", any(row[0].get("name") == "Hospital" for row in answer.json()), answer)
        status(f"{kind}: not for an end_user", 403, send("GET", f"/{kind}", ANA))
        status(f"{kind}: delete", 200, send("DELETE", unit, ROOT))


def portal():
    """The Federation Portal: another origin, a preflight before each call, errors that the page must be able to read."""
    origin = {"Origin": "https://portal.example"}
    ask = origin | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    answer = status("portal: preflight", 200, send("OPTIONS", f"/people/{ANA[0]}", headers=ask))
    case("portal: the preflight allows it", answer.headers["Access-Control-Allow-Headers"] == "authorization" and "GET" in answer.headers["Access-Control-Allow-Methods"], answer)
    for auth, path, expected in ((ANA, f"/people/{ANA[0]}", 200), (WRONG, f"/people/{ANA[0]}", 401), (ANA, "/people", 403), (ANA, "/nowhere", 404)):
        answer = status(f"portal: GET {path}", expected, send("GET", path, auth, headers=origin))
        case("portal: the page may read it", answer.headers["Access-Control-Allow-Origin"] == origin["Origin"], answer)


def password():
    """A person changes the password through the form, and the old one is of no use any more."""
    path = f"/password/{ANA[0]}"
    status("password: the form of another", 403, send("GET", f"/password/{NODE[0]}", ANA))

    def change(auth, new, confirm=None):
        form = send("GET", path, auth)
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', form.text) or re.search(r'value="([^"]+)"[^>]*name="csrf_token"', form.text)
        fields = {"csrf_token": token.group(1), "current": auth[1], "password": new, "pconfirm": confirm or new, "update": "Update"}
        return requests.post(URL + path, auth=auth, data=fields, cookies=form.cookies, verify=VERIFY, timeout=60, allow_redirects=False)

    status("password: the form", 200, send("GET", path, ANA))
    case("password: too short", "between 6 and" in (answer := change(ANA, "short")).text and answer.status_code == 200, answer)
    case("password: two that differ", (answer := change(ANA, "longenough", "different1")).status_code == 200, answer)
    forged = requests.post(URL + path, auth=ANA, data={"csrf_token": "x", "password": "forged!!", "pconfirm": "forged!!"}, verify=VERIFY, timeout=60, allow_redirects=False)
    case("password: without the token nothing changes", forged.status_code != 302 and send("GET", "/login", ANA).status_code == 200, forged)
    answer = status("password: changed", 302, change(ANA, "pässwörd-1"))
    case("password: back to the start", answer.headers["Location"] == "/", answer)
    new = (ANA[0], "pässwörd-1")
    # python-requests sends latin-1 where it can.
    status("password: the new one, sent as latin-1", 200, send("GET", "/login", new))
    status("password: the new one, sent as UTF-8", 200, send("GET", "/login", tuple(part.encode() for part in new)))
    status("password: the old one", 401, wait_for(401, lambda: send("GET", "/login", ANA)))
    status("password: changed back", 302, change(new, ANA[1]))
    status("password: as before", 200, wait_for(200, lambda: send("GET", "/login", ANA)))


def wait_for(expected, ask):
    """A change is seen everywhere within the freshness bound (1 s)."""
    for _ in range(40):
        answer = ask()
        if answer.status_code == expected:
            break
    return answer


for part in (phone, hmis, merged, documents, portal, password):
    part()
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed else 0)
