//! Chooses the server of an upstream for a request, and leaves out failing servers for a while.
//!
//! The one rule: a choice never fails while there is a server. Probes and failures only narrow the choice. If they
//! would leave no server, all servers are candidates, because one that may be down is better than none.
//!
//! `gateway` calls it once per request. A choice takes no lock and allocates nothing. It knows nothing of connections.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

use fedgate_base::config::{EjectionConfig, HealthConfig};

/// The servers of one upstream.
pub struct ServerPool<T> {
    servers: ArcSwap<Vec<Arc<UpstreamServer<T>>>>,
    turn: AtomicUsize,
    ejection: EjectionConfig,
    ejecting: Mutex<()>,
    origin: Instant,
}

/// One server and its state.
pub struct UpstreamServer<T> {
    /// The name that identifies it.
    pub name: String,
    /// How to reach it.
    pub peer: T,
    seed: u64,
    unhealthy: AtomicBool,
    /// Consecutive probes that contradict `unhealthy`.
    contrary: AtomicU32,
    /// Consecutive requests that failed.
    failures: AtomicU32,
    /// Ejections since the last request that succeeded.
    ejections: AtomicU32,
    /// Milliseconds after the pool's origin; 0 if it is not ejected.
    ejected_until: AtomicU64,
}

impl<T> ServerPool<T> {
    /// A pool without servers.
    pub fn new(ejection: EjectionConfig) -> Self {
        Self {
            servers: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            ejection,
            ejecting: Mutex::new(()),
            origin: Instant::now(),
        }
    }

    /// The current servers.
    pub fn servers(&self) -> Arc<Vec<Arc<UpstreamServer<T>>>> {
        self.servers.load_full()
    }

    /// Replaces the servers. A server whose name was known keeps its state and its peer.
    pub fn replace(&self, servers: impl IntoIterator<Item = (String, T)>) {
        let before = self.servers.load_full();
        let now = servers.into_iter().map(|(name, peer)| {
            let known = before.iter().find(|known| known.name == name);
            known.cloned().unwrap_or_else(|| Arc::new(UpstreamServer::new(name, peer)))
        });
        self.servers.store(Arc::new(now.collect()));
    }

    /// The server for one request: each in turn, or, with a key, always the one that the key leads to while it is
    /// available.
    ///
    /// `but` has just failed: it is not chosen again while there is another.
    pub fn choose(
        &self,
        key: Option<&str>,
        but: Option<&UpstreamServer<T>>,
        now: Instant,
    ) -> Option<Arc<UpstreamServer<T>>> {
        let servers = self.servers.load();
        let other = |server: &UpstreamServer<T>| but.is_none_or(|failed| failed.name != server.name);
        let order = match key {
            // Rendezvous hashing (Thaler and Ravishankar, 1998): a server that leaves moves only its own keys.
            Some(key) => ServerOrder::By(hash(key)),
            // One turn per request: if a second attempt took a turn too, the next request would get the failed server.
            None if but.is_some() => ServerOrder::Turn(self.turn.load(Ordering::Relaxed)),
            None => ServerOrder::Turn(self.turn.fetch_add(1, Ordering::Relaxed)),
        };
        first(&servers, order, |server| other(server) && !self.is_left_out(server, now))
            .or_else(|| first(&servers, order, other))
            .or_else(|| first(&servers, order, |_| true))
            .cloned()
    }

    /// Whether a server is healthy, as far as probes and requests show. A server that fails its requests is not
    /// healthy, even if it is not left out because too many would be.
    pub fn is_healthy(&self, server: &UpstreamServer<T>, now: Instant) -> bool {
        !self.is_left_out(server, now) && !self.fails(server.failures.load(Ordering::Relaxed))
    }

    fn is_left_out(&self, server: &UpstreamServer<T>, now: Instant) -> bool {
        server.unhealthy.load(Ordering::Relaxed) || self.is_ejected(server, now)
    }

    /// Whether this many consecutive failures are a reason to eject.
    fn fails(&self, failures: u32) -> bool {
        self.ejection.failures != 0 && failures >= self.ejection.failures
    }

    fn is_ejected(&self, server: &UpstreamServer<T>, now: Instant) -> bool {
        let until = server.ejected_until.load(Ordering::Relaxed);
        until != 0 && self.milliseconds(now) < until
    }

    /// Records a request that was answered.
    pub fn succeeded(&self, server: &UpstreamServer<T>, now: Instant) {
        if server.failures.load(Ordering::Relaxed) != 0 {
            server.failures.store(0, Ordering::Relaxed);
        }
        // A request that was sent before the ejection says nothing about the server now.
        if server.ejections.load(Ordering::Relaxed) != 0 && !self.is_ejected(server, now) {
            server.ejections.store(0, Ordering::Relaxed);
            server.ejected_until.store(0, Ordering::Relaxed);
        }
    }

