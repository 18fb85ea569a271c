//! How far is it, and how fast? A bar on a terminal, a line every few seconds elsewhere, or nothing.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::super::output;

/// A bar on a terminal, a line every few seconds elsewhere, or nothing.
pub(in crate::cli) struct Progress {
    bar: ProgressBar,
    lines: bool,
    last: std::sync::Mutex<Instant>,
}

impl Progress {
    const EVERY: Duration = Duration::from_secs(5);

    pub(in crate::cli) fn new(shown: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let target = if shown && terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(Some(0), target);
        let style = ProgressStyle::with_template("{bar:30} {decimal_bytes}/{decimal_total_bytes}  {msg}  {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self {
            bar,
            lines: shown && !terminal,
            last: std::sync::Mutex::new(Instant::now()),
        }
    }

    pub(super) fn begin(&self, bytes: u64) {
        self.bar.set_length(bytes);
    }

    pub(super) fn moved(&self, bytes: u64, documents: u64, chunks: u64, time: Duration) {
        self.bar.inc(bytes);
        let message = format!(
            "{} documents, {}/s, {} chunks/s",
            output::number(documents),
            output::rate(documents, time),
            output::rate(chunks, time)
        );
        if self.lines
            && let Ok(mut last) = self.last.lock()
            && last.elapsed() >= Self::EVERY
        {
            *last = Instant::now();
            let (at, of) = (self.bar.position(), self.bar.length().unwrap_or_default());
            output::note(format!("{message}, {} of {}", output::bytes(at), output::bytes(of)));
        }
        self.bar.set_message(message);
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
