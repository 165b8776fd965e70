//! The gateway as a process: what it forwards, refuses, answers and records, in front of an upstream that writes
//! down all it receives.

#[path = "gateway/forwarding.rs"]
mod forwarding;
#[path = "gateway/passing.rs"]
mod passing;
#[path = "gateway/hosts.rs"]
mod hosts;
#[path = "gateway/refusing.rs"]
mod refusing;
#[path = "gateway/front_door.rs"]
mod front_door;
#[path = "gateway/browsers.rs"]
mod browsers;
#[path = "gateway/records.rs"]
mod records;
#[path = "gateway/disks.rs"]
mod disks;
#[path = "gateway/rotating.rs"]
mod rotating;
#[path = "gateway/descriptors.rs"]
mod descriptors;
#[path = "gateway/merging.rs"]
mod merging;
#[path = "gateway/vanishing.rs"]
mod vanishing;
#[path = "gateway/instances.rs"]
mod instances;
#[path = "gateway/explain.rs"]
mod explain;
#[path = "gateway/explained.rs"]
mod explained;
#[path = "gateway/operating.rs"]
mod operating;
#[path = "gateway/tls.rs"]
mod tls;
#[path = "gateway/authzen.rs"]
mod authzen;
#[path = "gateway/forward_auth.rs"]
mod forward_auth;
#[path = "gateway/http2.rs"]
mod http2;
#[path = "gateway/account_changes.rs"]
mod account_changes;
#[path = "gateway/authority.rs"]
mod authority;
#[path = "gateway/certificates.rs"]
mod certificates;
#[path = "gateway/revocation.rs"]
mod revocation;
#[path = "gateway/refused_certificates.rs"]
mod refused_certificates;
#[path = "gateway/certificate_checks.rs"]
mod certificate_checks;
#[path = "gateway/checks.rs"]
mod checks;
mod replica_checks;
#[path = "gateway/escapes.rs"]
mod escapes;
#[path = "gateway/messages.rs"]
mod messages;
#[path = "gateway/compressed.rs"]
mod compressed;
#[path = "gateway/embedded_store.rs"]
mod embedded_store;
#[path = "gateway/expiry.rs"]
mod expiry;
#[path = "gateway/proxies.rs"]
mod proxies;
#[path = "gateway/pdqm.rs"]
mod pdqm;
#[path = "gateway/fhir.rs"]
mod fhir;
#[path = "gateway/fhir_server.rs"]
mod fhir_server;
#[path = "gateway/servers.rs"]
mod servers;
#[path = "gateway/upstreams.rs"]
mod upstreams;
#[path = "gateway/exchanges.rs"]
mod exchanges;
#[path = "gateway/answers.rs"]
mod answers;
#[path = "gateway/beside.rs"]
mod beside;
#[path = "gateway/thalamus_pages.rs"]
mod thalamus_pages;
#[path = "gateway/looks.rs"]
mod looks;
#[path = "gateway/sessions.rs"]
mod sessions;
#[path = "gateway/new_people.rs"]
mod new_people;
#[path = "gateway/stores.rs"]
mod stores;
#[path = "gateway/notices.rs"]
mod notices;
#[path = "gateway/half_closed.rs"]
mod half_closed;
#[path = "gateway/crowding.rs"]
mod crowding;
#[path = "gateway/seats.rs"]
mod seats;
#[path = "gateway/stream_server.rs"]
mod stream_server;
#[path = "gateway/streams.rs"]
mod streams;
#[path = "gateway/subjects.rs"]
mod subjects;
#[path = "gateway/websocket_server.rs"]
mod websocket_server;
#[path = "gateway/websockets.rs"]
mod websockets;
#[path = "gateway/large_bodies.rs"]
mod large_bodies;
#[path = "gateway/call_server.rs"]
mod call_server;
#[path = "gateway/calls.rs"]
mod calls;
#[path = "gateway/links.rs"]
mod links;
#[path = "gateway/same_persons.rs"]
mod same_persons;
#[path = "gateway/body_room.rs"]
mod body_room;
#[path = "gateway/dependencies.rs"]
mod dependencies;
#[path = "gateway/guessing.rs"]
mod guessing;
#[path = "gateway/foreign.rs"]
mod foreign;
#[path = "gateway/pages.rs"]
mod pages;
#[path = "gateway/trust.rs"]
mod trust;
#[path = "gateway/thalamus.rs"]
mod thalamus;
#[path = "gateway/fields.rs"]
mod fields;
