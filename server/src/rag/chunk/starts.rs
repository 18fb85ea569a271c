//! Where do lines, words and sentences begin?
//!
//! Each function gives ascending byte positions, 0 first, whatever the text is.

/// Each line's start.
pub(super) fn line_starts(text: &str) -> Vec<usize> {
    [0].into_iter()
        .chain(text.match_indices('\n').map(|(at, _)| at + 1))
        .collect()
}

/// Each word's start: a character behind white space.
pub(super) fn word_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut white = false;
    for (at, c) in text.char_indices() {
        if white && !c.is_whitespace() {
            starts.push(at);
        }
        white = c.is_whitespace();
    }
    starts
}

/// Each sentence's start, by a simple rule: a sentence ends at 。！？ and the like; at . ! ? … if white space follows,
/// then no lower-case letter ("e.g. this"), and if no single letter or digit stands before ("J. Smith", "1. First").
/// Closing quotes and brackets belong to the sentence they close.
pub(super) fn sentence_starts(text: &str) -> Vec<usize> {
    let mut starts = vec![0];
    let mut chars = text.char_indices().peekable();
    // Characters of the word before, if they are all letters and digits.
    let mut word = Some(0usize);
    while let Some((_, c)) = chars.next() {
        match c {
            '。' | '！' | '？' | '｡' => {
                while chars
                    .next_if(|(_, next)| closes(*next) || matches!(next, '。' | '！' | '？' | '｡'))
                    .is_some()
                {}
                if let Some(&(next, _)) = chars.peek() {
                    starts.push(next);
                }
            }
            '.' | '!' | '?' | '…' | '؟' | '।' => {
                let initial = c == '.' && word == Some(1);
                while chars
                    .next_if(|(_, next)| closes(*next) || matches!(next, '.' | '!' | '?' | '…'))
                    .is_some()
                {}
                let mut white = false;
                while chars.next_if(|(_, next)| next.is_whitespace()).is_some() {
                    white = true;
                }
                if let Some(&(next, first)) = chars.peek()
                    && white
                    && !initial
                    && !first.is_lowercase()
                {
                    starts.push(next);
                }
                word = if white { Some(0) } else { None };
            }
            c if c.is_whitespace() => word = Some(0),
            c if c.is_alphanumeric() => word = word.map(|chars| chars + 1),
            _ => word = None,
        }
    }
    starts
}

fn closes(c: char) -> bool {
    matches!(
        c,
        '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』' | '）' | '】' | '》' | '*' | '_'
    )
}
