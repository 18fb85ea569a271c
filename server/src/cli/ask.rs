//! `cairn search` and `cairn enrich`: questions to one collection, or for prompts to several.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_client::{
    Answer, Decay, Enriched, Filter, Hit, Mmr, Mode, Partial, Query, Ranking, Rerank, Stage, Trust, Turn,
};
use clap::{Args, ValueEnum};
use serde::Deserialize;
use serde_json::Value;

use super::{Connection, Failure, output};

const SEARCH_EXAMPLES: &str = "\
Examples:
  cairn search \"leader election\" -c docs
  cairn search \"leader election\" -c docs --mode bm25 --limit 3
  cairn search \"election\" -c docs --filter '{\"must\": [{\"field\": \"lang\", \"match\": \"en\"}]}'
  cairn search \"election\" -c docs --near-duplicates --mmr --cap document=2
  cairn search \"election\" -c docs --rerank --rerank-top 20 --explain
  cairn search \"election\" -c news --decay published=30d --score-threshold 0.2
  cairn search \"election\" -c docs --mode dense --using title_vector --limit 10 --offset 10
  cairn search \"election\" -c docs --json | jq '.hits[].id'";

const ENRICH_EXAMPLES: &str = "\
Examples:
  cairn enrich \"How does etcd elect a leader?\" -c docs
  cairn enrich \"How does etcd elect a leader?\" -c docs --budget 800 | llm
  cairn enrich \"How does etcd elect a leader?\" -c docs --format anthropic --json
  cairn enrich \"How does etcd elect a leader?\" -c docs -c wiki --neighbours 1 --mmr --rerank=tei
  cairn enrich \"How does etcd elect a leader?\" -c docs --template prompt.txt --trust trusted --explain
  cairn enrich \"And how long does it take?\" -c docs --conversation turns.json --max-per-document 2

