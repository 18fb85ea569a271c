//! What to search for when a question is one turn of a conversation: a stated rule, without a model.
//!
//! 1. A prompt **stands by itself** if it has at least [`ALONE_WORDS`] content words and does not point back. Content words
//!    are those that the analyzer of the collection's text keeps: all but stop words. It points back if one of its words is
//!    a pronoun or the like of its language (`it`, `they`, `that`, `there`, ..), or if it begins as a continuation does
//!    (`and`, `but`, `or`, `what about`, `how about`); [`LANGUAGES`] has both lists for seven languages. A prompt of more than
//!    [`LONG_WORDS`] words always stands by itself: it has said enough.
//! 2. If it does, it is searched as it is.
//! 3. If not, the content words of the last user turns are put behind it, newest turn first, each word once, those of the
//!    prompt left out. A turn is the last one looked at if it stands by itself, if it is the [`TURNS_MAX`]th, or if
//!    [`WORDS_MAX`] words are reached.
//!
//! Its language is the one of these whose stop words it has most of; those of the turns decide where that leaves a choice,
//! and then the language of the collection's text, or English. One list for all was tried before: `er`, `il` and `en` are
//! pronouns, and an ER diagram, the IL of .NET and an `en` locale pointed back.
//!
//! Turns of the assistant are not used: they are long, they repeat what was retrieved before, and what a model made up
//! would be searched for.

use std::collections::HashSet;

use cairn_engine::schema::AnalyzerSpec;
use cairn_engine::text::analyzer::Analyzer;
use unicode_segmentation::UnicodeSegmentation;

/// Content words from which on a prompt says what it is about.
pub const ALONE_WORDS: usize = 3;
/// Words beyond which a prompt is taken as it is, whatever it points to.
pub const LONG_WORDS: usize = 48;
/// User turns that are looked at.
pub const TURNS_MAX: usize = 3;
/// Words that are taken from them: as many as a long question has.
pub const WORDS_MAX: usize = 32;
/// Bytes that are taken from them, for words that are no words.
const BYTES_MAX: usize = 1_024;
/// Bytes of a turn that are looked at, from its end: a pasted document is not a question.
const TURN_BYTES_MAX: usize = 8 << 10;

/// What shows in one language that a text goes on from what was said.
#[derive(Debug)]
pub struct Language {
    /// As schemas name it.
    pub name: &'static str,
    /// Words that stand for something said before. With an apostrophe at its end, one stands before another word (`c'est`).
    pub pointing: &'static [&'static str],
    /// How a text begins that goes on.
    pub continuing: &'static [&'static str],
}

/// All there are lists for; English first.
#[rustfmt::skip]
pub static LANGUAGES: [Language; 7] = [
    Language {
        name: "english",
        pointing: &[
            "it", "its", "it's", "itself", "they", "them", "their", "theirs", "he", "him", "his", "she", "her", "hers",
            "this", "that", "these", "those", "there", "then", "one", "ones", "both", "same", "such", "former", "latter",
            "else", "another",
        ],
        continuing: &["and", "but", "or", "so", "also", "what about", "how about"],
    },
    Language {
        name: "german",
        pointing: &[
            "es", "er", "sie", "ihm", "ihn", "ihr", "ihre", "ihren", "dies", "diese", "dieser", "dieses", "dessen", "deren",
            "dort", "davon", "dafür", "damit", "dazu", "daran", "dabei", "darin", "darüber",
        ],
        continuing: &["und", "aber", "oder", "was ist mit"],
    },
    Language {
        name: "french",
        // Without `en`, which is far more often a preposition.
        pointing: &[
            "il", "elle", "ils", "elles", "ce", "c'", "cela", "ça", "celui", "celle", "ceux", "celles", "ceci", "leur",
            "leurs", "lui", "y",
        ],
        continuing: &["et", "mais", "ou"],
    },
    Language {
        name: "spanish",
        pointing: &[
            "ello", "ella", "ellos", "ellas", "esto", "eso", "este", "esta", "estos", "estas", "ese", "esa", "esos", "esas",
            "allí",
        ],
        continuing: &["y", "pero", "o"],
    },
    Language {
        name: "italian",
        pointing: &[
            "esso", "essa", "essi", "esse", "questo", "questa", "questi", "queste", "quello", "quella",
        ],
        continuing: &["e", "ma", "o"],
    },
    Language {
        name: "portuguese",
        pointing: &["isso", "isto", "aquilo", "ele", "ela", "eles", "elas", "este", "esta", "esse", "essa"],
        continuing: &["e", "mas", "ou"],
    },
    Language {
        name: "dutch",
        pointing: &["hij", "zij", "deze", "dit", "daar", "het"],
        continuing: &["en", "maar", "of"],
    },
];

