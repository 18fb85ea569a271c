//! The heart of `enrich`: from what retrieval found to a context that fits, with citations, and an account of the rest.
//!
//! In this order:
//! 1. **Rank** by the place that a ranking gave, then by score, ties by collection, document, ordinal and id, so that
//!    equal inputs give equal contexts.
//! 2. **Threshold**: what scores below is dropped.
//! 3. **Exact duplicates** of a text that is packed already are dropped. A text that was dropped may be packed as
//!    another chunk's, which a cap or the budget allows.
//! 4. **Pack greedily**: each candidate whole or not at all, if the caps per document and source, the number of chunks and
//!    the token budget allow. One that does not fit is dropped and the next is tried: a shorter one may fit (see
//!    [`MISFITS_MAX`]).
//! 5. **Neighbours**: the chunks beside a packed candidate come with it, nearest first, as long as they join its passage
//!    and the same caps and budget allow. They are no candidates: one that does not fit is counted, not dropped. A
//!    candidate that was packed as a neighbour is packed.
//! 6. **Stitch**: a chunk that touches or overlaps a block of the same document becomes part of it, so that the model
//!    reads one passage in the document's order, and repeated text is paid for once.
//! 7. **Verify**: the context is rendered and counted as a whole. Token counts do not add up exactly; while the whole
//!    is over budget, the last chunk packed is dropped.
//!
//! Promises, each held by a property test: the rendered context never has more than `token_budget` tokens; every
//! block's text is the exact slice of its document; every candidate is in exactly one block or dropped exactly once.
//! Near duplicates and diversity are the business of `rank`, before this.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::render::{self, Fence};
use super::tokens::TokenCounter;
use super::trust::{Provenance, Trust};

/// A chunk that retrieval found.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The chunk's point id.
    pub id: String,
    /// The collection it was found in, by its place in the request.
    pub collection: usize,
    /// The document it belongs to.
    pub document: String,
    /// The document's title.
    pub title: Option<String>,
    /// Where the document is from: a path, a URL.
    pub source: Option<String>,
    /// The headings above the chunk, outermost first.
    pub heading: Vec<String>,
    /// The document's bytes that `text` is, from and to. Stitching trusts it only as far as lengths and overlaps agree.
    pub span: (usize, usize),
    /// The chunk, exactly as in the document.
    pub text: String,
    /// Higher is better. NaN is worse than anything.
    pub score: f32,
    /// The raw scores that `score` was made of, by leg.
    pub legs: Vec<(String, f32)>,
    /// The chunk's number within its document.
    pub ordinal: u32,
    /// Where a ranking put it; equal for all if none did, and then the score decides.
    pub place: usize,
    /// How far its document is trusted.
    pub trust: Trust,
    /// Where its document's content is from.
    pub provenance: Option<Provenance>,
}

/// The chunks before and after a candidate in its document, in no order. Whoever is asked fetches them; equal questions must
/// get equal answers.
pub type Neighbours<'a> = &'a mut dyn FnMut(&Candidate) -> Vec<Candidate>;

/// What may be packed. Any values are legal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackRequest {
    /// The most tokens of the rendered context: instruction, fences, headers, texts; not the user's prompt.
    pub token_budget: usize,
    /// The most chunks.
    pub max_chunks: Option<usize>,
    /// The most chunks of one document.
    pub max_per_document: Option<usize>,
    /// The most chunks of one source; chunks without a source are not counted.
    pub max_per_source: Option<usize>,
    /// How many chunks on each side of a candidate may come with it.
    pub neighbours: u32,
    /// The least score.
    pub score_threshold: Option<f32>,
    /// Randomness for the fence: fresh for each request, from a real source.
    pub seed: u128,
}

