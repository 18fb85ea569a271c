//! The only place that prints. Standard output carries results, standard error everything else; a closed pipe
//! (`cairn search ... | head`) ends the process quietly, as of any other tool.

use std::io::{ErrorKind, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

use super::Failure;

/// A result, to standard output.
pub(super) fn out(text: impl AsRef<str>) {
    let mut stdout = std::io::stdout().lock();
    let written = writeln!(stdout, "{}", text.as_ref()).and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        // There is nowhere left to say it.
        Ok(()) | Err(_) => {}
    }
}

/// A text as it is, to standard output: nothing is added, so that its bytes can be counted.
pub(super) fn raw(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    match written {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        // There is nowhere left to say it.
        Ok(()) | Err(_) => {}
    }
}

/// A result as JSON, to standard output.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::new(format!("the result is no JSON: {e}")))?;
    out(text);
    Ok(())
}

/// Something to know, to standard error.
pub(super) fn note(text: impl AsRef<str>) {
    // Nobody reads it if standard error is closed.
    let _ = writeln!(std::io::stderr().lock(), "{}", text.as_ref());
}

/// Why it went wrong, to standard error.
pub(super) fn error(text: &str) {
    note(format!(
        "{} {text}",
        style("error:", "1;31", std::io::stderr().is_terminal())
    ));
}

/// Bold if standard output is a terminal.
pub(super) fn bold(text: &str) -> String {
    style(text, "1", std::io::stdout().is_terminal())
}

/// Dim if standard output is a terminal.
pub(super) fn dim(text: &str) -> String {
    style(text, "2", std::io::stdout().is_terminal())
}

fn style(text: &str, code: &str, terminal: bool) -> String {
    let plain = !terminal || std::env::var_os("NO_COLOR").is_some();
    if plain {
        text.to_owned()
    } else {
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

/// `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `3.4 MB`.
pub(super) fn bytes(n: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let n_f = n as f64;
    match n {
        0..1_000 => format!("{n} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", n_f / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n_f / 1e6),
        _ => format!("{:.1} GB", n_f / 1e9),
    }
}

/// `n` things in this time, per second.
pub(super) fn rate(n: u64, time: Duration) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with at most one decimal")]
    let per_second = n as f64 / time.as_secs_f64().max(1e-9);
    if per_second < 100.0 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

/// The first `most` characters of a text on one line.
pub(super) fn snippet(text: &str, most: usize) -> String {
    let mut words = String::new();
    for word in text.split_whitespace() {
        if !words.is_empty() {
            words.push(' ');
        }
        words.push_str(word);
        if words.len() > most * 4 {
            break;
        }
    }
    match words.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", words[..end].trim_end()),
        None => words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(number(n), text);
        }
        assert_eq!(
            (bytes(999).as_str(), bytes(2_688_077).as_str()),
            ("999 bytes", "2.7 MB")
        );
    }

    #[test]
    fn a_snippet_is_one_line_and_cut_between_characters() {
        assert_eq!(snippet(" a\n\n b\tc ", 10), "a b c");
        assert_eq!(snippet("größer als zehn", 6), "größer…");
        assert_eq!(snippet("日本語のテキスト", 3), "日本語…");
    }
}
