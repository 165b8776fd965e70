"""Asks a FHIR server questions through the gateway, as several callers, and compares each answer with a plain rule:

    ask.py GATEWAY SERVER PASSWORD CALLER=REACH...

A reach is the ids of the persons whose records the caller may see, separated by commas; `*` is everybody's, and nothing
nobody's. A caller named `-` sends no credential. The rule knows nothing of routes: it takes what the server itself holds
and answers, and the one owner of each resource. Nothing beyond the reach may be shown, counted, or changed, and a question
about the reach is answered in full. Prints how many questions were asked; fails with all that are not right.
"""

import base64
import http.client
import json
import re
import sys

GATEWAY, SERVER, PASSWORD = sys.argv[1:4]
CALLERS = dict(caller.split("=") for caller in sys.argv[4:])
BASE = f"http://{SERVER}/fhir"
JSON = {"Content-Type": "application/fhir+json"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

# Whom a question is about, if not the persons that it names.
PUBLIC, UNNAMED, WIDE, NO_ROUTE, MALFORMED = "public", "unnamed", "wide", "no route", "malformed"


def resource(kind, id, patient=None, **more):
    """A valid resource with a word that occurs nowhere else."""
    made = {"resourceType": kind, "id": id, "language": f"word-{kind}-{id}"}
    if kind == "Observation":
        made |= {"status": "final", "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4"}]}}
    if kind == "Encounter":
        made |= {"status": "finished", "class": {"code": "AMB"}}
    if kind == "DocumentReference":
        made |= {"status": "current", "content": [{"attachment": {"title": f"word-{id}"}}]}
    if patient:
        made["subject"] = {"reference": f"Patient/{patient}"}
    return made | more


def seeds():
    weight = {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}
    vital = [{"coding": [{"code": "vital-signs"}]}]
    for person in ["ANA", "BOB", "CHILD", "ana", "ANA-2", "AN"]:
        yield resource("Patient", person, name=[{"family": f"Family-of-{person}", "given": ["X"]}], gender="female")
        low = {"ana": "lower"}.get(person, person.lower())
        yield resource("Observation", f"{low}-1", person, effectiveDateTime="2026-01-01", category=vital)
        yield resource("Observation", f"{low}-2", person, effectiveDateTime="2026-02-01", code=weight)
        yield resource("Observation", f"{low}-3", person, effectiveDateTime="2026-03-01")
        yield resource("Encounter", f"{low}-e", person, period={"start": "2026-01-01", "end": "2026-01-02"})
        yield resource("Encounter", f"{low}-f", person)
        yield resource("Encounter", f"{low}-g", person)
        yield resource("DocumentReference", f"{low}-d", person, type={"coding": [{"code": "34133-9"}]})
    # Others are named in it, but it is hers; and the other way about.
    yield resource("Observation", "by-bob", "ANA", performer=[{"reference": "Patient/BOB"}])
    yield resource("Observation", "by-ana", "BOB", performer=[{"reference": "Patient/ANA"}], focus=[{"reference": "Patient/ANA"}])
    yield resource("DocumentReference", "author-ana", "BOB", author=[{"reference": "Patient/ANA"}])
    # Whose these are is not said, or not in one way.
    yield resource("Observation", "nobodys")
    yield resource("Encounter", "nobodys-e")
    for id, subject in [
        ("groups", {"reference": "Group/ANA"}),
        ("versioned", {"reference": "Patient/ANA/_history/1"}),
        ("elsewhere", {"reference": "https://other.example/fhir/Patient/ANA"}),
        ("contained", {"reference": "#ANA"}),
        ("identified", {"identifier": {"value": "ANA"}}),
        ("shown", {"display": "ANA"}),
    ]:
        yield resource("Observation", id, subject=subject)
    yield resource("Observation", "by-address", subject={"reference": f"{BASE}/Patient/ANA"})


