//! Chunks: where cuts fall, and the promises in the module's head for any text.

use std::time::Instant;

use proptest::prelude::*;

use super::fill::{GAP_BYTES_MAX, TOKEN_BYTES_MAX, longest};
use super::outline::{HEADING_CHARS_MAX, body_start};
use super::starts::sentence_starts;
use super::*;
use crate::rag::tokens;

/// The simplest counter: words. Small numbers make cuts easy to see.
fn words(text: &str) -> usize {
    text.split_whitespace().count()
}

fn settings(max_tokens: usize, overlap_tokens: usize) -> ChunkSettings {
    ChunkSettings {
        max_tokens,
        overlap_tokens,
        strategy: Cut::Structure,
    }
}

const STRATEGIES: [Cut; 3] = [Cut::Structure, Cut::Sentence, Cut::Fixed];

fn by(strategy: Cut, max_tokens: usize, overlap_tokens: usize) -> ChunkSettings {
    ChunkSettings {
        strategy,
        ..settings(max_tokens, overlap_tokens)
    }
}

fn texts(text: &str, format: TextFormat, max: usize, overlap: usize) -> Vec<String> {
    chunk(text, format, &settings(max, overlap), &words)
        .into_iter()
        .map(|chunk| chunk.text)
        .collect()
}

#[track_caller]
fn check(markdown: &str, max: usize, overlap: usize, expected: &[&str]) {
    assert_eq!(
        texts(markdown, TextFormat::Markdown, max, overlap),
        expected,
        "{markdown:?}"
    );
}

#[track_caller]
fn check_plain(text: &str, max: usize, overlap: usize, expected: &[&str]) {
    assert_eq!(texts(text, TextFormat::Plain, max, overlap), expected, "{text:?}");
}

#[test]
fn a_small_text_is_one_chunk_and_an_empty_one_is_none() {
    check_plain("one two\n\nthree\n", 10, 0, &["one two\n\nthree"]);
    for empty in ["", " \n\t\n", "\u{feff}", "---\ntitle: x\n---\n \n"] {
        check(empty, 10, 0, &[]);
    }
}

#[test]
fn headings_cut_even_where_there_is_room() {
    check(
        "intro\n\n# A\n\na text\n\n# B\n\nb text\n",
        100,
        0,
        &["intro\n\n", "# A\n\na text\n\n", "# B\n\nb text"],
    );
}

#[test]
fn chunks_know_the_path_of_their_headings() {
    let text = "# Guide {#guide}\n\nx\n\n## *Set* `up`\n\nx\n\n### Deep\n\nx\n\n## Use\n\nx\n\nTitle\ntwo\n===\n\nx\n";
    let chunks = chunk(text, TextFormat::Markdown, &settings(50, 0), &words);
    let paths: Vec<String> = chunks.iter().map(|chunk| chunk.heading.join(" > ")).collect();
    assert_eq!(
        paths,
        [
            "Guide",
            "Guide > Set up",
            "Guide > Set up > Deep",
            "Guide > Use",
            "Title two"
        ]
    );
}

#[test]
fn a_heading_without_text_goes_with_the_deeper_one_below_but_not_with_its_sibling() {
    let text = "# Guide\n\n## Install\n\nRun it.\n\n## Empty\n\n## Use\n\nUse it.\n";
    let chunks = chunk(text, TextFormat::Markdown, &settings(50, 0), &words);
    let seen: Vec<(&str, String)> = chunks
        .iter()
        .map(|chunk| (chunk.text.trim(), chunk.heading.join(" > ")))
        .collect();
    assert_eq!(
        seen,
        [
            ("# Guide\n\n## Install\n\nRun it.", "Guide > Install".to_owned()),
            ("## Empty", "Guide > Empty".to_owned()),
            ("## Use\n\nUse it.", "Guide > Use".to_owned()),
        ]
    );
}

#[test]
fn what_looks_like_a_heading_in_code_quotes_and_lists_is_none() {
    check(
        "```sh\n# comment\n```\n\n> # quoted\n\n- # item\n",
        100,
        0,
        &["```sh\n# comment\n```\n\n> # quoted\n\n- # item"],
    );
}

