//! `cairn search` and `cairn enrich`: questions to one collection.

use cairn_client::{Answer, Enriched, Filter, Hit, Mode, Query};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Connection, Failure, output};

const SEARCH_EXAMPLES: &str = "\
Examples:
  cairn search \"leader election\" -c docs
  cairn search \"leader election\" -c docs --mode bm25 --limit 3
  cairn search \"election\" -c docs --filter '{\"must\": [{\"field\": \"lang\", \"match\": \"en\"}]}'
  cairn search \"election\" -c docs --json | jq '.hits[].id'";

const ENRICH_EXAMPLES: &str = "\
Examples:
  cairn enrich \"How does etcd elect a leader?\" -c docs
  cairn enrich \"How does etcd elect a leader?\" -c docs --budget 800 | llm
  cairn enrich \"How does etcd elect a leader?\" -c docs --format messages --json

The prompt goes to standard output, the list of sources and the timings to standard error.";

/// How candidates are retrieved.
#[derive(Clone, Copy, ValueEnum)]
enum ModeArg {
    /// Vectors and BM25, fused.
    Hybrid,
    /// Vectors only.
    Dense,
    /// BM25 only.
    Bm25,
    /// Sparse vectors only.
    Sparse,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// One prompt text.
    String,
    /// Chat messages.
    Messages,
}

/// What both questions have in common.
#[derive(Args)]
struct Where {
    /// The collection.
    #[arg(long, short)]
    collection: String,
    /// How candidates are retrieved.
    #[arg(long, value_enum, default_value_t = ModeArg::Hybrid)]
    mode: ModeArg,
    /// Only chunks that match this filter, as JSON (the filter of the REST API).
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Filter>,
    /// Print the whole answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

/// `cairn search`.
#[derive(Args)]
#[command(after_help = SEARCH_EXAMPLES)]
pub(super) struct Search {
    /// What to look for.
    text: String,
    /// Hits wanted.
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: u32,
    /// Show how the query was answered.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    at: Where,
}

/// `cairn enrich`.
#[derive(Args)]
#[command(after_help = ENRICH_EXAMPLES)]
pub(super) struct Enrich {
    /// The question.
    question: String,
    /// Most tokens of the context.
    #[arg(long, default_value_t = 2_000)]
    budget: u32,
    /// One prompt text, or chat messages.
    #[arg(long, value_enum, default_value_t = FormatArg::String)]
    format: FormatArg,
    #[command(flatten)]
    at: Where,
}

fn filter(text: &str) -> Result<Filter, String> {
    // Through a map: serde takes `[]` for a struct of defaults, which would filter nothing.
    let read = serde_json::from_str::<serde_json::Map<String, Value>>(text);
    read.and_then(|map| serde_json::from_value(Value::Object(map)))
        .map_err(|e| format!("{e}; write it like {{\"must\": [{{\"field\": \"lang\", \"match\": \"en\"}}]}}"))
}

impl Search {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let collection = self.at.connection.client().await?.collection(&self.at.collection);
        let mut query = match self.at.mode {
            ModeArg::Hybrid => Query::hybrid(&self.text),
            ModeArg::Dense => Query::nearest_text(&self.text),
            ModeArg::Bm25 => Query::text(&self.text),
            ModeArg::Sparse => Query::sparse_text(&self.text),
        }
        .limit(self.limit);
        if let Some(filter) = self.at.filter {
            query = query.filter(filter);
        }
        if self.explain {
            query = query.explain();
        }
        let answer = collection.query(query).await?;
        if self.at.json {
            return output::json(&answer);
        }
        show_hits(&answer);
        Ok(())
    }
}

