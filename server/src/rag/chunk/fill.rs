//! Filling chunks: pieces of a section, as many as fit, cut finer where one alone does not.

use unicode_segmentation::UnicodeSegmentation;

use super::outline::{Kind, Section};
use super::starts::{line_starts, sentence_starts, word_starts};
use super::{Chunk, ChunkSettings, Cut};

/// White space after a chunk that still belongs to it. Blank lines and indentation fit; a page of spaces does not.
pub(super) const GAP_BYTES_MAX: usize = 64;

/// A token is taken to have at most so many bytes. Prose has 4 to 6; but WordPiece counts a megabyte of base64 as one
/// unknown word, and a chunk must be bounded in bytes as well.
pub(super) const TOKEN_BYTES_MAX: usize = 64;

/// What a piece is cut from: the coarser, the more welcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
enum Grain {
    Block,
    Sentence,
    Line,
    Word,
    Character,
}

/// A part of a section that is not cut (unless it must be): trimmed, never empty.
#[derive(Debug, Clone, Copy)]
struct Piece {
    start: usize,
    end: usize,
    kind: Kind,
    grain: Grain,
    /// See [`Cutter::size`].
    size: usize,
}

/// The chunk being filled: pieces, with some of the chunk before in front of them.
#[derive(Default)]
struct Open {
    start: usize,
    pieces: Vec<Piece>,
    size: usize,
}

/// A place in the last chunk where the next may begin, and how much it would repeat from there.
struct Repeat {
    start: usize,
    size: usize,
}

pub(super) struct Cutter<'a> {
    text: &'a str,
    max: usize,
    overlap: usize,
    strategy: Cut,
    count: &'a dyn Fn(&str) -> usize,
}

impl<'a> Cutter<'a> {
    pub(super) fn new(text: &'a str, settings: &ChunkSettings, count: &'a dyn Fn(&str) -> usize) -> Self {
        let max = settings.max_tokens.max(1);
        Self {
            text,
            max,
            overlap: settings.overlap_tokens.min(max / 2),
            strategy: settings.strategy,
            count,
        }
    }

    /// Cuts a section: greedily, piece after piece, each chunk as full as whole pieces make it.
    ///
    /// Sizes of pieces are added up to decide, since counting the growing chunk again and again would be quadratic.
    /// Counts do not quite add up, so a finished chunk is counted once more and gives pieces back if it must.
    pub(super) fn fill(&self, section: &Section, chunks: &mut Vec<Chunk>) {
        let mut pieces = section
            .blocks
            .iter()
            .flat_map(|block| self.pieces(block.start, block.end, block.kind));
        // What was cut finer or given back, next one last.
        let mut todo: Vec<Piece> = Vec::new();
        let mut open = Open::default();
        let mut repeats: Vec<Repeat> = Vec::new();

        loop {
            while let Some(piece) = todo.pop().or_else(|| pieces.next()) {
                let fits = open.size + piece.size <= self.max;
                // Rather than leave a heading alone, the block below it is cut.
                let lonely = !fits && open.is_heading() && open.size <= self.max / 2 && piece.grain < self.never_cut();
                if (piece.size > self.max || lonely)
                    && let Some(finer) = self.finer(&piece)
                {
                    todo.extend(finer.into_iter().rev());
                } else if open.pieces.is_empty() {
                    open = self.open(piece, &repeats);
                } else if fits {
                    open.size += piece.size;
                    open.pieces.push(piece);
                } else {
                    todo.push(piece);
                    break;
                }
            }
            if open.pieces.is_empty() {
                return;
            }
            let full = std::mem::take(&mut open);
            let kept = self.close(full, &mut todo);
            let text = self.text[kept.start..kept.end()].to_owned();
            let tokens = (self.count)(&text);
            chunks.push(Chunk {
                text,
                span: (kept.start, kept.end()),
                heading: section.heading.clone(),
                tokens,
            });
            repeats = self.repeats(&kept);
        }
    }