/// The context of a prompt.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Packed {
    /// The blocks, best first: `context[i].n == i + 1`.
    pub context: Vec<ContextBlock>,
    /// What was found and is not in the context, best first.
    pub dropped: Vec<Dropped>,
    /// The context as rendered; empty if there is no block.
    pub text: String,
    /// The tokens of `text`.
    pub tokens_context: usize,
    /// Chunks that came in as neighbours and were no candidates.
    pub neighbours: usize,
    /// Neighbours that were there and did not come in: over a cap or the budget, or not joining.
    pub neighbours_left: usize,
}

/// A passage of one document that can be cited.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextBlock {
    /// It is cited as `[n]`.
    pub n: usize,
    /// The collection it was found in, by its place in the request.
    pub collection: usize,
    /// The document.
    pub document: String,
    /// The document's title.
    pub title: Option<String>,
    /// Where the document is from.
    pub source: Option<String>,
    /// The headings above the whole passage, outermost first.
    pub heading: Vec<String>,
    /// The document's bytes that `text` is, from and to.
    pub span: (usize, usize),
    /// The passage, exactly as in the document; without white space at its end.
    pub text: String,
    /// The best score of its chunks.
    pub score: f32,
    /// That chunk's raw scores, by leg.
    pub legs: Vec<(String, f32)>,
    /// Its chunks, in the document's order.
    pub chunk_ids: Vec<String>,
    /// How far the document is trusted.
    pub trust: Trust,
    /// Where the document's content is from.
    pub provenance: Option<Provenance>,
}

/// A candidate that is not in the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The chunk's point id.
    pub id: String,
    /// The collection it was found in, by its place in the request.
    pub collection: usize,
    /// Its document.
    pub document: String,
    /// Why; serialised as the sentence.
    pub reason: DropReason,
}

/// Why a candidate is not in the context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// It scores less than `score_threshold`.
    BelowThreshold,
    /// Its text is that of a better-scored candidate, which was packed.
    Duplicate {
        /// The other's point id.
        id: String,
        /// The other's document.
        document: String,
        /// The block the other is in, unless the verification dropped it again.
        n: Option<usize>,
    },
    /// It says almost the same as a better candidate (`rank::near_duplicates`).
    NearDuplicate {
        /// The other's point id.
        id: String,
        /// The other's document.
        document: String,
        /// The block the other is in, if it was packed.
        n: Option<usize>,
    },
    /// There were enough with its value under a field (`rank::caps`).
    FieldCap {
        /// The field.
        field: String,
        /// The most.
        most: usize,
    },
    /// `max_per_document` chunks of its document are packed.
    DocumentCap,
    /// `max_per_source` chunks of its source are packed.
    SourceCap,
    /// `max_chunks` chunks are packed.
    ChunkCap,
    /// The context with it would have more than `token_budget` tokens.
    OverBudget,
    /// Too many better ones were over budget (see [`MISFITS_MAX`]).
    NotTried,
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BelowThreshold => f.write_str("below score threshold"),
            Self::Duplicate { n: Some(n), .. } => write!(f, "duplicate of [{n}]"),
            Self::Duplicate { id, document, n: None } => {
                write!(f, "duplicate of chunk {id} of document {document}, which was dropped")
            }
            Self::NearDuplicate { n: Some(n), .. } => write!(f, "near duplicate of [{n}]"),
            Self::NearDuplicate { id, document, n: None } => {
                write!(
                    f,
                    "near duplicate of chunk {id} of document {document}, which was dropped"
                )
            }
            Self::FieldCap { field, most } => write!(f, "over the cap of {most} per {field}"),
            Self::DocumentCap => f.write_str("over the limit of chunks per document"),
            Self::SourceCap => f.write_str("over the limit of chunks per source"),
            Self::ChunkCap => f.write_str("over the limit of chunks"),
            Self::OverBudget => f.write_str("over token budget"),
            Self::NotTried => write!(
                f,
                "not tried, as {MISFITS_MAX} better ones did not fit the token budget"
            ),
        }
    }
}

impl Serialize for DropReason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// After so many candidates that did not fit, the rest is not tried, unless nothing is packed yet: a context of a late
/// candidate is better than none. Each try counts a whole chunk, which is what packing costs; with chunks of about one
/// size the next will not fit either. How many are tried in vain is bounded by how many candidates there are.
const MISFITS_MAX: usize = 10;