def owner(resource):
    if resource["resourceType"] == "Patient":
        return resource["id"]
    reference = (resource.get("subject") or {}).get("reference", "")
    named = re.fullmatch(rf"(?:{re.escape(BASE)}/)?Patient/([A-Za-z0-9.-]+)", reference)
    return named and named[1]


class Answer:
    def __init__(self, response):
        self.status, self.headers = response.status, response.getheaders()
        self.text = response.read().decode()

    @property
    def json(self):
        return json.loads(self.text)

    def entries(self):
        return [entry["resource"] for entry in self.json.get("entry", [])]


def ask(address, method, target, body=None, headers=None, caller=None):
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.putrequest(method, target, skip_accept_encoding=True)
    headers = dict(headers or {})
    if caller not in (None, "-"):
        headers["Authorization"] = "Basic " + base64.b64encode(f"{caller}:{PASSWORD}".encode()).decode()
    data = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    if body is not None:
        headers["Content-Length"] = str(len(data))
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders(data or None)
    answer = Answer(connection.getresponse())
    connection.close()
    return answer


def directly(method, target, body=None, headers=None):
    return ask(SERVER, method, target, body, headers or (JSON if body is not None else None))


def without_meta(resource):
    return {name: value for name, value in resource.items() if name != "meta"}


def held():
    return {(one["resourceType"], one["id"]): without_meta(one) for one in directly("GET", "/held").json}


SEEDS = {(one["resourceType"], one["id"]): one for one in seeds()}


def restore():
    """Puts back what a write has changed."""
    now = held()
    for (kind, id) in now.keys() - SEEDS.keys():
        assert directly("DELETE", f"/fhir/{kind}/{id}").status == 200
    for (kind, id), seed in SEEDS.items():
        if now.get((kind, id)) != seed:
            assert directly("PUT", f"/fhir/{kind}/{id}", seed).status == 200, (kind, id)


