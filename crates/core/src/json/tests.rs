use super::{JsonError, JsonObject, JsonValue, parse};

fn object(text: &str) -> JsonObject {
    match parse(text.as_bytes()) {
        Ok(JsonValue::Object(object)) => object,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn what_is_accepted_comes_back_with_every_digit() {
    #[rustfmt::skip]
    let cases = [
        (r#"{}"#, r#"{}"#),
        (" { \"a\" : [ 1 , -0.50e+3 , true, false, null ] } \r\n", r#"{"a":[1,-500,true,false,null]}"#),
        (r#"{"n":123456789012345678901234567890.000000000000000000001}"#, r#"{"n":123456789012345678901234567890.000000000000000000001}"#),
        (r#"{"ro\u006ces":"\ud83d\ude00\u00e9\/\b"}"#, "{\"roles\":\"😀é/\\u0008\"}"),
        (r#"{"a":1,"b":2,"a":{"c":1,"c":2}}"#, r#"{"a":{"c":2},"b":2}"#),
        (r#"{"":"\"\\\u001f"}"#, r#"{"":"\"\\\u001f"}"#),
    ];
    for (text, written) in cases {
        assert_eq!(object(text).to_text(), written);
    }
}

#[test]
fn input_with_no_or_two_readings_is_refused() {
    use JsonError::*;
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let cases: Vec<(Vec<u8>, JsonError)> = vec![
        (b"\xef\xbb\xbf{}".to_vec(), ByteOrderMark),
        (b"{\"a\":\"\xff\"}".to_vec(), NotUtf8),
        (b"{\x00}\x00".to_vec(), Malformed(1)),
        (b"".to_vec(), Malformed(0)),
        (b"{".to_vec(), Malformed(1)),
        (b"{\"a\":1,}".to_vec(), Malformed(7)),
        (b"[1,]".to_vec(), Malformed(3)),
        (b"{'a':1}".to_vec(), Malformed(1)),
        (b"{\"a\":01}".to_vec(), Malformed(6)),
        (b"{\"a\":+1}".to_vec(), Malformed(5)),
        (b"{\"a\":.5}".to_vec(), Malformed(5)),
        (b"{\"a\":1.}".to_vec(), Malformed(7)),
        (b"{\"a\":NaN}".to_vec(), Malformed(5)),
        (b"{\"a\":\"\n\"}".to_vec(), Malformed(6)),
        (b"{\"a\":\"\\x\"}".to_vec(), Malformed(7)),
        (b"{\"a\":\"\\u12g4\"}".to_vec(), Malformed(8)),
        (b"{} {}".to_vec(), TrailingGarbage(3)),
        (b"{}\x00".to_vec(), TrailingGarbage(2)),
        (b"{\"a\":\"\\u0000\"}".to_vec(), UnpairedOrNul(6)),
        (b"{\"a\":\"\\ud800\"}".to_vec(), UnpairedOrNul(6)),
        (b"{\"a\":\"\\ude00\\ud83d\"}".to_vec(), UnpairedOrNul(6)),
        (b"{\"a\":\"\\ud83d\\u0041\"}".to_vec(), UnpairedOrNul(6)),
        (deep(65).into_bytes(), TooDeep),
        (deep(100_000).into_bytes(), TooDeep),
        (format!("[{}]", "9".repeat(65)).into_bytes(), NumberTooLong(1)),
        (b"[1e64]".to_vec(), NumberTooLong(1)),
        (b"[1e1000]".to_vec(), NumberTooLong(1)),
        (b"[1e-64]".to_vec(), NumberTooLong(1)),
        (b"[1e99999999999999999999]".to_vec(), NumberTooLong(1)),
    ];
    for (bytes, error) in cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        assert_eq!(parse(&bytes).err(), Some(error), "{shown}");
    }
    assert!(parse(deep(64).as_bytes()).is_ok());
}

#[test]
fn a_number_is_kept_written_out() {
    #[rustfmt::skip]
    let cases = [
        ("1E+2", "100"), ("-0", "0"), ("-0.00", "0.00"), ("0e63", "0"), ("0e70000", "0"), ("-0.00e1", "0.0"), ("0.0e99999999999999999999", "0"), ("0e-2", "0.00"), ("-1.50e1", "-15.0"), ("1.5e-3", "0.0015"),
        ("12e-1", "1.2"), ("0.001e2", "0.1"), ("0.5e3", "500"), ("1e0", "1"), ("-12.50", "-12.50"), ("10e-3", "0.010"),
    ];
    for (number, written) in cases {
        let (value, grown) = super::parse_counted(number.as_bytes()).unwrap();
        assert!(matches!(value, JsonValue::Number(kept) if *kept == *written), "{number}");
        assert_eq!(grown, written.len().saturating_sub(number.len()), "{number}");
    }
}

#[test]
fn a_number_of_before_stays_as_it_is() {
    let text = format!(r#"{{"a":1e1000,"b":[{}],"c":-0}}"#, "9".repeat(2000));
    match super::parse_stored(&text) {
        Ok(JsonValue::Object(object)) => assert_eq!(object.to_text(), text),
        other => panic!("{other:?}"),
    }
}

#[test]
fn equality_is_by_meaning_and_never_by_float() {
    #[rustfmt::skip]
    let cases = [
        (r#"{"a":1,"b":[2]}"#,      r#"{"b":[2.0],"a":1e0}"#,     true),
        (r#"{"a":100}"#,            r#"{"a":1E+2}"#,              true),
        (r#"{"a":0.001}"#,          r#"{"a":1e-3}"#,              true),
        (r#"{"a":-0}"#,             r#"{"a":0.00}"#,              true),
        (r#"{"a":10}"#,             r#"{"a":1}"#,                 false),
        (r#"{"a":9007199254740993}"#, r#"{"a":9007199254740992}"#, false),
        (r#"{"a":-1}"#,             r#"{"a":1}"#,                 false),
        (r#"{"a":1}"#,              r#"{"a":1,"b":null}"#,        false),
        (r#"{"a":[1,2]}"#,          r#"{"a":[2,1]}"#,             false),
        (r#"{"a":"1"}"#,            r#"{"a":1}"#,                 false),
    ];
    for (left, right, same) in cases {
        assert_eq!(object(left) == object(right), same, "{left} {right}");
    }
    assert!(object(r#"{"a":1,"password":"x"}"#).same_besides(&object(r#"{"a":1}"#), &["password"]));
}

#[test]
fn many_members_keep_the_last_of_each_name() {
    let text: Vec<String> = (0..100).map(|n| format!("\"k{}\":{n}", n % 50)).collect();
    let object = object(&format!("{{{}}}", text.join(",")));
    assert_eq!(object.0.len(), 50);
    assert_eq!(object.member("k7"), Some(&JsonValue::Number("57".into())));
}

#[test]
fn a_merge_replaces_whole_members_and_keeps_nulls() {
    let mut stored = object(r#"{"a":{"x":1},"b":2,"c":3}"#);
    stored.merge(object(r#"{"a":{"y":2},"b":null}"#));
    assert_eq!(stored.to_text(), r#"{"a":{"y":2},"b":null,"c":3}"#);
}

#[test]
fn an_object_of_many_members_is_merged_and_compared_without_looking_at_each_for_each() {
    let members = |from: usize, to: usize| {
        let text: Vec<String> = (from..to).map(|n| format!("\"member {n}\":{n}")).collect();
        let JsonValue::Object(object) = parse(format!("{{{}}}", text.join(",")).as_bytes()).unwrap() else { panic!() };
        object
    };
    // Looking at each for each would take 10^10 comparisons, which no test run waits for.
    let (mut merged, all) = (members(0, 100_000), members(0, 150_000));
    merged.merge(members(50_000, 150_000));
    assert!(merged == all && merged.same_besides(&all, &["member 7"]));
    merged.set("member 3", JsonValue::Null);
    assert!(merged != all && merged.same_besides(&all, &["member 3"]));
    assert!(members(0, 20) != members(1, 21) && members(0, 20) != members(0, 21));
}
