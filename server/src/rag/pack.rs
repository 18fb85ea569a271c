//! The heart of `enrich`: from what retrieval found to a context that fits, with citations, and an account of the rest.
//!
//! In this order:
//! 1. **Rank** by score, ties by document, ordinal and id, so that equal inputs give equal contexts.
//! 2. **Threshold**: what scores below is dropped.
//! 3. **Exact duplicates** of a text that is packed already are dropped. A text that was dropped may be packed as
//!    another chunk's, which a cap or the budget allows.
//! 4. **Pack greedily**: each candidate whole or not at all, if the cap per document, the number of chunks and the token
//!    budget allow. One that does not fit is dropped and the next is tried: a shorter one may fit (see [`MISFITS_MAX`]).
//! 5. **Stitch**: a chunk that touches or overlaps a block of the same document becomes part of it, so that the model
//!    reads one passage in the document's order, and repeated text is paid for once.
//! 6. **Verify**: the context is rendered and counted as a whole. Token counts do not add up exactly; while the whole
//!    is over budget, the last candidate packed is dropped.
//!
//! Promises, each held by a property test: the rendered context never has more than `token_budget` tokens; every
//! block's text is the exact slice of its document; every candidate is in exactly one block or dropped exactly once.
//! Near duplicates and diversity are not this module's business yet.

use std::collections::HashMap;
use std::fmt;

use serde::{Serialize, Serializer};

use super::render::{self, Fence};
use super::tokens::TokenCounter;

/// A chunk that retrieval found.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// The chunk's point id.
    pub id: String,
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
}

/// What may be packed. Any values are legal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PackRequest {
    /// The most tokens of the rendered context: instruction, fences, headers, texts; not the user's prompt.
    pub token_budget: usize,
    /// The most chunks.
    pub max_chunks: Option<usize>,
    /// The most chunks of one document.
    pub max_per_document: Option<usize>,
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
}

/// A passage of one document that can be cited.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextBlock {
    /// It is cited as `[n]`.
    pub n: usize,
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
}

/// A candidate that is not in the context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The chunk's point id.
    pub id: String,
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
    /// `max_per_document` chunks of its document are packed.
    DocumentCap,
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
            Self::DocumentCap => f.write_str("over the limit of chunks per document"),
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

/// Packs what fits. Pure: the same candidates, in any order, with the same request give the same result.
pub fn pack(candidates: &[Candidate], request: &PackRequest, counter: &dyn TokenCounter) -> Packed {
    let ranked = rank(candidates);
    let packer = Packer {
        request,
        counter,
        fence: fence(&ranked, request.seed),
        ranked: &ranked,
    };
    let (mut fates, accepted) = packer.accept();
    let (context, text, tokens_context) = packer.verify(accepted, &mut fates);
    let dropped = packer.account(&fates, &context);
    Packed {
        context,
        dropped,
        text,
        tokens_context,
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
        let ties = || (&a.document, a.ordinal, &a.id, a.span).cmp(&(&b.document, b.ordinal, &b.id, b.span));
        score(b).total_cmp(&score(a)).then_with(ties)
    });
    ranked
}

/// A fence that is in no text or label of any candidate, packed or not.
fn fence(ranked: &[&Candidate], seed: u128) -> Fence {
    let texts = ranked.iter().flat_map(|candidate| {
        let labels = candidate
            .title
            .iter()
            .chain(&candidate.source)
            .chain(&candidate.heading);
        labels.chain([&candidate.text]).map(String::as_str)
    });
    Fence::draw(seed, texts)
}

/// What becomes of a candidate.
#[derive(Clone)]
enum Fate {
    Packed,
    /// Of the candidate of that rank.
    DuplicateOf(usize),
    Dropped(DropReason),
}

/// One request at work. Candidates go by their rank, their place in `ranked`.
struct Packer<'a> {
    request: &'a PackRequest,
    counter: &'a dyn TokenCounter,
    fence: Fence,
    ranked: &'a [&'a Candidate],
}