#[test]
fn blocks_are_kept_whole_while_they_fit() {
    check("a b c\n\nd e f\n\ng h\n", 5, 0, &["a b c\n\n", "d e f\n\ng h"]);
    check("- a b\n- c d\n- e f\n", 6, 0, &["- a b\n- c d\n", "- e f"]);
    check(
        "a b c d\n\n```\nx y\nz\n```\n",
        6,
        0,
        &["a b c d\n\n", "```\nx y\nz\n```"],
    );
    check_plain("a b c\nd\n  \ne f\n", 5, 0, &["a b c\nd\n  \n", "e f"]);
}

#[test]
fn a_block_too_large_is_cut_at_sentences_and_code_at_lines() {
    check(
        "One two three. Four five! Six seven?\n",
        3,
        0,
        &["One two three. ", "Four five! ", "Six seven?"],
    );
    check("```\na. B\nc. D\n```\n", 3, 0, &["```\na. B\n", "c. D\n```"]);
    check(
        "| a | b |\n|---|---|\n| 1 | 2 |\n",
        6,
        0,
        &["| a | b |\n|---|---|\n", "| 1 | 2 |"],
    );
}

#[test]
fn a_sentence_too_large_is_cut_at_lines_then_words_then_graphemes() {
    check_plain("a b c\nd e f\ng", 3, 0, &["a b c\n", "d e f\n", "g"]);
    check_plain("a b c d e", 2, 0, &["a b ", "c d ", "e"]);
    let chars = |text: &str| text.chars().count();
    let cut = chunk("ab\u{301}cde", TextFormat::Plain, &settings(3, 0), &chars);
    assert_eq!(
        cut.iter().map(|chunk| chunk.text.as_str()).collect::<Vec<_>>(),
        ["ab\u{301}", "cde"]
    );
    // A cluster larger than a chunk is cut itself.
    let cut = chunk("a\u{301}\u{302}\u{303}", TextFormat::Plain, &settings(3, 0), &chars);
    assert_eq!(cut.iter().map(|chunk| chunk.tokens).max(), Some(3));
}

#[test]
fn the_one_chunk_that_may_be_too_large_is_a_single_character() {
    let bytes = |text: &str| text.len();
    let cut = chunk("x👩y", TextFormat::Plain, &settings(2, 0), &bytes);
    assert_eq!(
        cut.iter()
            .map(|chunk| (chunk.text.as_str(), chunk.tokens))
            .collect::<Vec<_>>(),
        [("x", 1), ("👩", 4), ("y", 1)]
    );
}

#[test]
fn a_heading_is_not_left_alone_when_the_block_below_can_be_cut() {
    check(
        "# A heading\n\nOne two. Three four.\n",
        6,
        0,
        &["# A heading\n\nOne two. ", "Three four."],
    );
}

#[test]
fn overlap_repeats_whole_sentences_of_the_same_section() {
    check(
        "One two. Three four. Five six.\n",
        4,
        2,
        &["One two. Three four.", "Three four. Five six."],
    );
    check(
        "One two. Three four five. Six.\n",
        5,
        2,
        &["One two. Three four five. ", "Six."],
    );
    check(
        "# A\n\nOne two.\n\n# B\n\nThree.\n",
        8,
        4,
        &["# A\n\nOne two.\n\n", "# B\n\nThree."],
    );
    check_plain("a b\nc d\n\ne f g\n", 5, 2, &["a b\nc d\n\n", "e f g"]);
    check(
        "```\na b\nc d\n```\n\ne f\n",
        6,
        2,
        &["```\na b\nc d\n```", "```\n\ne f"],
    );
}

