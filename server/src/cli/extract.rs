//! `cairn extract`: the text that the server reads out of a file. Spans of citations are bytes of it, so that a citation
//! can be checked by slicing. It is read here, by the same functions; no server is asked.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, output, read_pdf};
use cairn_server::rag::chunk::{TextFormat, title_of};
use cairn_server::rag::extract::{self, Extracted};

const EXAMPLES: &str = "\
Examples:
  cairn extract paper.pdf                       the text, exactly
  cairn extract page.html --span 812,1630       the bytes that a citation points at
  cairn extract page.html --title               what the file calls itself

Of .md, .markdown and .txt the text is the file itself.";

/// `cairn extract`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Extract {
    /// A .html, .pdf, .md or .txt file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Only these bytes of the text, from and to.
    #[arg(long, value_name = "FROM,TO", value_parser = span)]
    span: Option<(usize, usize)>,
    /// The title instead of the text.
    #[arg(long, conflicts_with = "span")]
    title: bool,
}

fn span(text: &str) -> Result<(usize, usize), String> {
    let wrong = "write it as in a citation: two byte positions, 812,1630";
    let (from, to) = text.split_once(',').ok_or(wrong)?;
    let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong.to_owned());
    let (from, to) = (number(from)?, number(to)?);
    if from > to {
        Err(wrong.to_owned())
    } else {
        Ok((from, to))
    }
}

impl Extract {
    pub(super) fn run(self) -> Result<(), Failure> {
        let file = self.file.display();
        let bytes = std::fs::read(&self.file).map_err(|e| Failure::usage(format!("{file}: {e}")))?;
        let read = self.read(bytes).map_err(|why| Failure::new(format!("{file}: {why}")))?;
        if self.title {
            let first = || title_of(&read.text, read.format);
            output::out(read.title.clone().or_else(first).unwrap_or_default());
            return Ok(());
        }
        let (from, to) = self.span.unwrap_or((0, read.text.len()));
        let Some(text) = read.text.get(from..to) else {
            return Err(Failure::new(format!(
                "{file}: the text has {} bytes, and {from} and {to} do not lie between characters of it",
                read.text.len()
            )));
        };
        output::raw(text);
        Ok(())
    }

    fn read(&self, bytes: Vec<u8>) -> Result<Extracted, String> {
        let extension = self.file.extension().and_then(|e| e.to_str()).unwrap_or_default();
        let as_it_is = |format| match String::from_utf8(bytes.clone()) {
            Ok(text) => Ok(Extracted {
                text,
                format,
                title: None,
            }),
            Err(e) => Err(e.to_string()),
        };
        match extension.to_ascii_lowercase().as_str() {
            "html" | "htm" | "xhtml" => Ok(extract::html_bytes(&bytes)),
            "pdf" => {
                let reader = read_pdf::apart().map_err(|e| e.message)?;
                reader.read(&bytes, &|| false).map_err(|e| e.to_string())
            }
            "md" | "markdown" => as_it_is(TextFormat::Markdown),
            "txt" => as_it_is(TextFormat::Plain),
            _ => Err("a file must end in .html, .htm, .xhtml, .pdf, .md, .markdown or .txt".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_two_ascending_numbers() {
        for (text, expected) in [
            ("1,5", Some((1, 5))),
            ("0, 0", Some((0, 0))),
            ("5,1", None),
            ("1-5", None),
            ("a,b", None),
        ] {
            assert_eq!(span(text).ok(), expected, "{text:?}");
        }
    }
}
