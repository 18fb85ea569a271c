//! Documents: text in, cut and embedded by the server; and a prompt enriched with cited context out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use crate::filter::Filter;
use crate::points::Partial;
use crate::points::{Durability, Payload, StoredPoint};
use crate::ranking::{Ranking, Stage};

/// A document to write. Writing an id again replaces the whole document atomically.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Document {
    /// Chosen by the caller: 1 to 480 bytes of UTF-8.
    pub id: String,
    /// The text; empty if the document is a file.
    pub text: String,
    /// The file itself, for PDF, and for HTML whose character set is still to be found.
    pub data: Vec<u8>,
    /// How the text or file is written.
    pub format: Format,
    /// Shown with citations. Default: the first Markdown heading, else empty.
    pub title: String,
    /// A path or URL, shown with citations.
    pub source: String,
    /// Kept with the document and in every chunk's payload, where it can be filtered.
    pub metadata: Payload,
    /// How far it is trusted; in every chunk's payload.
    pub trust: Trust,
    /// Where its content is from; in every chunk's payload.
    pub provenance: Provenance,
}

/// How far a document's content is trusted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Nobody has looked at it.
    #[default]
    Unverified,
    /// Somebody vouches for it.
    Trusted,
    /// Kept, searchable by query, but not put into prompts unless a request names this label.
    Quarantined,
}

/// Where a document's content is from. All parts are optional and come back with citations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Provenance {
    /// Who or what brought it in, e.g. `crawler`, `upload`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Who wrote it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// When it was fetched, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetched_at_ms: Option<u64>,
    /// What may be done with it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub licence: String,
}

/// What to do with a document that says almost the same as another one of the collection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnNearDuplicate {
    /// Store it and say so in the result.
    #[default]
    Store,
    /// Do not store it, unless its id is stored already or its near duplicates are all trusted less; the result says of which
    /// document it is a near duplicate.
    Skip,
}

/// How a text or file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    #[default]
    Plain,
    /// Cut along headings; chunks know their heading path.
    Markdown,
    /// Visible text with its headings.
    Html,
    /// The text layer of a PDF.
    Pdf,
}

impl Document {
    /// Plain text.
    pub fn plain(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            text: text.into(),
            ..Self::default()
        }
    }
    /// Markdown.
    pub fn markdown(id: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            format: Format::Markdown,
            ..Self::plain(id, text)
        }
    }
    /// A page whose characters are known.
    pub fn html(id: impl Into<String>, page: impl Into<String>) -> Self {
        Self {
            format: Format::Html,
            ..Self::plain(id, page)
        }
    }
    /// A page as it is in a file: the server finds its character set.
    pub fn html_file(id: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            format: Format::Html,
            data: bytes.into(),
            ..Self::plain(id, "")
        }
    }
    /// A PDF.
    pub fn pdf(id: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            format: Format::Pdf,
            ..Self::html_file(id, bytes)
        }
    }
    /// How far it is trusted.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }
    /// Where its content is from.
    pub fn provenance(mut self, provenance: Provenance) -> Self {
        self.provenance = provenance;
        self
    }
    /// Shown with citations.
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }
    /// A path or URL, shown with citations.
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }
    /// Sets one key of the metadata.
    pub fn with(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
    /// About how many bytes it takes on the wire; what batches are bounded by.
    pub(crate) fn bytes(&self) -> usize {
        let metadata = self
            .metadata
            .iter()
            .map(|(k, v)| k.len() + v.to_string().len() + 16)
            .sum::<usize>();
        let provenance = &self.provenance;
        let labels = provenance.origin.len() + provenance.author.len() + provenance.licence.len();
        self.id.len()
            + self.text.len()
            + self.data.len()
            + self.title.len()
            + self.source.len()
            + metadata
            + labels
            + 64
    }
}

/// What became of one document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PutResult {
    /// Its id.
    pub id: String,
    /// The stored document was the same: nothing was written.
    pub unchanged: bool,
    /// Chunks it has now.
    pub chunks: u32,
    /// Chunks that had to be embedded.
    pub embedded: u32,
    /// The stored document that this one says almost the same as, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub near_duplicate_of: Option<String>,
    /// Not stored, because it is a near duplicate and the request said so.
    pub skipped: bool,
    /// An attempt whose answer was lost had stored it already; the rest is what was answered then.
    pub replayed: bool,
}