/// A passage of at most so many bytes is counted whole whenever a chunk joins it. A longer one grows by the count of what is
/// new: counting it whole again and again would take time in the square of its length, and packing hundreds of chunks of
/// one document minutes.
const COUNTED_WHOLE_BYTES_MAX: usize = 16 << 10;

/// Packs what fits. Pure: the same candidates, in any order, with the same request and neighbours give the same result.
pub fn pack(
    candidates: &[Candidate],
    request: &PackRequest,
    counter: &dyn TokenCounter,
    neighbours: Neighbours<'_>,
) -> Packed {
    let ranked = rank(candidates);
    let mut packer = Packer {
        request,
        counter,
        fence: fence(&ranked, request.seed),
        candidates: ranked.len(),
        places: places(&ranked),
        chunks: ranked.into_iter().map(Cow::Borrowed).collect(),
    };
    let mut tray = packer.accept(neighbours);
    let (context, text, tokens_context) = packer.verify(&mut tray);
    let dropped = packer.account(&tray.fates, &context);
    let came = tray.accepted.iter().filter(|at| **at >= packer.candidates).count();
    Packed {
        context,
        dropped,
        text,
        tokens_context,
        neighbours: came,
        neighbours_left: tray.beside.len() - came,
    }
}

/// Step 1.
fn rank(candidates: &[Candidate]) -> Vec<&Candidate> {
    let score = |candidate: &Candidate| {
        if candidate.score.is_nan() {
            f32::NEG_INFINITY
        } else {
            candidate.score
        }
    };
    let mut ranked: Vec<&Candidate> = candidates.iter().collect();
    ranked.sort_by(|a, b| {
        let by_score = a.place.cmp(&b.place).then_with(|| score(b).total_cmp(&score(a)));
        by_score.then_with(|| ties(a).cmp(&ties(b)))
    });
    ranked
}

/// What orders candidates that are equally good.
fn ties(of: &Candidate) -> (usize, &str, u32, &str, (usize, usize)) {
    (of.collection, &of.document, of.ordinal, &of.id, of.span)
}

/// Which chunk stands where.
fn places(ranked: &[&Candidate]) -> HashMap<(usize, String), usize> {
    let key = |(at, chunk): (usize, &&Candidate)| ((chunk.collection, chunk.id.clone()), at);
    ranked.iter().enumerate().map(key).collect()
}

/// A fence that is in no text or label of any candidate, packed or not.
fn fence(ranked: &[&Candidate], seed: u128) -> Fence {
    Fence::draw(seed, ranked.iter().flat_map(|candidate| shown(candidate)))
}

/// Everything of a chunk that a model may come to see.
fn shown(candidate: &Candidate) -> impl Iterator<Item = &str> + Clone {
    let labels = candidate
        .title
        .iter()
        .chain(&candidate.source)
        .chain(&candidate.heading);
    labels.chain([&candidate.text]).map(String::as_str)
}

/// What becomes of a candidate.
#[derive(Clone)]
enum Fate {
    Packed,
    /// Of the candidate of that rank.
    DuplicateOf(usize),
    Dropped(DropReason),
}

/// One request at work. Chunks go by their place in `chunks`: candidates first, by rank, then neighbours as they came.
struct Packer<'a> {
    request: &'a PackRequest,
    counter: &'a dyn TokenCounter,
    fence: Fence,
    candidates: usize,
    places: HashMap<(usize, String), usize>,
    chunks: Vec<Cow<'a, Candidate>>,
}

/// What is packed so far.
struct Tray {
    passages: Vec<Passage>,
    /// Its tokens with the instruction line, by adding up.
    used: usize,
    /// In the order in which they were taken.
    accepted: Vec<usize>,
    /// Of the candidates, by rank; none while undecided.
    fates: Vec<Option<Fate>>,
    of_document: HashMap<(usize, String), usize>,
    of_source: HashMap<String, usize>,
    packed_as: HashMap<String, usize>,
    /// Neighbours that were there and are no candidates.
    beside: HashSet<(usize, String)>,
}

