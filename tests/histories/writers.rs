//! The writers: people, pages, documents and units over HTTP to any instance, and transactions of SQL beside them.
//!
//! The one rule: a writer calls failed only what failed for certain.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::json;
use tokio::time::sleep;

use super::log::{Write, WriteOutcome, WrittenChange, mark_key, merge_key};
use super::stage::{Exchange, Stage};
use crate::support::{Reply, professional, root};

/// The people of a history.
pub(crate) const PEOPLE: [&str; 3] = ["PA", "PB", "PC"];

/// How often a write is sent that may be sent again.
const TRIES: usize = 40;

pub(crate) struct Writer {
    pub(crate) name: String,
    pub(crate) random: StdRng,
    pub(crate) stage: Arc<Stage>,
    pub(crate) writes: Vec<Write>,
    made: usize,
    /// Pages of this writer that exist, with their person.
    pages: Vec<(String, &'static str)>,
    /// People of this writer alone.
    people: Vec<String>,
    /// Merges of such people: the old id, the one that stays, and the number.
    merges: Vec<(String, String, u64)>,
}

impl Writer {
    pub(crate) fn new(name: String, random: StdRng, stage: Arc<Stage>) -> Self {
        Self { name, random, stage, writes: vec![], made: 0, pages: vec![], people: vec![], merges: vec![] }
    }

    pub(crate) async fn write(mut self, count: usize) -> Vec<Write> {
        for _ in 0..count {
            self.step().await;
            let pause = self.random.random_range(0..8);
            sleep(Duration::from_millis(pause)).await;
        }
        self.writes
    }

    async fn step(&mut self) {
        match self.random.random_range(0..26) {
            0..=5 => self.post_page().await,
            6..=7 => self.patch_page().await,
            8 => self.delete_page().await,
            9 => self.post_document().await,
            10 => self.post_unit().await,
            11 => self.post_person().await,
            12..=13 => self.patch_person().await,
            14 => self.post_under_a_used_id().await,
            15..=18 => self.transaction(30).await,
            19 => self.transaction(400).await,
            20..=21 => self.post_person().await,
            22 => self.merge().await,
            23..=24 => self.patch_merged().await,
            _ => self.unmerge().await,
        }
    }

    fn token(&mut self) -> String {
        self.made += 1;
        format!("{}{}", self.name, self.made)
    }

    fn person(&mut self) -> &'static str {
        PEOPLE[self.random.random_range(0..PEOPLE.len())]
    }

    fn change(&self, key: &str, resource: &'static str, person: Option<&str>) -> WrittenChange {
        let begun = self.stage.clock.now();
        WrittenChange { key: key.to_owned(), resource, person: person.map(str::to_owned), begun }
    }

    /// A change of the record of a person, which gets the mark.
    fn person_change(&self, mark: &str, person: &str) -> WrittenChange {
        self.change(&mark_key("person", Some(person), mark), "person", Some(person))
    }

    fn ended(&mut self, changes: Vec<WrittenChange>, outcome: WriteOutcome) {
        self.writes.push(Write { changes, ended: self.stage.clock.now(), outcome });
    }

    /// Sends a write to any instance; again to any, if it may be sent again, while the outcome is unknown. Returns the
    /// answer that acknowledged it.
    async fn over_http(
        &mut self,
        change: WrittenChange,
        method: &str,
        target: &str,
        body: &str,
        tries: usize,
    ) -> Option<Reply> {
        self.all_over_http(vec![change], method, target, body, tries).await
    }

    async fn all_over_http(
        &mut self,
        changes: Vec<WrittenChange>,
        method: &str,
        target: &str,
        body: &str,
        tries: usize,
    ) -> Option<Reply> {
        let (mut outcome, mut acknowledged) = (WriteOutcome::Failed, None);
        for _ in 0..tries {
            let instance = self.random.random_range(0..self.stage.instances());
            let actor = if target.starts_with("/pols/") { professional() } else { root() };
            let actor = if method == "DELETE" { root() } else { actor };
            let head = self.stage.his.request(&actor, method, target).body(body).head();
            match self.stage.ask(instance, &head, body.as_bytes()).await {
                Exchange::Answered(reply) if reply.status == 200 => {
                    outcome = WriteOutcome::Acknowledged;
                    acknowledged = Some(reply);
                    break;
                }
                Exchange::Answered(reply) if reply.status < 500 => {
                    // A refusal of a write that may have been made tells nothing of it.
                    break;
                }
                Exchange::Answered(_) | Exchange::Lost => outcome = WriteOutcome::Unknown,
                Exchange::NotSent => {}
            }
            sleep(Duration::from_millis(30)).await;
        }
        self.ended(changes, outcome);
        acknowledged
    }