A template is a text file with {{prompt}} and {{context}}, each at least once.
A conversation is JSON, the oldest turn first: [{\"role\": \"user\", \"content\": \"...\"}, {\"role\": \"assistant\", ...}].
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
    /// Chat messages as OpenAI takes them.
    Messages,
    /// Chat messages as Anthropic takes them.
    Anthropic,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TrustArg {
    /// Nobody has looked at it.
    Unverified,
    /// Somebody vouches for it.
    Trusted,
    /// Kept out of prompts unless named.
    Quarantined,
}

/// What is done with hits after they were found.
#[derive(Args)]
struct Rank {
    /// Order the best anew with a reranker of the server, the only one if none is named.
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    rerank: Option<String>,
    /// Hits that are reranked [default: 50].
    #[arg(long, value_name = "N", requires = "rerank")]
    rerank_top: Option<u32>,
    /// Milliseconds that reranking may take [default: 1000].
    #[arg(long, value_name = "MS", requires = "rerank")]
    rerank_budget: Option<u32>,
    /// Halve scores with every so much of age: the field of the time, and a number of s, m, h, d or w.
    #[arg(long, value_name = "FIELD=AGE", value_parser = decay)]
    decay: Option<(String, Duration)>,
    /// How much of the score age decides, 0 to 1 [default: 1].
    #[arg(long, value_name = "SHARE", requires = "decay")]
    decay_weight: Option<f32>,
    /// Prefer hits that differ from those before them: 1 is relevance alone, 0 diversity alone. Without a number: 0.7.
    #[arg(long, value_name = "LAMBDA", num_args = 0..=1, require_equals = true, default_missing_value = "0.7")]
    mmr: Option<f32>,
    /// Leave out what says almost the same as a better hit: with a similarity, of that or more. Without a number: 0.85.
    #[arg(long, value_name = "SIMILARITY", num_args = 0..=1, require_equals = true)]
    near_duplicates: Option<Option<f32>>,
    /// At most so many hits per value of a field; may be given several times.
    #[arg(long, value_name = "FIELD=N", value_parser = cap)]
    cap: Vec<(String, u32)>,
}

impl Rank {
    fn ranking(self) -> Ranking {
        Ranking {
            decay: self.decay.map(|(field, half_life)| Decay {
                weight: self.decay_weight,
                ..Decay::new(field, half_life)
            }),
            rerank: self.rerank.map(|model| Rerank {
                model,
                top: self.rerank_top,
                budget_ms: self.rerank_budget,
                ..Rerank::default()
            }),
            near_duplicates: self.near_duplicates,
            caps: self.cap,
            mmr: self.mmr.map(|lambda| Mmr {
                lambda: Some(lambda),
                ..Mmr::default()
            }),
        }
    }
}

fn cap(text: &str) -> Result<(String, u32), String> {
    let (field, most) = text.split_once('=').ok_or("write it like document=2")?;
    let most = most
        .parse()
        .map_err(|_| format!("{most:?} is no number; write it like document=2"))?;
    Ok((field.to_owned(), most))
}

fn decay(text: &str) -> Result<(String, Duration), String> {
    let wrong = || format!("{text:?} is no field and age; write it like published=30d");
    let (field, age) = text
        .rsplit_once('=')
        .filter(|(field, _)| !field.is_empty())
        .ok_or_else(wrong)?;
    let unit = age.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let number: u32 = age.trim_end_matches(unit).parse().map_err(|_| wrong())?;
    Ok((field.to_owned(), Duration::from_secs(u64::from(number) * seconds)))
}

/// One turn, as the REST API has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TurnLine {
    role: Role,
    content: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    User,
    Assistant,
}

fn turns(text: &str) -> Result<Vec<Turn>, String> {
    let turns: Vec<TurnLine> = serde_json::from_str(text)
        .map_err(|e| format!("{e}; write it like [{{\"role\": \"user\", \"content\": \"...\"}}]"))?;
    let turn = |TurnLine { role, content }| match role {
        Role::User => Turn::User(content),
        Role::Assistant => Turn::Assistant(content),
    };
    Ok(turns.into_iter().map(turn).collect())
}

/// A file's text, or that of standard input for `-`.
fn text_of_file(file: &Path) -> Result<String, Failure> {
    let read = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    read.map_err(|e| Failure::usage(format!("{}: {e}", file.display())))
}

/// What both questions have in common.
#[derive(Args)]
struct Where {
    /// How candidates are retrieved.
    #[arg(long, value_enum, default_value_t = ModeArg::Hybrid)]
    mode: ModeArg,
    /// Only chunks that match this filter, as JSON (the filter of the REST API).
    #[arg(long, value_name = "JSON", value_parser = filter)]
    filter: Option<Filter>,
    /// Only hits that score at least this much, 0 to 1, after decay and reranking.
    #[arg(long, value_name = "SCORE")]
    score_threshold: Option<f32>,
    /// Answer without the points of damaged segments, and say so.
    #[arg(long)]
    allow_partial: bool,
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
    /// The collection.
    #[arg(long, short)]
    collection: String,
    /// Hits wanted.
    #[arg(long, short = 'n', default_value_t = 10)]
    limit: u32,
    /// Hits skipped, for the next page.
    #[arg(long, default_value_t = 0)]
    offset: u32,
    /// The vector to compare with, where the collection has several.
    #[arg(long, value_name = "NAME")]
    using: Option<String>,
    /// Show how the query was answered.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    rank: Rank,
    #[command(flatten)]
    at: Where,
}

/// `cairn enrich`.
#[derive(Args)]
#[command(after_help = ENRICH_EXAMPLES)]
pub(super) struct Enrich {
    /// The question.
    question: String,
    /// The collection; several are searched alike and ranked together.
    #[arg(long, short, required = true)]
    collection: Vec<String>,
    /// Most tokens of the context.
    #[arg(long, default_value_t = 2_000)]
    budget: u32,
    /// One prompt text, or chat messages.
    #[arg(long, value_enum, default_value_t = FormatArg::String)]
    format: FormatArg,
    /// A text file with {{prompt}} and {{context}}, instead of the standard prompt.
    #[arg(long, value_name = "FILE")]
    template: Option<PathBuf>,
    /// Chunks on each side of a chunk that come with it, if the budget allows.
    #[arg(long, value_name = "N", default_value_t = 0)]
    neighbours: u32,
    /// The turns before the question, as JSON, from a file; - is standard input. Where the question points back to them, words of
    /// theirs are searched for as well.
    #[arg(long, value_name = "FILE")]
    conversation: Option<PathBuf>,
    /// Candidates retrieved before packing [default: 50].
    #[arg(long, short = 'n', value_name = "N")]
    limit: Option<u32>,
    /// Most chunks in the context.
    #[arg(long, value_name = "N")]
    max_chunks: Option<u32>,
    /// Most chunks of one document.
    #[arg(long, value_name = "N")]
    max_per_document: Option<u32>,
    /// Most chunks of one source.
    #[arg(long, value_name = "N")]
    max_per_source: Option<u32>,
    /// Whose tokens the budget counts [default: o200k_base].
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// Only documents with this label; may be given several times. Default: unverified and trusted.
    #[arg(long, value_enum)]
    trust: Vec<TrustArg>,
    /// Show what each stage did.
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    rank: Rank,
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
        if self.using.is_some() && matches!(self.at.mode, ModeArg::Bm25) {
            return Err(Failure::usage(
                "--using names a vector, and --mode bm25 compares with none",
            ));
        }
        let collection = self.at.connection.client().await?.collection(&self.collection);
        let mut query = match self.at.mode {
            ModeArg::Hybrid => Query::hybrid(&self.text),
            ModeArg::Dense => Query::nearest_text(&self.text),
            ModeArg::Bm25 => Query::text(&self.text),
            ModeArg::Sparse => Query::sparse_text(&self.text),
        }
        .limit(self.limit)
        .offset(self.offset)
        .ranking(self.rank.ranking());
        if let Some(using) = self.using {
            query = query.using(using);
        }
        if let Some(score) = self.at.score_threshold {
            query = query.score_threshold(score);
        }
        if let Some(filter) = self.at.filter {
            query = query.filter(filter);
        }
        if self.explain {
            query = query.explain();
        }
        if self.at.allow_partial {
            query = query.allow_partial();
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
    show_stages(&answer.stages);
    for note in &answer.notes {
        output::note(format!("note: {note}"));
    }
    show_partial(answer.partial.as_ref());
    output::note(format!("{} hits in {:.1} ms", answer.hits.len(), answer.took_ms));
}

/// What an answer was given without, to standard error.
fn show_partial(partial: Option<&Partial>) {
    for damaged in partial.iter().flat_map(|partial| &partial.segments) {
        output::note(format!(
            "partial: without {} points of segment {} of shard {} of {}: {}",
            damaged.points, damaged.segment, damaged.shard, damaged.collection, damaged.reason
        ));
    }
}

/// What each stage did, to standard error.
fn show_stages(stages: &[Stage]) {
    for stage in stages {
        let skipped = stage
            .skipped
            .as_ref()
            .map_or_else(String::new, |skipped| format!("; {skipped}"));
        output::note(format!(
            "stage: {} {} -> {} in {:.1} ms{skipped}",
            stage.name, stage.r#in, stage.out, stage.took_ms
        ));
    }
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
        let mut conversation = Vec::new();
        if let Some(file) = &self.conversation {
            let wrong = |e| Failure::usage(format!("{}: {e}", file.display()));
            conversation = turns(&text_of_file(file)?).map_err(wrong)?;
        }
        let client = self.at.connection.client().await?;
        let mut request = cairn_client::Enrich::new(&self.question)
            .token_budget(self.budget)
            .mode(match self.at.mode {
                ModeArg::Hybrid => Mode::Hybrid,
                ModeArg::Dense => Mode::Dense,
                ModeArg::Bm25 => Mode::Bm25,
                ModeArg::Sparse => Mode::Sparse,
            });
        request = match self.format {
            FormatArg::String => request,
            FormatArg::Messages => request.as_messages(),
            FormatArg::Anthropic => request.as_anthropic(),
        };
        if let Some(file) = &self.template {
            request = request.template(text_of_file(file)?);
        }
        if let Some(filter) = self.at.filter {
            request = request.filter(filter);
        }
        request.neighbours = self.neighbours;
        request.conversation = conversation;
        request.limit = self.limit;
        request.max_chunks = self.max_chunks;
        request.max_per_document = self.max_per_document;
        request.max_per_source = self.max_per_source;
        request.tokenizer = self.tokenizer.unwrap_or_default();
        request.score_threshold = self.at.score_threshold;
        request.explain = self.explain;
        request.allow_partial = self.at.allow_partial;
        request.ranking = self.rank.ranking();
        request.trust = self.trust.into_iter().map(Into::into).collect();
        let enriched = client.enrich(self.collection, request).await?;
        if self.at.json {
            return output::json(&enriched);
        }
        show_prompt(&enriched);
        show_sources(&enriched);
        Ok(())
    }
}

impl From<TrustArg> for Trust {
    fn from(label: TrustArg) -> Self {
        match label {
            TrustArg::Unverified => Self::Unverified,
            TrustArg::Trusted => Self::Trusted,
            TrustArg::Quarantined => Self::Quarantined,
        }
    }
}

/// The prompt, or the messages with their roles, to standard output.
pub(super) fn show_prompt(enriched: &Enriched) {
    if let Some(prompt) = &enriched.prompt {
        output::out(prompt);
    }
    if let Some(system) = &enriched.system {
        output::out(output::bold("[system]"));
        output::out(system);
    }
    for message in &enriched.messages {
        output::out(output::bold(&format!("[{}]", message.role)));
        output::out(&message.content);
    }
}

/// Where the context comes from, and what it cost, to standard error.
pub(super) fn show_sources(enriched: &Enriched) {
    show_partial(enriched.partial.as_ref());
    output::note("");
    for item in &enriched.context {
        let raw: Vec<String> = item.scores.iter().map(|(leg, raw)| format!("{leg} {raw:.3}")).collect();
        let place = if item.heading.is_empty() {
            item.title.clone()
        } else {
            item.heading.join(" › ")
        };
        let collection = item
            .collection
            .as_ref()
            .map_or_else(String::new, |name| format!("{name}/"));
        output::note(format!(
            "[{}] {collection}{}  {}  bytes {}..{}  score {:.3} ({})",
            item.n,
            item.document,
            place,
            item.span.0,
            item.span.1,
            item.score,
            raw.join(", ")
        ));
    }
    if let Some(query) = &enriched.query {
        output::note(format!("searched: {query}"));
    }
    show_stages(&enriched.stages);
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
    fn a_cap_is_a_field_and_a_number() {
        assert_eq!(cap("document=2"), Ok(("document".to_owned(), 2)));
        for wrong in ["document", "document=", "document=x", "document=-1"] {
            assert!(cap(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_decay_is_a_field_and_an_age() {
        let of = |field: &str, seconds| Ok((field.to_owned(), Duration::from_secs(seconds)));
        assert_eq!(decay("published=30d"), of("published", 30 * 86_400));
        assert_eq!(decay("a=b=12h"), of("a=b", 12 * 3_600));
        for wrong in [
            "published",
            "=30d",
            "published=",
            "published=30",
            "published=d",
            "published=-1d",
            "published=1ä",
        ] {
            assert!(decay(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_conversation_is_turns_with_roles() {
        let text = r#"[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]"#;
        assert_eq!(
            turns(text),
            Ok(vec![Turn::User("q".into()), Turn::Assistant("a".into())])
        );
        for wrong in [
            "",
            "{}",
            r#"[{"role": "system", "content": "x"}]"#,
            r#"[{"role": "user"}]"#,
        ] {
            assert!(turns(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_ranking_has_what_the_flags_say() {
        use clap::Parser;
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            rank: Rank,
        }
        let of = |flags: &[&str]| {
            let flags = Flags::try_parse_from(["x"].iter().chain(flags));
            flags.map(|flags| flags.rank.ranking()).map_err(|e| e.kind())
        };
        let all = [
            "--rerank=tei",
            "--rerank-top=20",
            "--rerank-budget=300",
            "--decay=at=2w",
            "--decay-weight=0.5",
            "--near-duplicates=0.7",
            "--cap=document=2",
        ];
        let ranking = of(&all).unwrap();
        let rerank = ranking.rerank.unwrap();
        assert_eq!(
            (rerank.model.as_str(), rerank.top, rerank.budget_ms),
            ("tei", Some(20), Some(300))
        );
        let decay = ranking.decay.unwrap();
        assert_eq!(
            (decay.field.as_str(), decay.half_life_ms, decay.weight),
            ("at", 14 * 86_400_000, Some(0.5))
        );
        assert_eq!(
            (ranking.near_duplicates, ranking.caps),
            (Some(Some(0.7)), vec![("document".to_owned(), 2)])
        );
        assert_eq!(of(&["--near-duplicates"]).unwrap().near_duplicates, Some(None));
        assert_eq!(of(&[]).unwrap(), Ranking::new());
        assert_eq!(
            of(&["--rerank-top=20"]),
            Err(clap::error::ErrorKind::MissingRequiredArgument)
        );
    }

    #[test]
    fn a_filter_is_checked_before_anybody_is_asked() {
        assert!(filter(r#"{"must": [{"field": "lang", "any": ["en", "de"]}]}"#).is_ok());
        for wrong in ["", "{", "[]", r#"{"musst": []}"#, r#"{"must": [{"field": "x"}]}"#] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}
