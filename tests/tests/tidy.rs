//! What a machine can check of how the project is kept: who imports whom, how files begin, whether documents name what is
//! there. Each check is one test; its message says where, what, and what is wanted. Reads the source tree, builds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

// ---- directions ----

/// Which crates of the workspace a crate may import, for use, for tests or to build. A crate that is not here may import
/// all: it stands above the others.
const CRATES: [(&str, &[&str]); 4] = [
    ("cairn-proto", &[]),
    ("cairn-engine", &[]),
    ("cairn-client", &["cairn-proto"]),
    // The client is for the command line, which is in the same binary.
    ("cairn-server", &["cairn-proto", "cairn-engine", "cairn-client"]),
];
/// Crates above all others.
const TOP: [&str; 2] = ["cairn-tests", "cairn-bench"];

/// Modules of the engine, from the base up. A module imports only from tiers below its own; in the base, which is plain
/// data, errors, bytes and files, from its siblings as well.
const TIERS: [&[&str]; 7] = [
    &[
        "config", "error", "limits", "log", "op", "patience", "schema", "storage", "types",
    ],
    &["inverted"],
    &["filter", "sparse", "text", "vector"],
    &["segment"],
    &["query"],
    &["collection", "shard"],
    &["engine"],
];
/// Imports against that order, each with its reason.
const UPWARD: [(&str, &str, &str); 1] = [(
    "op",
    "filter",
    "a record keeps the filter of a delete as it was given, so that each replica decides alike",
)];

#[test]
fn crates_import_only_what_is_below_them() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs, it runs this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |of: &Value| of["name"].as_str().unwrap().to_owned();
    let ours: BTreeSet<String> = packages.iter().map(name).collect();
    let mut wrong = Vec::new();
    for package in packages {
        let from = name(package);
        if TOP.contains(&from.as_str()) {
            continue;
        }
        let Some((_, allowed)) = CRATES.iter().find(|(of, _)| *of == from) else {
            wrong.push(format!("{from} is new: say in CRATES what it may import"));
            continue;
        };
        for to in package["dependencies"].as_array().unwrap().iter().map(name) {
            if ours.contains(&to) && !allowed.contains(&to.as_str()) {
                wrong.push(format!("{from} imports {to}; it may import {allowed:?}"));
            }
        }
    }
    none(&wrong);
}

#[test]
fn modules_of_the_engine_import_only_what_is_below_them() {
    let tier = |module: &str| TIERS.iter().position(|tier| tier.contains(&module));
    let source = root().join("engine/src");
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for file in files(&source, &["rs"]) {
        let place = file.strip_prefix(&source).unwrap();
        let from = place.components().next().unwrap().as_os_str().to_str().unwrap();
        let from = from.trim_end_matches(".rs");
        if from == "lib" {
            continue;
        }
        let Some(own) = tier(from) else {
            wrong.push(format!(
                "{}: module {from} is new: say in TIERS where it stands",
                shown(&file)
            ));
            continue;
        };
        for (line, to) in crate_paths(&read(&file)) {
            let allowed = match tier(&to) {
                None => {
                    wrong.push(format!("{}:{line}: crate::{to} is no module of TIERS", shown(&file)));
                    continue;
                }
                Some(of) => to == from || of < own || (of == own && own == 0),
            };
            if !allowed && UPWARD.iter().any(|(f, t, _)| (*f, *t) == (from, to.as_str())) {
                used.insert((from.to_owned(), to));
            } else if !allowed {
                wrong.push(format!(
                    "{}:{line}: {from} imports {to}, which is not below it",
                    shown(&file)
                ));
            }
        }
    }
    for (from, to, _) in UPWARD {
        if !used.contains(&(from.to_owned(), to.to_owned())) {
            wrong.push(format!("{from} does not import {to} any more: take it out of UPWARD"));
        }
    }
    none(&wrong);
}

#[test]
fn the_engine_lists_its_modules_from_the_base_up() {
    let listed: Vec<String> = code_lines(&read(&root().join("engine/src/lib.rs")))
        .filter_map(|(_, line)| Some(line.strip_prefix("pub mod ")?.strip_suffix(';')?.to_owned()))
        .collect();
    let tiers: Vec<&str> = TIERS.concat();
    assert_eq!(listed, tiers, "engine/src/lib.rs lists its modules as TIERS does");
}