impl Packer<'_> {
    /// Steps 2 to 6: what becomes of each, and what was taken.
    fn accept(&mut self, neighbours: Neighbours<'_>) -> Tray {
        let mut tray = Tray {
            passages: Vec::new(),
            used: self.counter.count(&render::instruction(&self.fence)),
            accepted: Vec::new(),
            fates: vec![None; self.candidates],
            of_document: HashMap::new(),
            of_source: HashMap::new(),
            packed_as: HashMap::new(),
            beside: HashSet::new(),
        };
        let mut misfits = 0;
        for rank in 0..self.candidates {
            // Unless it was packed as a neighbour.
            if tray.fates[rank].is_none() {
                tray.fates[rank] = Some(self.decide(&mut tray, rank, &mut misfits));
            }
            if self.request.neighbours > 0 && matches!(tray.fates[rank], Some(Fate::Packed)) && self.is_enough(rank) {
                self.accept_beside(&mut tray, rank, &mut *neighbours);
            }
        }
        tray
    }

    /// Whether the score is enough; said so that a NaN is not.
    fn is_enough(&self, rank: usize) -> bool {
        let score = self.chunks[rank].score;
        self.request.score_threshold.is_none_or(|threshold| score >= threshold)
    }

    fn decide(&self, tray: &mut Tray, rank: usize, misfits: &mut usize) -> Fate {
        let candidate = &self.chunks[rank];
        // Said so that a NaN is not enough.
        let enough = |threshold| candidate.score >= threshold;
        if self.request.score_threshold.is_some_and(|threshold| !enough(threshold)) {
            return Fate::Dropped(DropReason::BelowThreshold);
        }
        // How much white space follows a chunk depends on what comes after it, not on the chunk.
        if let Some(first) = tray.packed_as.get(candidate.text.trim_end()) {
            return Fate::DuplicateOf(*first);
        }
        if let Some(cap) = self.capped(tray, candidate) {
            return Fate::Dropped(cap);
        }
        if *misfits >= MISFITS_MAX && !tray.accepted.is_empty() {
            return Fate::Dropped(DropReason::NotTried);
        }
        if !self.admit(tray, rank) {
            *misfits += 1;
            return Fate::Dropped(DropReason::OverBudget);
        }
        Fate::Packed
    }

    /// The cap that one more chunk like this would break.
    fn capped(&self, tray: &Tray, candidate: &Candidate) -> Option<DropReason> {
        let over = |cap: Option<usize>, packed: usize| cap.is_some_and(|most| packed >= most);
        let document = (candidate.collection, candidate.document.clone());
        let of_document = tray.of_document.get(&document).copied().unwrap_or(0);
        let of_source = candidate
            .source
            .as_ref()
            .and_then(|source| tray.of_source.get(source))
            .copied();
        if over(self.request.max_per_document, of_document) {
            return Some(DropReason::DocumentCap);
        }
        if candidate.source.is_some() && over(self.request.max_per_source, of_source.unwrap_or(0)) {
            return Some(DropReason::SourceCap);
        }
        over(self.request.max_chunks, tray.accepted.len()).then_some(DropReason::ChunkCap)
    }

    /// Step 5: what stands beside a packed candidate, outwards on each side until one does not come in.
    fn accept_beside(&mut self, tray: &mut Tray, rank: usize, neighbours: Neighbours<'_>) {
        let origin = self.chunks[rank].clone();
        let mut beside: BTreeMap<u32, Candidate> = BTreeMap::new();
        for chunk in neighbours(&origin) {
            let near = chunk.ordinal.abs_diff(origin.ordinal) <= self.request.neighbours;
            let same = chunk.collection == origin.collection && chunk.document == origin.document;
            if near && same && chunk.ordinal != origin.ordinal {
                let key = (chunk.collection, chunk.id.clone());
                if self.places.get(&key).is_none_or(|at| *at >= self.candidates) {
                    tray.beside.insert(key);
                }
                beside.entry(chunk.ordinal).or_insert(chunk);
            }
        }
        for side in [-1_i64, 1] {
            for distance in 1..=i64::from(self.request.neighbours) {
                let ordinal = u32::try_from(i64::from(origin.ordinal) + side * distance);
                let Some(chunk) = ordinal.ok().and_then(|ordinal| beside.remove(&ordinal)) else {
                    break;
                };
                if !self.accept_neighbour(tray, rank, chunk) {
                    break;
                }
            }
        }
    }

    /// Whether the chunk is in afterwards, or was before.
    fn accept_neighbour(&mut self, tray: &mut Tray, rank: usize, chunk: Candidate) -> bool {
        let key = (chunk.collection, chunk.id.clone());
        let at = match self.places.get(&key) {
            Some(at) if tray.accepted.contains(at) => return true,
            // A candidate that was dropped already stays dropped: it is accounted for.
            Some(at) if *at < self.candidates && tray.fates[*at].is_some() => return false,
            Some(at) => *at,
            None => {
                // It was not there when the fence was drawn.
                if shown(&chunk).any(|text| text.contains(self.fence.as_str())) {
                    return false;
                }
                self.places.insert(key, self.chunks.len());
                self.chunks.push(Cow::Owned(chunk));
                self.chunks.len() - 1
            }
        };
        let joins = self
            .join(&tray.passages, at)
            .joined
            .iter()
            .any(|&p| tray.passages[p].ranks.contains(&rank));
        if !joins || self.capped(tray, &self.chunks[at]).is_some() || !self.admit(tray, at) {
            return false;
        }
        if at < self.candidates {
            tray.fates[at] = Some(Fate::Packed);
        }
        true
    }

    /// Adds the chunk if there is budget for it, together with what it touches. Blocks are counted one by one and
    /// added up: counting the whole context for every candidate would be quadratic.
    fn admit(&self, tray: &mut Tray, at: usize) -> bool {
        let Join { joined, mut passage } = self.join(&tray.passages, at);
        // The number is not known yet. Three digits are seldom fewer tokens than what it will be.
        let mut block = self.block(&passage, 999);
        let whole = (passage.text.len() <= COUNTED_WHOLE_BYTES_MAX)
            .then(|| self.counter.count(&render::block(&self.fence, &block)));
        block.text.clear();
        passage.frame = self.counter.count(&render::block(&self.fence, &block));
        passage.tokens = whole.unwrap_or_else(|| {
            let texts: usize = joined
                .iter()
                .map(|&at| tray.passages[at].tokens.saturating_sub(tray.passages[at].frame))
                .sum();
            passage.frame + texts + self.count_new(at, joined.iter().map(|&at| tray.passages[at].span))
        });
        let freed: usize = joined.iter().map(|&at| tray.passages[at].tokens).sum();
        let used = tray.used - freed + passage.tokens;
        if used > self.request.token_budget {
            return false;
        }
        tray.used = used;
        replace(&mut tray.passages, &joined, passage);
        let chunk = &self.chunks[at];
        *tray
            .of_document
            .entry((chunk.collection, chunk.document.clone()))
            .or_default() += 1;
        if let Some(source) = &chunk.source {
            *tray.of_source.entry(source.clone()).or_default() += 1;
        }
        if at < self.candidates {
            tray.packed_as.entry(chunk.text.trim_end().to_owned()).or_insert(at);
        }
        tray.accepted.push(at);
        true
    }

    /// The tokens of those parts of a chunk that are in none of the spans it touches.
    fn count_new(&self, at: usize, spans: impl Iterator<Item = (usize, usize)>) -> usize {
        let chunk = &self.chunks[at];
        let (start, end) = chunk.span;
        let mut spans: Vec<(usize, usize)> = spans.chain([(end, end)]).collect();
        spans.sort_unstable();
        let (mut from, mut tokens) = (start, 0);
        for span in spans {
            if from < span.0.min(end) {
                let part = chunk.text.get(from - start..span.0.min(end) - start);
                tokens += self.counter.count(part.unwrap_or(&chunk.text));
            }
            from = from.max(span.1);
        }
        tokens
    }

    /// Step 7. Returns the blocks, their rendering and its tokens.
    fn verify(&self, tray: &mut Tray) -> (Vec<ContextBlock>, String, usize) {
        loop {
            let context = self.blocks(&tray.accepted);
            let text = render::context(&self.fence, &context);
            let tokens = if text.is_empty() { 0 } else { self.counter.count(&text) };
            if tokens <= self.request.token_budget {
                return (context, text, tokens);
            }
            // As many as the excess takes, since each look counts everything: of each no less than it can have added, which
            // is a block of its own; and an eighth at most, for counters whose sums are far off. There is one: without any
            // the text is empty and has 0 tokens, which every budget allows.
            let mut excess = tokens - self.request.token_budget;
            for _ in 0..tray.accepted.len().div_ceil(8) {
                if excess == 0 {
                    break;
                }
                let Some(last) = tray.accepted.pop() else { break };
                let alone = self.block(&self.join(&[], last).passage, 999);
                let added = self.counter.count(&render::block(&self.fence, &alone));
                excess = excess.saturating_sub(added.max(1));
                if last < self.candidates {
                    tray.fates[last] = Some(Fate::Dropped(DropReason::OverBudget));
                }
            }
        }
    }

    /// Everybody who is not packed, and why.
    fn account(&self, fates: &[Option<Fate>], context: &[ContextBlock]) -> Vec<Dropped> {
        let dropped = |(candidate, fate): (&Cow<'_, Candidate>, &Option<Fate>)| {
            let reason = match fate.as_ref()? {
                Fate::Packed => return None,
                Fate::Dropped(reason) => reason.clone(),
                Fate::DuplicateOf(rank) => {
                    let other = &self.chunks[*rank];
                    DropReason::Duplicate {
                        id: other.id.clone(),
                        document: other.document.clone(),
                        n: cited_as(context, other.collection, &other.id),
                    }
                }
            };
            Some(Dropped {
                id: candidate.id.clone(),
                collection: candidate.collection,
                document: candidate.document.clone(),
                reason,
            })
        };
        self.chunks.iter().zip(fates).filter_map(dropped).collect()
    }
}

