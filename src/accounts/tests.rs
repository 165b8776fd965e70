use super::*;

#[test]
fn a_gap_or_an_epoch_that_went_back_means_everything() {
    let row = |epoch, change: Option<i64>, account: Option<&str>| vec![(epoch, change, account.map(str::to_owned))];
    let of = |since, rows| changes(since, rows).unwrap().accounts;
    assert_eq!(of(None, row(7, None, None)), Changed::Everything, "the first reading");
    assert_eq!(of(Some(7), row(7, None, None)), Changed::These(vec![]));
    assert_eq!(of(Some(6), row(7, Some(7), Some("ANA"))), Changed::These(vec!["ANA".into()]));
    assert_eq!(of(Some(8), row(7, None, None)), Changed::Everything, "the epoch went back");
    assert_eq!(of(Some(6), row(7, Some(7), None)), Changed::Everything, "a change that names no account");
    assert_eq!(of(Some(0), row(20_000, Some(20_000), Some("ANA"))), Changed::Everything, "older changes are forgotten");
    assert!(matches!(changes(Some(1), vec![]), Err(AccountsError::NotMigrated)));
}

#[test]
fn roles_that_are_no_list_of_words_are_none_and_the_mark_is_read_strictly() {
    let account = |roles: Option<&str>, active: Option<&str>| {
        let (roles, active) = (roles.map(str::to_owned), active.map(str::to_owned));
        Row { epoch: 1, found: true, password: Some(String::new()), roles, active }.into_account("ANA").unwrap()
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