def reads():
    """Each target, and whom it is about."""
    yield "/fhir/metadata", PUBLIC
    for person in ["ANA", "BOB", "CHILD", "ana", "ANA-2", "AN", "NONE"]:
        yield f"/fhir/Patient/{person}", {person}
        yield f"/fhir/Patient?_id={person}", {person}
        yield f"/fhir/Observation?patient=Patient/{person}", {person}
        yield f"/fhir/Observation?subject=Patient%2F{person}&_count=2", {person}
        yield f"/fhir/Encounter?patient=Patient/{person}", {person}
        yield f"/fhir/DocumentReference?subject=Patient/{person}&_sort=date", {person}
    for kind, id in [*SEEDS, ("Observation", "none"), ("Encounter", "none"), ("DocumentReference", "none")]:
        if kind != "Patient":
            yield f"/fhir/{kind}/{id}", {owner(SEEDS[kind, id]) if (kind, id) in SEEDS else None}
    for kind in ["Patient", "Observation", "Encounter", "DocumentReference"]:
        yield f"/fhir/{kind}", UNNAMED
        yield f"/fhir/{kind}?_count=1", UNNAMED
        yield f"/fhir/{kind}?_count=0", UNNAMED
    for search in ["code=8867-4", "code=29463-7&_sort=-date", "date=ge2026-02-01", "category=vital-signs&_count=50"]:
        yield f"/fhir/Observation?{search}", UNNAMED
        yield f"/fhir/Observation?{search}&patient=Patient/ANA", {"ANA"}
        yield f"/fhir/Observation?{search}&patient=Patient/BOB", {"BOB"}
    yield "/fhir/Observation?patient=Patient/ANA&subject=Patient/ANA", {"ANA"}
    yield f"/fhir/Observation?patient={BASE}/Patient/ANA", {"ANA"}
    for search in [
        "patient=Patient/ANA,Patient/BOB", "patient=Patient/ANA&patient=Patient/BOB", "patient=Patient/ANA&subject=Patient/BOB",
        "patient:not=Patient/ANA", "patient:missing=true", "subject:missing=false", "patient:Patient=BOB", "subject:identifier=x|ANA",
        "patient.name=Family-of-BOB", "subject:Patient.family=Family-of-BOB", "patient.identifier=x", "performer=Patient/ANA",
        "focus=Patient/ANA", "performer=Patient/BOB&patient=Patient/ANA", "p%61tient=Patient/BOB", "Patient=Patient/BOB",
        "patient=Patient/ANA&p%61tient=Patient/BOB", "patient=", "patient=,", "patient=Patient/", "patient=Patient/*", "patient=|ANA",
        "patient=Patient/ANA;patient=Patient/BOB", "patient=Patient/ANA%26patient=Patient/BOB", "patient=Patient/ANA%00",
        "patient=Patient/ANA/_history/1", "patient=Patient/ANA&_include=Observation:patient", "_include=Observation:performer",
        "patient=Patient/ANA&_include:iterate=Observation:performer", "patient=Patient/ANA&_revinclude=Provenance:target",
        "_has:Group:member:_id=1", "patient=Patient/ANA&_has:Provenance:target:agent=x", "_filter=status+eq+final", "_query=all",
        "_summary=count", "patient=Patient/ANA&_summary=count", "_summary=true", "_total=accurate", "_elements=subject", "_fields=subject",
        "_format=xml", "_text=word", "_content=word", "_list=1", "_type=Patient", "_compartment=Patient/BOB", "_security=x", "_cursor=1",
        "_offset=1", "patient=Patient/ANA&_offset=1", "_lastUpdated=gt2000", "_id=bob-1", "patient=Patient/ANA&_id=bob-1", "code:not=x",
        "code:missing=true", "date:missing=true", "_tag=x", "_source=x", "_account=Patient/BOB", "_getpages=1", "value-quantity=5",
        "encounter=Encounter/bob-e", "encounter.subject=Patient/BOB", "_=1", "anything=x",
    ]:
        yield f"/fhir/Observation?{search}", WIDE
    for search in [
        "name=Family-of-BOB", "family=Family-of-BOB", "gender=female", "_has:Observation:patient:code=8867-4", "_id=ANA,BOB", "_id:not=ANA",
        "_id=ANA&_id=BOB", "_revinclude=Observation:patient", "_id=ANA&_revinclude=Observation:patient", "_summary=count", "link=Patient/ANA",
        "identifier=x", "_sort=name", "_elements=name",
    ]:
        yield f"/fhir/Patient?{search}", WIDE
    for target in ["Observation/ana-1?_summary=text", "Observation/ana-1?_elements=code", "Observation/ana-1?patient=Patient/ANA",
                   "Encounter/ana-e?_format=xml"]:
        yield f"/fhir/{target}", WIDE
    for target in [
        "", "?_type=Observation", "/_history", "/$graphql", "/$export", "/Observation/_history", "/Observation/_search",
        "/Observation/ana-1/_history", "/Observation/bob-1/_history", "/Observation/ana-1/_history/1", "/Patient/ANA/_history",
        "/Patient/ANA/$everything", "/Patient/$match", "/Patient/ANA/Observation", "/Patient/ANA/*", "/Observation/$lastn", "/Group",
        "/Provenance", "/AuditEvent", "/Binary/1", "/observation/bob-1", "/Bundle",
    ]:
        yield f"/fhir{target}", NO_ROUTE
    for target in ["/fhir/Patient/%41NA", "/fhir/Observation/../Patient/BOB", "/fhir//Observation", "/fhir/", "/fhir/Observation/ana-1%2F_history"]:
        yield target, MALFORMED


