"""Checks answers of crates/fhir with HL7's JSON schema of FHIR R4:

    check.py SCHEMA FOLDER

Each NAME.json of the folder must be valid, and NAME.xml, read by the schema, must be the same resource with its
elements in the order of the specification. Prints the number of answers; fails with the first that is not right.
"""

import json
import pathlib
import sys
import xml.etree.ElementTree as ElementTree

import jsonschema

FHIR = "{http://hl7.org/fhir}"


class Schema:
    def __init__(self, path):
        self.whole = json.loads(pathlib.Path(path).read_text())
        self.definitions = self.whole["definitions"]
        self.validators = {}

    def validate(self, resource):
        """By the definition of the resource itself: the list of all resources would name every one of them."""
        kind = resource["resourceType"]
        if kind not in self.validators:
            root = {"$schema": self.whole["$schema"], "$ref": f"#/definitions/{kind}", "definitions": self.definitions}
            self.validators[kind] = jsonschema.Draft6Validator(root)
        errors = sorted(self.validators[kind].iter_errors(resource), key=str)
        # Entries by their own definition, so that an error names the element.
        for entry in resource.get("entry", []):
            self.validate(entry["resource"])
        if errors:
            raise SystemExit("\n".join(f"{list(error.path)}: {error.message[:300]}" for error in errors))

    def read(self, element, kind):
        """An element of XML as JSON, by the definition of its type."""
        properties = self.definitions[kind].get("properties", {})
        order = [name for name in properties if not name.startswith("_")]
        read, last = {}, -1
        if "url" in element.attrib:
            read["url"] = element.attrib["url"]
        for child in element:
            name = child.tag.removeprefix(FHIR)
            assert name in properties, f"{kind} has no {name}"
            # The JSON schema has the members in the order of the specification.
            at = order.index(name)
            assert at >= last, f"{name} of {kind} is out of order"
            last = at
            rule = properties[name]
            value = self.value(child, rule.get("items", rule))
            if rule.get("type") == "array":
                read.setdefault(name, []).append(value)
            else:
                assert name not in read, f"{name} of {kind} occurs twice"
                read[name] = value
        return read

    def value(self, element, rule):
        kind = rule.get("$ref", "").removeprefix("#/definitions/")
        if kind == "ResourceList":
            (inner,) = element
            name = inner.tag.removeprefix(FHIR)
            return {"resourceType": name, **self.read(inner, name)}
        if kind and self.definitions[kind].get("properties"):
            return self.read(element, kind)
        text = element.attrib["value"]
        written = self.definitions[kind].get("type") if kind else rule.get("type")
        if kind == "boolean" or written == "boolean":
            return {"true": True, "false": False}[text]
        return json.loads(text) if written == "number" else text


def main(schema, folder):
    schema, answers = Schema(schema), sorted(pathlib.Path(folder).glob("*.json"))
    for path in answers:
        resource = json.loads(path.read_text())
        try:
            schema.validate(resource)
            root = ElementTree.fromstring(path.with_suffix(".xml").read_bytes())
            kind = root.tag.removeprefix(FHIR)
            by_xml = {"resourceType": kind, **schema.read(root, kind)}
            assert by_xml == resource, f"the XML says\n{by_xml}\nand the JSON\n{resource}"
        except (AssertionError, SystemExit) as fault:
            raise SystemExit(f"{path.name}: {fault}") from None
    # A check that accepts everything is none.
    broken = {"resourceType": "Patient", "birthDate": "1985-13", "name": [{"family": 1}], "nosuch": True}
    try:
        schema.validate(broken)
    except SystemExit as fault:
        assert all(name in str(fault) for name in ("birthDate", "family", "nosuch")), fault
    else:
        raise SystemExit("the schema accepts a Patient with faults")
    print(f"fhir r4 {len(answers)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