impl Packer<'_> {
    /// Steps 2 to 5: what becomes of each, and the ranks that were taken.
    fn accept(&self) -> (Vec<Fate>, Vec<usize>) {
        let mut tray = Tray {
            passages: Vec::new(),
            used: self.counter.count(&render::instruction(&self.fence)),
        };
        let mut packed_of: HashMap<&str, usize> = HashMap::new();
        let mut packed_as: HashMap<&str, usize> = HashMap::new();
        let mut accepted = Vec::new();
        let mut misfits = 0;
        let over = |cap: Option<usize>, packed| cap.is_some_and(|most| packed >= most);
        let mut decide = |rank: usize| {
            let candidate = self.ranked[rank];
            // Said so that a NaN is not enough.
            let enough = |threshold| candidate.score >= threshold;
            if self.request.score_threshold.is_some_and(|threshold| !enough(threshold)) {
                return Fate::Dropped(DropReason::BelowThreshold);
            }
            // How much white space follows a chunk depends on what comes after it, not on the chunk.
            let text = candidate.text.trim_end();
            if let Some(first) = packed_as.get(text) {
                return Fate::DuplicateOf(*first);
            }
            let of_document = packed_of.entry(&candidate.document).or_default();
            if over(self.request.max_per_document, *of_document) {
                return Fate::Dropped(DropReason::DocumentCap);
            }
            if over(self.request.max_chunks, accepted.len()) {
                return Fate::Dropped(DropReason::ChunkCap);
            }
            if misfits >= MISFITS_MAX && !accepted.is_empty() {
                return Fate::Dropped(DropReason::NotTried);
            }
            if !self.admit(&mut tray, rank) {
                misfits += 1;
                return Fate::Dropped(DropReason::OverBudget);
            }
            *of_document += 1;
            packed_as.insert(text, rank);
            accepted.push(rank);
            Fate::Packed
        };
        let fates = (0..self.ranked.len()).map(&mut decide).collect();
        (fates, accepted)
    }

    /// Adds the candidate if there is budget for it, together with what it touches. Blocks are counted one by one and
    /// added up: counting the whole context for every candidate would be quadratic.
    fn admit(&self, tray: &mut Tray, rank: usize) -> bool {
        let Join { joined, mut passage } = self.join(&tray.passages, rank);
        // The number is not known yet. Three digits are seldom fewer tokens than what it will be.
        passage.tokens = self
            .counter
            .count(&render::block(&self.fence, &self.block(&passage, 999)));
        let freed: usize = joined.iter().map(|&at| tray.passages[at].tokens).sum();
        let used = tray.used - freed + passage.tokens;
        if used > self.request.token_budget {
            return false;
        }
        tray.used = used;
        replace(&mut tray.passages, &joined, passage);
        true
    }

    /// Step 6. Returns the blocks, their rendering and its tokens.
    fn verify(&self, mut accepted: Vec<usize>, fates: &mut [Fate]) -> (Vec<ContextBlock>, String, usize) {
        loop {
            let context = self.blocks(&accepted);
            let text = render::context(&self.fence, &context);
            let tokens = if text.is_empty() { 0 } else { self.counter.count(&text) };
            if tokens <= self.request.token_budget {
                return (context, text, tokens);
            }
            // There is one: without any the text is empty and has 0 tokens, which every budget allows.
            if let Some(last) = accepted.pop() {
                fates[last] = Fate::Dropped(DropReason::OverBudget);
            }
        }
    }

    /// Everybody who is not packed, and why.
    fn account(&self, fates: &[Fate], context: &[ContextBlock]) -> Vec<Dropped> {
        let citation = |rank: usize| {
            let Candidate { id, document, .. } = self.ranked[rank];
            context
                .iter()
                .find(|block| &block.document == document && block.chunk_ids.contains(id))
                .map(|block| block.n)
        };
        let dropped = |(candidate, fate): (&&Candidate, &Fate)| {
            let reason = match fate {
                Fate::Packed => return None,
                Fate::Dropped(reason) => reason.clone(),
                Fate::DuplicateOf(rank) => DropReason::Duplicate {
                    id: self.ranked[*rank].id.clone(),
                    document: self.ranked[*rank].document.clone(),
                    n: if matches!(fates[*rank], Fate::Packed) {
                        citation(*rank)
                    } else {
                        None
                    },
                },
            };
            Some(Dropped {
                id: candidate.id.clone(),
                document: candidate.document.clone(),
                reason,
            })
        };
        self.ranked.iter().zip(fates).filter_map(dropped).collect()
    }
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
}

/// What is packed so far, and its tokens with the instruction line, by adding up.
struct Tray {
    passages: Vec<Passage>,
    used: usize,
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
        let candidate = self.ranked[rank];
        let mut passage = Passage {
            ranks: vec![rank],
            span: candidate.span,
            text: candidate.text.clone(),
            tokens: 0,
        };
        let mut joined = Vec::new();
        let neighbours =
            |passage: &Passage| self.ranked[passage.ranks[0]].document == candidate.document && is_exact(passage);
        if is_exact(&passage) {
            // One pass is enough: passages do not touch each other, only what is between them touches both.
            for (at, other) in passages.iter().enumerate().filter(|(_, other)| neighbours(other)) {
                let in_order = other.span.0 <= passage.span.0;
                let (earlier, later) = if in_order { (other, &passage) } else { (&passage, other) };
                if let Some((span, text)) = stitch(earlier, later) {
                    let mut ranks = [other.ranks.as_slice(), &passage.ranks].concat();
                    ranks.sort_by_key(|&rank| (self.ranked[rank].span, rank));
                    passage = Passage {
                        ranks,
                        span,
                        text,
                        tokens: 0,
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
        let members = || passage.ranks.iter().map(|&rank| self.ranked[rank]);
        let best = self.ranked[passage.ranks.iter().copied().min().expect("a passage has a chunk")];
        let text = passage.text.trim_end();
        let (start, end) = passage.span;
        ContextBlock {
            n,
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
        }
    }
}

/// Whether the span can be what it says.
fn is_exact(passage: &Passage) -> bool {
    passage.span.1.checked_sub(passage.span.0) == Some(passage.text.len())
}

#[cfg(test)]
mod tests;
