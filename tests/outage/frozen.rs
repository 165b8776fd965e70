//! A primary that accepts connections and stays silent, and a promoted standby in its place.

use std::thread;
use std::time::{Duration, Instant};

use fedgate_base::config::PostgresConfig;
use tokio::runtime::Runtime;

use crate::fixture::{Gateway, PATIENCE, password_hash};
use crate::outage::{served, start, status};
use crate::support::postgres::Cluster;
use crate::support::proxy::Proxy;
use crate::support::{His, root};

/// Both programs, with the primary first and last in their connection strings.
struct Programs {
    runtime: Runtime,
    gateways: Vec<Gateway>,
    services: Vec<His>,
}

impl Programs {
    fn start(orders: [PostgresConfig; 2]) -> Self {
        let runtime = Runtime::new().unwrap();
        let gateways: Vec<_> = orders.iter().map(|order| start(order, "")).collect();
        let services: Vec<_> = orders.iter().map(|order| runtime.block_on(His::on(order.clone()))).collect();
        let programs = Self { runtime, gateways, services };
        for gateway in &programs.gateways {
            served(gateway, 0, PATIENCE);
            // Several sessions, all with the server that will fall silent.
            thread::scope(|scope| (0..4).for_each(|account| _ = scope.spawn(move || status(gateway, account))));
        }
        for his in &programs.services {
            programs.runtime.block_on(async {
                let reads = (0..4).map(|_| async { his.get(&root(), "/people/P0").await.status });
                assert_eq!(futures_util::future::join_all(reads).await, [200; 4]);
            });
        }
        programs
    }

    /// Waits until all serve, and the HIS also writes; prints how long each took.
    fn are_served(&self, what: &str) {
        let promoted = Instant::now();
        thread::scope(|scope| {
            for (order, gateway) in ["primary first", "primary last"].iter().zip(&self.gateways) {
                scope.spawn(move || {
                    // An account that no request has used: no cache answers.
                    served(gateway, 20, PATIENCE);
                    println!("outage, {what}, gateway, {order}: served {:?} after the promotion", promoted.elapsed());
                    // And every account, not only the one that got the first new session.
                    (0..10).for_each(|account| assert_eq!(status(gateway, account), 200));
                });
            }
            for (order, his) in ["primary first", "primary last"].iter().zip(&self.services) {
                scope.spawn(move || {
                    self.runtime.block_on(async {
                        while his.patch(&root(), "/people/P0", format!(r#"{{"from": "{order}"}}"#)).await.status != 200
                        {
                            assert!(promoted.elapsed() < PATIENCE, "{what}, {order}: the HIS does not write again");
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                        println!("outage, {what}, HIS, {order}: written {:?} after the promotion", promoted.elapsed());
                        for _ in 0..10 {
                            assert_eq!(his.get(&root(), "/people/P0").await.status, 200);
                        }
                    });
                });
            }
        });
    }
}

fn primary_and_standby() -> (Cluster, PostgresConfig, Cluster) {
    let primary = Cluster::start();
    let runtime = Runtime::new().unwrap();
    let database = runtime.block_on(primary.database_with_accounts(40, &password_hash()));
    let standby = primary.standby();
    runtime.block_on(standby.follow(&database));
    (primary, database, standby)
}

#[test]
fn a_frozen_primary_is_left_for_the_promoted_standby_in_whichever_order_they_are_named() {
    let (primary, database, standby) = primary_and_standby();
    let orders = [[&primary, &standby], [&standby, &primary]].map(|order| Cluster::on_all(order, &database));
    let programs = Programs::start(orders);
    let frozen = Instant::now();
    primary.freeze(true);
    // The first attempts end before another server is available.
    for gateway in &programs.gateways {
        gateway.logged("accounts are unavailable", frozen, PATIENCE).expect("the operator is told");
    }
    standby.promote();
    programs.are_served("frozen");
    primary.freeze(false);
}

#[test]
fn a_primary_whose_packets_are_dropped_is_left_likewise() {
    let (primary, database, standby) = primary_and_standby();
    let [before_primary, before_standby] = [&primary, &standby].map(|cluster| Proxy::before(cluster.socket()));
    let uri = |first: &Proxy, second: &Proxy| {
        let one = first.uri(&database).replace("host=127.0.0.1", "host=127.0.0.1,127.0.0.1");
        let port = |proxy: &Proxy| proxy.port().to_string();
        let uri = one.replace(&format!("port={}", port(first)), &format!("port={},{}", port(first), port(second)));
        PostgresConfig { uri, ..database.clone() }
    };
    let programs = Programs::start([uri(&before_primary, &before_standby), uri(&before_standby, &before_primary)]);
    before_primary.hold(true);
    standby.promote();
    programs.are_served("dropped packets");
    before_primary.hold(false);
}
