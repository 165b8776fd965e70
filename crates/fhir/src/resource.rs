//! A resource that is answered, and its two written forms.
//!
//! The one rule: both forms come from one tree, whose members are in the order of the specification, because the order
//! counts in XML (R4, 2.6.2). Texts were checked by `values`, so both forms can hold them. Called by all modules that
//! answer.

use crate::format::AnswerFormat;

/// The namespace of FHIR in XML.
pub(crate) const FHIR_NAMESPACE: &str = "http://hl7.org/fhir";

/// A resource, ready to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    kind: &'static str,
    members: Group,
}

/// The members of a resource or of an element, in the order of the specification.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Group(Vec<(&'static str, Node)>);

/// The value of a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A text, code, date or address.
    Text(String),
    /// A truth value.
    Bool(bool),
    /// A number as it is written.
    Number(String),
    /// An element with members.
    Group(Group),
    /// An element that may occur several times.
    List(Vec<Node>),
    /// A whole resource, as in an entry of a Bundle.
    Resource(Resource),
}

impl Group {
    /// Appends a member.
    pub(crate) fn with(mut self, name: &'static str, node: Node) -> Self {
        self.0.push((name, node));
        self
    }

    /// Appends a text.
    pub(crate) fn text(self, name: &'static str, text: impl Into<String>) -> Self {
        self.with(name, Node::Text(text.into()))
    }

    /// Appends a text, if there is one.
    pub(crate) fn maybe_text(self, name: &'static str, text: Option<impl Into<String>>) -> Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    /// Appends a truth value, if there is one.
    pub(crate) fn maybe_bool(self, name: &'static str, truth: Option<bool>) -> Self {
        match truth {
            Some(truth) => self.with(name, Node::Bool(truth)),
            None => self,
        }
    }

    /// Appends an element that may occur several times, unless it occurs never: FHIR has no empty lists (R4, 2.6.3).
    pub(crate) fn list(self, name: &'static str, nodes: impl IntoIterator<Item = Node>) -> Self {
        let nodes: Vec<Node> = nodes.into_iter().collect();
        if nodes.is_empty() { self } else { self.with(name, Node::List(nodes)) }
    }

    /// Whether it has no member: FHIR has no empty elements.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Resource {
    pub(crate) fn new(kind: &'static str, members: Group) -> Self {
        Self { kind, members }
    }

    /// The resource as text.
    #[must_use]
    pub fn write(&self, format: AnswerFormat) -> String {
        let mut text = String::new();
        match format {
            AnswerFormat::Json => write_json_resource(self, &mut text),
            AnswerFormat::Xml => {
                text.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
                write_xml_resource(self, true, &mut text);
            }
        }
        text
    }
}

fn write_json_resource(resource: &Resource, text: &mut String) {
    text.push_str("{\"resourceType\":\"");
    text.push_str(resource.kind);
    text.push('"');
    if !resource.members.is_empty() {
        text.push(',');
        write_json_members(&resource.members, text);
    }
    text.push('}');
}

fn write_json_members(group: &Group, text: &mut String) {
    for (at, (name, node)) in group.0.iter().enumerate() {
        text.push_str(if at == 0 { "\"" } else { ",\"" });
        text.push_str(name);
        text.push_str("\":");
        write_json_node(node, text);
    }
}

fn write_json_node(node: &Node, text: &mut String) {
    match node {
        // Writing a string as JSON cannot fail.
        Node::Text(value) => text.push_str(&serde_json::to_string(value).unwrap_or_default()),
        Node::Bool(truth) => text.push_str(if *truth { "true" } else { "false" }),
        Node::Number(number) => text.push_str(number),
        Node::Group(group) => {
            text.push('{');
            write_json_members(group, text);
            text.push('}');
        }
        Node::List(nodes) => {
            text.push('[');
            for (at, node) in nodes.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                write_json_node(node, text);
            }
            text.push(']');
        }
        Node::Resource(resource) => write_json_resource(resource, text),
    }
}

