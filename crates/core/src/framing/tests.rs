use super::*;

const MOST: usize = 16 * 1024;

fn head(text: &str) -> Result<BodyFraming, FramingError> {
    check_head(text.as_bytes())
}

#[test]
fn heads_with_one_reading_are_taken() {
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(BodyFraming::None));
    assert_eq!(head("GET / HTTP/1.0\r\nhost:a\r\nConnection: close, X-A\r\n\r\n"), Ok(BodyFraming::None));
    assert_eq!(head("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\n"), Ok(BodyFraming::Length(12)));
    assert_eq!(head("POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"), Ok(BodyFraming::None));
    assert_eq!(head("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), Ok(BodyFraming::None));
    assert_eq!(head("get / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n"), Ok(BodyFraming::Length(3)));
    assert_eq!(head("PATCH /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"), Ok(BodyFraming::Chunked));
    assert_eq!(head("GET / HTTP/1.1\r\nHost: a\r\nX: \t caf\u{e9}, ok \r\nEmpty:\r\n\r\n"), Ok(BodyFraming::None));
}

#[test]
fn heads_with_more_than_one_reading_are_refused() {
    use FramingError::*;
    #[rustfmt::skip]
    let cases = [
        ("GET / HTTP/1.1\r\n\r\n", Host), ("GET / HTTP/1.0\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Host),
        ("GET /<x> HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine), ("GET /`x HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET /x?\"y\" HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine), ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", RequestLine), ("GET /\r\nHost: a\r\n\r\n", RequestLine),
        ("GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine), ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine), ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("TRACE * HTTP/1.1\r\nHost: a\r\n\r\n", Method), ("get a HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", Method), ("G\u{1}T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", HeaderLine), ("GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", HeaderLine),
        ("GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n", HeaderLine), ("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", HeaderLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nFedgate_Assertion: a\r\n\r\n", HeaderLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nX.Y: a\r\n\r\n", HeaderLine), ("GET / HTTP/1.1\r\nHost: a\r\nX: a\0\r\n\r\n", HeaderLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: a\nX-Id: admin\r\n\r\n", HeaderLine), ("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", HeaderLine),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n", HeaderLine),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", HeaderLine),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", BodyLength),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", BodyLength),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", BodyLength),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n", BodyNotExpected),
        ("DELETE / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", BodyNotExpected),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, Host\r\n\r\n", Connection),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: \"x\"\r\n\r\n", Connection),
    ];
    for (text, error) in cases {
        assert_eq!(head(text), Err(error), "{text:?}");
    }
    for length in ["3, 3", "+3", "-3", "0x3", "003", "", "12345678901234567890", "3 4"] {
        assert_eq!(
            head(&format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n")),
            Err(BodyLength),
            "{length}"
        );
    }
    for host in ["", "u@h", "a b", "a/b", "a:b", "[::1", "caf\u{e9}", "a:99999"] {
        assert_eq!(head(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")), Err(Host), "{host}");
    }
    let many = "X: a\r\n".repeat(MAX_HEADERS);
    assert_eq!(head(&format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n")), Err(HeadTooLarge));
}

#[test]
fn a_head_ends_at_its_blank_line_and_is_bounded() {
    assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", MOST), Ok(Some(27)));
    assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n", MOST), Ok(None));
    assert_eq!(head_end(b"GET / HTTP/1.1\nHost: a\n\n", MOST), Err(FramingError::HeaderLine));
    assert_eq!(head_end(b"\n", MOST), Err(FramingError::HeaderLine));
    assert_eq!(head_end(&vec![b'a'; MOST + 1], MOST), Err(FramingError::HeadTooLarge));
    assert_eq!(head_end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody\nwith bare feeds", MOST), Ok(Some(27)));
}

#[test]
fn one_empty_line_before_a_request_is_skipped_and_no_second_one() {
    for (bytes, start) in
        [("", 0), ("\r", 0), ("\r\n", 2), ("\r\nGET", 2), ("\r\n\r\nGET", 2), ("GET", 0), ("\nGET", 0)]
    {
        assert_eq!(head_start(bytes.as_bytes()), start, "{bytes:?}");
    }
    assert_eq!(head("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), Err(FramingError::RequestLine), "what is left of two");
}

/// Feeds a body whole and byte by byte; both must agree.
fn body(kind: BodyFraming, bytes: &[u8]) -> Result<(usize, bool), FramingError> {
    let mut whole = BodyReader::new(kind);
    let taken = whole.feed(bytes).map(|taken| (taken, whole.is_done()));
    let mut single = BodyReader::new(kind);
    let mut count = 0;
    let mut outcome = Ok(());
    for byte in bytes {
        match single.feed(std::slice::from_ref(byte)) {
            Ok(taken) => count += taken,
            Err(error) => {
                outcome = Err(error);
                break;
            }
        }
    }
    assert_eq!(taken, outcome.map(|()| (count, single.is_done())), "{:?}", String::from_utf8_lossy(bytes));
    taken
}

#[test]
fn a_body_ends_where_it_says() {
    assert_eq!(body(BodyFraming::None, b"GET"), Ok((0, true)));
    assert_eq!(body(BodyFraming::Length(3), b"abcGET"), Ok((3, true)));
    assert_eq!(body(BodyFraming::Length(9), b"abc"), Ok((3, false)));
    assert_eq!(body(BodyFraming::Chunked, b"3\r\nabc\r\n0\r\n\r\nGET"), Ok((13, true)));
    assert_eq!(body(BodyFraming::Chunked, b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"), Ok((26, true)));
    assert_eq!(body(BodyFraming::Chunked, b"0\r\nX-Id: admin\r\n\r\nGET"), Ok((18, true)));
    assert_eq!(body(BodyFraming::Chunked, b"3\r\nab"), Ok((5, false)));
}

#[test]
fn chunks_with_more_than_one_reading_are_refused() {
    for bytes in [
        &b"0x3\r\nabc\r\n"[..],
        b"-3\r\nabc\r\n",
        b"+3\r\n",
        b" 3\r\n",
        b"3 \r\nabc",
        b"3;x=1\r\nabc",
        b"3;\n\r\nabc",
        b"\r\n",
        b"3\nabc",
        b"10000000000000003\r\n",
        b"3\r\nabcd\r\n",
        b"3\r\nabc\n0\r\n",
        b"3\r\nabc0\r\n\r\n",
        b"3\r\r\n",
        b"0\r\n\n",
        b"0\r\n X: a\r\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\nX: \0\r\n\r\n",
        b"g\r\n",
    ] {
        assert_eq!(body(BodyFraming::Chunked, bytes), Err(FramingError::Chunk), "{:?}", String::from_utf8_lossy(bytes));
    }
    let long = [&b"0\r\nX: "[..], &[b'a'; 2000], b"\r\n\r\n"].concat();
    assert_eq!(body(BodyFraming::Chunked, &long), Err(FramingError::Chunk));
}
