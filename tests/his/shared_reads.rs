//! Short reads share sessions of the database: each gets its own record, also while others leave.

use std::time::{Duration, Instant};

use fedgate_base::config::Address;
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::pressure::Blocker;
use crate::support::{Actor, His, professional, root};

const PEOPLE: usize = 12;
const PAGES: usize = 20;
const PATIENCE: Duration = Duration::from_secs(20);

/// Sends a request whose answer nobody reads.
async fn sent(his: &His, actor: &Actor, target: &str) -> TcpStream {
    let Address::Tcp(address) = his.address else { unreachable!() };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(his.request(actor, "GET", target).head().as_bytes()).await.unwrap();
    stream
}

crate::on_both_stores! {
    async fn each_of_many_reads_gets_its_own_record_while_others_leave(his) {
        for n in 0..PEOPLE {
            his.person(&format!("P{n}Z"), "{}").await;
            his.page(&format!("P{n}Z"), &format!("page{n}z"), &format!(r#"{{"id":"page{n}z"}}"#)).await;
        }
        for _ in 0..4 {
            let read = async |n: usize| {
                let person = format!("P{}Z", n % PEOPLE);
                let page = format!("page{}z", n % PEOPLE);
                let (target, expected) = match n % 5 {
                    0 => (format!("/people/{person}"), Some(&person)),
                    1 => (format!("/pols/{person}/{page}"), Some(&page)),
                    2 => (format!("/pols/{person}"), Some(&page)),
                    3 => (format!("/people/{person}"), None),
                    _ => (format!("/pols/{person}/{page}"), None),
                };
                let actor = if n.is_multiple_of(2) { root() } else { professional() };
                let Some(expected) = expected else { return drop(sent(&his, &actor, &target).await) };
                let reply = his.get(&actor, &target).await;
                assert_eq!(reply.status, 200, "{target}: {}", reply.text());
                assert!(reply.text().contains(&format!("\"{expected}\"")), "{target}: {}", reply.text());
            };
            join_all((0..60).map(read)).await;
        }
    }

    async fn a_book_that_is_longer_than_its_first_part_is_whole(his) {
        his.person("ANA", "{}").await;
        assert_eq!(his.get(&root(), "/pols/ANA").await.text(), "[]");
        for n in 0..PAGES {
            his.page("ANA", &format!("page{n:02}"), &format!(r#"{{"id":"page{n:02}","page_type":"t{}"}}"#, n % 2)).await;
            let book = his.get(&root(), "/pols/ANA").await.text().to_owned();
            let found = (0..PAGES).filter(|n| book.contains(&format!("\"page{n:02}\""))).count();
            assert_eq!(found, n + 1, "{book}");
        }
        let odd = his.get(&root(), "/pols/ANA?page_type=t1").await.text().to_owned();
        assert_eq!(odd.matches("\"t1\"").count(), PAGES / 2, "{odd}");
        assert!(!odd.contains("\"t0\""), "{odd}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_table_keeps_only_its_own_readers_waiting() {
    let his = His::on_postgres().await;
    his.person("ANA", "{}").await;
    his.page("ANA", "p1", r#"{"id":"p1"}"#).await;
    let blocker = Blocker::on(&his, "LOCK TABLE pols IN ACCESS EXCLUSIVE MODE").await;
    for _ in 0..8 {
        let left = [sent(&his, &professional(), "/pols/ANA/p1").await, sent(&his, &professional(), "/pols/ANA").await];
        assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
        drop(left);
        assert_eq!(his.get(&root(), "/people/ANA").await.status, 200);
    }
    blocker.leaves().await;
    let deadline = Instant::now() + PATIENCE;
    while his.get(&professional(), "/pols/ANA/p1").await.status != 200 {
        assert!(Instant::now() < deadline, "those who left hold the account's share");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
