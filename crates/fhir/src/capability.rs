//! The CapabilityStatement of `/fhir/metadata`: what this server does (R4, CapabilityStatement).
//!
//! The one rule: it states what the tables of this package do, and nothing more. Called by the public endpoint, with
//! version and date.

use crate::resource::{Group, Node, Resource};
use crate::search::SearchParameter;

/// The profile of PDQm that answers conform to.
const PDQM_PATIENT: &str = "https://profiles.ihe.net/ITI/PDQm/StructureDefinition/IHE.PDQm.Patient";
/// The operation `$match` of PDQm.
const PDQM_MATCH: &str = "https://profiles.ihe.net/ITI/PDQm/OperationDefinition/PDQmMatch";
/// Where HL7 defines the parameters of a search.
const PARAMETERS: &str = "http://hl7.org/fhir/SearchParameter/";

/// The hub that the statement describes.
#[derive(Debug, Clone, Copy)]
pub struct ServedFhir<'a> {
    /// The address of the FHIR endpoint, as clients see it.
    pub base: &'a str,
    /// The version of the program.
    pub version: &'a str,
    /// When the program was started or built: `YYYY-MM-DD`, or a date and a time with an offset.
    pub date: &'a str,
}

/// The CapabilityStatement.
#[must_use]
pub fn statement(served: &ServedFhir<'_>) -> Resource {
    let software = Group::default().text("name", "fedhis").text("version", served.version);
    let implementation = Group::default().text("description", "The people of this federation").text("url", served.base);
    let formats = ["application/fhir+json", "application/fhir+xml", "json", "xml"];
    let members = Group::default()
        .text("status", "active")
        .text("date", served.date)
        .text("kind", "instance")
        .with("software", Node::Group(software))
        .with("implementation", Node::Group(implementation))
        .text("fhirVersion", "4.0.1")
        .list("format", formats.map(|format| Node::Text(format.to_owned())))
        .list("rest", [Node::Group(rest())]);
    Resource::new("CapabilityStatement", members)
}

fn rest() -> Group {
    let basic = Group::default()
        .text("system", "http://terminology.hl7.org/CodeSystem/restful-security-service")
        .text("code", "Basic");
    let service = Group::default().list("coding", [Node::Group(basic)]);
    let security = Group::default()
        .with("cors", Node::Bool(true))
        .list("service", [Node::Group(service)])
        .text("description", "HTTP Basic or a client certificate, over TLS. The roles of the caller decide.");
    Group::default()
        .text("mode", "server")
        .with("security", Node::Group(security))
        .list("resource", [Node::Group(patient())])
}

fn patient() -> Group {
    let interaction = |code: &str| Node::Group(Group::default().text("code", code));
    let parameter = |(_, name, kind, text): (SearchParameter, &str, &str, &str)| {
        let members = Group::default()
            .text("name", name)
            .text("definition", definition(name))
            .text("type", kind)
            .text("documentation", text);
        Node::Group(members)
    };
    let operation = Group::default().text("name", "match").text("definition", PDQM_MATCH);
    Group::default()
        .text("type", "Patient")
        .list("supportedProfile", [Node::Text(PDQM_PATIENT.to_owned())])
        .text("documentation", "IHE PDQm 3.2.0: ITI-78 and ITI-119")
        .list("interaction", ["read", "search-type"].map(interaction))
        .text("versioning", "no-version")
        .list("searchParam", SearchParameter::ALL.map(parameter))
        .list("operation", [Node::Group(operation)])
}

fn definition(name: &str) -> String {
    match name {
        "_id" => format!("{PARAMETERS}Resource-id"),
        "active" | "identifier" | "name" => format!("{PARAMETERS}Patient-{name}"),
        // These are one parameter for several resources.
        other => format!("{PARAMETERS}individual-{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::AnswerFormat;

    #[test]
    fn the_statement_names_what_is_served() {
        let served = ServedFhir { base: "https://hub.example.org/fhir", version: "0.2.0", date: "2026-11-30" };
        let text = statement(&served).write(AnswerFormat::Json);
        let statement: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(statement["fhirVersion"], "4.0.1");
        assert_eq!(statement["software"]["version"], "0.2.0");
        let patient = &statement["rest"][0]["resource"][0];
        let names: Vec<&str> =
            patient["searchParam"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
        // PDQm, 2:3.78.4.1.2.1, but for those of docs/FHIR.md whose data no Patient has.
        for name in ["_id", "active", "family", "given", "identifier", "telecom", "birthdate", "address", "gender"] {
            assert!(names.contains(&name), "{name}");
        }
        assert_eq!(patient["operation"][0]["name"], "match");
    }
}
