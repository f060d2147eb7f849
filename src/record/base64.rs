//! Base64 with padding (RFC 4648, section 4): payload in a recording, and a recording in a page.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends bytes in base64.
pub fn encode(text: &mut String, bytes: &[u8]) {
    for chunk in bytes.chunks(3) {
        let of = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = of(0) << 16 | of(1) << 8 | of(2);
        for at in 0..4 {
            let sextet = (bits >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(ALPHABET[sextet]) } else { '=' });
        }
    }
}

/// Returns the bytes of a text in base64; `None` if it is none.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=').as_bytes();
    if text.len() % 4 != 0 || text.len() - digits.len() > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.chunks(4) {
        let mut bits = 0;
        for at in 0..4 {
            let sextet = match chunk.get(at) {
                Some(digit) => ALPHABET.iter().position(|known| known == digit)? as u32,
                None => 0,
            };
            bits = bits << 6 | sextet;
        }
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs: [(&[u8], &str); 6] = [
            (b"", ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (&[0xfb, 0xff, 0xfe], "+//+"),
        ];
        for (bytes, expected) in pairs {
            let mut text = String::new();
            encode(&mut text, bytes);
            assert_eq!(text, expected);
            assert_eq!(decode(expected).as_deref(), Some(bytes));
        }
        for wrong in ["Z", "Zg=", "Zg", "====", "Zg===", "Z g=", "Zm9\u{e9}"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
