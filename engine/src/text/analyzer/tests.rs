//! The analysis rules as a table, and what no text may break.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::error::ErrorKind;

fn analyzer(language: &str) -> Analyzer {
    Analyzer::new(&AnalyzerSpec {
        language: language.into(),
        version: ANALYZER_VERSION,
    })
    .unwrap()
}

fn terms(analyzer: &Analyzer, text: &str) -> Vec<String> {
    let mut terms = Vec::new();
    analyzer.analyze(text, &mut |term| terms.push(term.to_owned()));
    terms
}

#[test]
fn text_becomes_these_terms() {
    let cases = [
        (
            "english",
            "The quick brown foxes' tails were jumping",
            "quick brown fox tail jump",
        ),
        ("english", "Kubernetes's schedulers, running", "kubernet schedul run"),
        ("english", "It’s Alice’s theory", "alic theori"),
        ("english", "don't o'clock 'quoted'", "o'clock quot"),
        ("english", "In 1973 3.14 of 1,000 k8s v1.2", "1973 3.14 1,000 k8s v1.2"),
        (
            "english",
            "kubelet.service max_connections std::fs a/b-c",
            "kubelet servic max connect std fs b c",
        ),
        ("english", "e-mail x@example.org", "e mail x exampl org"),
        (
            "english",
            "soft\u{ad}ware ﬁne ＡＢＣ１２ x² Kelvin\u{212a}",
            "softwar fine abc12 x2 kelvink",
        ),
        (
            "english",
            "Beyoncé naïve cafe\u{301} Nguyễn Ångström Ελλάδα",
            "beyonc naiv cafe nguyen angstrom ελλάδα",
        ),
        ("none", "naïve cafe\u{301}", "naïve café"),
        (
            "german",
            "Donaudampfschifffahrtsgesellschaften",
            "donaudampfschifffahrtsgesellschaft",
        ),
        (
            "german",
            "Die Häuser über Ärzte, Fußgängerübergänge",
            "haus arzt fussgangerubergang",
        ),
        ("german", "Ha\u{308}user", "haus"),
        (
            "french",
            "L’élection d'un président aujourd'hui",
            "élect président aujourd hui",
        ),
        ("italian", "dell'acqua", "acqua"),
        ("turkish", "ISPARTA'da İzmir'in ılık", "ıspar izmir ılık"),
        ("russian", "Выборы лидера в кластере etcd", "выбор лидер кластер etcd"),
        ("greek", "Ο δρόμος", "δρομ"),
        ("english", "Kubernetes集群 etcd", "kubernet 集 集群 群 etcd"),
        ("english", "領袖，選舉", "領 領袖 袖 選 選舉 舉"),
        ("none", "東京タワー", "東 東京 京 京タ タ タワ ワ ワー ー"),
        ("none", "ｶﾞｲﾄﾞ", "ガ ガイ イ イド ド"),
        ("none", "한국어 검색", "한 한국 국 국어 어 검 검색 색"),
        ("none", "葛\u{e0100}城", "葛 葛城 城"),
        ("none", "ภาษาไทยง่าย", "ภาษา ไทย ง่าย"),
        ("none", "ดื่มน้ำ", "ดื่ม น้ำ"),
        ("none", "ພາສາລາວ", "ພາສາ ລາວ"),
        ("none", "ខ្ញុំស្រឡាញ់ភាសាខ្មែរ", "ខ្ញុំ ស្រឡាញ់ ភាសាខ្មែរ"),
        ("none", "မြန်မာဘာသာစကား", "မြန်မာဘာသာ စကား"),
        ("none", "The Running don't", "the running don't"),
        ("english", "🚀 launch 👩‍👩‍👧 ☃", "launch"),
        ("english", "", ""),
        ("english", " \n\t .,;!? --- ", ""),
        ("english", "the and of", ""),
    ];
    let wrong: Vec<_> = cases
        .iter()
        .map(|&(language, text, expected)| (language, text, terms(&analyzer(language), text).join(" "), expected))
        .filter(|(_, _, got, expected)| got != expected)
        .collect();
    assert!(wrong.is_empty(), "(language, text, got, expected): {wrong:#?}");
}

