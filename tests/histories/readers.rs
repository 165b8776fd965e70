//! The readers: each keeps its position, and asks any instance in any form.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::log::{EndRecord, ReadMessage, ReaderLog};
use super::stage::{Exchange, PATIENCE, Stage};
use crate::support::{Actor, Reply, own, professional, root};

/// The last position of a history that has not ended.
pub(crate) const GOES_ON: u64 = u64::MAX;

pub(crate) struct Reader {
    random: StdRng,
    stage: Arc<Stage>,
    person: Option<&'static str>,
    log: ReaderLog,
    position: u64,
}

impl Reader {
    pub(crate) fn new(name: &str, random: StdRng, stage: Arc<Stage>, person: Option<&'static str>) -> Self {
        let own = person.map(str::to_owned);
        let log = ReaderLog { name: name.to_owned(), own, ..ReaderLog::default() };
        Self { random, stage, person, log, position: 0 }
    }

    fn actor(&self) -> Actor {
        self.person.map_or_else(root, own)
    }

    /// Begins at the last position, as a new node does.
    pub(crate) async fn begin_at_last(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let head = self.stage.his.request(&self.actor(), "GET", "/messages?after=last").head();
            let instance = self.random.random_range(0..self.stage.instances());
            if let Exchange::Answered(reply) = self.stage.ask(instance, &head, b"").await
                && let (200, Some(position)) = (reply.status, next_of(&reply))
            {
                (self.position, self.log.from) = (position, position);
                return;
            }
            sleep(Duration::from_millis(30)).await;
        }
    }

    /// Reads until the last position, which is told when the history has ended.
    pub(crate) async fn read(mut self, last: Arc<AtomicU64>) -> ReaderLog {
        let mut deadline = None;
        loop {
            let end = last.load(Ordering::SeqCst);
            if self.position >= end {
                break;
            }
            if end != GOES_ON && *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) < Instant::now() {
                break;
            }
            let wait = if end == GOES_ON { self.random.random_range(0..3) } else { 0 };
            let instance = self.random.random_range(0..self.stage.instances());
            match self.random.random_range(0..4) {
                0 => self.list(instance, wait, "application/json").await,
                1 => self.list(instance, wait, "application/x-ndjson").await,
                2 => self.list(instance, 0, "application/cloudevents-batch+json").await,
                _ => self.events(instance, if end == GOES_ON { 1000 } else { 60 }).await,
            }
        }
        self.log.reached = self.position;
        self.log
    }

    fn take(&mut self, message: &serde_json::Value) {
        let message = ReadMessage::parse(message);
        self.position = self.position.max(message.position);
        self.log.seen.push((message, self.stage.clock.now()));
    }

    async fn list(&mut self, instance: usize, wait: u64, form: &str) {
        let limit = self.random.random_range(1..40);
        let target = format!("/messages?after={}&limit={limit}&wait={wait}", self.position);
        let head = self.stage.his.request(&self.actor(), "GET", &target).header("accept", form).head();
        let reply = match self.stage.ask(instance, &head, b"").await {
            Exchange::Answered(reply) if reply.status == 200 => reply,
            Exchange::Answered(Reply { status: 409 | 410, .. }) => {
                self.log.turned_away += 1;
                return sleep(Duration::from_millis(100)).await;
            }
            _ => return sleep(Duration::from_millis(20)).await,
        };
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        if form == "application/x-ndjson" {
            // Each whole line is a message, also of an answer that was cut off.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            whole.lines().for_each(|line| self.take(&serde_json::from_str(line).unwrap()));
        } else {
            let Ok(all) = serde_json::from_str::<Vec<serde_json::Value>>(&text) else { return };
            let is_event = form.contains("cloudevents");
            all.iter().for_each(|message| self.take(if is_event { &message["data"] } else { message }));
        }
        if reply.is_complete {
            self.position = next_of(&reply).expect("an answer names the next position");
        }
    }

    /// Follows an event stream for some time.
    async fn events(&mut self, instance: usize, most_ms: u64) {
        let until = Instant::now() + Duration::from_millis(self.random.random_range(5..most_ms));
        let (after, header) = match self.random.random() {
            true => (self.position, None),
            // The header counts before the parameter.
            false => (0, Some(self.position.to_string())),
        };
        let target = format!("/messages?after={after}");
        let mut request = self.stage.his.request(&self.actor(), "GET", &target).header("accept", "text/event-stream");
        if let Some(position) = &header {
            request = request.header("last-event-id", position);
        }
        // Without frames around the pieces of the body.
        let head = request.head().replace(" HTTP/1.1", " HTTP/1.0");
        let Some(mut stream) = self.stage.connect(instance).await else {
            return sleep(Duration::from_millis(20)).await;
        };
        if stream.write_all(head.as_bytes()).await.is_err() {
            return;
        }
        let (mut text, mut block, mut is_begun) = (vec![], vec![0; 16 * 1024], false);
        while let Ok(Ok(count @ 1..)) = timeout_at(until, stream.read(&mut block)).await {
            text.extend_from_slice(&block[..count]);
            if !is_begun && let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
                let first = String::from_utf8_lossy(&text[..end]).into_owned();
                let status = first.split(' ').nth(1).unwrap_or_default();
                self.log.turned_away += usize::from(matches!(status, "409" | "410"));
                if status != "200" {
                    let _ = timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
                    return;
                }
                text.drain(..end + 4);
                is_begun = true;
            }
            while let Some(end) = text.windows(2).position(|two| two == b"\n\n").map(|at| at + 2).filter(|_| is_begun) {
                let event: Vec<u8> = text.drain(..end).collect();
                self.take_event(&String::from_utf8(event).unwrap());
            }
        }
    }

    fn take_event(&mut self, event: &str) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let Some(id) = field("id: ") else { return };
        let Some(data) = field("data: ") else {
            // The hub says that there is nothing for this reader up to here.
            self.position = id.split('.').next().unwrap().parse().unwrap();
            return;
        };
        let message: serde_json::Value = serde_json::from_str(data).unwrap();
        let position = id.split('.').next().unwrap();
        assert_eq!(message["position"].to_string(), position, "an event's id begins with its position");
        self.take(&message);
    }
}