fn write_xml_resource(resource: &Resource, is_root: bool, text: &mut String) {
    text.push('<');
    text.push_str(resource.kind);
    if is_root {
        write_attribute("xmlns", FHIR_NAMESPACE, text);
    }
    text.push('>');
    write_xml_members(&resource.members, text);
    close(resource.kind, text);
}

fn write_xml_members(group: &Group, text: &mut String) {
    for (name, node) in &group.0 {
        write_xml_node(name, node, text);
    }
}

fn write_xml_node(name: &str, node: &Node, text: &mut String) {
    match node {
        Node::List(nodes) => nodes.iter().for_each(|node| write_xml_node(name, node, text)),
        Node::Text(value) => write_xml_primitive(name, value, text),
        Node::Bool(truth) => write_xml_primitive(name, if *truth { "true" } else { "false" }, text),
        Node::Number(number) => write_xml_primitive(name, number, text),
        Node::Resource(resource) => {
            open(name, text);
            write_xml_resource(resource, false, text);
            close(name, text);
        }
        Node::Group(Group(members)) => {
            text.push('<');
            text.push_str(name);
            // The address of an extension is an attribute (R4, 2.6.2).
            let is_address = |member: &str| name == "extension" && member == "url";
            for (member, node) in members {
                if let (true, Node::Text(value)) = (is_address(member), node) {
                    write_attribute(member, value, text);
                }
            }
            text.push('>');
            members.iter().filter(|(member, _)| !is_address(member)).for_each(|(name, node)| {
                write_xml_node(name, node, text);
            });
            close(name, text);
        }
    }
}

fn write_xml_primitive(name: &str, value: &str, text: &mut String) {
    text.push('<');
    text.push_str(name);
    write_attribute("value", value, text);
    text.push_str("/>");
}

fn open(name: &str, text: &mut String) {
    text.push('<');
    text.push_str(name);
    text.push('>');
}

fn close(name: &str, text: &mut String) {
    text.push_str("</");
    text.push_str(name);
    text.push('>');
}

fn write_attribute(name: &str, value: &str, text: &mut String) {
    text.push(' ');
    text.push_str(name);
    text.push_str("=\"");
    for sign in value.chars() {
        match sign {
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            // Otherwise a reader takes them for blanks (XML 1.0, 3.3.3).
            '\t' => text.push_str("&#9;"),
            '\n' => text.push_str("&#10;"),
            '\r' => text.push_str("&#13;"),
            other => text.push(other),
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_written_from_one_tree() {
        let extension = Group::default().text("url", "http://x/y").text("valueCode", "a\"<&>\n");
        let inner = Resource::new("Patient", Group::default().text("id", "A"));
        let members = Group::default()
            .list("extension", [Node::Group(extension)])
            .list("given", [Node::Text("Ana".into()), Node::Text("María".into())])
            .list("never", [])
            .maybe_bool("active", Some(false))
            .with("score", Node::Number("0.5".into()))
            .with("resource", Node::Resource(inner));
        let resource = Resource::new("Basic", members);
        assert_eq!(
            resource.write(AnswerFormat::Json),
            r#"{"resourceType":"Basic","extension":[{"url":"http://x/y","valueCode":"a\"<&>\n"}],"given":["Ana","María"],"active":false,"score":0.5,"resource":{"resourceType":"Patient","id":"A"}}"#
        );
        assert_eq!(
            resource.write(AnswerFormat::Xml),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Basic xmlns=\"http://hl7.org/fhir\">\
             <extension url=\"http://x/y\"><valueCode value=\"a&quot;&lt;&amp;&gt;&#10;\"/></extension>\
             <given value=\"Ana\"/><given value=\"María\"/><active value=\"false\"/><score value=\"0.5\"/>\
             <resource><Patient><id value=\"A\"/></Patient></resource></Basic>"
        );
        let empty = Resource::new("Patient", Group::default());
        assert_eq!(empty.write(AnswerFormat::Json), r#"{"resourceType":"Patient"}"#);
    }
}