    async fn post_page(&mut self) {
        let (token, person) = (self.token(), self.person());
        let change = self.change(&token, "page", Some(person));
        let body = json!({ "id": token, "w": token, "author": "Dr. W" }).to_string();
        // A page may be posted again: it is stored once.
        let tries = if self.random.random() { TRIES } else { 1 };
        if self.over_http(change, "POST", &format!("/pols/{person}/{token}"), &body, tries).await.is_some() {
            self.pages.push((token, person));
        }
    }

    async fn patch_page(&mut self) {
        let Some((page, person)) = self.pages.last().cloned() else { return };
        let token = self.token();
        let change = self.change(&token, "page", Some(person));
        let (target, body) = (format!("/pols/{person}/{page}"), json!({ "w": token }).to_string());
        self.over_http(change, "PATCH", &target, &body, 1).await;
    }

    async fn delete_page(&mut self) {
        let Some((page, person)) = self.pages.pop() else { return };
        let change = self.change(&format!("DELETE page {page}"), "page", Some(person));
        self.over_http(change, "DELETE", &format!("/pols/{person}/{page}"), "", 1).await;
    }

    async fn post_document(&mut self) {
        let Some((page, person)) = self.pages.first().cloned() else { return };
        let token = self.token();
        let change = self.change(&format!("POST document {token}"), "document", Some(person));
        let body = json!({ "document": "aGk=" }).to_string();
        self.over_http(change, "POST", &format!("/personal_docs/{person}/{page}/{token}"), &body, 1).await;
    }

    async fn post_unit(&mut self) {
        let token = self.token();
        let change = self.change(&token, "institution", None);
        self.over_http(change, "POST", &format!("/institutions/{token}"), &json!({ "w": token }).to_string(), 1).await;
    }

    async fn post_person(&mut self) {
        let token = self.token();
        let change = self.person_change(&token, &token);
        let body = json!({ "w": token }).to_string();
        if self.over_http(change, "POST", &format!("/people/{token}"), &body, 1).await.is_some() {
            self.people.push(token);
        }
    }

    /// Merges two people of this writer. A merge may be sent again: it is made once.
    async fn merge(&mut self) {
        let [.., _, _] = self.people[..] else { return };
        let (old, survivor) = (self.people.swap_remove(0), self.people.swap_remove(0));
        let change = self.change(&merge_key("MERGE", &old, &survivor), "person", Some(&survivor));
        let body = json!({ "old": old, "survivor": survivor }).to_string();
        if let Some(reply) = self.over_http(change, "POST", "/index/merges", &body, TRIES).await {
            self.merges.push((old, survivor, reply.json()["merge"].as_u64().unwrap()));
        }
    }

    /// Writes to either id of two that were merged.
    async fn patch_merged(&mut self) {
        let Some((old, survivor, _)) = self.merges.last() else { return };
        let (old, survivor) = (old.clone(), survivor.clone());
        let token = self.token();
        let mut changes = vec![self.person_change(&token, &survivor)];
        let mut id = survivor;
        if self.random.random() {
            changes.insert(0, self.person_change(&token, &old));
            id = old;
        }
        self.all_over_http(changes, "PATCH", &format!("/people/{id}"), &json!({ "w": token }).to_string(), 1).await;
    }

    async fn unmerge(&mut self) {
        let Some((old, survivor, number)) = self.merges.pop() else { return };
        let change = self.change(&merge_key("UNMERGE", &old, &survivor), "person", Some(&survivor));
        self.over_http(change, "DELETE", &format!("/index/merges/{number}"), "", TRIES).await;
    }

    async fn patch_person(&mut self) {
        let (token, person) = (self.token(), self.person());
        let change = self.person_change(&token, person);
        self.over_http(change, "PATCH", &format!("/people/{person}"), &json!({ "w": token }).to_string(), 1).await;
    }

    /// Refused: the page exists with another content.
    async fn post_under_a_used_id(&mut self) {
        let Some((page, person)) = self.pages.last().cloned() else { return };
        let token = self.token();
        let change = self.change(&token, "page", Some(person));
        let body = json!({ "id": page, "w": token, "other": true }).to_string();
        self.over_http(change, "POST", &format!("/pols/{person}/{page}"), &body, 1).await;
    }