#[test]
fn each_strategy_cuts_where_it_says() {
    let text = "# A\n\nOne two three. Four five.\n\nSix seven eight. Nine.\n\n# B\n\nTen eleven.\n";
    let cut = |strategy, overlap| -> Vec<(String, String)> {
        chunk(text, TextFormat::Markdown, &by(strategy, 7, overlap), &words)
            .into_iter()
            .map(|chunk| (chunk.text, chunk.heading.join(" > ")))
            .collect()
    };
    let expected = |chunks: &[(&str, &str)]| -> Vec<(String, String)> {
        let own = |(text, heading): &(&str, &str)| ((*text).to_owned(), (*heading).to_owned());
        chunks.iter().map(own).collect()
    };
    // Blocks stay whole while they fit, so the first chunk has room left.
    assert_eq!(
        cut(Cut::Structure, 0),
        expected(&[
            ("# A\n\nOne two three. Four five.\n\n", "A"),
            ("Six seven eight. Nine.\n\n", "A"),
            ("# B\n\nTen eleven.", "B"),
        ])
    );
    assert_eq!(
        cut(Cut::Sentence, 0),
        expected(&[
            ("# A\n\nOne two three. Four five.\n\n", "A"),
            ("Six seven eight. Nine.\n\n", "A"),
            ("# B\n\nTen eleven.", "B"),
        ])
    );
    assert_eq!(
        cut(Cut::Fixed, 0),
        expected(&[
            ("# A\n\nOne two three. Four five.\n\n", "A"),
            ("Six seven eight. Nine.\n\n# B\n\nTen ", "A"),
            ("eleven.", "B"),
        ])
    );
    assert_eq!(
        cut(Cut::Fixed, 2),
        expected(&[
            ("# A\n\nOne two three. Four five.", "A"),
            ("Four five.\n\nSix seven eight. Nine.\n\n#", "A"),
            ("Nine.\n\n# B\n\nTen eleven.", "A"),
        ])
    );
    // A sentence goes where there is room, whatever block it is of.
    let text = "One two.\n\nThree four five. Six seven. Eight.\n";
    let cut = |strategy| -> Vec<String> {
        let chunks = chunk(text, TextFormat::Markdown, &by(strategy, 6, 0), &words);
        chunks.into_iter().map(|chunk| chunk.text).collect()
    };
    assert_eq!(
        cut(Cut::Structure),
        ["One two.\n\n", "Three four five. Six seven. Eight."]
    );
    assert_eq!(
        cut(Cut::Sentence),
        ["One two.\n\nThree four five. ", "Six seven. Eight."]
    );
}

#[test]
fn sentences_end_where_a_reader_would_end_them() {
    for (text, sentences) in [
        ("One. Two! Three? Four… Five", 5),
        ("e.g. this, i.e. that", 1),
        ("J. Smith met R. Roe. They left.", 2),
        ("1. First thing", 1),
        ("Version 1.2.3 is out", 1),
        ("He said \"Stop.\" Then (he left.) Now.", 3),
        ("你好。再见！好吗？「好。」他说", 5),
        ("What?! Really... Yes.", 3),
        ("मैं हूँ। तुम हो।", 2),
        ("no end", 1),
    ] {
        let starts = sentence_starts(text);
        assert_eq!(starts.len(), sentences, "{text:?} {starts:?}");
    }
}

#[test]
fn front_matter_is_no_chunk_and_gives_the_title() {
    for (text, title) in [
        ("---\ntitle: Pods # the basics\nweight: 1\n---\n\nText.\n", Some("Pods")),
        ("---\r\ntitle: \"A \\\"B\\\": C\"\r\n---\r\nText.\n", Some("A \"B\": C")),
        ("---\ntitle: 'It''s'\n...\nText.\n", Some("It's")),
        (
            "\u{feff}+++\ntitle = \"Toml\"\n[menu]\ntitle = \"no\"\n+++\nText.\n",
            Some("Toml"),
        ),
        ("+++\n[menu]\ntitle = \"no\"\n+++\nText.\n", None),
        ("---\n  title: nested\ntitles: no\n---\nText.\n", None),
        ("---\ntitle: >\n  folded\n---\nText.\n", None),
    ] {
        assert_eq!(title_of(text, TextFormat::Markdown).as_deref(), title, "{text:?}");
        check(text, 100, 0, &["Text."]);
    }
}

#[test]
fn without_front_matter_the_first_heading_is_the_title() {
    for (text, title) in [
        ("text\n\n## Some `code` & *more*\n\n# Later\n", Some("Some code & more")),
        ("---\nweight: 1\n---\n# Head\n", Some("Head")),
        ("---\ntitle: unclosed\n", None),
        ("just text\n", None),
    ] {
        assert_eq!(title_of(text, TextFormat::Markdown).as_deref(), title, "{text:?}");
        assert_eq!(title_of(text, TextFormat::Plain), None);
    }
    let long = format!("# {}\n", "word ".repeat(1000));
    assert_eq!(
        title_of(&long, TextFormat::Markdown).unwrap().chars().count(),
        HEADING_CHARS_MAX + 1
    );
}

#[test]
fn shortcodes_comments_and_link_definitions_stay() {
    let text = "{{< note >}}\nBody.\n{{< /note >}}\n\n<!-- hidden -->\n\n[a]: http://x.y\n";
    check(text, 100, 0, &[text.trim_end()]);
}