fn show_hits(answer: &Answer) {
    for (i, hit) in answer.hits.iter().enumerate() {
        output::out(format!(
            "{:>3}. {}  {}",
            i + 1,
            output::bold(&hit.point.id),
            heading(hit)
        ));
        if let Some(text) = text_of(hit, "text") {
            output::out(format!("     {}", output::snippet(text, 240)));
        }
        output::out(output::dim(&format!("     {:.3}  {}", hit.score, legs(hit))));
    }
    for leg in &answer.explain {
        let segment = leg
            .segment
            .map_or_else(|| "growing".to_owned(), |s| format!("segment {s}"));
        output::note(format!(
            "explain: {} shard {} {segment}: {}, {} match, {} evaluated",
            leg.leg, leg.shard, leg.strategy, leg.matches, leg.evaluated
        ));
    }
    output::note(format!("{} hits in {:.1} ms", answer.hits.len(), answer.took_ms));
}

fn text_of<'a>(hit: &'a Hit, key: &str) -> Option<&'a str> {
    hit.point.payload.as_ref()?.get(key)?.as_str()
}

/// `FAQ › etcd, general`; the title if there are no headings.
fn heading(hit: &Hit) -> String {
    let path = hit
        .point
        .payload
        .as_ref()
        .and_then(|p| p.get("heading"))
        .and_then(Value::as_array);
    let path: Vec<&str> = path.into_iter().flatten().filter_map(Value::as_str).collect();
    if path.is_empty() {
        text_of(hit, "title").unwrap_or_default().to_owned()
    } else {
        path.join(" › ")
    }
}

fn legs(hit: &Hit) -> String {
    let legs: Vec<String> = hit
        .legs
        .iter()
        .map(|l| format!("{} {:.3} (#{})", l.leg, l.raw, l.rank))
        .collect();
    legs.join(" · ")
}

impl Enrich {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let collection = self.at.connection.client().await?.collection(&self.at.collection);
        let mut request = cairn_client::Enrich::new(&self.question)
            .token_budget(self.budget)
            .mode(match self.at.mode {
                ModeArg::Hybrid => Mode::Hybrid,
                ModeArg::Dense => Mode::Dense,
                ModeArg::Bm25 => Mode::Bm25,
                ModeArg::Sparse => Mode::Sparse,
            });
        if self.format == FormatArg::Messages {
            request = request.as_messages();
        }
        if let Some(filter) = self.at.filter {
            request = request.filter(filter);
        }
        let enriched = collection.enrich(request).await?;
        if self.at.json {
            return output::json(&enriched);
        }
        show_prompt(&enriched);
        show_sources(&enriched);
        Ok(())
    }
}

/// The prompt, or the messages with their roles, to standard output.
pub(super) fn show_prompt(enriched: &Enriched) {
    if let Some(prompt) = &enriched.prompt {
        output::out(prompt);
    }
    for message in &enriched.messages {
        output::out(output::bold(&format!("[{}]", message.role)));
        output::out(&message.content);
    }
}

/// Where the context comes from, and what it cost, to standard error.
pub(super) fn show_sources(enriched: &Enriched) {
    output::note("");
    for item in &enriched.context {
        let raw: Vec<String> = item.scores.iter().map(|(leg, raw)| format!("{leg} {raw:.3}")).collect();
        let place = if item.heading.is_empty() {
            item.title.clone()
        } else {
            item.heading.join(" › ")
        };
        output::note(format!(
            "[{}] {}  {}  bytes {}..{}  score {:.3} ({})",
            item.n,
            item.document,
            place,
            item.span.0,
            item.span.1,
            item.score,
            raw.join(", ")
        ));
    }
    for note in &enriched.notes {
        output::note(format!("note: {note}"));
    }
    let t = enriched.tokens;
    output::note(format!(
        "{} of {} tokens used, {} candidates left out, {:.1} ms",
        output::number(t.context.into()),
        output::number(t.budget.into()),
        enriched.dropped.len(),
        enriched.took_ms
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_before_anybody_is_asked() {
        assert!(filter(r#"{"must": [{"field": "lang", "any": ["en", "de"]}]}"#).is_ok());
        for wrong in ["", "{", "[]", r#"{"musst": []}"#, r#"{"must": [{"field": "x"}]}"#] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
