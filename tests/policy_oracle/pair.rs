//! One file for both, engine and oracle. A difference panics with the smallest file that still shows it.

use std::fmt::Display;
use std::panic::catch_unwind;

use fedgate_core::policy::{
    DenyReason, EndpointTable, Method, OwnIds, PolicyDecision, PolicyQuestion, PolicyReach, PolicySet, RoleRights,
};

use super::oracle::{Answer, Ask, Policy};

/// A file that both accepted.
pub(crate) struct Pair<'a> {
    bytes: &'a [u8],
    pub(crate) oracle: Policy,
    pub(crate) engine: PolicySet,
}

impl<'a> Pair<'a> {
    /// Lets both read a file; `None` if both refuse it.
    ///
    /// # Panics
    /// If one accepts what the other refuses, or the engine panics.
    pub(crate) fn read(bytes: &'a [u8], origin: &dyn Display) -> Option<Self> {
        match (Policy::read(bytes), engine_reads(bytes)) {
            (Ok(oracle), Ok(engine)) => Some(Self { bytes, oracle, engine }),
            (Err(_), Err(fault)) if !fault.starts_with(PANICKED) => None,
            (oracle, engine) => {
                let (oracle, engine) = (oracle.err(), engine.err());
                let (accepts, panicked) =
                    (oracle.is_none(), engine.as_deref().is_some_and(|it| it.starts_with(PANICKED)));
                let smallest = minimise(bytes, |bytes| match engine_reads(bytes) {
                    Err(fault) if fault.starts_with(PANICKED) => panicked,
                    answer => !panicked && Policy::read(bytes).is_ok() == accepts && answer.is_ok() != accepts,
                });
                panic!(
                    "{origin}: is this file a policy?\n{}\noracle: {oracle:?}\nengine: {engine:?}\nwhole: {}",
                    shown(&smallest),
                    shown(bytes),
                );
            }
        }
    }

    /// Asks the oracle, the engine's definitions, and its compiled rights if the table knows the endpoint.
    ///
    /// # Panics
    /// If one of the three answers differently.
    pub(crate) fn ask(
        &self,
        rights: &RoleRights,
        table: &EndpointTable,
        ask: &Ask<'_>,
        origin: &dyn Display,
    ) -> Answer {
        let expected = self.oracle.answer(ask);
        let (straight, compiled) = engine_answers(&self.engine, rights, table, ask);
        if straight != expected || compiled.is_some_and(|compiled| compiled != expected) {
            let smallest = minimise(self.bytes, |bytes| differ(bytes, table, ask));
            panic!(
                "{origin}: {ask:?}\n{}\noracle: {expected:?}\nengine: {straight:?}\ncompiled: {compiled:?}\nwhole: {}",
                shown(&smallest),
                shown(self.bytes),
            );
        }
        expected
    }
}

const PANICKED: &str = "the engine panicked";

fn engine_reads(bytes: &[u8]) -> Result<PolicySet, String> {
    match catch_unwind(|| PolicySet::parse(bytes)) {
        Ok(answer) => answer.map_err(|fault| fault.to_string()),
        Err(_) => Err(PANICKED.to_owned()),
    }
}

fn engine_answers(
    policy: &PolicySet,
    rights: &RoleRights,
    table: &EndpointTable,
    ask: &Ask<'_>,
) -> (Answer, Option<Answer>) {
    let Ask { principal, roles, endpoint, subject, related, .. } = *ask;
    let principal = OwnIds::from(principal).with_related(related);
    let Some(method) = Method::parse(ask.method) else { return (Answer::NoMethod, None) };
    let straight = answer(policy.decide(PolicyQuestion { principal, roles, method, endpoint, subject }));
    let compiled = table.find(endpoint).map(|endpoint| answer(rights.decide(principal, method, endpoint, subject)));
    (straight, compiled)
}

fn answer(decision: PolicyDecision) -> Answer {
    match decision {
        PolicyDecision::Allow(PolicyReach::Global) => Answer::Global,
        PolicyDecision::Allow(PolicyReach::Related) => Answer::Related,
        PolicyDecision::Allow(PolicyReach::Own) => Answer::Own,
        PolicyDecision::Deny(DenyReason::NotOwn) => Answer::NotOwn,
        PolicyDecision::Deny(DenyReason::NotGranted) => Answer::NotGranted,
        PolicyDecision::Deny(DenyReason::NoRole) => Answer::NoRole,
        PolicyDecision::Deny(DenyReason::NotBound) => unreachable!("no subject was left open"),
    }
}

/// Whether the two answer differently under a file that both accept.
fn differ(bytes: &[u8], table: &EndpointTable, ask: &Ask<'_>) -> bool {
    let (Ok(oracle), Ok(engine)) = (Policy::read(bytes), engine_reads(bytes)) else { return false };
    let rights = RoleRights::compile(&engine, ask.roles, table);
    let expected = oracle.answer(ask);
    let (straight, compiled) = engine_answers(&engine, &rights, table, ask);
    straight != expected || compiled.is_some_and(|compiled| compiled != expected)
}

/// Cuts pieces out of a file, smaller each time, for as long as it still shows the difference.
fn minimise(bytes: &[u8], still: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut smallest = bytes.to_vec();
    let mut piece = smallest.len().min(1 << 12);
    while piece > 0 {
        let mut at = 0;
        while at < smallest.len() {
            let end = (at + piece).min(smallest.len());
            let shorter = [&smallest[..at], &smallest[end..]].concat();
            if still(&shorter) {
                smallest = shorter;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

/// Bytes as text, with unprintable ones escaped.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n') => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}
