//! Which characters are these bytes of an HTML page? In the order of the HTML standard (13.2.3): a byte order mark, what a
//! `<meta>` near the beginning says, UTF-8 if they are that, else what they look like.

use std::borrow::Cow;

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// Where browsers look for a `<meta>`.
const PRESCAN_BYTES: usize = 1024;

/// The text. Bytes that are wrong in the character set become U+FFFD.
pub(super) fn decode(bytes: &[u8]) -> Cow<'_, str> {
    // Looks for a byte order mark itself.
    encoding_of(bytes).decode(bytes).0
}

fn encoding_of(bytes: &[u8]) -> &'static Encoding {
    if let Some((encoding, _)) = Encoding::for_bom(bytes) {
        return encoding;
    }
    if let Some(encoding) = declared(&bytes[..bytes.len().min(PRESCAN_BYTES)]) {
        return encoding;
    }
    if std::str::from_utf8(bytes).is_ok() {
        return UTF_8;
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(bytes, true);
    detector.guess(None, Utf8Detection::Allow)
}

/// What the first `<meta>` with a known `charset=` says, as an attribute of its own or within `content`.
fn declared(head: &[u8]) -> Option<&'static Encoding> {
    let head = head.to_ascii_lowercase();
    let mut rest = head.as_slice();
    while let Some(at) = find(rest, b"<meta") {
        rest = &rest[at + 5..];
        let tag = &rest[..find(rest, b">").unwrap_or(rest.len())];
        if let Some(at) = find(tag, b"charset") {
            let value = tag[at + 7..].trim_ascii_start();
            if let Some(value) = value.strip_prefix(b"=") {
                let value = value.trim_ascii_start();
                let value = value.strip_prefix(b"\"").or(value.strip_prefix(b"'")).unwrap_or(value);
                let end = value
                    .iter()
                    .position(|b| matches!(b, b'"' | b'\'' | b';' | b'>' | b'/') || b.is_ascii_whitespace());
                if let Some(encoding) = Encoding::for_label(&value[..end.unwrap_or(value.len())]) {
                    // A tag that could be read as ASCII is not in UTF-16, whatever it says.
                    return Some(if encoding == UTF_16BE || encoding == UTF_16LE {
                        UTF_8
                    } else {
                        encoding
                    });
                }
            }
        }
    }
    None
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
