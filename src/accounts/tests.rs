use super::*;

#[test]
fn a_gap_or_an_epoch_that_went_back_or_triggers_that_were_away_mean_everything() {
    let row = |now, change: Option<i64>, account: Option<&str>| {
        let triggers = Some("7 8 9".to_owned());
        vec![ChangeRow { now, fire: true, triggers, change, account: account.map(str::to_owned) }]
    };
    let of = |since: Option<u64>, rows| {
        let known = since.map(|epoch| LastAnswer { epoch, triggers: Some("7 8 9".into()) });
        changes(known.as_ref(), rows).unwrap().0.accounts
    };
    assert_eq!(of(None, row(7, None, None)), ChangedAccounts::Everything, "the first reading");
    assert_eq!(of(Some(7), row(7, None, None)), ChangedAccounts::These(vec![]));
    assert_eq!(of(Some(6), row(7, Some(7), Some("ANA"))), ChangedAccounts::These(vec!["ANA".into()]));
    assert_eq!(of(Some(8), row(7, None, None)), ChangedAccounts::Everything, "the epoch went back");
    assert_eq!(of(Some(6), row(7, Some(7), None)), ChangedAccounts::Everything, "a change that names no account");
    assert_eq!(
        of(Some(0), row(20_000, Some(20_000), Some("ANA"))),
        ChangedAccounts::Everything,
        "older changes are forgotten"
    );
    let many = |count| (0..count).flat_map(|_| row(7, Some(7), Some("ANA"))).collect();
    assert!(matches!(of(Some(6), many(TOLD_CHANGES)), ChangedAccounts::These(_)));
    assert_eq!(of(Some(6), many(TOLD_CHANGES + 1)), ChangedAccounts::Everything, "there may be more of them");
    let others = LastAnswer { epoch: 7, triggers: Some("7 8 10".into()) };
    assert_eq!(changes(Some(&others), row(7, None, None)).unwrap().0.accounts, ChangedAccounts::Everything);
    let (one_off, known) =
        (vec![ChangeRow { fire: false, ..row(7, None, None).remove(0) }], LastAnswer { epoch: 7, triggers: None });
    assert!(matches!(changes(Some(&known), one_off), Err(AccountsError::Untold)));
    assert!(matches!(changes(Some(&known), vec![]), Err(AccountsError::NotMigrated)));
}

#[test]
fn roles_that_are_no_list_of_words_are_none_and_the_mark_is_read_strictly() {
    let account = |roles: Option<&str>, active: Option<&str>| {
        let (roles, active) = (roles.map(str::to_owned), active.map(str::to_owned));
        AccountRow { epoch: 1, found: true, password: Some(String::new()), roles, active }.into_account("ANA").unwrap()
    };
    assert_eq!(account(Some(r#"["a","b"]"#), None).roles, ["a", "b"]);
    for roles in [None, Some("null"), Some("\"root\""), Some("[1]"), Some("{}"), Some("[\"root\", 1]")] {
        assert!(account(roles, None).roles.is_empty(), "{roles:?}");
    }
    for (active, expected) in [
        (None, true),
        (Some("true"), true),
        (Some("null"), true),
        (Some("false"), false),
        (Some("\"False\""), false),
        (Some("0"), false),
    ] {
        assert_eq!(account(None, active).active, expected, "{active:?}");
    }
    assert_eq!(account(None, None).password_hash, None, "an empty hash is none");
}
