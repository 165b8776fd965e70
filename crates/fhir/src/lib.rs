//! FHIR R4 Patient and IHE PDQm 3.2.0: what a request means, and what its answer says.
//!
//! The one rule: nothing here waits, reads a file, opens a socket or looks at a clock. The endpoints belong to the HIS,
//! which finds the people, asks the index, and calls this package for the rest. A value of a person's document that
//! FHIR does not allow is left out of a Patient; none is made up.
//!
//! From the body of a `$match` (ITI-119) to its answer:
//!
//! ```
//! use fedgate_fhir::format::{AnswerFormat, BodyFormat};
//! use fedgate_fhir::match_answer::{Grade, MatchAnswer, MatchCandidate};
//! use fedgate_fhir::match_request::MatchRequest;
//! use fedgate_fhir::patient::{FhirMapping, FhirSettings, PersonRecord};
//! use fedgate_index::fields::Fields;
//!
//! let (fields, settings) = (Fields::default(), FhirSettings::default());
//! let mapping = FhirMapping { fields: &fields, settings: &settings, base: "https://hub.example.org/fhir" };
//! let body = br#"{"resourceType": "Patient", "name": [{"family": "Betz", "given": ["Ana"]}]}"#;
//! let request = MatchRequest::parse(body, BodyFormat::Json, &mapping)?;
//! assert_eq!(request.demographics.family.as_deref(), Some("Betz"));
//!
//! let document = serde_json::json!({"name": "Ana", "lastname": "Betz", "dob": "1985-10-04"});
//! let record = PersonRecord::new("ESPGNU777ORG", &document);
//! let patient = mapping.patient(&record).expect("the id has a logical id");
//! let candidate = MatchCandidate { patient, score: 0.98, grade: Grade::Certain };
//! let answer = MatchAnswer::of(&request, vec![candidate]).resource(&mapping).write(AnswerFormat::Json);
//! assert!(answer.contains(r#""valueCode":"certain""#));
//! # Ok::<(), fedgate_fhir::outcome::RequestFault>(())
//! ```

#![forbid(unsafe_code)]

pub mod format;
pub mod outcome;
mod read;
mod values;
pub mod patient;
pub mod match_request;
pub mod match_answer;
pub mod search;
pub mod search_answer;
pub mod capability;
mod bundle;
pub mod resource;