#[test]
fn a_huge_token_is_cut_at_a_character() {
    for language in ["none", "english"] {
        let analyzer = analyzer(language);
        assert_eq!(terms(&analyzer, &"x9".repeat(1 << 20)), ["x9".repeat(64)]);
        // `ж` takes two bytes, so that after one ASCII byte the bound falls inside a character.
        assert_eq!(
            terms(&analyzer, &format!("x{}", "ж".repeat(1 << 10))),
            [format!("x{}", "ж".repeat(63))]
        );
    }
}

#[test]
fn unknown_analyzers_are_refused_with_what_is_allowed() {
    let refused = |language: &str, version| {
        let error = check(&AnalyzerSpec {
            language: language.into(),
            version,
        })
        .unwrap_err();
        assert_eq!((error.kind, error.code), (ErrorKind::Invalid, "bad_analyzer"));
        error.to_string()
    };
    let message = refused("klingon", ANALYZER_VERSION);
    for word in ["none", "english", "turkish", "\"klingon\"", "/language"] {
        assert!(message.contains(word), "{message:?} lacks {word}");
    }
    assert!(refused("english", ANALYZER_VERSION + 1).contains("/version"));
    check(&AnalyzerSpec::default()).unwrap();
    check(&AnalyzerSpec {
        language: "none".into(),
        version: ANALYZER_VERSION,
    })
    .unwrap();
}

#[test]
fn shared_analyzers_are_those_of_their_language() {
    for name in LANGUAGES.iter().map(|l| l.name).chain([NO_LANGUAGE]) {
        let spec = AnalyzerSpec {
            language: name.into(),
            version: ANALYZER_VERSION,
        };
        let shared = Analyzer::shared(&spec).unwrap();
        assert_eq!(
            shared.rules.as_ref().map_or(NO_LANGUAGE, |rules| rules.language.name),
            name
        );
        assert!(std::ptr::eq(shared, Analyzer::shared(&spec).unwrap()));
    }
    assert!(
        Analyzer::shared(&AnalyzerSpec {
            language: "klingon".into(),
            version: ANALYZER_VERSION
        })
        .is_err()
    );
}

#[test]
fn every_language_has_stop_words() {
    for language in &LANGUAGES {
        let rules = analyzer(language.name).rules.unwrap();
        assert!(rules.stop.len() > 30, "{}: {}", language.name, rules.stop.len());
    }
}

/// The terms of version 1 are in files on disk. If this fails, a rule or a dependency changed: pin the dependency, or
/// raise `ANALYZER_VERSION` and decide what becomes of version 1.
#[test]
fn version_1_is_frozen() {
    let words: Vec<&str> = LANGUAGES
        .iter()
        .filter_map(|language| stop_words::lookup(language.code))
        .flatten()
        .copied()
        .collect();
    let unspaced = "ทุกสองสัปดาห์จะมีการประชุมใหญ่ ພາສາລາວເປັນພາສາທາງການ ភាសាខ្មែរគឺជាភាសាផ្លូវការ မြန်မာဘာသာစကားသည်";
    let mut prints = Vec::new();
    for language in &LANGUAGES {
        let analyzer = analyzer(language.name);
        let rules = analyzer.rules.as_ref().unwrap();
        let mut stop: Vec<&str> = rules.stop.iter().map(|word| &**word).collect();
        stop.sort_unstable();
        // Suffixes keep the words from being dropped, and give the stemmers something to do.
        let text = words
            .iter()
            .map(|word| format!("{word}ation {word}ungen {word}ами "))
            .collect::<String>();
        let all = [
            stop.join(" "),
            terms(&analyzer, &text).join(" "),
            terms(&analyzer, unspaced).join(" "),
        ]
        .join("\n");
        prints.push((language.name, xxhash_rust::xxh3::xxh3_64(all.as_bytes())));
    }
    assert_eq!(prints, FROZEN_1);
}

