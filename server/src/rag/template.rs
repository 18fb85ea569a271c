//! Prompts in a shape of the caller's own: text with the two placeholders `{{prompt}}` and `{{context}}`, each at least once.
//!
//! There is no other syntax: no conditions, no loops, no escapes. A template is cut into its parts once, and what is put in
//! is never read again, so retrieved text that says `{{prompt}}` stays text.

use std::fmt;

/// The most bytes of a template: a long system prompt is a tenth of it.
pub const TEMPLATE_BYTES_MAX: usize = 64 << 10;

const OPEN: &str = "{{";
const CLOSE: &str = "}}";

/// A template that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Prompt,
    Context,
}

/// Why a text is no template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplateError {
    /// More than [`TEMPLATE_BYTES_MAX`].
    TooLarge(usize),
    /// A placeholder that is neither.
    Unknown(String),
    /// `{{` without `}}`, at that byte.
    Unclosed(usize),
    /// A placeholder that has to be there.
    Missing(&'static str),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(bytes) => write!(f, "a template is at most {TEMPLATE_BYTES_MAX} bytes, got {bytes}"),
            Self::Unknown(name) => write!(
                f,
                "unknown placeholder {{{{{name}}}}}: a template may hold {{{{prompt}}}} and {{{{context}}}}, written like this, and \
                 nothing else in double braces"
            ),
            Self::Unclosed(at) => write!(f, "the {{{{ at byte {at} is never closed by }}}}"),
            Self::Missing(name) => write!(
                f,
                "a template holds {{{{prompt}}}} and {{{{context}}}} at least once each; {{{{{name}}}}} is missing"
            ),
        }
    }
}

impl Template {
    /// Reads a template.
    pub fn read(text: &str) -> Result<Self, TemplateError> {
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(TemplateError::TooLarge(text.len()));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once(OPEN) {
            let at = text.len() - rest.len() + before.len();
            let (name, behind) = after.split_once(CLOSE).ok_or(TemplateError::Unclosed(at))?;
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(match name {
                "prompt" => Part::Prompt,
                "context" => Part::Context,
                // Cut where a person would stop reading: what is unclosed may reach far.
                other => return Err(TemplateError::Unknown(other.chars().take(40).collect())),
            });
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        for (part, name) in [(Part::Prompt, "prompt"), (Part::Context, "context")] {
            if !parts.contains(&part) {
                return Err(TemplateError::Missing(name));
            }
        }
        Ok(Self { parts })
    }

    /// How often the context stands in it: as often is it paid for.
    pub fn contexts(&self) -> usize {
        self.parts.iter().filter(|part| **part == Part::Context).count()
    }

    /// The text with both put in, to the byte.
    pub fn fill(&self, prompt: &str, context: &str) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Prompt => prompt.to_owned(),
            Part::Context => context.to_owned(),
        };
        self.parts.iter().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_template_is_filled_to_the_byte() {
        let cases = [
            ("{{context}}{{prompt}}", "CP"),
            (" Use:\n{{context}}\n\nAnswer {{prompt}}\n", " Use:\nC\n\nAnswer P\n"),
            ("{{prompt}} {{context}} {{prompt}}", "P C P"),
            ("a } }} { {{prompt}} b {{context}}", "a } }} { P b C"),
        ];
        for (text, filled) in cases {
            assert_eq!(Template::read(text).unwrap().fill("P", "C"), filled, "{text}");
        }
        assert_eq!(
            Template::read("{{context}}{{prompt}}{{context}}").unwrap().contexts(),
            2
        );
    }

    #[test]
    fn what_is_put_in_is_not_read_again() {
        let template = Template::read("{{context}}|{{prompt}}").unwrap();
        assert_eq!(
            template.fill("{{context}}", "{{prompt}} {{x}}"),
            "{{prompt}} {{x}}|{{context}}"
        );
    }

    #[test]
    fn what_is_no_template_is_refused_and_says_why() {
        let cases = [
            ("{{prompt}}", "{{context}} is missing"),
            ("{{context}}", "{{prompt}} is missing"),
            ("", "{{prompt}} is missing"),
            ("{{prompt}}{{context}}{{question}}", "unknown placeholder {{question}}"),
            ("{{ prompt }}{{context}}", "unknown placeholder {{ prompt }}"),
            ("{{Prompt}}{{context}}", "unknown placeholder {{Prompt}}"),
            ("{{prompt}}{{context}}{{}}", "unknown placeholder {{}}"),
            ("{{#if prompt}}{{context}}", "unknown placeholder {{#if prompt}}"),
            ("{{{prompt}}}{{context}}", "unknown placeholder {{{prompt}}"),
            ("{{prompt}}{{context}} {{never", "at byte 22"),
        ];
        for (text, says) in cases {
            let error = Template::read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let large = format!("{{{{prompt}}}}{{{{context}}}}{}", "x".repeat(TEMPLATE_BYTES_MAX));
        assert_eq!(Template::read(&large), Err(TemplateError::TooLarge(large.len())));
    }

    proptest! {
        // A zero stands for the context below, so no prompt has one.
        #[test]
        fn any_text_is_read_or_refused(text in "(\\{\\{|\\}\\}|prompt|context|[a-z {}\n]){0,12}", prompt in "[^\\x00]{0,9}", context in ".{0,9}") {
            if let Ok(template) = Template::read(&text) {
                let filled = template.fill(&prompt, &context);
                prop_assert_eq!(filled, text.replace("{{context}}", "\u{0}").replace("{{prompt}}", &prompt).replace('\u{0}', &context));
            }
        }
    }
}
