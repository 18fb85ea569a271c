//! Is a text in a language that an embedder was made for?
//!
//! An English model gives every text a vector, also those that it cannot read: fused with BM25, such a leg only adds
//! noise. So a hybrid leaves it out, and says so, when the text shows that it is in another language. The judgment is one
//! sided: without evidence the text counts as English, because a wrong "foreign" costs an English question its dense leg.
//!
//! Measured where the rule was chosen, SQuAD train, and where it is meant to speak up, XQuAD (`cairn-bench squad` asks
//! again): docs/performance.md has the shares. Names and search terms of one to three words are never evidence.
//!
//! Not done: which language it is, mixed texts, and models of one language that is not English (set `languages = "any"`
//! for those, as for multilingual ones).

use serde::{Deserialize, Serialize};
use whatlang::Lang;

use super::embed::WordPiece;

/// What an embedder was made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Languages {
    /// English only: most small models, and the built-in one.
    #[default]
    English,
    /// Whatever it is given; nothing is checked.
    Any,
}

impl Languages {
    /// False if the text shows that it is in another language.
    pub fn cover(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::English => !foreign(text),
        }
    }
}

/// Bytes that are looked at: enough to know, and a bound on the work.
const LOOKED_AT: usize = 2_000;
/// From this share of letters of other scripts on, a text is not English. An English sentence that quotes a Greek word
/// stays below, a Chinese one that holds a Latin name is above.
const FOREIGN_SCRIPT: f64 = 0.3;
/// From here on are ideographs, kana and hangul. Each counts twice, because it says what several letters say.
const EAST_ASIAN: char = '\u{2e80}';
/// Fewer words of letters are names or search terms, in which nothing tells languages apart.
const WORDS_MIN: usize = 4;
/// One function word of English in so many words, or more, is English: questions have one in four.
const FUNCTION_WORD_IN: usize = 12;
/// Evidence from which on a text in Latin letters is foreign. At 1.0 it is found in 1.5 % of questions stripped of their
/// function words, at this value in 0.5 %, and two or three points fewer of German and Spanish questions are seen.
const EVIDENCE_MIN: f64 = 1.2;

/// Words that are frequent in English and no frequent words of other languages in Latin letters (so no `a`, `in`, `is`,
/// `was`, `to`, `die`).
const FUNCTION_WORDS: [&str; 30] = [
    "the", "of", "who", "whom", "whose", "what", "which", "when", "where", "how", "why", "did", "does", "do", "were",
    "and", "with", "from", "this", "that", "by", "are", "has", "have", "had", "been", "it", "its", "for", "not",
];

fn foreign(text: &str) -> bool {
    let text = head(text);
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    if letters == 0 {
        return false;
    }
    let others = text.chars().filter(|&c| c.is_alphabetic() && !is_latin(c));
    let others: usize = others.map(|c| if c < EAST_ASIAN { 1 } else { 2 }).sum();
    if others as f64 >= FOREIGN_SCRIPT * letters as f64 {
        return true;
    }
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let of_english = words.iter().filter(|w| FUNCTION_WORDS.contains(&w.as_str())).count();
    if words.len() < WORDS_MIN || of_english * FUNCTION_WORD_IN >= words.len() {
        return false;
    }
    evidence(text, &words) > EVIDENCE_MIN
}

/// How sure trigrams are of another language (0..1), and twice the share of words that the English vocabulary does not
/// hold whole. Either alone errs: trigrams on questions full of names, the vocabulary on words that languages share.
fn evidence(text: &str, words: &[String]) -> f64 {
    let Some(detected) = whatlang::detect(text).filter(|d| d.lang() != Lang::Eng) else {
        return 0.0;
    };
    let vocabulary = WordPiece::builtin();
    let broken = words.iter().filter(|word| !vocabulary.holds(word)).count();
    detected.confidence() + 2.0 * broken as f64 / words.len() as f64
}

fn head(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOOKED_AT)]
}

/// Latin letters with all their accents, and modifier letters.
fn is_latin(c: char) -> bool {
    matches!(u32::from(c), 0..=0x2ff | 0x1d00..=0x1eff | 0x2c60..=0x2c7f | 0xa720..=0xa7ff | 0xfb00..=0xfb06 | 0xff21..=0xff5a)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn english_is_covered_also_where_it_is_full_of_foreign_names() {
        for text in [
            "",
            "42 + 17 = ?",
            "leader election",
            "Karabakh Hangzhou Zhejiang",
            "Who wrote Doctrina Christiana en letra y lengua china?",
            "Who wrote Hasan Mellâh yâhud Sırr İçinde Esrâr?",
            "How are ergänzungsschulen funded?",
            "Which language did Ljudevit Gaj and Vuk Karadzic prefer?",
            "What does the Greek word λόγος mean?",
            "etcd raft snapshot compaction interval flag default",
        ] {
            assert!(Languages::English.cover(text), "{text}");
        }
    }

    #[test]
    fn other_languages_are_seen() {
        for text in [
            "黑豹队的防守丢了多少分？",
            "Internet2是什么",
            "كم عدد النقاط التي خسرها دفاع بانثرز؟",
            "Πόσους πόντους έδωσε η άμυνα των Πάνθηρων;",
            "पैंथर्स की डिफ़ेंस ने कितने अंक दिए?",
            "Сколько очков отдала защита Пантер?",
            "ทีมรับของแพนเทอร์สยอมเสียกี่แต้ม",
            "Wie viele Punkte gab die Verteidigung der Panthers ab?",
            "¿Cuántos puntos cedió la defensa de los Panthers?",
            "Panthers savunması kaç puan kaybetti?",
            "Hậu vệ của Panthers đã để thua bao nhiêu điểm?",
        ] {
            assert!(!Languages::English.cover(text), "{text}");
            assert!(Languages::Any.cover(text), "{text}");
        }
    }

    #[test]
    fn one_english_title_does_not_make_a_foreign_text_english() {
        let text = "¿Qué enemigo recurrente y peligroso del conocido Doctor Who también puede considerarse un verdadero Señor del Tiempo?";
        assert!(!Languages::English.cover(text));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}", times in 1usize..200) {
            Languages::English.cover(&text.repeat(times));
        }
    }
}