/// A fingerprint of stop words and terms for each language.
const FROZEN_1: &[(&str, u64)] = &[
    ("arabic", 0x93a3c7da18e67c06),
    ("danish", 0x9d73f221cea72cfa),
    ("dutch", 0x3ee3ca77cd7130de),
    ("english", 0x218f3ab386d7f677),
    ("finnish", 0xe23049d8ad490d1d),
    ("french", 0xff897c16996e49a1),
    ("german", 0xced0b8cf8b3ee0db),
    ("greek", 0x01dc086f1afadd69),
    ("hungarian", 0x829398e1fe26a819),
    ("italian", 0x2aefc8f41a31693a),
    ("norwegian", 0x4e6d9c930ac0c84f),
    ("portuguese", 0x92b1c7f28c6e73b0),
    ("romanian", 0x1b67582df46b8cb0),
    ("russian", 0x33df2d66766bbea8),
    ("spanish", 0x9d2005230e00f040),
    ("swedish", 0x3108231e80c9d930),
    ("tamil", 0xee061dd32920d1f4),
    ("turkish", 0x487da65ed03b8738),
];

/// Text as people write it and as machines mangle it: any characters, with those that the rules speak of made frequent.
fn any_text() -> impl Strategy<Value = String> {
    let special =
        "aeinst'’_.:,09 \t\n-İIıςΣßﬁ\u{ad}\u{200d}\u{300}\u{301}\u{e33}\u{e4d}\u{e32}กำไท集群カー한\u{1100}\u{fe0f}👩ﷺ";
    let special: Vec<char> = special.chars().collect();
    vec(prop_oneof![3 => select(special), 1 => any::<char>()], 0..60).prop_map(String::from_iter)
}

/// Words a stemmer's rules apply to: pieces of the language's own words, glued together, with letters thrown in.
fn word_of(language: &'static Language) -> impl Strategy<Value = (&'static str, String)> {
    let pieces = stop_words::lookup(language.code).unwrap().to_vec();
    let letters: Vec<char> = ('\''..='\u{1fff}').filter(|&c| language.alphabet.has(c)).collect();
    let piece = prop_oneof![
        select(pieces).prop_map(|piece| piece.replace(' ', "")),
        vec(select(letters), 0..4).prop_map(String::from_iter),
    ];
    vec(piece, 1..6).prop_map(|pieces| (language.name, pieces.concat()))
}

proptest! {
    #[test]
    fn any_text_gives_bounded_terms_that_are_never_empty(
        language in select(LANGUAGES.iter().map(|l| l.name).chain(["none"]).collect::<Vec<_>>()),
        text in any_text(),
    ) {
        let analyzer = analyzer(language);
        let first = terms(&analyzer, &text);
        prop_assert!(first.iter().all(|term| (1..=TERM_BYTES_MAX).contains(&term.len())), "{first:?}");
        // The second time, the memo answers.
        prop_assert_eq!(first, terms(&analyzer, &text));
    }

    #[test]
    fn the_short_way_for_ascii_gives_what_the_long_way_gives(text in "[ -~\t\n]{0,60}") {
        for language in ["none", "english", "french"] {
            let analyzer = analyzer(language);
            let mut long_way = Vec::new();
            let sink = &mut |term: &str| long_way.push(term.to_owned());
            let mut cutter = Cutter { analyzer: &analyzer, memo: Memo::default(), sink };
            cutter.runs(&normalise(&text, false));
            prop_assert_eq!(terms(&analyzer, &text), long_way);
        }
    }

    #[test]
    fn a_text_has_the_same_terms_whatever_stands_around(text in any_text()) {
        let analyzer = analyzer("english");
        let mut expected = terms(&analyzer, &text);
        expected.insert(0, "raft".to_owned());
        expected.push("paxo".to_owned());
        prop_assert_eq!(terms(&analyzer, &format!("raft {text} Paxos")), expected);
    }

    #[test]
    fn stemmers_survive_every_word_of_their_letters(
        (language, word) in (0..LANGUAGES.len()).prop_flat_map(|at| word_of(&LANGUAGES[at])),
    ) {
        terms(&analyzer(language), &word);
    }
}
