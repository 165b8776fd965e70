//! An oracle of roles.cfg: the meaning of the file a second time, written from its description and not from the
//! code.
//!
//! `json` reads a file as RFC 8259 defines it. `oracle` answers question by question, as Thalamus' loop over roles
//! and entries does, with fedgate's strictness. `pair` compares the answers of the engine, direct and compiled,
//! with the oracle's. The questions are everything about small files (`exhaustive`), very many about random ones
//! (`random`), and whether a malformed file is a policy at all (`files`).
//!
//! `FEDGATE_ORACLE_CASES` is the number of random decisions (default: 10,000,000). `FEDGATE_ORACLE_SEED` selects
//! others.

#[path = "policy_oracle/json.rs"]
mod json;
#[path = "policy_oracle/oracle.rs"]
mod oracle;
#[path = "policy_oracle/pair.rs"]
mod pair;
#[path = "policy_oracle/dice.rs"]
mod dice;
#[path = "policy_oracle/drafts.rs"]
mod drafts;
#[path = "policy_oracle/spoils.rs"]
mod spoils;
#[path = "policy_oracle/exhaustive.rs"]
mod exhaustive;
#[path = "policy_oracle/random.rs"]
mod random;
#[path = "policy_oracle/files.rs"]
mod files;
