//! `cairn check`: everything in a data directory read and compared, without a server and without changing a byte.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cairn_engine::engine::{Examined, FindingKind, examine};
use clap::Args;

use super::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  cairn check ./data
  cairn check /var/lib/cairn --json > report.json

The server must be stopped. Nothing in the directory is changed. Exit codes: 0 all is
sound, 1 damage was found (what and where is printed), 2 it could not be looked at.";

/// `cairn check`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Check {
    /// The data directory.
    dir: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let stopped = Arc::new(AtomicBool::new(false));
        let interrupt = {
            let stopped = Arc::clone(&stopped);
            tokio::spawn(async move {
                if tokio::signal::ctrl_c().await.is_ok() {
                    stopped.store(true, Ordering::Relaxed);
                }
            })
        };
        let (dir, json) = (self.dir.clone(), self.json);
        let work = tokio::task::spawn_blocking(move || {
            let stop = || stopped.load(Ordering::Relaxed);
            examine(&dir, &stop, &mut |what| {
                if !json {
                    output::note(format!("checking {what}"));
                }
            })
        });
        let examined = work
            .await
            .map_err(|e| Failure::new(format!("the check panicked: {e}")))?;
        interrupt.abort();
        // What could not be looked at is not sound, and not damaged either.
        let examined = examined.map_err(|e| Failure::usage(format!("{e} ({})", e.code)))?;
        match self.json {
            true => output::json(&examined)?,
            false => show(&examined),
        }
        match examined.is_sound() {
            true => Ok(()),
            false => Err(Failure::new(format!(
                "damage was found in {}; docs/operating/damage.md says what to do",
                self.dir.display()
            ))),
        }
    }
}

fn show(examined: &Examined) {
    for finding in &examined.findings {
        let kind = match finding.kind {
            FindingKind::Damage => "damage",
            FindingKind::Note => "note",
        };
        output::out(format!("{kind}: {}: {}", finding.place, finding.what));
    }
    if examined.findings_left_out > 0 {
        output::out(format!(
            "and {} findings more",
            output::number(examined.findings_left_out)
        ));
    }
    for (name, points) in &examined.collections {
        output::out(format!("collection {name}: {} points", output::number(*points)));
    }
    output::out(format!(
        "{} sealed files ({} blocks, {}), {} entries of the database, {} records of the log, of which a start applies {}",
        output::number(examined.segments),
        output::number(examined.blocks),
        output::bytes(examined.segment_bytes),
        output::number(examined.entries),
        output::number(examined.log_records),
        output::number(examined.to_replay)
    ));
}
