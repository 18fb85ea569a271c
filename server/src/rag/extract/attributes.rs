//! A page in parts for the tokenizer, with at most [`ATTRIBUTES_MAX`] attributes to a tag.
//!
//! `html5ever` looks for each attribute among all those of its tag before it, so a tag of 40,000 attributes takes half a
//! second, and one of three megabytes a minute. Nobody writes such tags but to that end. (`html5gum` was tried: it follows
//! attributes by calling itself, and a long tag ends the stack.)
//!
//! A part begins at each `<`, and the tokenizer has read it before the next one is made. So it is known whether that `<` can
//! begin a tag, and within a tag the few states of the HTML standard that matter (13.2.5.32 and on) say where attributes
//! begin. What is left out is from the first attribute too many to the end of its tag.

/// Attributes of a tag that are read: the longest that people write have some dozens.
const ATTRIBUTES_MAX: usize = 500;

/// What the tokenizer made of the parts so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Tags, comments and the like that came to their end.
    pub(super) constructs: usize,
    /// The element whose content is read as it is, up to its end tag.
    pub(super) raw: Option<String>,
}

/// The parts.
pub(super) struct Bounded<'a> {
    left: &'a str,
    within: Within,
    /// Of [`Seen`], when the last part was made.
    constructs: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Within {
    Text,
    /// A tag, which has so many attributes so far.
    Tag(Place, usize),
    /// A comment, or what is read like one.
    Other,
}

/// Where in a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    /// An attribute may begin.
    Between,
    Attribute,
    AfterAttribute,
    BeforeValue,
    Quoted(u8),
    Unquoted,
}

impl<'a> Bounded<'a> {
    pub(super) fn new(html: &'a str) -> Self {
        Self {
            left: html,
            within: Within::Text,
            constructs: 0,
        }
    }

    /// The next part, which the tokenizer is to read before it is asked again.
    pub(super) fn next(&mut self, seen: &Seen) -> Option<&'a str> {
        let moved = seen.constructs != std::mem::replace(&mut self.constructs, seen.constructs);
        if moved && self.within == Within::Other {
            self.within = Within::Text;
        }
        if self.left.is_empty() {
            return None;
        }
        if self.within == Within::Text {
            self.within = begins(self.left, seen.raw.as_deref());
        }
        let first = self.left.chars().next().map_or(0, char::len_utf8);
        let end = self.left[first..].find('<').map_or(self.left.len(), |at| first + at);
        let Within::Tag(..) = self.within else {
            let (part, left) = self.left.split_at(end);
            self.left = left;
            return Some(part);
        };
        let part = &self.left[..self.whole(end)];
        // What is too much begins behind the part, and is left out as far as the tag goes.
        self.left = &self.left[part.len()..];
        if part.len() < end {
            self.skip();
        }
        Some(part)
    }

    /// Follows the tag through the next `end` bytes, or to the first attribute too many.
    fn whole(&mut self, end: usize) -> usize {
        for (at, byte) in self.left.bytes().enumerate().take(end).skip(self.marks()) {
            let Within::Tag(place, attributes) = self.within else {
                // Behind the tag: text.
                return end;
            };
            let (next, new) = place.follow(byte);
            if new && attributes == ATTRIBUTES_MAX {
                return at;
            }
            self.within = match next {
                Some(next) => Within::Tag(next, attributes + usize::from(new)),
                None => Within::Text,
            };
        }
        end
    }

    /// Bytes of a tag that begins here before its name.
    fn marks(&self) -> usize {
        match self.within {
            Within::Tag(Place::Name, 0) if self.left.starts_with("</") => 2,
            Within::Tag(Place::Name, 0) if self.left.starts_with('<') => 1,
            _ => 0,
        }
    }

    /// Leaves out everything up to the end of the tag, which stays.
    fn skip(&mut self) {
        let Within::Tag(mut place, attributes) = self.within else {
            return;
        };
        for (at, byte) in self.left.bytes().enumerate() {
            match place.follow(byte).0 {
                Some(next) => place = next,
                None => {
                    self.left = &self.left[at..];
                    self.within = Within::Tag(Place::Between, attributes);
                    return;
                }
            }
        }
        self.left = "";
    }
}