/// Modules of the crate that code names after `crate::`, with their lines.
fn crate_paths(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in code_lines(source) {
        for (at, _) in line.match_indices("crate::") {
            let before = line[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &line[at + "crate::".len()..];
            let names: Vec<&str> = match rest.strip_prefix('{') {
                None => vec![rest],
                Some(list) => list.split(',').map(str::trim_start).collect(),
            };
            for name in names {
                let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let module = match name.as_str() {
                    "" => continue,
                    "Error" | "ErrorKind" | "Result" => "error".to_owned(),
                    "Engine" => "engine".to_owned(),
                    _ => name,
                };
                found.push((number, module));
            }
        }
    }
    found
}

// ---- files ----

#[test]
fn every_source_file_opens_with_its_reason() {
    let mut wrong = Vec::new();
    for file in files(&root(), &["rs"]) {
        let text = read(&file);
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        // Or with a document that says it, as a crate's README does.
        if !first.starts_with("//! ") && !first.starts_with("#![doc = include_str!") {
            wrong.push(format!("{}:1: begin with `//!` and why this file exists", shown(&file)));
        }
    }
    none(&wrong);
}

#[test]
fn nothing_is_left_to_be_done_later() {
    // Spelled apart, or this file would be its own finding.
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let kinds = [
        "rs", "md", "proto", "toml", "sh", "py", "yaml", "yml", "tpl", "json", "txt", "Makefile",
    ];
    let mut wrong = Vec::new();
    for file in files(&root(), &kinds) {
        if file.starts_with(root().join("server/assets")) {
            continue;
        }
        for (i, line) in read(&file).lines().enumerate() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            for mark in words.filter(|word| marks.contains(word)) {
                wrong.push(format!("{}:{}: {mark}: do it, or write an issue", shown(&file), i + 1));
            }
        }
    }
    none(&wrong);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in files(&root(), &["md"]) {
        let text = read(&file);
        for (line, target) in links(&text) {
            let path = target.split('#').next().unwrap_or_default();
            let elsewhere = target.contains("://") || target.starts_with("mailto:");
            if elsewhere || path.is_empty() {
                continue;
            }
            if !file.parent().unwrap().join(path).exists() {
                wrong.push(format!("{}:{line}: no such file: {target}", shown(&file)));
            }
        }
    }
    none(&wrong);
}

/// Targets of Markdown links outside of code, with their lines.
fn links(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut in_code) = (Vec::new(), false);
    for (i, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            if let Some((target, _)) = line[at + 2..].split_once(')') {
                found.push((i + 1, target.to_owned()));
            }
        }
    }
    found
}

// ---- documents and code ----

#[test]
fn the_architecture_is_short_and_the_tests_that_documents_name_exist() {
    let lines = read(&root().join("ARCHITECTURE.md")).lines().count();
    assert!(lines < 300, "ARCHITECTURE.md has {lines} lines; a map is under 300");
    let mut functions = BTreeSet::new();
    for file in files(&root(), &["rs"]) {
        for (_, line) in code_lines(&read(&file)) {
            if let Some((_, rest)) = line.split_once("fn ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                functions.insert(name);
            }
        }
    }
    let mut wrong = Vec::new();
    for file in files(&root(), &["md"]) {
        for (i, line) in read(&file).lines().enumerate() {
            for name in line.split('`').skip(1).step_by(2) {
                let is_name = name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                // Only tests have names this long, and metrics.
                if is_name && !name.starts_with("cairn_") && name.matches('_').count() >= 4 && !functions.contains(name)
                {
                    wrong.push(format!("{}:{}: no function {name}", shown(&file), i + 1));
                }
            }
        }
    }
    none(&wrong);
}

/// How an error gets its code: the code is the first string literal among the arguments.
const MAKERS: [&str; 6] = [
    "Error::invalid(",
    "Error::not_found(",
    "Error::new(",
    "Self::new(",
    "Problem::refused(",
    // Closures of rest/extract.rs and a helper of the RAG part.
    "unsupported(",
];
/// Codes that are no literal argument of a maker: tables and closures, by file.
const INDIRECT: [(&str, &[&str]); 3] = [
    ("server/src/rest/extract.rs", &["bad_utf8", "bad_json", "bad_request"]),
    ("server/src/service/enrich.rs", &["bad_token_budget", "bad_limit"]),
    (
        "server/src/grpc/status.rs",
        &[
            "bad_message",
            "body_too_large",
            "unsupported_encoding",
            "unknown_method",
            "transport",
        ],
    ),
];

#[test]
fn the_list_of_error_codes_is_the_one_of_the_code() {
    let mut made: BTreeMap<String, String> = BTreeMap::new();
    let mut wrong = Vec::new();
    for dir in ["engine/src", "server/src"] {
        for file in files(&root().join(dir), &["rs"]) {
            let shown = shown(&file);
            if shown.ends_with("tests.rs") || shown.contains("/cli/") {
                continue;
            }
            let source = without_tests(&read(&file));
            for code in codes(&source) {
                made.entry(code).or_insert_with(|| shown.clone());
            }
            for (_, indirect) in INDIRECT.iter().filter(|(of, _)| *of == shown) {
                for code in *indirect {
                    if source.contains(&format!("\"{code}\"")) {
                        made.entry((*code).to_owned()).or_insert_with(|| shown.clone());
                    } else {
                        wrong.push(format!("{shown} has no \"{code}\" any more: take it out of INDIRECT"));
                    }
                }
            }
        }
    }
    let listed: BTreeSet<String> = first_cells(&read(&root().join("docs/errors.md"))).into_iter().collect();
    for (code, file) in made.iter().filter(|(code, _)| !listed.contains(*code)) {
        wrong.push(format!("docs/errors.md does not list {code} ({file})"));
    }
    for code in listed.iter().filter(|code| !made.contains_key(*code)) {
        wrong.push(format!("docs/errors.md lists {code}, which nothing makes"));
    }
    assert!(made.len() > 50, "the scan finds codes: {made:?}");
    none(&wrong);
}

