//! Numbers of 1 to 5 bytes: 7 bits each, lowest first, the top bit says "more".

/// Appends a number below 2^35.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    debug_assert!(value < 1 << 35);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number of at most 5 bytes off the front; `None` if there is none.
#[inline]
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
