//! Text of addresses and numbers that every request needs, written without the formatting of the standard library,
//! which takes several times as long.
//!
//! The one rule: the text is the same as that of the standard library.

use std::net::IpAddr;

/// Digits of hexadecimal text.
const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

/// An address as [`std::fmt::Display`] writes it.
pub(crate) fn address(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (unit, is_shown) in [(100, octet >= 100), (10, octet >= 10), (1, true)] {
            if is_shown {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

/// Bytes as hexadecimal digits in lower case, after what the text has.
pub(crate) fn push_hexadecimal(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from(HEXADECIMAL.get(usize::from(digit)).copied().unwrap_or(b'0')));
        }
    }
}

/// Random hexadecimal digits, two for each byte.
pub(crate) fn random_hexadecimal<const BYTES: usize>() -> String
where
    rand::distr::StandardUniform: rand::distr::Distribution<[u8; BYTES]>,
{
    let mut text = String::with_capacity(2 * BYTES);
    push_hexadecimal(&mut text, &rand::random::<[u8; BYTES]>());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_that_of_the_standard_library() {
        for octet in 0..=255u8 {
            for ip in [IpAddr::from([octet, 0, 255, octet]), IpAddr::from([0, octet, 9, 10])] {
                assert_eq!(address(ip), ip.to_string());
            }
            let mut text = "a".to_owned();
            push_hexadecimal(&mut text, &[octet, 7]);
            assert_eq!(text, format!("a{octet:02x}07"));
        }
        assert_eq!(address("2001:db8::1".parse().unwrap()), "2001:db8::1");
        assert_eq!(random_hexadecimal::<16>().len(), 32);
    }
}
