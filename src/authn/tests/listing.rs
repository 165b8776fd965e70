//! An instance that is not listed among the running ones uses nothing cached, and reports that.

use super::*;

/// An instance beside that of the fixture, which was never confirmed or listed.
fn another(fixture: &Fixture) -> Authenticator {
    let (accounts, routes) = (fixture.authenticator.accounts.clone(), Arc::clone(&fixture.authenticator.routes));
    Authenticator::new(accounts, routes, fixture.authenticator.settings.clone()).unwrap()
}

#[tokio::test]
async fn an_instance_that_cannot_report_itself_logs_it_once_the_accounts_are_there() {
    let authenticator = another(&Fixture::new().await);
    let is_told = || authenticator.unlisted.lock().unwrap().is_told;
    let fails = || authenticator.reported(BootMoment::now(), Err(AccountsError::Away));
    fails();
    assert!(!is_told());
    authenticator
        .confirmed(BootMoment::now() + DAY, &AccountChanges { epoch: 1, accounts: ChangedAccounts::Everything });
    fails();
    assert!(is_told() && authenticator.fault().is_some_and(|fault| fault.contains("cannot report itself")));
    authenticator.reported(BootMoment::now(), Ok(()));
    assert!(!is_told() && authenticator.fault().is_none());
}

#[tokio::test]
async fn nothing_cached_is_used_by_an_instance_that_is_not_listed() {
    let authenticator = another(&Fixture::new().await);
    let start = BootMoment::now();
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let confirm =
        |asked| authenticator.confirmed(asked, &AccountChanges { epoch: 1, accounts: ChangedAccounts::These(vec![]) });
    let is_valid = |milliseconds| authenticator.lease_is_valid(at(milliseconds));
    assert!(!authenticator.is_ready(at(0)));
    confirm(at(0));
    assert!(authenticator.is_ready(at(1)) && authenticator.is_confirmed(at(999)) && !is_valid(1));
    assert!(!authenticator.is_confirmed(at(1000)));
    // A question from before the listing was known does not count, however late its answer comes.
    authenticator.principals.listed(at(10), at(20));
    confirm(at(19));
    assert!(!is_valid(21));
    confirm(at(20));
    assert!(is_valid(1019) && !is_valid(1020));
    // Still confirmed, but no longer reported: the lease ends when others count it as ended.
    let listed_for = crate::accounts::listed_for(Duration::from_secs(1));
    assert_eq!(listed_for, Duration::from_secs(4));
    confirm(at(3900));
    assert!(is_valid(4009) && !is_valid(4010));
    // A report in time extends it; one after a gap starts it again.
    authenticator.principals.listed(at(3950), at(3960));
    assert!(is_valid(4010));
    confirm(at(9000));
    authenticator.principals.listed(at(9010), at(9020));
    assert!(!is_valid(9030));
    confirm(at(9040));
    assert!(is_valid(9050));
}

#[tokio::test]
async fn a_report_that_is_refused_because_writes_are_ends_admission_until_one_arrives() {
    let authenticator = another(&Fixture::new().await);
    let now = BootMoment::now();
    let confirm = || {
        authenticator
            .confirmed(BootMoment::now() + DAY, &AccountChanges { epoch: 1, accounts: ChangedAccounts::These(vec![]) })
    };
    confirm();
    authenticator.reported(now, Ok(()));
    confirm();
    assert!(authenticator.lease_is_valid(BootMoment::now()) && authenticator.are_confirmed().await.is_ok());
    authenticator.reported(now, Err(AccountsError::Standby));
    for _ in 0..2 {
        assert!(!authenticator.lease_is_valid(BootMoment::now()) && !authenticator.is_ready(BootMoment::now()));
        assert!(matches!(authenticator.are_confirmed().await, Err(AccountsError::Away)), "nor is anybody read");
        assert!(authenticator.fault().is_some_and(|fault| fault.contains("was set read-only")));
        // Whatever the watch receives from the same server.
        confirm();
    }
    authenticator.reported(BootMoment::now(), Ok(()));
    confirm();
    assert!(authenticator.lease_is_valid(BootMoment::now()) && authenticator.are_confirmed().await.is_ok());
    assert!(authenticator.fault().is_none());
}