    /// A transaction that writes pages and raises counters of people, goes on for some milliseconds, and is committed or
    /// rolled back.
    async fn transaction(&mut self, most_ms: u64) {
        let commits = self.random.random_range(0..4) > 0;
        let count = self.random.random_range(1..4);
        let mut statements = vec![];
        let is_embedded = self.stage.is_embedded();
        for _ in 0..count {
            let (token, person) = (self.token(), self.person());
            let (resource, sql) = match self.random.random() {
                true => ("page", insert(is_embedded, &token, person)),
                false => ("person", raise(is_embedded, &token, person)),
            };
            let pause = Duration::from_millis(self.random.random_range(0..most_ms));
            statements.push(PlannedStatement { token, person, resource, sql, pause });
        }
        let (changes, outcome) = match is_embedded {
            true => {
                let stage = Arc::clone(&self.stage);
                tokio::task::spawn_blocking(move || embedded_transaction(&stage, &statements, commits)).await.unwrap()
            }
            false => server_transaction(&self.stage, &statements, commits).await,
        };
        if !changes.is_empty() {
            self.ended(changes, outcome);
        }
    }
}

struct PlannedStatement {
    token: String,
    person: &'static str,
    resource: &'static str,
    sql: String,
    pause: Duration,
}

impl PlannedStatement {
    fn sent(&self, stage: &Stage) -> WrittenChange {
        let person = Some(self.person.to_owned());
        let key = mark_key(self.resource, person.as_deref(), &self.token);
        WrittenChange { key, resource: self.resource, person, begun: stage.clock.now() }
    }
}

fn insert(is_embedded: bool, token: &str, person: &str) -> String {
    let cast = if is_embedded { "" } else { "::jsonb" };
    format!("INSERT INTO pols (id, book, data) VALUES ('{token}', '{person}', '{{\"w\":\"{token}\"}}'{cast})")
}

fn raise(is_embedded: bool, token: &str, person: &str) -> String {
    let raised = match is_embedded {
        true => format!("json_set(data, '$.n', (data ->> '$.n') + 1, '$.w', '{token}')"),
        false => format!("data || jsonb_build_object('n', (data ->> 'n')::int + 1, 'w', '{token}')"),
    };
    format!("UPDATE people SET data = {raised} WHERE id = '{person}'")
}

async fn server_transaction(
    stage: &Stage,
    statements: &[PlannedStatement],
    commits: bool,
) -> (Vec<WrittenChange>, WriteOutcome) {
    let mut changes = vec![];
    let Some(session) = stage.session().await else { return (changes, WriteOutcome::Failed) };
    if session.batch_execute("BEGIN").await.is_err() {
        return (changes, WriteOutcome::Failed);
    }
    for statement in statements {
        changes.push(statement.sent(stage));
        if session.batch_execute(&statement.sql).await.is_err() {
            return (changes, WriteOutcome::Failed);
        }
        sleep(statement.pause).await;
    }
    if !commits {
        // However it ends, nothing is committed.
        let _ = session.batch_execute("ROLLBACK").await;
        return (changes, WriteOutcome::Failed);
    }
    let outcome = match session.batch_execute("COMMIT").await {
        Ok(()) => WriteOutcome::Acknowledged,
        Err(_) => WriteOutcome::Unknown,
    };
    (changes, outcome)
}

fn embedded_transaction(
    stage: &Stage,
    statements: &[PlannedStatement],
    commits: bool,
) -> (Vec<WrittenChange>, WriteOutcome) {
    let (connection, mut changes) = (stage.connection(), vec![]);
    if connection.execute_batch("BEGIN IMMEDIATE").is_err() {
        return (changes, WriteOutcome::Failed);
    }
    for statement in statements {
        changes.push(statement.sent(stage));
        if connection.execute_batch(&statement.sql).is_err() {
            return (changes, WriteOutcome::Failed);
        }
        // Others cannot write meanwhile.
        std::thread::sleep(statement.pause / 4);
    }
    let end = if commits { "COMMIT" } else { "ROLLBACK" };
    match (connection.execute_batch(end), commits) {
        (_, false) => (changes, WriteOutcome::Failed),
        (Ok(()), true) => (changes, WriteOutcome::Acknowledged),
        (Err(_), true) => (changes, WriteOutcome::Unknown),
    }
}