    /// What the strategy makes of a block before anything is known to be too large.
    fn pieces(&self, start: usize, end: usize, kind: Kind) -> Vec<Piece> {
        let text = &self.text[start..end];
        let (grain, starts) = match (self.strategy, kind) {
            (Cut::Structure, _) | (Cut::Sentence, Kind::Heading) => (Grain::Block, vec![0]),
            (Cut::Sentence, Kind::Prose) => (Grain::Sentence, sentence_starts(text)),
            (Cut::Sentence, Kind::Lines) => (Grain::Line, line_starts(text)),
            (Cut::Fixed, _) => (Grain::Word, word_starts(text)),
        };
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let cuts = starts.iter().zip(ends);
        cuts.filter_map(|(from, to)| self.piece(start + from, start + to, kind, grain))
            .collect()
    }

    /// Begins a chunk with `piece`, repeating as much of the last chunk as there is room for.
    fn open(&self, piece: Piece, repeats: &[Repeat]) -> Open {
        let longest = repeats.iter().rev().find(|repeat| repeat.size + piece.size <= self.max);
        match longest {
            Some(repeat) if self.size(repeat.start, piece.end) <= self.max => Open {
                start: repeat.start,
                size: repeat.size + piece.size,
                pieces: vec![piece],
            },
            _ => Open {
                start: piece.start,
                size: piece.size,
                pieces: vec![piece],
            },
        }
    }

    /// Makes sure that what was filled by adding up is within bounds as a whole; what is not goes back to `todo`.
    fn close(&self, mut full: Open, todo: &mut Vec<Piece>) -> Open {
        while full.pieces.len() > 1 && self.size(full.start, full.end()) > self.max {
            // An eighth at a time: logarithmically many counts even for a counter whose sums are far off.
            let keep = full.pieces.len() - full.pieces.len().div_ceil(8);
            todo.extend(full.pieces.drain(keep..).rev());
        }
        full
    }

    /// Where the chunk after `kept` may begin: before each whole sentence or line, from the last one backwards.
    fn repeats(&self, kept: &Open) -> Vec<Repeat> {
        let mut repeats = Vec::new();
        let mut size = 0;
        if self.overlap == 0 {
            return repeats;
        }
        for piece in kept.pieces.iter().rev() {
            if piece.grain > self.finest_repeat() {
                break;
            }
            let starts = match (piece.grain, piece.kind) {
                (Grain::Block, Kind::Prose) => sentence_starts(self.slice(piece)),
                (Grain::Block, Kind::Lines) => line_starts(self.slice(piece)),
                _ => vec![0],
            };
            let mut end = piece.end;
            for start in starts.into_iter().rev().map(|start| piece.start + start) {
                let Some(part) = self.piece(start, end, piece.kind, Grain::Sentence) else {
                    continue;
                };
                size += part.size;
                // The whole chunk is no overlap: chunks must get on.
                if size > self.overlap || part.start <= kept.start {
                    return repeats;
                }
                repeats.push(Repeat {
                    start: part.start,
                    size,
                });
                end = start;
            }
        }
        repeats
    }

    /// From this grain on, nothing that fits is cut for the sake of a heading above it.
    fn never_cut(&self) -> Grain {
        match self.strategy {
            Cut::Structure | Cut::Fixed => Grain::Word,
            Cut::Sentence => Grain::Sentence,
        }
    }

    /// Of what is repeated only wholes are: half a sentence helps nobody. Fixed chunks know no sentences.
    fn finest_repeat(&self) -> Grain {
        match self.strategy {
            Cut::Structure | Cut::Sentence => Grain::Line,
            Cut::Fixed => Grain::Word,
        }
    }

    /// Gives each chunk the white space up to the next, where that is little and fits.
    pub(super) fn close_gaps(&self, chunks: &mut [Chunk]) {
        for at in 1..chunks.len() {
            let next = chunks[at].span.0;
            let chunk = &mut chunks[at - 1];
            let (start, end) = chunk.span;
            if end < next && next - end <= GAP_BYTES_MAX {
                let text = &self.text[start..next];
                let tokens = (self.count)(text);
                if tokens <= self.max {
                    *chunk = Chunk {
                        text: text.to_owned(),
                        span: (start, next),
                        tokens,
                        heading: std::mem::take(&mut chunk.heading),
                    };
                }
            }
        }
    }