/// The position that an answer names as the next.
fn next_of(reply: &Reply) -> Option<u64> {
    let (target, _) = reply.header("link")?.strip_prefix('<')?.split_once(">; rel=\"next\"")?;
    target
        .split(['?', '&'])
        .find_map(|pair| pair.strip_prefix("after="))
        .and_then(|place| place.split('.').next()?.parse().ok())
}

/// What each id of a person is answered with.
pub(crate) async fn records(stage: &Stage, order: &[ReadMessage]) -> BTreeMap<String, EndRecord> {
    let mut records = BTreeMap::new();
    for id in order.iter().filter(|message| message.resource == "person").filter_map(|message| message.person.clone()) {
        let reply = stage.his.get(&professional(), &format!("/people/{id}")).await;
        let record = match (reply.status, reply.header("location").and_then(|target| target.strip_prefix("/people/"))) {
            (200, _) => EndRecord::Marked(reply.json()["w"].as_str().unwrap_or_default().to_owned()),
            (307, Some(survivor)) => EndRecord::LeadsTo(survivor.to_owned()),
            (status, _) => EndRecord::Other(status),
        };
        records.insert(id, record);
    }
    records
}

/// All messages from the beginning.
pub(crate) async fn all(stage: &Stage) -> Vec<ReadMessage> {
    let (mut after, mut all) = (0, vec![]);
    loop {
        let reply = stage.his.get(&root(), &format!("/messages?after={after}&limit=1000")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let page: Vec<serde_json::Value> = serde_json::from_str(reply.text()).unwrap();
        all.extend(page.iter().map(ReadMessage::parse));
        match next_of(&reply).unwrap() {
            next if next == after => return all,
            next => after = next,
        }
    }
}