fn codes(source: &str) -> BTreeSet<String> {
    let code: String = code_lines(source).flat_map(|(_, line)| [line, " "]).collect();
    let mut found = BTreeSet::new();
    for maker in MAKERS {
        for (at, _) in code.match_indices(maker) {
            let arguments = &code[at + maker.len()..];
            let Some((before, rest)) = arguments.split_once('"') else {
                continue;
            };
            // Only a kind or a status may stand before it, or the literal is something else.
            let is_code_argument =
                before.chars().all(|c| c.is_alphanumeric() || ":_, ".contains(c)) && before.len() < 60;
            let Some((literal, _)) = rest.split_once('"') else {
                continue;
            };
            let looks_like_one = !literal.is_empty()
                && literal
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_code_argument && before.matches(',').count() <= 1 && looks_like_one {
                found.insert(literal.to_owned());
            }
        }
    }
    found
}

#[test]
fn the_list_of_settings_is_the_one_of_the_code_with_its_defaults() {
    let config = serde_json::to_value(cairn_server::config::Config::default()).unwrap();
    let mut settings = BTreeMap::new();
    flatten("", &config, &mut settings);
    let table: BTreeMap<String, String> = read(&root().join("docs/configuration.md"))
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let key = cells.next()?.trim().trim_matches('`').to_owned();
            Some((key, cells.next()?.trim().trim_matches('`').to_owned()))
        })
        .collect();
    let mut wrong = Vec::new();
    for (key, default) in &settings {
        match table.get(key) {
            None => wrong.push(format!("docs/configuration.md does not list {key} (default {default})")),
            Some(said) if said != default => {
                wrong.push(format!("docs/configuration.md: {key} is {default}, not {said}"))
            }
            Some(_) => {}
        }
    }
    for key in table.keys().filter(|key| !settings.contains_key(*key)) {
        wrong.push(format!("docs/configuration.md lists {key}, which is no setting"));
    }
    none(&wrong);
}

#[test]
fn every_example_of_a_configuration_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cairn.toml");
    let (mut wrong, mut tables) = (Vec::new(), 0);
    for document in ["docs/models.md", "docs/configuration.md"] {
        let text = read(&root().join(document));
        for example in text.split("```toml\n").skip(1) {
            let example = example.split("```").next().unwrap_or_default();
            fs::write(&file, example).unwrap();
            match cairn_server::config::Config::load(Some(&file), &[]) {
                Ok(config) => tables += config.embedders.len() + config.rerankers.len(),
                Err(e) => wrong.push(format!("{document}: {e}\n{example}")),
            }
        }
    }
    none(&wrong);
    assert!(tables > 10, "the examples are found: {tables}");
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(table) if !table.is_empty() => {
            for (key, value) in table {
                let dot = if prefix.is_empty() { "" } else { "." };
                flatten(&format!("{prefix}{dot}{key}"), value, into);
            }
        }
        // Tables of names that a person chooses (embedders, rerankers) are described in prose.
        Value::Object(_) => {}
        Value::String(text) => _ = into.insert(prefix.to_owned(), text.clone()),
        other => _ = into.insert(prefix.to_owned(), other.to_string()),
    }
}

// ---- reading ----

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ is in the workspace").to_owned()
}

/// Files of some kinds below a directory, in order: ours, not what was built, copied or fetched.
fn files(dir: &Path, kinds: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let copied = root().join("demo/docs");
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let entry = entry.expect("a directory that is there");
            let (path, name) = (entry.path(), entry.file_name());
            let name = name.to_string_lossy();
            if entry.file_type().expect("a file that is there").is_dir() {
                let foreign =
                    name.starts_with('.') || matches!(&*name, "target" | "data" | "__pycache__") || path == copied;
                if !foreign {
                    open.push(path);
                }
            } else if kinds.contains(&name.rsplit('.').next().unwrap_or_default()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()))
}

/// A path as a person at the root of the workspace would write it.
fn shown(file: &Path) -> String {
    file.strip_prefix(root()).unwrap_or(file).display().to_string()
}

/// Lines of Rust without comments and indentation, with their numbers.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source.lines().enumerate().filter_map(|(i, line)| {
        let line = line.trim();
        let code = line.split(" // ").next().unwrap_or_default();
        (!line.starts_with("//")).then_some((i + 1, code))
    })
}

/// A file without the tests at its end.
fn without_tests(source: &str) -> String {
    source
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// What stands in backticks in the first cell of each table row of a document, if it looks like a code.
fn first_cells(markdown: &str) -> Vec<String> {
    markdown
        .lines()
        .filter_map(|line| Some(line.strip_prefix("| `")?.split_once('`')?.0.to_owned()))
        .collect()
}

fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
