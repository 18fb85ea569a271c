//! BERT's uncased WordPiece over the vocabulary compiled into the binary: text in, row numbers of the table out.
//!
//! The `tokenizers` crate is the reference, and tests hold this equal to it. It is not called here because it keeps
//! track of every character's origin, which nobody needs for ids: it makes 11 us of an accented word, this well under
//! one. Tokens never cross a space, tab or line end, so the text is taken word by word.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::OnceLock;

use unicode_categories::UnicodeCategories;
use unicode_normalization::UnicodeNormalization;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One piece a line; the line's number (from 0) is the piece's id.
pub(super) const VOCAB: &str = include_str!("../../../assets/static-minilm/vocab.txt");

/// Matched literally in a text, before anything else.
const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const UNKNOWN: &str = "[UNK]";
/// Marks a piece that continues a word.
const CONTINUES: &str = "##";
/// Longer words are unknown as a whole: BERT's bound, part of the vocabulary's meaning.
const WORD_CHARS_MAX: usize = 100;

type Pieces = HashMap<&'static [u8], u32, BuildHasherDefault<PieceHasher>>;

/// The tokenizer. It adds no `[CLS]` or `[SEP]` and never truncates.
pub struct WordPiece {
    /// Pieces that begin a word.
    first: Pieces,
    /// Pieces that continue one, without their `##`.
    rest: Pieces,
    special: [(&'static str, u32); SPECIAL.len()],
    /// Bytes of the longest piece: no longer prefix needs trying.
    piece_bytes_max: usize,
    unknown: u32,
}

impl WordPiece {
    /// The one built from the vocabulary in the binary, made at first use.
    pub fn builtin() -> &'static Self {
        static BUILTIN: OnceLock<WordPiece> = OnceLock::new();
        BUILTIN.get_or_init(|| Self::new(VOCAB).expect("the vocabulary in the binary is whole: tests build it"))
    }

    /// `None` if the vocabulary lacks one of the special tokens.
    fn new(vocab: &'static str) -> Option<Self> {
        let mut first = Pieces::default();
        let mut rest = Pieces::default();
        for (line, id) in vocab.lines().zip(0u32..) {
            match line.strip_prefix(CONTINUES) {
                Some(piece) => rest.insert(piece.as_bytes(), id),
                None => first.insert(line.as_bytes(), id),
            };
        }
        let mut special = SPECIAL.map(|token| (token, 0));
        for (token, id) in &mut special {
            *id = *first.get(token.as_bytes())?;
        }
        let piece_bytes_max = first.keys().chain(rest.keys()).map(|piece| piece.len()).max()?;
        let unknown = *first.get(UNKNOWN.as_bytes())?;
        Some(Self {
            first,
            rest,
            special,
            piece_bytes_max,
            unknown,
        })
    }

    /// Calls `each` with the id of every piece, in the order of the text.
    pub fn each_id(&self, text: &str, mut each: impl FnMut(u32)) {
        let mut normal = String::new();
        // Exactly the white space of ASCII: other control characters vanish and join their neighbours.
        for mut word in text.split([' ', '\t', '\n', '\r']) {
            while let Some((at, token, id)) = self.special_in(word) {
                self.plain(&word[..at], &mut normal, &mut each);
                each(id);
                word = &word[at + token.len()..];
            }
            self.plain(word, &mut normal, &mut each);
        }
    }

    /// How many pieces the text has.
    pub fn count(&self, text: &str) -> usize {
        let mut pieces = 0;
        self.each_id(text, |_| pieces += 1);
        pieces
    }

    /// Whether the text is one piece of the vocabulary.
    pub fn holds(&self, text: &str) -> bool {
        let (mut pieces, mut unknown) = (0, false);
        self.each_id(text, |id| {
            pieces += 1;
            unknown |= id == self.unknown;
        });
        pieces == 1 && !unknown
    }

    /// The first special token spelled out in the word, and where.
    fn special_in(&self, word: &str) -> Option<(usize, &'static str, u32)> {
        word.match_indices('[').find_map(|(at, _)| {
            let token = self.special.iter().find(|(token, _)| word[at..].starts_with(token));
            token.map(|&(token, id)| (at, token, id))
        })
    }

    /// Text without special tokens: every punctuation mark alone, the runs between them piece by piece. `normal` is
    /// scratch space.
    fn plain(&self, text: &str, normal: &mut String, each: &mut impl FnMut(u32)) {
        normalise(text, normal);
        for word in normal.split_whitespace() {
            let mut run = 0;
            for (at, mark) in word.match_indices(is_punctuation) {
                self.run(&word[run..at], each);
                self.run(mark, each);
                run = at + mark.len();
            }
            self.run(&word[run..], each);
        }
    }

    /// Greedy longest match; a run with a part that matches nothing is unknown as a whole.
    fn run(&self, run: &str, each: &mut impl FnMut(u32)) {
        if run.len() > WORD_CHARS_MAX && run.chars().count() > WORD_CHARS_MAX {
            return each(self.unknown);
        }
        // A slice that ends within a character equals no piece, so bytes will do.
        let run = run.as_bytes();
        let mut ids = [0; WORD_CHARS_MAX];
        let (mut found, mut start) = (0, 0);
        while start < run.len() {
            let pieces = if start == 0 { &self.first } else { &self.rest };
            let longest = run.len().min(start + self.piece_bytes_max);
            let matched = (start + 1..=longest)
                .rev()
                .find_map(|end| Some((end, *pieces.get(&run[start..end])?)));
            let Some((end, id)) = matched else {
                return each(self.unknown);
            };
            ids[found] = id;
            found += 1;
            start = end;
        }
        ids[..found].iter().for_each(|&id| each(id));
    }
}

/// What BERT's uncased models see of a text: no control characters, ideographs apart, no accents, lower case.
fn normalise(text: &str, normal: &mut String) {
    normal.clear();
    if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        normal.push_str(text);
        return normal.make_ascii_lowercase();
    }
    let clean = text.chars().filter(|&c| !is_noise(c));
    let apart = clean.flat_map(|c| {
        let space = is_ideograph(c).then_some(' ');
        [space, Some(c), space].into_iter().flatten()
    });
    let bare = apart.nfd().filter(|c| c.is_ascii() || !c.is_mark_nonspacing());
    normal.extend(bare.flat_map(char::to_lowercase));
}