#[test]
fn a_word_that_counts_little_is_still_bounded_in_bytes() {
    let base64 = "QUJD".repeat(25_000);
    let one_token = |text: &str| words(text);
    let chunks = chunk(&base64, TextFormat::Plain, &settings(16, 0), &one_token);
    assert!(chunks.iter().all(|chunk| chunk.text.len() <= 16 * TOKEN_BYTES_MAX));
    assert!(
        chunks.len() < 2 * base64.len() / (16 * TOKEN_BYTES_MAX),
        "{} chunks",
        chunks.len()
    );
}

#[test]
fn longest_finds_the_bound_to_within_an_eighth_and_tries_few() {
    for available in [1, 2, 3, 10, 1000] {
        for bound in [1, 2, 7, 300, 1000, 5000] {
            for guess in [0, 1, 5, 400, 10_000] {
                let tried = std::cell::Cell::new(0);
                let found = longest(available, guess, |length| {
                    tried.set(tried.get() + 1);
                    length <= bound
                });
                let best = bound.min(available);
                assert!(
                    found <= best && found >= best - best / 8,
                    "{available} {bound} {guess}: {found}"
                );
                assert!(tried.get() <= 24, "{available} {bound} {guess}: {}", tried.get());
            }
        }
    }
}

// ---- for any text ----

/// The promises in the module's head.
fn keeps_its_promises(
    text: &str,
    format: TextFormat,
    settings: &ChunkSettings,
    count: &dyn Fn(&str) -> usize,
) -> Result<Vec<Chunk>, TestCaseError> {
    let chunks = chunk(text, format, settings, count);
    let mut covered = body_start(text, format);
    let mut last = (None, 0);
    for chunk in &chunks {
        let (from, to) = chunk.span;
        prop_assert_eq!(text.get(from..to), Some(chunk.text.as_str()));
        prop_assert!(!chunk.text.trim().is_empty());
        prop_assert_eq!(chunk.tokens, count(&chunk.text));
        prop_assert!(chunk.tokens <= settings.max_tokens.max(1) || chunk.text.trim().chars().count() == 1);
        prop_assert!(last.0 < Some(from) && last.1 < to);
        if covered < from {
            prop_assert!(text[covered..from].trim().is_empty(), "lost {:?}", &text[covered..from]);
        }
        covered = covered.max(to);
        last = (Some(from), to);
    }
    prop_assert!(text[covered..].trim().is_empty(), "lost {:?}", &text[covered..]);
    Ok(chunks)
}

fn one_of(parts: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::sample::select(parts).prop_map(str::to_owned)
}

fn markdownish() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        6 => "[a-zA-Z]{1,9}[.!?,]? ",
        3 => one_of(&["\n", "\n\n", "\r\n", "  \n", "\n    ", "\n\t"]),
        2 => "\n#{1,4} [a-z]{0,5}\n",
        1 => one_of(&[
            "\n```\n", "\n- ", "\n1. ", "\n> ", "> > ", "\n| a | b |\n|---|---|\n| c ", "\n---\n", "---\ntitle: x\n", "+++\n",
            "\n===\n", "[a]: b\n", "<!-- x -->", "{{< y >}}", "<div>\n", "[^1]: note ", "| ", "`", "**", "\u{feff}", "\\", "&amp;",
        ]),
        1 => "[。！？你好」]{1,6}",
        1 => "\\PC{1,6}",
        1 => any::<char>().prop_map(String::from),
    ];
    prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
}

