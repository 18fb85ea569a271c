//! From a record (a line of JSONL, a row of CSV) to a document: which of its fields are id, text, title and metadata.
//!
//! A field is named by its key or by a dotted path into objects (`author.name`); a key that itself holds the dots goes
//! first. Values are taken as they are: nothing is guessed to be a number or a date. A CSV value is a string.

use cairn_client::{Document, Format, Payload};
use cairn_server::service::RESERVED_KEYS;
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};

/// Which fields are what.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Fields {
    /// JSONL, CSV: the field that is the id. Default: id.
    #[arg(long, value_name = "FIELD", help_heading = "Records")]
    id_field: Option<String>,
    /// JSONL, CSV: the field that is the text, or several, joined by empty lines. Default: text.
    #[arg(long, value_name = "FIELD,...", value_delimiter = ',', help_heading = "Records")]
    text_field: Vec<String>,
    /// JSONL, CSV: the field that is the title. Default: title, if there is one.
    #[arg(long, value_name = "FIELD", help_heading = "Records")]
    title_field: Option<String>,
    /// JSONL, CSV: the field that says where the document came from. Default: source, if there is one.
    #[arg(long, value_name = "FIELD", help_heading = "Records")]
    source_field: Option<String>,
    /// JSONL, CSV: fields that are kept as metadata, or `all` for all others, without those that chunks have of their own
    /// (text, title, heading, source, document, chunk, span, trust, provenance, minhash). May be given several times.
    #[arg(long, value_name = "FIELD,...|all", value_delimiter = ',', help_heading = "Records")]
    metadata_field: Vec<String>,
    /// JSONL, CSV: how the text fields are written. Default: plain.
    #[arg(long, value_enum, help_heading = "Records")]
    text_format: Option<TextFormat>,
    /// CSV: what separates values. Default: a comma; a tab for .tsv.
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter, help_heading = "Records")]
    pub(super) delimiter: Option<u8>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TextFormat {
    Plain,
    Markdown,
    Html,
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        b"\\t" | b"tab" => Ok(b'\t'),
        _ => Err("one ASCII character but a quote or a line end; \\t is a tab".into()),
    }
}

impl Fields {
    /// Somebody said which fields are what, so a line of JSONL is not one of ours.
    pub(super) fn are_mapped(&self) -> bool {
        let Self {
            id_field,
            text_field,
            title_field,
            source_field,
            metadata_field,
            text_format,
            delimiter: _,
        } = self;
        id_field.is_some()
            || !text_field.is_empty()
            || title_field.is_some()
            || source_field.is_some()
            || !metadata_field.is_empty()
            || text_format.is_some()
    }

    /// The document of a record, its id behind `prefix`.
    pub(super) fn document(&self, record: &Map<String, Value>, prefix: &str) -> Result<Document, String> {
        let id_field = self.id_field.as_deref().unwrap_or("id");
        let id = match at(record, id_field) {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) if id.is_i64() || id.is_u64() => id.to_string(),
            Some(other) => {
                return Err(format!(
                    "field {id_field:?} is the id, and is {}, no string or integer",
                    kind(other)
                ));
            }
            None => return Err(missing(record, id_field, "--id-field")),
        };
        let one = ["text".to_owned()];
        let text_fields = if self.text_field.is_empty() {
            &one
        } else {
            self.text_field.as_slice()
        };
        let mut parts = Vec::new();
        for field in text_fields {
            match at(record, field) {
                Some(value) => parts.extend(text(value, field)?),
                // One of several may be missing from a record, the only one may not.
                None if text_fields.len() > 1 => {}
                None => return Err(missing(record, field, "--text-field")),
            }
        }
        let optional = |said: &Option<String>, usual: &str| -> Result<String, String> {
            let field = said.as_deref().unwrap_or(usual);
            match at(record, field) {
                Some(value) => Ok(text(value, field)?.unwrap_or_default()),
                None => Ok(String::new()),
            }
        };
        Ok(Document {
            format: match self.text_format {
                None | Some(TextFormat::Plain) => Format::Plain,
                Some(TextFormat::Markdown) => Format::Markdown,
                Some(TextFormat::Html) => Format::Html,
            },
            title: optional(&self.title_field, "title")?,
            source: optional(&self.source_field, "source")?,
            metadata: self.metadata(record, id_field, text_fields),
            ..Document::plain(format!("{prefix}{id}"), parts.join("\n\n"))
        })
    }

    fn metadata(&self, record: &Map<String, Value>, id_field: &str, text_fields: &[String]) -> Payload {
        let mut metadata = Payload::new();
        for field in &self.metadata_field {
            if field == "all" {
                let used = |key: &str| {
                    key == id_field
                        || text_fields.iter().any(|field| field == key)
                        || key == self.title_field.as_deref().unwrap_or("title")
                        || key == self.source_field.as_deref().unwrap_or("source")
                        // A server refuses them; who names one is told so.
                        || RESERVED_KEYS.contains(&key)
                };
                let others = record.iter().filter(|(key, _)| !used(key));
                metadata.extend(others.map(|(key, value)| (key.clone(), value.clone())));
            } else if let Some(value) = at(record, field) {
                put(&mut metadata, record, field, value.clone());
            }
        }
        metadata
    }
}