/// What became of several documents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PutSummary {
    /// One for each document, in order.
    pub results: Vec<PutResult>,
    /// Token of the last write; empty if nothing was written.
    pub token: String,
    /// How safe the least safe of the documents is now.
    pub durability: Durability,
}

/// A document as it is stored, without its text.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct StoredDocument {
    /// Its id.
    pub id: String,
    /// Title.
    pub title: String,
    /// Where it came from.
    pub source: String,
    /// Metadata as it was written.
    pub metadata: Payload,
    /// How far it is trusted.
    pub trust: Trust,
    /// Where its content is from, if that was said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// Number of chunks.
    pub chunk_count: u64,
    /// Bytes of the text.
    pub text_bytes: u64,
    /// Of what decides whether the document changed.
    pub checksum: String,
    /// Opaque token of the write that made this version.
    pub version: String,
    /// Its chunks in order, only if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub chunks: Vec<StoredPoint>,
}

/// One page of documents, in id order.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DocumentPage {
    /// The documents.
    pub documents: Vec<StoredDocument>,
    /// Give this as `after_id` for the next page; absent at the end.
    pub next: Option<String>,
}

/// How candidates are retrieved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Vectors and BM25, fused.
    #[default]
    Hybrid,
    /// Vectors only.
    Dense,
    /// BM25 only.
    Bm25,
    /// Sparse vectors only.
    Sparse,
}

/// A prompt to enrich.
#[derive(Debug, Clone, Default, PartialEq)]
#[must_use]
pub struct Enrich {
    /// The user's words.
    pub prompt: String,
    /// Most tokens of the context with its fences and citations, the prompt not counted. Default: 2,000.
    pub token_budget: Option<u32>,
    /// Whose tokens. Default: o200k_base.
    pub tokenizer: String,
    /// What comes out.
    pub format: EnrichFormat,
    /// Only chunks that match.
    pub filter: Filter,
    /// Candidates retrieved before packing. Default: 50.
    pub limit: Option<u32>,
    /// Most chunks in the context.
    pub max_chunks: Option<u32>,
    /// Most chunks of one document.
    pub max_per_document: Option<u32>,
    /// 0 to 1; candidates with a lower score are not considered.
    pub score_threshold: Option<f32>,
    /// How candidates are retrieved.
    pub mode: Mode,
    /// Token of an earlier write that must be visible.
    pub after: Option<String>,
    /// The turns before the prompt, oldest first.
    pub conversation: Vec<Turn>,
    /// Instead of the standard prompt: text with `{{prompt}}` and `{{context}}`; empty for none.
    pub template: String,
    /// Most chunks of one source.
    pub max_per_source: Option<u32>,
    /// Chunks on each side of a chunk that come with it.
    pub neighbours: u32,
    /// Applied to the candidates before packing.
    pub ranking: Ranking,
    /// Say what each stage did.
    pub explain: bool,
    /// Labels whose documents may be put in; empty: unverified and trusted.
    pub trust: Vec<Trust>,
    /// Do without the points of damaged segments, and say so in [`Enriched::partial`].
    pub allow_partial: bool,
}

/// What an enriched prompt looks like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EnrichFormat {
    /// One prompt text.
    #[default]
    String,
    /// Chat messages as OpenAI takes them.
    Messages,
    /// Chat messages as Anthropic takes them, with the system text beside them.
    Anthropic,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Turn {
    /// What the user said.
    User(String),
    /// What the assistant answered.
    Assistant(String),
}