def writes():
    """Each method, target, body and headers, and whom it is about."""
    hers, his = resource("Observation", "ana-1", "ANA", note=[{"text": "new"}]), resource("Observation", "bob-1", "BOB")
    new = {name: value for name, value in hers.items() if name != "id"}
    of = lambda subject, **more: new | {"subject": subject} | more
    yield "POST", "/fhir/Observation", new, JSON, {"ANA"}
    yield "POST", "/fhir/Observation", of({"reference": "Patient/BOB"}), JSON, {"BOB"}
    yield "POST", "/fhir/Observation", of({"reference": f"{BASE}/Patient/ANA"}), JSON, {"ANA"}
    yield "PUT", "/fhir/Observation/ana-1", hers, JSON, {"ANA"}
    yield "PUT", "/fhir/Observation/bob-1", his | {"note": [{"text": "new"}]}, JSON, {"BOB"}
    yield "DELETE", "/fhir/Observation/ana-2", None, None, {"ANA"}
    yield "DELETE", "/fhir/Observation/bob-2", None, None, {"BOB"}
    yield "DELETE", "/fhir/Observation/nobodys", None, None, {None}
    yield "DELETE", "/fhir/Observation/by-ana", None, None, {"BOB"}
    for subject in [
        {"reference": "Patient/ANA,Patient/BOB"}, {"reference": "Patient/ANA/_history/1"}, {"reference": "Patient?name=Family-of-ANA"},
        {"reference": "Group/ANA"}, {"reference": "#ANA"}, {"reference": "urn:uuid:0"}, {"identifier": {"value": "ANA"}}, {"display": "ANA"},
        {}, {"reference": ["Patient/ANA"]}, [{"reference": "Patient/ANA"}], None, "Patient/ANA",
    ]:
        yield "POST", "/fhir/Observation", of(subject), JSON, WIDE
    # A new one that says which record it is.
    yield "POST", "/fhir/Observation", new | {"id": "bob-1"}, JSON, WIDE
    yield "POST", "/fhir/Observation", new | {"id": "ana-1"}, JSON, WIDE
    yield "POST", "/fhir/Observation", json.dumps(new)[:-1] + ', "i\\u0064": "bob-1"}', JSON, WIDE
    yield "POST", "/fhir/Observation", json.dumps(new)[:-1] + ', "subject": {"reference": "Patient/BOB"}}', JSON, WIDE
    yield "POST", "/fhir/Observation", json.dumps(new)[:-1] + ', "Subject": {"reference": "Patient/BOB"}}', JSON, WIDE
    yield "POST", "/fhir/Observation", [new, of({"reference": "Patient/BOB"})], JSON, WIDE
    # To the record of another, from it, and to one that there is not.
    yield "PUT", "/fhir/Observation/bob-1", hers | {"id": "bob-1"}, JSON, WIDE
    yield "PUT", "/fhir/Observation/ana-1", his | {"id": "ana-1"}, JSON, WIDE
    yield "PUT", "/fhir/Observation/ana-1", his, JSON, WIDE
    yield "PUT", "/fhir/Observation/ana-1", hers | {"id": "bob-1"}, JSON, WIDE
    yield "PUT", "/fhir/Observation/nobodys", hers | {"id": "nobodys"}, JSON, WIDE
    yield "PUT", "/fhir/Observation/fresh", hers | {"id": "fresh"}, JSON, WIDE
    yield "PUT", "/fhir/Patient/ANA", resource("Patient", "ANA"), JSON, WIDE
    yield "PUT", "/fhir/Patient/BOB", resource("Patient", "BOB", link=[{"other": {"reference": "Patient/ANA"}}]), JSON, WIDE
    # Conditional ones.
    yield "POST", "/fhir/Observation", new, JSON | {"If-None-Exist": "patient=Patient/BOB"}, WIDE
    yield "POST", "/fhir/Observation", new, JSON | {"If-None-Exist": "patient=Patient/ANA"}, WIDE
    yield "POST", "/fhir/Observation?patient=Patient/ANA", new, JSON, WIDE
    yield "POST", "/fhir/Observation?_account=Patient/BOB", new, JSON, WIDE
    yield "PUT", "/fhir/Observation?patient=Patient/BOB", new, JSON, NO_ROUTE
    yield "PUT", "/fhir/Observation?_id=bob-1", hers, JSON, NO_ROUTE
    yield "DELETE", "/fhir/Observation?patient=Patient/BOB", None, None, NO_ROUTE
    yield "DELETE", "/fhir/Observation?_id=bob-1", None, None, NO_ROUTE
    yield "DELETE", "/fhir/Observation/ana-1?_cascade=delete", None, None, WIDE
    patch = [{"op": "replace", "path": "/subject/reference", "value": "Patient/ANA"}]
    yield "PATCH", "/fhir/Observation/bob-1", patch, {"Content-Type": "application/json-patch+json"}, NO_ROUTE
    yield "PATCH", "/fhir/Observation?_id=bob-1", patch, {"Content-Type": "application/json-patch+json"}, NO_ROUTE
    # Searches in a body, many requests in one, another language.
    yield "POST", "/fhir/Observation/_search", "patient=Patient/BOB", FORM, NO_ROUTE
    yield "POST", "/fhir/Observation/_search?patient=Patient/ANA", "patient=Patient/BOB", FORM, NO_ROUTE
    yield "POST", "/fhir/Observation", "patient=Patient/BOB", FORM, WIDE
    inner = [{"request": {"method": "GET", "url": "Observation?patient=Patient/BOB"}},
             {"request": {"method": "DELETE", "url": "Observation/bob-1"}},
             {"request": {"method": "PUT", "url": "Observation/bob-1"}, "resource": hers | {"id": "bob-1"}}]
    for kind in ["batch", "transaction"]:
        bundle = {"resourceType": "Bundle", "type": kind, "entry": inner}
        yield "POST", "/fhir", bundle, JSON, NO_ROUTE
        yield "POST", "/fhir/", bundle, JSON, NO_ROUTE
        yield "POST", "/fhir?_format=json", bundle, JSON, NO_ROUTE
        yield "POST", "/fhir/Observation", bundle, JSON, WIDE
        yield "POST", "/fhir/Bundle", bundle, JSON, NO_ROUTE
    yield "POST", "/fhir/$graphql", {"query": "{ ObservationList { id subject { reference } } }"}, JSON, NO_ROUTE
    yield "POST", "/fhir/Patient/$merge", resource("Parameters", "x"), JSON, NO_ROUTE
    yield "POST", "/fhir/Patient", resource("Patient", "ANA"), JSON, NO_ROUTE
    yield "POST", "/fhir/Observation/bob-1", hers, JSON | {"X-HTTP-Method-Override": "PUT"}, NO_ROUTE