    /// The piece cut one grain finer, or as fine as it takes to get more than one; `None` if it is one character.
    fn finer(&self, piece: &Piece) -> Option<Vec<Piece>> {
        let text = self.slice(piece);
        // What was too large a heading is read as prose from here on.
        let kind = if piece.kind == Kind::Heading {
            Kind::Prose
        } else {
            piece.kind
        };
        let mut grain = piece.grain;
        loop {
            let starts;
            (grain, starts) = match grain {
                Grain::Block if kind == Kind::Prose => (Grain::Sentence, sentence_starts(text)),
                Grain::Block | Grain::Sentence => (Grain::Line, line_starts(text)),
                Grain::Line => (Grain::Word, word_starts(text)),
                Grain::Word => (Grain::Character, self.character_starts(text)),
                Grain::Character => return None,
            };
            if starts.len() == 1 {
                continue;
            }
            let ends = starts.iter().skip(1).copied().chain([text.len()]);
            let cuts = starts.iter().zip(ends);
            let piece = |(&start, end)| self.piece(piece.start + start, piece.start + end, kind, grain);
            let pieces: Vec<Piece> = cuts.filter_map(piece).collect();
            if pieces.len() > 1 {
                return Some(pieces);
            }
        }
    }

    /// Where to cut a word that is too large: as few cuts as possible, at grapheme clusters; within one only if it is
    /// too large itself.
    fn character_starts(&self, word: &str) -> Vec<usize> {
        let fits = |start: usize, end: usize| self.size_of(&word[start..end]) <= self.max;
        let mut ends: Vec<usize> = Vec::new();
        for (at, grapheme) in word.grapheme_indices(true) {
            if grapheme.chars().nth(1).is_some() && !fits(at, at + grapheme.len()) {
                ends.extend(grapheme.char_indices().skip(1).map(|(offset, _)| at + offset));
            }
            ends.push(at + grapheme.len());
        }
        let mut starts = vec![0];
        // ends[..from] are behind us. The last length is the best guess for the next: text tends to stay as it is.
        let (mut from, mut guess) = (0, self.max);
        while from < ends.len() {
            let start = starts[starts.len() - 1];
            let fits = |length: usize| fits(start, ends[from + length - 1]);
            let length = longest(ends.len() - from, guess, fits);
            from += length;
            guess = length;
            if from < ends.len() {
                starts.push(ends[from - 1]);
            }
        }
        starts
    }

    /// `None` if there is only white space.
    fn piece(&self, start: usize, end: usize, kind: Kind, grain: Grain) -> Option<Piece> {
        let text = &self.text[start..end];
        let trimmed = text.trim_start();
        let start = start + (text.len() - trimmed.len());
        let end = start + trimmed.trim_end().len();
        (start < end).then(|| Piece {
            start,
            end,
            kind,
            grain,
            size: self.size(start, end),
        })
    }

    fn slice(&self, piece: &Piece) -> &str {
        &self.text[piece.start..piece.end]
    }

    fn size(&self, start: usize, end: usize) -> usize {
        self.size_of(&self.text[start..end])
    }

    /// Tokens, but never fewer than the bytes allow: see [`TOKEN_BYTES_MAX`]. At least 1 for any text.
    fn size_of(&self, text: &str) -> usize {
        (self.count)(text).max(text.len().div_ceil(TOKEN_BYTES_MAX))
    }
}

impl Open {
    fn end(&self) -> usize {
        self.pieces.last().map_or(self.start, |piece| piece.end)
    }

    fn is_heading(&self) -> bool {
        !self.pieces.is_empty() && self.pieces.iter().all(|piece| piece.kind == Kind::Heading)
    }
}

/// The longest length in `1..=available` that fits, to within an eighth, trying few; 1 even if that does not fit.
/// Doubles from (or halves below) the guess and then bisects, so it costs some counts of twice the answer's text.
pub(super) fn longest(available: usize, guess: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (1, available + 1);
    let mut try_next = guess.clamp(1, available);
    while good + 1 < bad && bad - good > good / 8 {
        if fits(try_next) {
            good = try_next;
        } else {
            bad = try_next.max(2);
        }
        try_next = if bad > available {
            (2 * good).min(available)
        } else {
            good.midpoint(bad)
        };
        if try_next == good {
            break;
        }
    }
    good
}