/// Control, format, private and unassigned characters. The tables are searched for what is not ASCII only.
fn is_noise(c: char) -> bool {
    if c.is_ascii() {
        c.is_ascii_control()
    } else {
        c == '\u{fffd}' || c.is_other()
    }
}

fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || (!c.is_ascii() && c.is_punctuation())
}

/// The ranges that BERT calls Chinese: ideographs, without kana and hangul.
fn is_ideograph(c: char) -> bool {
    matches!(u32::from(c),
        0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2b73f
        | 0x2b740..=0x2b81f | 0x2b920..=0x2ceaf | 0x2f800..=0x2fa1f)
}

/// xxh3 over the key's bytes. The keys are our own vocabulary, so there is no flood to defend against.
#[derive(Default)]
struct PieceHasher(u64);

impl Hasher for PieceHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
    /// The length prefix of a slice: the bytes alone tell short keys apart well enough.
    fn write_usize(&mut self, _: usize) {}
    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::models::wordpiece::WordPiece as ReferenceModel;
    use tokenizers::normalizers::bert::BertNormalizer;
    use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
    use tokenizers::{AddedToken, DecoderWrapper, PostProcessorWrapper, TokenizerImpl};

    type Reference =
        TokenizerImpl<ReferenceModel, BertNormalizer, BertPreTokenizer, PostProcessorWrapper, DecoderWrapper>;

    /// The source model's `tokenizer.json`, built by hand.
    fn reference() -> &'static Reference {
        static REFERENCE: OnceLock<Reference> = OnceLock::new();
        REFERENCE.get_or_init(|| {
            let vocab = ReferenceModel::read_bytes(VOCAB.as_bytes()).unwrap();
            let mut tokenizer = Reference::new(ReferenceModel::builder().vocab(vocab).build().unwrap());
            tokenizer
                .with_normalizer(Some(BertNormalizer::new(true, true, None, true)))
                .unwrap();
            tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
            tokenizer
                .add_special_tokens(SPECIAL.map(|token| AddedToken::from(token, true)))
                .unwrap();
            tokenizer
        })
    }

    fn reference_ids(text: &str) -> Vec<u32> {
        reference().encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    fn ids(text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        WordPiece::builtin().each_id(text, |id| ids.push(id));
        ids
    }

    #[track_caller]
    fn same_as_reference(text: &str) {
        assert_eq!(ids(text), reference_ids(text), "{text:?}");
    }

    #[test]
    fn hard_cases_are_tokenised_as_the_reference_does() {
        for text in [
            "",
            "Hello, World! don't re-use",
            "x[CLS]y [SEP] [MASK]. [mask] [PAD][UNK] [CLS",
            "naïve “quotes” — dash…",
            "a\u{0}b c\u{b}d\u{c}e \u{1}\u{7f} f",
            "你好世界 x你y",
            "zero\u{200b}width\u{a0}space\u{3000}wide",
            "e\u{301}\ne\u{301}\u{301} \u{301}lone",
            "## ##ing # ###",
            "[[CLS]] [CLS][SEP]é[MASK]ü[MASK [",
            "\u{37e} \u{1fef} \u{2000}x\u{2028}y\u{85}z",
            "ＦＵＬＬ width ﬁ ligature İstanbul ß",
            "👩‍👩‍👧 family \u{fffd} end",
        ] {
            same_as_reference(text);
        }
        same_as_reference(&"a".repeat(WORD_CHARS_MAX));
        same_as_reference(&"a".repeat(WORD_CHARS_MAX + 1));
        same_as_reference(&format!("{}!{}", "qz".repeat(60), "é".repeat(101)));
    }

    #[test]
    fn the_vocabulary_holds_words_that_it_does_not_break() {
        let holds = |text| WordPiece::builtin().holds(text);
        assert!(holds("election") && holds("Élection") && holds("und"));
        assert!(!holds("Verteidigung") && !holds("two words") && !holds("") && !holds("\u{1f5ff}"));
    }

    /// Every assigned character behaves in a word as in the reference; a slice of them each run, all of them in time.
    #[test]
    fn single_characters_are_tokenised_as_the_reference_does() {
        let every = if std::env::var_os("CAIRN_EXHAUSTIVE").is_some() {
            1
        } else {
            97
        };
        for c in ('\u{80}'..=char::MAX).step_by(every) {
            same_as_reference(&format!("a{c}b"));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn any_text_is_tokenised_as_the_reference_does(
            parts in prop::collection::vec(prop_oneof![
                4 => "[a-zA-Z0-9]{1,12}",
                2 => "[ \t\r\n]{1,3}",
                2 => "[!-/:-@\\[-`{-~]{1,4}",
                1 => "\\[(CLS|SEP|MASK|UNK|PAD)\\]",
                1 => "[\\x00-\\x1f\\x7f]",
                2 => "\\PC{1,4}",
                1 => any::<char>().prop_map(String::from),
            ], 0..24)
        ) {
            let text = parts.concat();
            prop_assert_eq!(ids(&text), reference_ids(&text));
        }
    }
}