/// The value at a key or dotted path. Null is absence.
fn at<'a>(record: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(path) {
        return Some(value).filter(|value| !value.is_null());
    }
    path.match_indices('.')
        .find_map(|(dot, _)| match record.get(&path[..dot]) {
            Some(Value::Object(inner)) => at(inner, &path[dot + 1..]),
            _ => None,
        })
}

/// Puts a value where it was: below the same keys.
fn put(metadata: &mut Payload, record: &Map<String, Value>, path: &str, value: Value) {
    if record.contains_key(path) {
        metadata.insert(path.to_owned(), value);
        return;
    }
    for (dot, _) in path.match_indices('.') {
        let (key, rest) = (&path[..dot], &path[dot + 1..]);
        if let Some(Value::Object(inner)) = record.get(key)
            && at(inner, rest).is_some()
        {
            let below = metadata.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                put(below, inner, rest, value);
            }
            return;
        }
    }
}

/// What a value says, if it says something. Lists are read line by line.
fn text(value: &Value, field: &str) -> Result<Option<String>, String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(yes) => yes.to_string(),
        Value::Null => String::new(),
        Value::Array(values) => {
            let mut lines = Vec::new();
            for value in values {
                if matches!(value, Value::Array(_)) {
                    return Err(format!("field {field:?} is a list of lists, no text"));
                }
                lines.extend(text(value, field)?);
            }
            lines.join("\n")
        }
        Value::Object(_) => {
            return Err(format!(
                "field {field:?} is an object, no text: name a field in it, as {field}.name"
            ));
        }
    };
    Ok((!text.trim().is_empty()).then_some(text))
}