/// What begins with this text.
fn begins(text: &str, raw: Option<&str>) -> Within {
    let bytes = text.as_bytes();
    let letter = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphabetic);
    if bytes.first() != Some(&b'<') {
        return Within::Text;
    }
    match (raw, bytes.get(1)) {
        (Some(raw), Some(b'/')) => {
            let ends = text
                .get(2..2 + raw.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(raw));
            if ends {
                Within::Tag(Place::Name, 0)
            } else {
                Within::Text
            }
        }
        (Some(_), _) => Within::Text,
        (None, Some(b'/')) if letter(2) => Within::Tag(Place::Name, 0),
        (None, Some(b'/' | b'!' | b'?')) => Within::Other,
        (None, _) if letter(1) => Within::Tag(Place::Name, 0),
        (None, _) => Within::Text,
    }
}

impl Place {
    /// Where a byte leads, none being the end of the tag; and whether an attribute begins with it.
    fn follow(self, byte: u8) -> (Option<Self>, bool) {
        let white = matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0c);
        match (self, byte) {
            (Self::Quoted(quote), _) if byte == quote => (Some(Self::Between), false),
            (Self::Quoted(_), _) => (Some(self), false),
            (_, b'>') => (None, false),
            (Self::BeforeValue, _) if white => (Some(self), false),
            (Self::BeforeValue, b'"' | b'\'') => (Some(Self::Quoted(byte)), false),
            (Self::BeforeValue | Self::Unquoted, _) if !white => (Some(Self::Unquoted), false),
            (Self::Attribute | Self::AfterAttribute, b'=') => (Some(Self::BeforeValue), false),
            (Self::Attribute | Self::AfterAttribute, _) if white => (Some(Self::AfterAttribute), false),
            (_, b'/') => (Some(Self::Between), false),
            _ if white => (Some(Self::Between), false),
            (Self::Name | Self::Attribute, _) => (Some(self), false),
            _ => (Some(Self::Attribute), true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a page, for a tokenizer that ends each tag and each comment where it ends.
    fn parts(html: &str) -> String {
        let mut bounded = Bounded::new(html);
        let mut seen = Seen::default();
        let mut all = String::new();
        while let Some(part) = bounded.next(&seen) {
            all.push_str(part);
            seen.constructs = all.matches('>').count();
        }
        all
    }

    #[test]
    fn a_page_that_anybody_wrote_stays_as_it_is() {
        for html in [
            "",
            "text",
            "<",
            "a < b <p class=\"x > y\">c</p><!-- <a ' --><br/><a href=x/y title='it\"s'>z</a>",
            "<a b = c d='e'f g/h>x</a  i>",
            "<a =b ==c>x",
            "你<!doctype html><title>t</title>你好<p 你=好>é<",
        ] {
            assert_eq!(parts(html), html);
        }
    }

    #[test]
    fn attributes_beyond_the_bound_are_left_out_and_nothing_else() {
        let attributes = |n: usize| -> String { (0..n).map(|n| format!(" a{n}=\"<>'\"")).collect() };
        for (tag, behind) in [("p", "text <b>more</b>"), ("/p", ""), ("p", "<i>")] {
            let most = format!("<{tag}{}>{behind}", attributes(ATTRIBUTES_MAX));
            assert_eq!(parts(&most), most);
            let more = format!("<{tag}{}>{behind}", attributes(3 * ATTRIBUTES_MAX));
            assert_eq!(parts(&more), format!("<{tag}{} >{behind}", attributes(ATTRIBUTES_MAX)));
        }
        // A tag that never ends.
        let endless = format!("<p{}", attributes(2 * ATTRIBUTES_MAX));
        assert_eq!(parts(&endless), format!("<p{} ", attributes(ATTRIBUTES_MAX)));
    }

    #[test]
    fn what_is_no_tag_has_no_attributes() {
        let words = "w ".repeat(2 * ATTRIBUTES_MAX);
        for html in [
            format!("<!-- <a {words}-->x"),
            format!("< a {words}>x"),
            format!("<p title=\"{words}\">x"),
            format!("a <1 {words}>x"),
        ] {
            assert_eq!(parts(&html), html);
        }
        let mut bounded = Bounded::new("<a <b </script x>");
        let seen = Seen {
            constructs: 0,
            raw: Some("script".to_owned()),
        };
        bounded.next(&seen);
        assert_eq!(bounded.within, Within::Text);
        bounded.next(&seen);
        bounded.next(&seen);
        assert_eq!(bounded.within, Within::Text, "it was followed to its end");
    }
}