impl Enrich {
    /// One prompt text, default budget, hybrid retrieval.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }
    /// Most tokens of the context.
    pub fn token_budget(mut self, tokens: u32) -> Self {
        self.token_budget = Some(tokens);
        self
    }
    /// Answers with chat messages as OpenAI takes them.
    pub fn as_messages(mut self) -> Self {
        self.format = EnrichFormat::Messages;
        self
    }
    /// Answers with chat messages as Anthropic takes them.
    pub fn as_anthropic(mut self) -> Self {
        self.format = EnrichFormat::Anthropic;
        self
    }
    /// The turns before the prompt, oldest first.
    pub fn conversation(mut self, turns: impl IntoIterator<Item = Turn>) -> Self {
        self.conversation = turns.into_iter().collect();
        self
    }
    /// Instead of the standard prompt: text with `{{prompt}}` and `{{context}}`, each at least once.
    pub fn template(mut self, template: impl Into<String>) -> Self {
        self.template = template.into();
        self
    }
    /// Most chunks of one source.
    pub fn max_per_source(mut self, chunks: u32) -> Self {
        self.max_per_source = Some(chunks);
        self
    }
    /// Chunks on each side of a chunk that come with it, if the budget allows.
    pub fn neighbours(mut self, chunks: u32) -> Self {
        self.neighbours = chunks;
        self
    }
    /// What is done with the candidates before packing.
    pub fn ranking(mut self, ranking: Ranking) -> Self {
        self.ranking = ranking;
        self
    }
    /// Does without the points of damaged segments, and says so in [`Enriched::partial`].
    pub fn allow_partial(mut self) -> Self {
        self.allow_partial = true;
        self
    }
    /// Asks what each stage did.
    pub fn explain(mut self) -> Self {
        self.explain = true;
        self
    }
    /// Labels whose documents may be put in.
    pub fn trust(mut self, labels: impl IntoIterator<Item = Trust>) -> Self {
        self.trust = labels.into_iter().collect();
        self
    }
    /// Only chunks that match.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = filter.into();
        self
    }
    /// How candidates are retrieved.
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }
    /// Most chunks of one document.
    pub fn max_per_document(mut self, chunks: u32) -> Self {
        self.max_per_document = Some(chunks);
        self
    }
    /// Answers only from a state that has seen the write with this token.
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.after = Some(token.into());
        self
    }
}

/// An enriched prompt, and what it is made of.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Enriched {
    /// The enriched prompt, unless messages were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The enriched messages, if they were asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<ChatMessage>,
    /// The system text, if messages were asked for as Anthropic takes them and there is context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What was put in, in citation order.
    pub context: Vec<ContextItem>,
    /// Tokens used.
    pub tokens: TokenUse,
    /// Candidates that were left out, and why.
    pub dropped: Vec<Dropped>,
    /// Names this retrieval in the server's logs.
    pub retrieval_id: String,
    /// Time in the server, queueing included.
    pub took_ms: f64,
    /// What the caller should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What each stage did: those that skipped something, all of them if asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// What was searched, if it is not the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// What is missing, if that was allowed and something is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial: Option<Partial>,
}

/// A chat message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChatMessage {
    /// `system` or `user`.
    pub role: String,
    /// Text.
    pub content: String,
}

/// One cited piece of context.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ContextItem {
    /// Citation number, from 1.
    pub n: u32,
    /// The document's id.
    pub document: String,
    /// Its title.
    pub title: String,
    /// Heading path.
    pub heading: Vec<String>,
    /// Where the document came from.
    pub source: String,
    /// Bytes of the document's text: from, to.
    pub span: (u64, u64),
    /// The text.
    pub text: String,
    /// 0..1, higher is better.
    pub score: f32,
    /// Raw scores by leg.
    pub scores: BTreeMap<String, f32>,
    /// Points that make up this item.
    pub ids: Vec<String>,
    /// The collection, if the request named several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
    /// How far the least trusted of its chunks is trusted.
    pub trust: Trust,
    /// Where the content is from, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

/// Tokens of an enriched prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenUse {
    /// Of the prompt as given.
    pub prompt: u32,
    /// Of the context with its fences and citations; never above the budget.
    pub context: u32,
    /// The budget.
    pub budget: u32,
}

/// A candidate that was left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Dropped {
    /// Point id.
    pub id: String,
    /// The document's id.
    pub document: String,
    /// Why.
    pub reason: String,
    /// The collection, if the request named several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collection: Option<String>,
}