fn missing(record: &Map<String, Value>, field: &str, flag: &str) -> String {
    let keys: Vec<&str> = record.keys().map(String::as_str).take(20).collect();
    format!(
        "there is no field {field:?}; there are {}; {flag} says which it is",
        keys.join(", ")
    )
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a fraction",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        fields: Fields,
    }

    fn fields(flags: &[&str]) -> Fields {
        Line::try_parse_from(std::iter::once("x").chain(flags.iter().copied()))
            .unwrap()
            .fields
    }

    fn record() -> Map<String, Value> {
        let record = json!({
            "id": 7, "key": "k-1", "text": "plain", "title": "T", "body": {"head": "H", "parts": ["one", null, 2]},
            "a.b": "dotted", "a": {"b": "nested", "c": 1.5}, "tags": ["x"], "empty": " ", "none": null, "source": "s"
        });
        record.as_object().unwrap().clone()
    }

    #[test]
    fn fields_become_what_was_said() {
        // id, text, title, source, metadata
        for (flags, expected) in [
            (&[][..], json!(["p/7", "plain", "T", "s", {}])),
            (
                &[
                    "--id-field",
                    "key",
                    "--text-field",
                    "body.head,body.parts,missing,empty,none",
                ][..],
                json!(["p/k-1", "H\n\none\n2", "T", "s", {}]),
            ),
            (
                &["--title-field", "body.head", "--source-field", "a.c"][..],
                json!(["p/7", "plain", "H", "1.5", {}]),
            ),
            (
                &[
                    "--title-field",
                    "missing",
                    "--metadata-field",
                    "tags,a.c,body.head,nope",
                ][..],
                json!(["p/7", "plain", "", "s", {"tags": ["x"], "a": {"c": 1.5}, "body": {"head": "H"}}]),
            ),
            // A key that holds the dots goes first.
            (
                &["--text-field", "a.b", "--metadata-field", "a.b"][..],
                json!(["p/7", "dotted", "T", "s", {"a.b": "dotted"}]),
            ),
            (
                &["--metadata-field", "all"][..],
                json!(["p/7", "plain", "T", "s", {"key": "k-1", "body": {"head": "H", "parts": ["one", null, 2]}, "a.b": "dotted",
                    "a": {"b": "nested", "c": 1.5}, "tags": ["x"], "empty": " ", "none": null}]),
            ),
            (
                &[
                    "--text-field",
                    "key",
                    "--metadata-field",
                    "all",
                    "--metadata-field",
                    "id",
                ][..],
                json!(["p/7", "k-1", "T", "s", {"id": 7, "body": {"head": "H", "parts": ["one", null, 2]}, "a.b": "dotted",
                    "a": {"b": "nested", "c": 1.5}, "tags": ["x"], "empty": " ", "none": null}]),
            ),
        ] {
            let d = fields(flags).document(&record(), "p/").unwrap();
            assert_eq!(
                json!([d.id, d.text, d.title, d.source, d.metadata]),
                expected,
                "{flags:?}"
            );
        }
        // Keys that a server refuses are no metadata, unless somebody insists.
        let other = json!({"id": 1, "body": "b", "name": "N", "text": "t", "title": "T", "heading": "h", "trust": "x",
            "lang": "en"});
        for (metadata_field, expected) in [
            ("all", json!({"lang": "en"})),
            ("all,text", json!({"lang": "en", "text": "t"})),
        ] {
            let flags = [
                "--text-field",
                "body",
                "--title-field",
                "name",
                "--metadata-field",
                metadata_field,
            ];
            let d = fields(&flags).document(other.as_object().unwrap(), "").unwrap();
            assert_eq!(Value::Object(d.metadata), expected, "{metadata_field}");
        }
        let html = fields(&["--text-format", "html"]).document(&record(), "").unwrap();
        assert_eq!(html.format, Format::Html);
    }

    #[test]
    fn what_is_wrong_with_a_record_is_said() {
        for (flags, says) in [
            (&["--id-field", "nope"][..], "no field \"nope\""),
            (&["--id-field", "nope"][..], "--id-field"),
            (&["--id-field", "a.c"][..], "a fraction"),
            (&["--id-field", "none"][..], "no field"),
            (&["--text-field", "nope"][..], "there are"),
            (&["--text-field", "body"][..], "body.name"),
            (&["--title-field", "a"][..], "an object"),
        ] {
            let wrong = fields(flags).document(&record(), "").unwrap_err();
            assert!(wrong.contains(says), "{flags:?}: {wrong}");
        }
    }

    #[test]
    fn a_delimiter_is_one_character() {
        for (text, expected) in [
            (";", Some(b';')),
            ("\\t", Some(b'\t')),
            ("tab", Some(b'\t')),
            (";;", None),
            ("", None),
            ("\"", None),
            ("ü", None),
        ] {
            assert_eq!(delimiter(text).ok(), expected, "{text:?}");
        }
        assert!(!fields(&["--delimiter", ";"]).are_mapped() && fields(&["--metadata-field", "all"]).are_mapped());
    }
}
