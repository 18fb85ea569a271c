//! A text of somebody else's, on one line and not too long: titles, headings, what a service said.

/// The longest title of a document, in characters: it stands in every chunk.
pub const TITLE_CHARS_MAX: usize = 1_000;

/// The words of a text with single spaces between them, cut after so many characters with an ellipsis behind.
pub fn one_line(text: &str, chars_max: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if let Some((cut, _)) = line.char_indices().nth(chars_max) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// A title on one line; none if there is nothing in it.
pub fn title(text: &str) -> Option<String> {
    let title = one_line(text, TITLE_CHARS_MAX);
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_single_spaces_and_ends_where_it_must() {
        for (text, most, line) in [
            (" a \n\tb  c ", 5, "a b c"),
            ("a b c", 4, "a b …"),
            ("你好吗", 2, "你好…"),
            (" \u{a0}\n", 5, ""),
        ] {
            assert_eq!(one_line(text, most), line, "{text:?}");
        }
        assert_eq!(title(" \n"), None);
        let long = "word ".repeat(TITLE_CHARS_MAX);
        assert_eq!(title(&long).unwrap().chars().count(), TITLE_CHARS_MAX + 1);
    }
}