/// The number of the block that holds a chunk.
pub fn cited_as(context: &[ContextBlock], collection: usize, id: &str) -> Option<usize> {
    let holds = |block: &&ContextBlock| block.collection == collection && block.chunk_ids.iter().any(|one| one == id);
    context.iter().find(holds).map(|block| block.n)
}

// ---- stitching ----

/// Chunks of one document that touch or overlap, as one text.
#[derive(Clone)]
struct Passage {
    /// Its candidates, in the document's order.
    ranks: Vec<usize>,
    span: (usize, usize),
    text: String,
    /// Of its rendered block; 0 before it is counted.
    tokens: usize,
    /// Of its rendered block without the text.
    frame: usize,
}

/// A candidate together with the passages it touches.
struct Join {
    /// Which passages it took in, ascending.
    joined: Vec<usize>,
    passage: Passage,
}

/// Puts `passage` in the place of those it took in, at the first of them: passages stay in the order of their best score.
fn replace(passages: &mut Vec<Passage>, joined: &[usize], passage: Passage) {
    match joined {
        [] => passages.push(passage),
        [first, rest @ ..] => {
            passages[*first] = passage;
            for &at in rest.iter().rev() {
                passages.remove(at);
            }
        }
    }
}

/// The text of both, if they touch or overlap and agree on what they share. The later one begins within the earlier
/// one or at its end; both spans are as long as their texts.
fn stitch(earlier: &Passage, later: &Passage) -> Option<((usize, usize), String)> {
    let shared = earlier.span.1.checked_sub(later.span.0)?.min(later.text.len());
    let at = later.span.0 - earlier.span.0;
    // Spans come from whoever stored the chunk. Where texts disagree, or a character would be cut, they are not
    // neighbours, whatever the spans say.
    let agree = earlier.text.as_bytes().get(at..at + shared)? == &later.text.as_bytes()[..shared];
    let rest = later.text.get(shared..)?;
    agree.then(|| {
        (
            (earlier.span.0, earlier.span.1.max(later.span.1)),
            format!("{}{rest}", earlier.text),
        )
    })
}