    /// Records a failed request. Returns how long the server is ejected, if this failure ejects it.
    pub fn failed(&self, server: &UpstreamServer<T>, now: Instant) -> Option<Duration> {
        let failures = server.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if !self.fails(failures) {
            return None;
        }
        // One at a time: two failures at once must not eject more servers than `max_percent` allows.
        let _one_at_a_time = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = self.servers.load();
        let out = servers.iter().filter(|server| self.is_ejected(server, now)).count();
        let most = servers.len() * self.ejection.max_percent as usize / 100;
        if self.is_ejected(server, now) || out >= most {
            return None;
        }
        let before = server.ejections.fetch_add(1, Ordering::Relaxed);
        let time = self.ejection.time.saturating_mul(2u32.saturating_pow(before)).min(self.ejection.max_time);
        server.failures.store(0, Ordering::Relaxed);
        server.ejected_until.store(self.milliseconds(now + time), Ordering::Relaxed);
        Some(time)
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        // INVARIANT: never 0, which means "not ejected".
        u64::try_from(at.saturating_duration_since(self.origin).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

impl<T> UpstreamServer<T> {
    fn new(name: String, peer: T) -> Self {
        Self {
            seed: hash(&name),
            name,
            peer,
            unhealthy: AtomicBool::new(false),
            contrary: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            ejections: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
        }
    }

    /// Records one probe; one caller at a time. Returns the new state, if this probe changes it.
    pub fn probed(&self, answered: bool, health: &HealthConfig) -> Option<bool> {
        let healthy = !self.unhealthy.load(Ordering::Relaxed);
        if answered == healthy {
            self.contrary.store(0, Ordering::Relaxed);
            return None;
        }
        let contrary = self.contrary.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if contrary < if healthy { health.unhealthy_after } else { health.healthy_after } {
            return None;
        }
        self.contrary.store(0, Ordering::Relaxed);
        self.unhealthy.store(healthy, Ordering::Relaxed);
        Some(!healthy)
    }
}

/// The order in which servers are preferred.
#[derive(Clone, Copy)]
enum ServerOrder {
    Turn(usize),
    By(u64),
}

fn first<T>(
    servers: &[Arc<UpstreamServer<T>>],
    order: ServerOrder,
    fits: impl Fn(&UpstreamServer<T>) -> bool,
) -> Option<&Arc<UpstreamServer<T>>> {
    let mut fitting = servers.iter().filter(|server| fits(server));
    match order {
        ServerOrder::By(key) => fitting.max_by_key(|server| mixed(key ^ server.seed)),
        ServerOrder::Turn(turn) => {
            let turn = turn.checked_rem(servers.iter().filter(|server| fits(server)).count())?;
            // A server may have dropped out between the two passes.
            fitting.nth(turn).or_else(|| servers.iter().find(|server| fits(server)))
        }
    }
}

/// The same in every process of one build, so that several gateways agree.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn pool(servers: usize, max_percent: u32) -> ServerPool<()> {
        let ejection = EjectionConfig { failures: 3, time: 10 * SECOND, max_time: 30 * SECOND, max_percent };
        let pool = ServerPool::new(ejection);
        pool.replace((0..servers).map(|number| (format!("s{number}"), ())));
        pool
    }

    fn chosen(pool: &ServerPool<()>, key: Option<&str>, now: Instant) -> String {
        pool.choose(key, None, now).unwrap().name.clone()
    }

    fn spread(pool: &ServerPool<()>, now: Instant) -> HashMap<String, usize> {
        let mut spread = HashMap::new();
        (0..600).for_each(|_| *spread.entry(chosen(pool, None, now)).or_default() += 1);
        spread
    }

    fn health() -> HealthConfig {
        HealthConfig { path: None, interval: SECOND, timeout: SECOND, unhealthy_after: 2, healthy_after: 2 }
    }

    fn sicken(server: &UpstreamServer<()>) {
        assert_eq!(server.probed(false, &health()), None);
        assert_eq!(server.probed(false, &health()), Some(false));
    }

    #[test]
    fn turns_are_even_also_when_one_is_out() {
        let pool = pool(3, 100);
        let now = Instant::now();
        assert_eq!(spread(&pool, now).into_values().collect::<Vec<_>>(), [200, 200, 200]);
        sicken(&pool.servers()[1]);
        let spread = spread(&pool, now);
        assert_eq!((spread.len(), spread["s0"], spread["s2"]), (2, 300, 300));
    }

    #[test]
    fn a_server_that_leaves_takes_only_its_own_keys() {
        let pool = pool(5, 100);
        let now = Instant::now();
        let keys: Vec<String> = (0..2000).map(|number| format!("ESPGNU{number}ORG")).collect();
        let before: Vec<String> = keys.iter().map(|key| chosen(&pool, Some(key), now)).collect();
        for server in ["s0", "s1", "s2", "s3", "s4"] {
            let share = before.iter().filter(|name| *name == server).count();
            assert!((300..500).contains(&share), "{server} has {share} of 2000");
        }
        sicken(&pool.servers()[2]);
        for (key, before) in keys.iter().zip(&before) {
            let after = chosen(&pool, Some(key), now);
            assert_ne!(after, "s2");
            assert!(before == "s2" || *before == after, "{key} went from {before} to {after}");
        }
        pool.replace((0..5).rev().map(|number| (format!("s{number}"), ())));
        let changed = |(key, before): (&String, &String)| before != "s2" && chosen(&pool, Some(key), now) != *before;
        assert!(!keys.iter().zip(&before).any(changed), "the order of the servers does not matter");
    }

    #[test]
    fn failures_in_a_row_eject_for_a_time_that_grows_and_a_success_forgives() {
        let pool = pool(2, 50);
        let servers = pool.servers();
        let mut now = Instant::now();
        let fail = |now| (0..3).filter_map(|_| pool.failed(&servers[0], now)).collect::<Vec<_>>();
        assert_eq!((pool.failed(&servers[0], now), pool.failed(&servers[0], now)), (None, None));
        pool.succeeded(&servers[0], now);
        assert_eq!(fail(now), [10 * SECOND], "the count began anew");
        assert!(!pool.is_healthy(&servers[0], now) && chosen(&pool, None, now) == "s1");
        pool.succeeded(&servers[0], now);
        assert!(!pool.is_healthy(&servers[0], now), "an answer from before does not let it in");
        for time in [20, 30, 30] {
            now += 31 * SECOND;
            assert!(pool.is_healthy(&servers[0], now));
            assert_eq!(fail(now), [time * SECOND]);
        }
        now += 31 * SECOND;
        pool.succeeded(&servers[0], now);
        assert_eq!(fail(now), [10 * SECOND]);
    }

    #[test]
    fn never_more_are_ejected_than_the_share_allows() {
        for (servers, percent, most) in [(1, 50, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (4, 100, 4), (4, 0, 0)] {
            let pool = pool(servers, percent);
            let now = Instant::now();
            for server in pool.servers().iter() {
                for _ in 0..9 {
                    pool.failed(server, now);
                }
            }
            let out = pool.servers().iter().filter(|server| pool.is_left_out(server, now)).count();
            assert_eq!(out, most, "{percent} % of {servers}");
        }
    }

    #[test]
    fn one_that_fails_is_unhealthy_also_where_it_cannot_be_left_out() {
        let pool = pool(1, 50);
        let (server, now) = (&pool.servers()[0], Instant::now());
        for is_healthy in [true, true, false, false] {
            assert_eq!(pool.failed(server, now), None);
            assert_eq!(pool.is_healthy(server, now), is_healthy);
        }
        assert_eq!(chosen(&pool, None, now), "s0");
        pool.succeeded(server, now);
        assert!(pool.is_healthy(server, now));
    }

    #[test]
    fn when_none_is_healthy_all_are_chosen_from() {
        let pool = pool(2, 100);
        let now = Instant::now();
        pool.servers().iter().for_each(|server| sicken(server));
        assert_eq!(spread(&pool, now).len(), 2);
        assert!(ServerPool::<()>::new(pool.ejection.clone()).choose(None, None, now).is_none());
    }

    #[test]
    fn the_one_that_failed_is_not_chosen_again_while_there_is_another() {
        let two = pool(2, 100);
        let now = Instant::now();
        let failed = &two.servers()[0];
        sicken(&two.servers()[1]);
        for key in [None, Some("a"), Some("b"), Some("c")] {
            assert_eq!(two.choose(key, Some(failed), now).unwrap().name, "s1");
        }
        let three = pool(3, 100);
        let firsts: Vec<String> = (0..6)
            .map(|_| {
                let first = three.choose(None, None, now).unwrap();
                assert_ne!(three.choose(None, Some(&first), now).unwrap().name, first.name);
                first.name.clone()
            })
            .collect();
        assert_eq!(firsts, ["s0", "s1", "s2", "s0", "s1", "s2"], "a second attempt takes no turn");
        let one = pool(1, 100);
        assert_eq!(one.choose(None, Some(&one.servers()[0]), now).unwrap().name, "s0");
    }

    #[test]
    fn probes_in_a_row_take_out_and_in_again() {
        let pool = pool(1, 100);
        let server = &pool.servers()[0];
        let probes = [true, false, true, false, false, false, true, false, true, true];
        let told: Vec<_> = probes.iter().map(|answered| server.probed(*answered, &health())).collect();
        let mut expected = [None; 10];
        (expected[4], expected[9]) = (Some(false), Some(true));
        assert_eq!(told, expected);
    }

    #[test]
    fn a_server_that_stays_keeps_how_it_fared() {
        let pool = pool(2, 100);
        let now = Instant::now();
        sicken(&pool.servers()[1]);
        pool.replace([("s1".to_owned(), ()), ("s2".to_owned(), ())]);
        let healthy: Vec<_> = pool.servers().iter().map(|server| pool.is_healthy(server, now)).collect();
        assert_eq!(healthy, [false, true]);
    }
}