impl Language {
    fn points(&self, word: &str) -> bool {
        let listed = |word: &str| self.pointing.contains(&word);
        // `c'est` and `qu'il` are written as one word.
        listed(word)
            || word.split_once('\'').is_some_and(|(before, after)| {
                self.has_elisions()
                    && (listed(after) || self.pointing.iter().any(|p| p.strip_suffix('\'') == Some(before)))
            })
    }

    fn has_elisions(&self) -> bool {
        matches!(self.name, "french" | "italian")
    }

    fn continues(&self, words: &[String]) -> bool {
        let begins = |with: &str| with.split(' ').eq(words.iter().take(with.split(' ').count()));
        self.continuing.iter().any(|with| begins(with))
    }

    /// How many of the words are stop words of it.
    fn stop_words(&self, words: &[String]) -> usize {
        let spec = AnalyzerSpec {
            language: self.name.to_owned(),
            ..AnalyzerSpec::default()
        };
        let Ok(analyzer) = Analyzer::shared(&spec) else {
            return 0;
        };
        let is_stop = |word: &&String| {
            let mut kept = false;
            analyzer.analyze(word, &mut |_| kept = true);
            !kept
        };
        words.iter().filter(is_stop).count()
    }

    /// The languages that have most of their stop words in a text: one, or several that are as likely.
    fn likely(words: &[String]) -> Vec<&'static Self> {
        let counts: Vec<usize> = LANGUAGES.iter().map(|language| language.stop_words(words)).collect();
        let most = counts.iter().copied().max().unwrap_or_default();
        let likely = LANGUAGES.iter().zip(counts).filter(|(_, n)| *n == most);
        likely.map(|(language, _)| language).collect()
    }

    /// The language of `texts`, of which each decides only what those before it leave open.
    fn of<'t>(texts: impl IntoIterator<Item = &'t str>, otherwise: &str) -> &'static Self {
        let mut open: Vec<&'static Self> = LANGUAGES.iter().collect();
        for text in texts {
            let likely = Self::likely(&words(text));
            if likely.iter().any(|one| open.iter().any(|other| one.name == other.name)) {
                open.retain(|one| likely.iter().any(|other| one.name == other.name));
            }
            if let [only] = open[..] {
                return only;
            }
        }
        let named = open.iter().find(|language| language.name == otherwise);
        named.copied().unwrap_or(open[0])
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who spoke.
    pub by: Speaker,
    /// What was said.
    pub content: String,
}

/// Who spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// Who asks.
    User,
    /// Who answers.
    Assistant,
}

/// What to search for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condensed {
    /// The prompt, with words behind it if it does not stand by itself.
    pub query: String,
    /// How many turns gave words.
    pub turns: usize,
}

/// Applies the rule. `language` is that of the collection's text, and `is_content` says whether a word is one.
pub fn condense(prompt: &str, turns: &[Turn], language: &str, is_content: &dyn Fn(&str) -> bool) -> Condensed {
    let alone = Condensed {
        query: prompt.to_owned(),
        turns: 0,
    };
    let asked = || {
        turns
            .iter()
            .rev()
            .filter(|turn| turn.by == Speaker::User)
            .take(TURNS_MAX)
    };
    let contents = || asked().map(|turn| tail(&turn.content));
    let own = Language::of(std::iter::once(prompt).chain(contents()), language);
    if stands_by_itself(prompt, own, is_content) {
        return alone;
    }
    let mut known: HashSet<String> = prompt.unicode_words().map(lower).collect();
    let mut taken = Taken::default();
    let mut used = 0;
    for content in contents() {
        let theirs = Language::of([content], own.name);
        let before = taken.words;
        taken.take(content, &mut known, theirs, is_content);
        used += usize::from(taken.words > before);
        if taken.is_full() || stands_by_itself(content, theirs, is_content) {
            break;
        }
    }
    match taken.words {
        0 => alone,
        _ => Condensed {
            query: format!("{} {}", prompt.trim_end(), taken.text),
            turns: used,
        },
    }
}