impl Packer<'_> {
    fn join(&self, passages: &[Passage], rank: usize) -> Join {
        let candidate = &self.chunks[rank];
        let mut passage = Passage {
            ranks: vec![rank],
            span: candidate.span,
            text: candidate.text.clone(),
            tokens: 0,
            frame: 0,
        };
        let mut joined = Vec::new();
        let neighbours = |passage: &Passage| {
            let other = &self.chunks[passage.ranks[0]];
            other.collection == candidate.collection && other.document == candidate.document && is_exact(passage)
        };
        if is_exact(&passage) {
            // One pass is enough: passages do not touch each other, only what is between them touches both.
            for (at, other) in passages.iter().enumerate().filter(|(_, other)| neighbours(other)) {
                let in_order = other.span.0 <= passage.span.0;
                let (earlier, later) = if in_order { (other, &passage) } else { (&passage, other) };
                if let Some((span, text)) = stitch(earlier, later) {
                    let mut ranks = [other.ranks.as_slice(), &passage.ranks].concat();
                    ranks.sort_by_key(|&rank| (self.chunks[rank].span, rank));
                    passage = Passage {
                        ranks,
                        span,
                        text,
                        tokens: 0,
                        frame: 0,
                    };
                    joined.push(at);
                }
            }
        }
        Join { joined, passage }
    }

    /// The accepted candidates as blocks, numbered by best score.
    fn blocks(&self, accepted: &[usize]) -> Vec<ContextBlock> {
        let mut passages = Vec::new();
        for &rank in accepted {
            let Join { joined, passage } = self.join(&passages, rank);
            replace(&mut passages, &joined, passage);
        }
        passages
            .iter()
            .zip(1..)
            .map(|(passage, n)| self.block(passage, n))
            .collect()
    }

    fn block(&self, passage: &Passage, n: usize) -> ContextBlock {
        let members = || passage.ranks.iter().map(|&rank| &*self.chunks[rank]);
        let best = &self.chunks[passage.ranks.iter().copied().min().expect("a passage has a chunk")];
        let text = passage.text.trim_end();
        let (start, end) = passage.span;
        ContextBlock {
            n,
            collection: best.collection,
            document: best.document.clone(),
            title: best
                .title
                .clone()
                .or_else(|| members().find_map(|member| member.title.clone())),
            source: best
                .source
                .clone()
                .or_else(|| members().find_map(|member| member.source.clone())),
            heading: members()
                .skip(1)
                .fold(
                    members().next().map_or(&[][..], |first| &first.heading),
                    |above, member| {
                        let common = above.iter().zip(&member.heading).take_while(|(a, b)| a == b).count();
                        &above[..common]
                    },
                )
                .to_vec(),
            span: if is_exact(passage) {
                (start, start + text.len())
            } else {
                (start, end)
            },
            text: text.to_owned(),
            score: best.score,
            legs: best.legs.clone(),
            chunk_ids: members().map(|member| member.id.clone()).collect(),
            // The worst of its chunks: a passage is no better than what is in it.
            trust: members()
                .map(|member| member.trust)
                .max_by_key(|trust| trust.doubt())
                .unwrap_or_default(),
            provenance: best
                .provenance
                .clone()
                .or_else(|| members().find_map(|member| member.provenance.clone())),
        }
    }
}

/// Whether the span can be what it says.
fn is_exact(passage: &Passage) -> bool {
    passage.span.1.checked_sub(passage.span.0) == Some(passage.text.len())
}

#[cfg(test)]
mod tests;
