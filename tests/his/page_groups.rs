//! New pages that come at once are stored together, and each has its own outcome.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use fedgate_base::config::SharesConfig;
use fedgate_base::db::DbError;
use fedgate_base::db::actor::ChangeActor;
use fedgate_core::json::{JsonObject, JsonValue, parse_stored};
use fedgate_his::store::{CreateResult, RecordKey, RecordReach, RecordStore, SharedStore};
use futures_util::future::{Either, join_all, select};
use futures_util::poll;

use super::pressure::Blocker;
use crate::support::postgres::Cluster;
use crate::support::{His, root};

/// So many pages of one caller fit among those that wait.
const PAGES: usize = 28;

type Posted<'a> = Pin<Box<dyn Future<Output = Result<String, DbError>> + 'a>>;

fn shared(his: &His) -> SharedStore {
    his.store.shared(&SharesConfig { caller_percent: 50, write_percent: 75 })
}

fn of(store: &SharedStore, account: &str) -> RecordStore {
    store.of(account).acting_as(ChangeActor::caller(account, "r"))
}

fn document(page: &str, note: &str) -> JsonObject {
    match parse_stored(&format!(r#"{{"id":"{page}","note":"{note}"}}"#)).unwrap() {
        JsonValue::Object(object) => object,
        _ => unreachable!(),
    }
}

async fn post(
    store: &RecordStore,
    person: &str,
    page: &str,
    note: &str,
    reach: RecordReach,
) -> Result<String, DbError> {
    let key = RecordKey::Page { person: person.to_owned(), page: page.to_owned() };
    Ok(match store.create(&key, &document(page, note), &reach).await? {
        CreateResult::Done => "done".to_owned(),
        CreateResult::Taken(existing) => format!("taken by {}", existing.book.unwrap_or_default()),
        CreateResult::NoPerson => "no person".to_owned(),
        CreateResult::Twin => "twin".to_owned(),
    })
}

async fn people(his: &His) {
    for person in ["ANA", "BOB", "EVA"] {
        his.person(person, "{}").await;
    }
    his.page("BOB", "old", r#"{"id":"old"}"#).await;
}

crate::on_both_stores! {
    async fn each_page_of_a_group_has_its_own_outcome_and_its_own_author(his) {
        people(&his).await;
        let shared = shared(&his);
        let [one, two] = ["NODE1", "NODE2"].map(|account| of(&shared, account));
        let global = || RecordReach::Global;
        let mut pages: Vec<Posted<'_>> = vec![];
        for n in 0..PAGES / 2 {
            let (one, two) = (&one, &two);
            pages.push(Box::pin(async move { post(one, "ANA", &format!("NODE1-{n}"), "", RecordReach::Global).await }));
            pages.push(Box::pin(async move { post(two, "BOB", &format!("NODE2-{n}"), "", RecordReach::Global).await }));
        }
        pages.push(Box::pin(post(&one, "ANA", "old", "", global())));
        pages.push(Box::pin(post(&one, "NIL", "NODE1-nil", "", global())));
        pages.push(Box::pin(post(&one, "EVA", "NODE1-other", "", RecordReach::only("ANA"))));
        pages.push(Box::pin(post(&one, "EVA", "NODE1-own", "", RecordReach::only("EVA"))));
        pages.push(Box::pin(post(&one, "EVA", "NODE1-twice", "a", global())));
        pages.push(Box::pin(post(&two, "ANA", "NODE1-twice", "b", global())));
        let mut outcomes: Vec<String> = join_all(pages).await.into_iter().map(Result::unwrap).collect();
        let mut twice = outcomes.split_off(PAGES + 4);
        assert!(outcomes.drain(..PAGES).all(|outcome| outcome == "done"));
        assert_eq!(outcomes, ["taken by BOB", "no person", "no person", "done"]);
        twice.sort();
        assert!(twice[0] == "done" && twice[1].starts_with("taken by "), "{twice:?}");
        let strange = "SELECT CAST(count(*) AS text) FROM fedgate_messages
            WHERE resource = 'page' AND id LIKE 'NODE%-%' AND id <> 'NODE1-twice' AND substr(id, 1, 5) <> coalesce(node, '')";
        assert_eq!(his.sql_text(strange).await.as_deref(), Some("0"), "each message names its own author");
        let told = "SELECT CAST(count(*) AS text) FROM fedgate_messages WHERE resource = 'page' AND id LIKE 'NODE%-%'";
        assert_eq!(his.sql_text(told).await.unwrap(), (PAGES + 2).to_string(), "each page has one message");
    }

    async fn a_caller_that_leaves_takes_no_page_of_others_with_it(his) {
        people(&his).await;
        let store = of(&shared(&his), "NODE1");
        let mut pages: Vec<_> = (0..PAGES)
            .map(|n| {
                let store = store.clone();
                Box::pin(async move { post(&store, "ANA", &format!("page{n}"), "", RecordReach::Global).await })
            })
            .collect();
        for page in &mut pages {
            assert!(matches!(poll!(page), Poll::Pending));
        }
        // Among them those whose turn it was, under which the others wait.
        let mut number = 0;
        pages.retain(|_| {
            number += 1;
            number % 3 == 0
        });
        assert!(join_all(pages).await.into_iter().all(|outcome| outcome.unwrap() == "done"));
        assert_eq!(post(&store, "ANA", "last", "", RecordReach::Global).await.unwrap(), "done");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_wait_share_a_commit_on_postgres() {
    let his = His::on_postgres().await;
    people(&his).await;
    let shared = shared(&his);
    let store = of(&shared, "NODE1");
    let all = (0..PAGES).map(async |n| post(&store, "ANA", &format!("page{n:02}"), "", RecordReach::Global).await);
    assert!(join_all(all).await.into_iter().all(|outcome| outcome.unwrap() == "done"));
    let commits = "SELECT count(DISTINCT xmin::text)::text FROM pols WHERE id LIKE 'page%'";
    // Two had a turn at once, and all others waited for one of these.
    assert_eq!(his.sql_text(commits).await.as_deref(), Some("3"));
    // A database that an earlier build migrated lacks the function, until the next migration.
    his.sql("DROP FUNCTION fedgate_store_pages(varchar[], varchar[], text[], varchar[], text[])").await;
    let all = (0..PAGES).map(async |n| post(&store, "BOB", &format!("next{n:02}"), "", RecordReach::Global).await);
    assert!(join_all(all).await.into_iter().all(|outcome| outcome.unwrap() == "done"));
    let book = his.get(&root(), "/pols/BOB").await.json();
    assert_eq!(book.as_array().unwrap().len(), PAGES + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_person_holds_up_no_page_of_others_on_postgres() {
    let mut config = Cluster::shared().database().await;
    // The locked pages wait for as long as a call may take.
    config.lock_timeout = std::time::Duration::ZERO;
    config.uri.push_str(" options='-c statement_timeout=0'");
    config.pool_size = 16;
    let his = His::on(config).await;
    people(&his).await;
    let store = of(&shared(&his), "NODE1");
    let blocker = Blocker::on(&his, "SELECT FROM people WHERE id = 'ANA' FOR UPDATE").await;
    let posts = |person: &'static str, count: usize| {
        join_all((0..count).map(|n| {
            let store = store.clone();
            Box::pin(async move { post(&store, person, &format!("{person}{n}"), "", RecordReach::Global).await })
        }))
    };
    // Two have the turns, and the third is in the company of the others.
    let Either::Right((free, held)) = select(posts("ANA", 3), posts("BOB", PAGES)).await else {
        panic!("a page of a locked person is stored")
    };
    assert!(free.into_iter().all(|outcome| outcome.unwrap() == "done"));
    blocker.leaves().await;
    assert!(held.await.into_iter().all(|outcome| outcome.unwrap() == "done"));
}