fn stands_by_itself(text: &str, language: &Language, is_content: &dyn Fn(&str) -> bool) -> bool {
    let words = words(text);
    if words.len() > LONG_WORDS {
        return true;
    }
    let points = words.iter().any(|word| language.points(word)) || language.continues(&words);
    !points && words.iter().filter(|word| is_content(word)).count() >= ALONE_WORDS
}

/// The first words of a text in lower case, as many as it takes to know that it is long.
fn words(text: &str) -> Vec<String> {
    let words = text.unicode_words().take(LONG_WORDS + 1);
    words.map(lower).collect()
}

/// People's keyboards write `it’s`.
fn lower(word: &str) -> String {
    word.to_lowercase().replace('’', "'")
}

/// The end of a long text, from a word on.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(TURN_BYTES_MAX);
    let from = (from..=text.len())
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(text.len());
    let text_from = &text[from..];
    match (from, text_from.find(char::is_whitespace)) {
        (1.., Some(at)) => &text_from[at..],
        _ => text_from,
    }
}

/// Words taken so far.
#[derive(Default)]
struct Taken {
    text: String,
    words: usize,
}

impl Taken {
    fn is_full(&self) -> bool {
        self.words >= WORDS_MAX || self.text.len() >= BYTES_MAX
    }

    fn take(
        &mut self,
        from: &str,
        known: &mut HashSet<String>,
        language: &Language,
        is_content: &dyn Fn(&str) -> bool,
    ) {
        let mut end = None;
        for (at, word) in from.unicode_word_indices() {
            let lower = lower(word);
            // One character may stand in many words: ideographs do.
            let several = word.chars().nth(1).is_some();
            if self.is_full() || self.text.len() + word.len() > BYTES_MAX {
                return;
            }
            if !is_content(&lower) || language.points(&lower) || several && !known.insert(lower) {
                continue;
            }
            // What is written together stays together: Chinese and Japanese put no space between words.
            if end != Some(at) && !self.text.is_empty() {
                self.text.push(' ');
            }
            self.text.push_str(word);
            self.words += 1;
            end = Some(at + word.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the service asks: a word is content if the English analyzer keeps it.
    fn is_content(word: &str) -> bool {
        let mut kept = false;
        Analyzer::shared(&AnalyzerSpec::default())
            .unwrap()
            .analyze(word, &mut |_| kept = true);
        kept
    }

    fn user(content: &str) -> Turn {
        Turn {
            by: Speaker::User,
            content: content.to_owned(),
        }
    }

    fn assistant(content: &str) -> Turn {
        Turn {
            by: Speaker::Assistant,
            content: content.to_owned(),
        }
    }

    fn query(prompt: &str, turns: &[Turn]) -> String {
        condense(prompt, turns, "english", &is_content).query
    }

    #[test]
    fn a_prompt_that_stands_by_itself_is_searched_as_it_is() {
        let turns = [user("How does etcd elect a leader?")];
        for prompt in [
            "Which port does the kubelet listen on?",
            "How do I install Prometheus on Debian?",
            " white space stays: Prometheus alert rules \n",
        ] {
            assert_eq!(
                condense(prompt, &turns, "english", &is_content),
                Condensed {
                    query: prompt.to_owned(),
                    turns: 0
                }
            );
        }
    }

    #[test]
    fn what_points_back_or_is_short_takes_the_words_of_the_turn_before() {
        let turns = [
            user("How does etcd elect a leader?"),
            assistant("By Raft, with votes of a majority."),
        ];
        let cases = [
            ("Why?", "Why? etcd elect leader"),
            (
                "What happens when it loses the quorum of members?",
                "What happens when it loses the quorum of members? etcd elect leader",
            ),
            (
                "And how long does an election take usually?",
                "And how long does an election take usually? etcd elect leader",
            ),
            (
                "What about Consul, Nomad and Vault?",
                "What about Consul, Nomad and Vault? etcd elect leader",
            ),
            ("leader timeout", "leader timeout etcd elect"),
        ];
        for (prompt, expected) in cases {
            assert_eq!(query(prompt, &turns), expected);
        }
    }

    #[test]
    fn a_chain_of_follow_ups_is_followed_back_to_the_turn_that_stands_by_itself() {
        let turns = [
            user("Which fruit is best for jam?"),
            user("How does etcd elect a leader?"),
            assistant("..."),
            user("And how long does it take?"),
            assistant("..."),
        ];
        let condensed = condense("Can I change that?", &turns, "english", &is_content);
        assert_eq!(
            condensed,
            Condensed {
                query: "Can I change that? long take etcd elect leader".into(),
                turns: 2
            }
        );
    }

    #[test]
    fn pronouns_of_other_languages_point_nowhere() {
        let turns = [user("How does etcd elect a leader?")];
        for prompt in [
            "How do I draw the ER diagram of a database schema?",
            "Which opcodes does the IL compiler of Rotor emit?",
            "What does the en locale change in sorted output?",
            "Wie ändere ich die Option 'it' im Menü der Anwendung?",
        ] {
            assert_eq!(query(prompt, &turns), prompt);
        }
        // Where they are pronouns they do.
        let cases = [
            (
                "Wie oft wählt er einen neuen Anführer?",
                "Wie erreicht etcd eine Mehrheit?",
            ),
            (
                "Comment est-ce qu'il choisit un nouveau chef de groupe ?",
                "Comment etcd réplique le journal ?",
            ),
            (
                "Est-ce que c'est toujours la même majorité de membres ?",
                "Comment etcd réplique le journal ?",
            ),
            (
                "¿Con qué frecuencia elige este un nuevo líder?",
                "¿Cómo alcanza etcd una mayoría?",
            ),
            (
                "En hoe vaak kiest etcd een nieuwe leider?",
                "Hoe bereikt etcd een meerderheid?",
            ),
            (
                "It’s slow, how long does an election take usually?",
                "How does etcd elect a leader?",
            ),
        ];
        for (prompt, before) in cases {
            let got = query(prompt, &[user(before)]);
            assert!(got.len() > prompt.len() && got.starts_with(prompt), "{got}");
        }
    }

    #[test]
    fn the_language_is_that_of_the_prompt_then_of_the_turns_then_of_the_collection() {
        let of = |texts: &[&str], otherwise: &str| Language::of(texts.iter().copied(), otherwise).name;
        assert_eq!(
            of(&["Und warum ist das so?", "How does etcd elect a leader?"], "english"),
            "german"
        );
        assert_eq!(
            of(&["Raft timeout", "Wie wählt etcd den Anführer?"], "english"),
            "german"
        );
        assert_eq!(of(&["Raft timeout"], "dutch"), "dutch");
        assert_eq!(of(&["Raft timeout"], "none"), "english");
        assert_eq!(of(&[], "greek"), "english");
    }

    #[test]
    fn without_anything_to_take_the_prompt_stays() {
        for turns in [
            vec![],
            vec![assistant("Raft elects leaders.")],
            vec![user("")],
            vec![user("it is that")],
        ] {
            assert_eq!(query("Why?", &turns), "Why?");
        }
    }

    #[test]
    fn words_that_are_written_together_stay_together() {
        assert_eq!(
            query("它呢？", &[user("etcd 如何选举领导者")]),
            "它呢？ etcd 如何选举领导者"
        );
        assert_eq!(
            query("Und warum?", &[user("Wie wählt etcd den Anführer?")]),
            "Und warum? Wie wählt etcd den Anführer"
        );
    }

    #[test]
    fn a_long_prompt_points_to_itself_and_a_long_turn_gives_its_end() {
        let long = "it ".repeat(LONG_WORDS + 1);
        assert_eq!(query(&long, &[user("etcd")]), long);
        let pasted = format!("{}How does etcd elect a leader?", "filler ".repeat(10_000));
        let got = query("Why?", &[user(&pasted)]);
        assert!(
            got.len() < "Why? ".len() + BYTES_MAX && got.contains("filler etcd elect leader"),
            "{got}"
        );
    }

    proptest! {
        #[test]
        fn any_conversation_gives_a_bounded_query_that_begins_with_the_prompt(
            prompt in ".{0,60}", turns in prop::collection::vec((any::<bool>(), "(it|and|etcd|leader|[a-z]{1,9}|中|\\PC){0,60}[ ]?.{0,50}"), 0..8),
        ) {
            let turns: Vec<Turn> =
                turns.iter().map(|(is_user, text)| if *is_user { user(text) } else { assistant(text) }).collect();
            let got = condense(&prompt, &turns, "english", &is_content);
            prop_assert!(got.query.starts_with(prompt.trim_end()));
            let added = &got.query[prompt.trim_end().len()..];
            prop_assert!(added.len() <= BYTES_MAX + WORDS_MAX + prompt.len());
            prop_assert!(got.turns <= TURNS_MAX);
            prop_assert!(got.turns > 0 || got.query == prompt);
        }
    }
}