/// A counter whose sums are far off, in both directions.
fn contrary(text: &str) -> usize {
    let words = words(text);
    if words.is_multiple_of(3) {
        words / 2
    } else {
        words + words / 2
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_text_is_chunked_as_promised(text in markdownish(), max in 0usize..24, overlap in 0usize..16, which in 0usize..4) {
        let count: &dyn Fn(&str) -> usize = match which {
            0 => &words,
            1 => &|text: &str| text.chars().count(),
            2 => &|text: &str| text.len().div_ceil(3),
            _ => &contrary,
        };
        for format in [TextFormat::Markdown, TextFormat::Plain] {
            for strategy in STRATEGIES {
                keeps_its_promises(&text, format, &by(strategy, max, overlap), count)?;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn real_tokenizers_are_kept_within_bounds(text in markdownish(), max in 1usize..40, overlap in 0usize..20) {
        for name in [tokens::BERT_UNCASED, tokens::O200K_BASE] {
            let counter = tokens::counter(name).unwrap();
            for strategy in STRATEGIES {
                keeps_its_promises(&text, TextFormat::Markdown, &by(strategy, max, overlap), &|text| counter.count(text))?;
            }
        }
    }

    #[test]
    fn chunks_without_overlap_touch_where_little_white_space_is_between(text in markdownish(), max in 2usize..12) {
        for strategy in STRATEGIES {
            let chunks = keeps_its_promises(&text, TextFormat::Markdown, &by(strategy, max, 0), &words)?;
            for pair in chunks.windows(2) {
                let gap = pair[1].span.0 - pair[0].span.1;
                prop_assert!(gap == 0 || gap > GAP_BYTES_MAX);
            }
        }
    }

    #[test]
    fn fixed_chunks_are_as_full_as_whole_words_make_them(text in markdownish(), max in 1usize..12) {
        let chunks = chunk(&text, TextFormat::Markdown, &by(Cut::Fixed, max, 0), &words);
        for full in chunks.iter().take(chunks.len().saturating_sub(1)) {
            prop_assert_eq!(full.tokens, max, "{:?}", full.text);
        }
    }

    #[test]
    fn a_sentence_that_fits_is_in_one_chunk(
        lengths in prop::collection::vec((1usize..9, prop::sample::select(&[" ", "\n", "\n\n", "\n\n# Head\n\n"][..])), 1..30),
        max in 8usize..20,
        overlap in 0usize..10,
    ) {
        let sentence = |n: usize, length: usize| format!("S{n}{}.", " word".repeat(length - 1));
        let mut text = String::new();
        for (n, (length, gap)) in lengths.iter().enumerate() {
            text.push_str(&sentence(n, *length));
            text.push_str(gap);
        }
        let chunks = chunk(&text, TextFormat::Markdown, &by(Cut::Sentence, max, overlap), &words);
        for (n, (length, _)) in lengths.iter().enumerate() {
            let sentence = sentence(n, *length);
            prop_assert!(chunks.iter().any(|chunk| chunk.text.contains(&sentence)), "{sentence:?} of {text:?}");
        }
    }
}

/// Counting is what costs, so it is bounded by bytes counted rather than by seconds, which would depend on the machine.
#[test]
#[expect(clippy::print_stdout, reason = "the measured rate belongs in the report of the run")]
fn a_megabyte_is_counted_a_handful_of_times_whatever_it_is() {
    let counter = tokens::counter(tokens::BERT_UNCASED).unwrap();
    counter.count("warm");
    let megabyte = |unit: &str| unit.repeat(1_000_000 / unit.len());
    let prose = "The quick brown fox jumps over the lazy dog near the river bank. ";
    for (what, text) in [
        (
            "sections",
            megabyte(&format!(
                "## Some heading\n\n{}\n\n- item one\n- item two\n\n",
                prose.repeat(20)
            )),
        ),
        ("one line", megabyte(prose)),
        ("no sentence ends", megabyte("word after word ")),
        ("one word", megabyte("QUJDabc0")),
        ("lines of code", format!("```\n{}", megabyte("let x = f(y);\n"))),
        ("blank", megabyte(" \n")),
        ("nested quotes", "> ".repeat(100_000)),
        ("nested lists", "- ".repeat(100_000)),
        ("brackets", "[".repeat(1_000_000)),
        ("stars", megabyte("*a _b ")),
        ("accents", megabyte("Élève à l'école; ")),
        ("ideographs", "你好世界。".repeat(10_000)),
    ] {
        let counted = std::cell::Cell::new(0usize);
        let count = |text: &str| {
            counted.set(counted.get() + text.len());
            counter.count(text)
        };
        let started = Instant::now();
        let chunks = chunk(&text, TextFormat::Markdown, &settings(256, 32), &count);
        let took = started.elapsed();
        let times = counted.get() as f64 / text.len() as f64;
        println!(
            "{what}: {} bytes, {} chunks in {took:.0?}, each byte counted {times:.1} times",
            text.len(),
            chunks.len()
        );
        assert!(times < 16.0, "{what}: each byte was counted {times:.1} times");
    }
}