def links(answer):
    return {link["relation"]: link["url"] for link in answer.json.get("link", [])}


def target_of(link):
    """The target of a link to the gateway."""
    assert link.startswith(f"http://{GATEWAY}/"), f"{link} does not lead to the gateway"
    return link[len(f"http://{GATEWAY}"):]


def altered(target):
    """Signed links that nobody has signed."""
    path, _, signed = target.partition("fedgate_page=")
    if not signed:
        return
    for at in [0, 20, 43, 50, 60, len(signed) // 2, len(signed) - 2]:
        yield f"{path}fedgate_page={signed[:at]}{'A' if signed[at] != 'A' else 'B'}{signed[at + 1:]}"
    yield f"{path}fedgate_page={signed[:-4]}"
    yield f"{path}fedgate_page={signed}AAAA"
    yield f"{path}fedgate_page="
    yield target.replace("/Observation?", "/Encounter?") if "/Observation?" in target else target.replace("/Encounter?", "/Observation?")
    yield target + "&_count=1"
    yield target + "&fedgate_page=" + signed
    yield "/fhir/Observation/ana-1?fedgate_page=" + signed


class Judge:
    def __init__(self):
        self.asked, self.faults, self.shown = 0, [], 0

    def fault(self, caller, question, words, answer):
        self.faults.append(f"{caller} {question}: {words}: {answer.status} {answer.text[:300]}")

    def leak(self, reach, answer, question):
        """A resource beyond the reach of which the answer tells more than the question did."""
        if reach == "*":
            return None
        seen = answer.text + json.dumps([header for header in answer.headers])
        for one in SEEDS.values():
            if owner(one) not in reach and (one["language"] + '"' in seen or f'Family-of-{one["id"]}"' in seen):
                return one["id"]
        return None

    def read(self, caller, reach, target, about, answer):
        question = f"GET {target}"
        if (leaked := self.leak(reach, answer, target)) is not None:
            return self.fault(caller, question, f"shows {leaked}", answer)
        direct = directly("GET", target)
        if about == MALFORMED:
            right = answer.status in (400, 401, 404)
        elif about == PUBLIC:
            right = answer.status == 200
        elif caller == "-":
            right = answer.status == 401
        elif about == NO_ROUTE:
            right = answer.status in (403, 404, 405)
        elif reach == "*":
            right = answer.status == direct.status and relative(answer.json) == relative(direct.json)
        elif about == WIDE:
            right = answer.status == 403
        elif about == UNNAMED or about <= reach:
            right = self.is_whole(reach, target, answer)
        elif re.fullmatch(r"/fhir/(?!Patient)\w+/[\w-]+", target):
            # As if there were none.
            none = ask(GATEWAY, "GET", "/fhir/Observation/never-was", caller=caller)
            right = answer.status == none.status == 404 and words_of(answer) == words_of(none)
        else:
            right = answer.status == 403
        if not right:
            self.fault(caller, question, f"about {about}, the server says {direct.status} {direct.text[:200]}", answer)

    def is_whole(self, reach, target, answer):
        """Whether all that the question asks for and the caller may see is shown, and nothing else is counted."""
        path, _, search = target.partition("?")
        if re.fullmatch(r"/fhir/\w+/[^/]+", path):
            kind, id = path.split("/")[2:]
            self.shown += 1
            return answer.status == (200 if (kind, id) in SEEDS else 404) and (
                (kind, id) not in SEEDS or without_meta(answer.json) == SEEDS[kind, id])
        rest = "&".join(part for part in search.split("&") if part and not part.startswith("_count"))
        page = int(count[1]) if (count := re.search(r"_count=(\d+)", search)) else 20
        everything = directly("GET", f"{path}?_count=1000&{rest}")
        # The server itself does not find a record by the address of its subject, so neither does she.
        listed = directly("GET", f"{path}?_count=1000").entries()
        named = {one["id"] for one in listed if owner(one) in reach and BASE not in json.dumps(one.get("subject"))}
        wanted = [one["id"] for one in everything.entries() if one["id"] in named]
        found = [one["id"] for one in answer.entries()] if answer.status == 200 else None
        self.shown += len(wanted[:page])
        return found == wanted[:page] and answer.json.get("total", len(wanted)) == len(wanted)

    def pages(self, caller, reach):
        """Follows the links of pages: each caller comes to all that is within reach, and nobody to another's page."""
        followed = []
        for target in ["/fhir/Observation?_count=2", "/fhir/Encounter?_count=1", "/fhir/Observation?code=8867-4&_count=1",
                       "/fhir/Encounter?patient=Patient/ANA&_count=2", "/fhir/DocumentReference?_count=1"]:
            path, _, search = target.partition("?")
            rest = "&".join(part for part in search.split("&") if not part.startswith("_count"))
            wanted = [one["id"] for one in directly("GET", f"{path}?_count=1000&{rest}").entries()
                      if reach == "*" or owner(one) in reach and BASE not in json.dumps(one.get("subject"))]
            found, at = [], target
            while at:
                answer = ask(GATEWAY, "GET", at, caller=caller)
                self.asked += 1
                if answer.status != 200 or SERVER in json.dumps(answer.json.get("link")):
                    self.fault(caller, f"GET {at}", "is no page, or leads past the gateway", answer)
                    break
                if (leaked := self.leak(reach, answer, at)) is not None:
                    self.fault(caller, f"GET {at}", f"shows {leaked}", answer)
                found += [one["id"] for one in answer.entries()]
                known = links(answer)
                again = ask(GATEWAY, "GET", target_of(known["self"]), caller=caller)
                if [one["id"] for one in again.entries()] != [one["id"] for one in answer.entries()]:
                    self.fault(caller, f"GET {known['self']}", "is not the page itself", again)
                at = target_of(known["next"]) if "next" in known else None
                followed += [at] if at else []
            if found != wanted:
                self.faults.append(f"{caller} {target}: the pages show {found}, not {wanted}")
        for target in followed:
            for forged in altered(target):
                answer = ask(GATEWAY, "GET", forged, caller=caller)
                self.asked += 1
                # To who may see everything, it is a parameter of the server's where it is not a link.
                is_link = "&" not in forged and "ana-1" not in forged
                if answer.status != 403 and (reach != "*" or is_link):
                    self.fault(caller, f"GET {forged}", "was not signed", answer)
        return followed

    def foreign_pages(self, caller, reach, followed):
        """Links that were signed for another caller."""
        for target in followed:
            answer = ask(GATEWAY, "GET", target, caller=caller)
            self.asked += 1
            if reach == "*" and "fedgate_page" not in target:
                continue
            if answer.status not in ((401,) if caller == "-" else (403,)):
                self.fault(caller, f"GET {target}", "is another's page", answer)

    def write(self, caller, reach, question, about, answer):
        method, target, *_ = question
        words = " ".join(str(part)[:200] for part in question)
        if (leaked := self.leak(reach, answer, target)) is not None:
            self.fault(caller, words, f"shows {leaked}", answer)
        before, after = {key: one for key, one in SEEDS.items()}, held()
        changed = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        if reach != "*":
            of = {owner(state[key]) for state in (before, after) for key in changed if key in state}
            if not of <= reach:
                self.fault(caller, words, f"changes {changed} of {of}", answer)
        if caller == "-":
            # Everybody may know which methods a path has.
            right = answer.status in ((400, 401, 405) if about == NO_ROUTE else (401,)) and not changed
        elif about == NO_ROUTE:
            right = answer.status in (400, 403, 404, 405) and not changed
        elif reach == "*":
            right = about == WIDE or (answer.status < 300 and changed)
        elif about == WIDE:
            right = 400 <= answer.status < 500 and not changed
        elif about <= reach:
            right = answer.status < 300 and len(changed) == 1
        else:
            right = answer.status in (403, 404) and not changed
        if not right:
            self.fault(caller, words, f"about {about}, changed {changed}", answer)
        if changed:
            restore()


def words_of(answer):
    """A refusal without the id of its request."""
    return {name: value for name, value in answer.json.items() if name != "request_id"}


def relative(document):
    """A document without the addresses of links, which lead to the gateway or to the server."""
    document.pop("link", None)
    return document


def main():
    restore()
    judge, signed = Judge(), {}
    for caller, reach in CALLERS.items():
        reach = reach if reach == "*" else {id for id in reach.split(",") if id}
        for target, about in reads():
            answer = ask(GATEWAY, "GET", target, caller=caller)
            judge.read(caller, reach, target, about, answer)
            head = ask(GATEWAY, "HEAD", target, caller=caller)
            if (head.status, head.text) != (answer.status, ""):
                judge.fault(caller, f"HEAD {target}", "is not as GET", head)
            judge.asked += 1
        for *question, about in writes():
            judge.write(caller, reach, question, about, ask(GATEWAY, *question, caller=caller))
            judge.asked += 1
        if caller != "-":
            signed[caller] = judge.pages(caller, reach)
        assert held() == SEEDS, "the server does not hold what it held before"
    for caller, reach in CALLERS.items():
        for other, followed in signed.items():
            if other != caller:
                judge.foreign_pages(caller, reach, followed)
    for fault in judge.faults:
        print(fault)
    print(f"{judge.asked} questions of {len(CALLERS)} callers, {judge.shown} resources shown under limits, {len(judge.faults)} faults")
    sys.exit(1 if judge.faults or not judge.shown else 0)


main()
