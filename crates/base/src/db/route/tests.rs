use super::*;

fn route(uri: &str) -> ServerRoute {
    let settings: Config = uri.parse().unwrap();
    let (uri_text, lock_timeout) = (uri.to_owned(), Duration::ZERO);
    let config = crate::config::PostgresConfig {
        uri: uri_text,
        password: None,
        ca_file: None,
        pool_size: 1,
        lock_timeout,
        application: "fedgate",
        replicas: vec![],
    };
    let wanted = WantedServer::by(uri, &settings);
    let tls = crate::db::postgres::tls(&config).unwrap();
    ServerRoute::new(settings, tls, wanted, |_| Duration::from_millis(100)).unwrap()
}

#[test]
fn of_several_hosts_the_primary_is_wanted_unless_something_else_is_said() {
    for (uri, wanted) in [
        ("host=a", WantedServer::Any),
        ("host=a,b", WantedServer::Primary),
        ("postgres://a,b/d", WantedServer::Primary),
        ("host=a,b target_session_attrs=any", WantedServer::Any),
        ("host=a target_session_attrs=read-write", WantedServer::Primary),
        ("host=a,b target_session_attrs=read-only", WantedServer::Standby),
    ] {
        assert_eq!(route(uri).wanted, wanted, "{uri}");
    }
}

#[test]
fn sessions_of_one_route_are_with_one_server() {
    let [one, other] = ["1.5", "2.5"].map(|started| ServerIdentity(started.into()));
    let route = route("host=a");
    let mut named = route.named.subscribe();
    let mut have_ended = || named.has_changed().unwrap() && *named.borrow_and_update() > 0;
    assert!(route.admit(&one).is_ok());
    route.keep_to(&one);
    assert!(!have_ended(), "all of them are with this one");
    assert!(route.admit(&one).is_ok());
    assert_eq!(route.admit(&other).unwrap_err().wrong_server(), Some(WrongServer::Another));
    route.keep_to(&other);
    assert!(have_ended() && route.admit(&other).is_ok() && route.admit(&one).is_err());
    // A watch with a new session ends them all, whatever server they are with.
    route.follow(&other);
    assert!(have_ended());
}

#[test]
fn sessions_with_several_servers_end_when_one_is_named() {
    let [one, other] = ["1.5", "2.5"].map(|started| ServerIdentity(started.into()));
    let route = route("host=a");
    assert!(route.admit(&one).is_ok() && route.admit(&other).is_ok(), "while nobody watches");
    let named = route.named.subscribe();
    route.keep_to(&other);
    assert!(named.has_changed().unwrap());
}

#[tokio::test]
async fn the_fault_of_each_host_is_reported() {
    let failed = route("host=/nowhere,/neither user=u").reach().await.err().unwrap().to_string();
    assert!(failed.contains("`/nowhere/.s.PGSQL.5432`: ") && failed.contains("`/neither/.s.PGSQL.5432`: "), "{failed}");
}
