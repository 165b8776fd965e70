//! A second reading of HTTP/1 framing (RFC 9112), with fedgate's refusals. It is slow, takes whole lines at a time,
//! and was written without a look at the first.

/// Longest head, in bytes.
pub const MOST: usize = 16 * 1024;

/// How a head delimits the body of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
}

/// The end of the head at the start of `bytes`; `None` if more is needed, an error if no more can help.
pub fn head_end(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let mut line_start = 0;
    for at in 0..bytes.len() {
        if at >= MOST {
            return Err(());
        }
        if bytes[at] == b'\n' {
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err(());
            }
            if line_start + 1 == at && line_start > 0 {
                return Ok(Some(at + 1));
            }
            line_start = at + 1;
        }
    }
    Ok(None)
}

/// How a whole head delimits its body; an error for every refused head.
pub fn head(bytes: &[u8]) -> Result<Body, ()> {
    // Latin-1: one character for each byte.
    let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
    let text = text.strip_suffix("\r\n\r\n").ok_or(())?;
    let lines: Vec<&str> = text.split("\r\n").collect();
    let (request_line, headers) = lines.split_first().ok_or(())?;
    let [method, target, version] = request_line.split(' ').collect::<Vec<_>>()[..] else { return Err(()) };
    let is_token = !method.is_empty()
        && method != "CONNECT"
        && method.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c));
    let target_is_visible = !target.is_empty() && target.chars().all(|c| ('!'..='~').contains(&c));
    let path = target.split('?').next().unwrap_or_default();
    let is_path = target.starts_with('/') && !target.contains(['"', '<', '>']) && !path.contains('`');
    let is_asterisk = method == "OPTIONS" && target == "*";
    if !(is_path || is_asterisk) {
        return Err(());
    }
    if !is_token || !target_is_visible || !["HTTP/1.0", "HTTP/1.1"].contains(&version) {
        return Err(());
    }
    if headers.len() > 64 {
        return Err(());
    }
    let mut fields: Vec<(String, &str)> = Vec::new();
    for line in headers {
        let (name, value) = line.split_once(':').ok_or(())?;
        if name.is_empty() || name.contains(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            return Err(());
        }
        if value.contains(|c: char| c == '\x7f' || c < ' ' && c != '\t') {
            return Err(());
        }
        fields.push((name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])));
    }
    let values = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, value)| *value).collect::<Vec<_>>();
    let [host] = values("host")[..] else { return Err(()) };
    if !is_host(host) {
        return Err(());
    }
    for option in values("connection").iter().flat_map(|value| value.split(',')) {
        let option = option.trim_matches([' ', '\t']).to_ascii_lowercase();
        let essential = ["host", "content-length", "transfer-encoding", "authorization", "content-type"];
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        if essential.contains(&option.as_str()) || !option.chars().all(token) {
            return Err(());
        }
    }
    let body = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
        ([], []) => Body::None,
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && version == "HTTP/1.1" => Body::Chunked,
        ([length], []) => {
            let number: u64 = length.parse().map_err(|_| ())?;
            // A number has only one accepted spelling.
            if length.len() > 18 || number.to_string() != *length {
                return Err(());
            }
            if number == 0 { Body::None } else { Body::Length(number) }
        }
        _ => return Err(()),
    };
    if body != Body::None && ["GET", "HEAD", "DELETE", "OPTIONS"].contains(&method) {
        return Err(());
    }
    Ok(body)
}

/// The length of the body at the start of `bytes`; `None` if more is needed.
pub fn body_end(body: Body, bytes: &[u8]) -> Result<Option<usize>, ()> {
    match body {
        Body::None => Ok(Some(0)),
        Body::Length(length) => Ok(usize::try_from(length).ok().filter(|length| *length <= bytes.len())),
        Body::Chunked => chunks_end(bytes),
    }
}

/// A line without its end, and the bytes after it; `None` if the line is not whole.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.windows(2).position(|two| two == b"\r\n")?;
    Some((&bytes[..at], &bytes[at + 2..]))
}

fn chunks_end(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let mut rest = bytes;
    loop {
        let Some((size, after)) = line(rest) else {
            // An incomplete line must be the beginning of a valid one.
            let digits = rest.strip_suffix(b"\r").unwrap_or(rest);
            return if is_size(digits) || rest.is_empty() { Ok(None) } else { Err(()) };
        };
        if !is_size(size) {
            return Err(());
        }
        let size = u64::from_str_radix(std::str::from_utf8(size).map_err(|_| ())?, 16).map_err(|_| ())?;
        rest = after;
        if size == 0 {
            return trailer_end(rest).map(|end| end.map(|end| bytes.len() - rest.len() + end));
        }
        let Some(after) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else { return Ok(None) };
        match after {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', next @ ..] => rest = next,
            _ => return Err(()),
        }
    }
}

fn is_size(digits: &[u8]) -> bool {
    (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit)
}

/// Trailers: lines that begin with a letter or digit, of up to 1 KiB in all.
fn trailer_end(bytes: &[u8]) -> Result<Option<usize>, ()> {
    let mut rest = bytes;
    loop {
        let used = bytes.len() - rest.len();
        let whole = line(rest);
        let text = whole.map_or(rest, |(text, _)| text);
        // The bytes that end the section count, up to the carriage return.
        let within = |extra: usize| used + text.len() + extra <= 1024;
        match whole {
            Some((b"", _)) => return if within(1) { Ok(Some(used + 2)) } else { Err(()) },
            Some((text, after)) => {
                if !is_trailer(text) || !within(2) {
                    return Err(());
                }
                rest = after;
            }
            None => {
                let text = rest.strip_suffix(b"\r").unwrap_or(rest);
                return if (text.is_empty() || is_trailer(text)) && within(0) { Ok(None) } else { Err(()) };
            }
        }
    }
}

fn is_trailer(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphanumeric) && text.iter().all(|byte| *byte >= 0x20 || *byte == b'\t')
}

/// `host [":" port]` of RFC 3986, rule by rule. A port is a TCP port.
fn is_host(text: &str) -> bool {
    let port_at = match text.find(']') {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, port) = text.split_at(port_at);
    let is_port = match port.split_at_checked(1) {
        None => port.is_empty(),
        Some((colon, digits)) => {
            colon == ":"
                && digits.chars().all(|c| c.is_ascii_digit())
                && (digits.is_empty() || digits.parse::<u16>().is_ok())
        }
    };
    let is_address = host.starts_with('[') && host.ends_with(']') && {
        let inner = &host[1..host.len() - 1];
        inner.parse::<std::net::Ipv6Addr>().is_ok()
    };
    let mut is_name = !host.is_empty();
    let mut rest = host;
    while let Some(c) = rest.chars().next() {
        let is_encoded =
            c == '%' && rest.get(1..3).is_some_and(|digits| digits.chars().all(|digit| digit.is_ascii_hexdigit()));
        is_name &= is_encoded || c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(c);
        rest = &rest[if is_encoded { 3 } else { c.len_utf8() }..];
    }
    is_port && (is_address || is_name)
}
