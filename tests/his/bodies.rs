//! Bodies: what is read as JSON, and what is refused before anything is written.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{professional, root};

crate::on_both_stores! {
    async fn a_body_is_json_whatever_the_content_type_but_a_form(his) {
        for (at, kind) in ["", "text/plain", "application/octet-stream", "garbage", "application/json"].iter().enumerate() {
            let target = format!("/people/P{at}");
            let mut request = his.request(&professional(), "POST", &target).body("{}");
            if !kind.is_empty() {
                request = request.header("content-type", kind);
            }
            assert_eq!(request.send().await.status, 200, "{kind}");
        }
        for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Multipart/Form-Data"] {
            let request = his.request(&professional(), "POST", "/people/Q").body("{}").header("content-type", kind);
            let (status, text, code) = request.send().await.error();
            assert_eq!((status, &*code), (415, "unsupported_media_type"), "{kind}");
            assert!(text.ends_with(": send JSON as application/json, not compressed"), "{text}");
        }
        let request = his.request(&professional(), "POST", "/people/Q").body("{}").header("content-encoding", "gzip");
        assert_eq!(request.send().await.status, 415);
        let request = his.request(&professional(), "POST", "/people/Q").body("{}").header("content-encoding", "identity");
        assert_eq!(request.send().await.status, 200);
    }

    async fn what_is_no_json_object_is_refused_and_nothing_written(his) {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let long = format!("{{\"a\":{}}}", "9".repeat(100_000));
        let cases: [(&[u8], u16, &str); 14] = [
            (b"", 400, "malformed_json"),
            (b"{", 400, "malformed_json"),
            (b"{} x", 400, "malformed_json"),
            (b"{\"a\":1,}", 400, "malformed_json"),
            (b"\xef\xbb\xbf{}", 400, "not_utf8"),
            (b"\xff\xfe{\0}\0", 400, "not_utf8"),
            (b"{\"a\":\"\\ud800\"}", 400, "json_not_text"),
            (b"{\"a\":\"\\u0000\"}", 400, "json_not_text"),
            (b"{\"a\":1e999999}", 422, "json_number_too_long"),
            (long.as_bytes(), 422, "json_number_too_long"),
            (deep.as_bytes(), 400, "json_too_deep"),
            (b"[]", 422, "not_an_object"),
            (b"null", 422, "not_an_object"),
            (b"\"x\"", 422, "not_an_object"),
        ];
        for (body, status, code) in cases {
            for (method, target) in [("POST", "/people/NEW"), ("PATCH", "/people/NEW"), ("POST", "/pols/NEW/1")] {
                let reply = his.request(&root(), method, target).body(body).send().await;
                let (got, _, got_code) = reply.error();
                assert_eq!((got, got_code.as_str()), (status, code), "{method} {:?}", String::from_utf8_lossy(&body[..body.len().min(30)]));
            }
        }
        assert_eq!(his.get(&root(), "/people").await.text(), "[]");
    }

    async fn a_body_over_the_limit_is_413_and_one_far_over_it_is_not_read(his) {
        let big = format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20));
        assert_eq!(his.post(&root(), "/people/BIG", &big).await.error().0, 413);
        // Only the head is sent, and the answer arrives all the same.
        let request = his.request(&root(), "POST", "/people/BIG").header("content-length", "999999999");
        assert_eq!(request.send().await.status, 413);
        let chunked = format!("{:x}\r\n{big}\r\n0\r\n\r\n", big.len());
        let request = his.request(&root(), "POST", "/people/BIG");
        let head = request.head().replace("content-length: 0", "transfer-encoding: chunked");
        let reply = crate::support::client::exchange(&his.address, &head, chunked.as_bytes()).await;
        assert_eq!(reply.status, 413);
    }

    async fn every_digit_survives_and_of_repeated_keys_the_last_counts(his) {
        his.person("NUM", r#"{"big":123456789012345678901234567890,"small":0.1234567890123456789,"x":1,"x":{"y":1,"y":2}}"#).await;
        let text = his.get(&root(), "/people/NUM").await.text().to_owned();
        for digits in ["123456789012345678901234567890", "0.1234567890123456789"] {
            assert!(text.contains(digits), "{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["x"], serde_json::json!({"y": 2}));
        assert_eq!(text.matches("\"x\"").count(), 1);
    }

    async fn a_number_that_readers_do_not_read_alike_is_refused_on_every_route(his) {
        his.person("ANA", "{}").await;
        his.page("ANA", "p", r#"{"id":"p"}"#).await;
        his.post(&root(), "/institutions/i", "{}").await;
        let long = "9".repeat(65);
        for number in ["1e1000", "1e-1000", "-1e308", "1e64", "1e-64", "1e400", long.as_str(), "0e-64"] {
            for body in [format!("{{\"id\":\"p\",\"n\":{number}}}"), format!("{{\"id\":\"p\",\"n\":[{{\"x\":[{number}]}}]}}")] {
                for (method, target) in [
                    ("POST", "/people/NEW"), ("PATCH", "/people/ANA"), ("POST", "/pols/ANA/p"), ("PATCH", "/pols/ANA/p"),
                    ("POST", "/institutions/n"), ("PATCH", "/institutions/i"), ("POST", "/domiciliary-units/n"),
                    ("POST", "/personal_docs/ANA/p/p"),
                ] {
                    let (status, _, code) = his.request(&root(), method, target).body(&body).send().await.error();
                    assert_eq!((status, code.as_str()), (422, "json_number_too_long"), "{method} {target} {body}");
                }
            }
        }
    }

    async fn what_was_acknowledged_reads_back_at_about_its_size_and_alike(his) {
        let numbers = "[1E+2,-0,-0.00,1.50e1,12e-1,1e63,1e-63,-2.5e-3,9007199254740993]";
        his.person("NUM", &format!("{{\"n\":{numbers}}}")).await;
        let text = his.get(&root(), "/people/NUM").await.text().replace(' ', "");
        let written = format!("[100,0,0.00,15.0,1.2,1{},0.{}1,-0.0025,9007199254740993]", "0".repeat(63), "0".repeat(62));
        assert!(text.contains(&written), "{text}");
        // Together, many of them grow beyond the bound of a body.
        let many = format!("{{\"n\":[{}1]}}", "1e63,".repeat(20_000));
        assert_eq!(his.post(&root(), "/people/MANY", &many).await.error().2, "body_too_large");
        let some = format!("{{\"n\":[{}1]}}", "1e63,".repeat(10_000));
        his.person("SOME", &some).await;
        assert!(his.get(&root(), "/people/SOME").await.body.len() < 1 << 20);
    }

    async fn a_number_that_was_stored_before_stays_readable_and_its_record_changes(his) {
        his.sql(r#"INSERT INTO people (id, data) VALUES ('OLD', '{"id":"OLD","big":1e1000,"keep":1}')"#).await;
        assert!(his.get(&root(), "/people/OLD").await.text().contains("keep"));
        assert_eq!(his.patch(&root(), "/people/OLD", r#"{"new":2}"#).await.status, 200);
        let text = his.get(&root(), "/people/OLD").await.text().replace(' ', "");
        assert!(text.contains("\"big\":1") && text.contains("\"keep\":1") && text.contains("\"new\":2"), "{text}");
    }

    async fn a_refusal_does_not_overtake_its_request(his) {
        let fedgate_base::config::Address::Tcp(address) = his.address else { unreachable!() };
        let long = format!("/people/{}", "x".repeat(300));
        for (target, name, value, status) in [
            ("/people/FORM", "content-type", "application/x-www-form-urlencoded", 415),
            ("/people/GZIP", "content-encoding", "gzip", 415),
            ("/personal_docs/ANA/p/d", "content-type", "multipart/form-data", 415),
            ("/password/ANA", "content-type", "application/json", 415),
            (long.as_str(), "content-type", "application/json", 400),
        ] {
            let request = his.request(&root(), "POST", target).header(name, value).header("content-length", "10000");
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(request.head().as_bytes()).await.unwrap();
            let early = tokio::time::timeout(std::time::Duration::from_millis(100), stream.read_u8()).await;
            assert!(early.is_err(), "{target}: answered before the body came");
            stream.write_all(&[b' '; 10_000]).await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(crate::support::client::parse(&bytes, false).status, status, "{target}");
        }
    }

    async fn a_document_that_is_too_large_is_read_before_it_is_refused(his) {
        let fedgate_base::config::Address::Tcp(address) = his.address else { unreachable!() };
        const PART: usize = 100_000;
        const PARTS: usize = 13;
        for is_chunked in [false, true] {
            let length = (PART * PARTS).to_string();
            let request = his.request(&root(), "POST", "/personal_docs/ANA/p/d").header("content-type", "image/png");
            let mut head = request.header("content-length", &length).head();
            let mut part = vec![b'x'; PART];
            let mut end = "";
            if is_chunked {
                head = head.replace(&format!("content-length: {length}"), "transfer-encoding: chunked");
                part = [format!("{PART:x}\r\n").into_bytes(), part, b"\r\n".to_vec()].concat();
                end = "0\r\n\r\n";
            }
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..PARTS {
                let early = tokio::time::timeout(std::time::Duration::from_millis(10), stream.read_u8()).await;
                assert!(early.is_err(), "answered before the body came");
                stream.write_all(&part).await.unwrap();
            }
            stream.write_all(end.as_bytes()).await.unwrap();
            let mut bytes = Vec::new();
            stream.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(crate::support::client::parse(&bytes, false).status, 413);
        }
    }

    async fn chunked_bodies_are_read(his) {
        let request = his.request(&root(), "POST", "/people/CHUNKED");
        let head = request.head().replace("content-length: 0", "transfer-encoding: chunked");
        let reply = crate::support::client::exchange(&his.address, &head, b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n").await;
        assert_eq!((reply.status, reply.text()), (200, "null"));
    }
}
