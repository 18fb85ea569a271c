//! `cairn restore`: a whole instance from a snapshot, into an empty data directory, without a server.

use std::io::IsTerminal;
use std::path::PathBuf;

use cairn_engine::types::Token;
use cairn_server::config::Config;
use cairn_server::snapshot::PointInTime;
use cairn_server::{snapshot, telemetry};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget};

use super::serve::{quoted, setting};
use super::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  cairn restore --data-dir ./new --snapshots ./data-snapshots              the newest snapshot
  cairn restore before-upgrade --data-dir /var/lib/cairn --snapshots s3://backups/cairn
  cairn restore --to-time 2026-11-26T09:30:00Z --data-dir ./new --snapshots ./data-snapshots
  cairn serve --data-dir /var/lib/cairn

The directory must be empty or new. Every file is compared with its hash, and the
database is opened once, before anything counts. Credentials for s3://, gs:// and
az:// come from the environment (AWS_..., GOOGLE_..., AZURE_...).";

/// `cairn restore`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Restore {
    /// The snapshot's name; without it, the newest (of a store of one database), or the one before --to-token or --to-time.
    name: Option<String>,
    /// Right after this write: the snapshot before it is followed by the log that a later one holds.
    #[arg(long, value_name = "TOKEN", conflicts_with = "to_time")]
    to_token: Option<Token>,
    /// Everything that was written until then, such as 2026-11-26T09:30:00Z (or milliseconds since 1970).
    #[arg(long, value_name = "TIME", value_parser = snapshot::parse_time)]
    to_time: Option<u64>,
    /// A TOML file, as of `cairn serve`.
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database [default: ./data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the snapshots are: the key snapshots.url.
    #[arg(long, value_name = "URL")]
    snapshots: Option<String>,
    /// Any configuration key, e.g. snapshots.transfers_max=8. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

impl Restore {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut flags = self.set.clone();
        for (key, value) in [("data_dir", &self.data_dir), ("snapshots.url", &self.snapshots)] {
            flags.extend(value.as_deref().map(|v| (key.to_owned(), quoted(v))));
        }
        let config = Config::load(self.config.as_deref(), &flags).map_err(|e| Failure::usage(e.to_string()))?;
        telemetry::init_logs(&config.log).map_err(|e| Failure::usage(format!("log.filter: {e}")))?;
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(100), target);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 100")]
        let told = |part: f32| bar.set_position((part * 100.0) as u64);
        let to = self.to_token.map(PointInTime::Token);
        let to = to.or(self.to_time.map(PointInTime::TimeMs));
        let restored = snapshot::restore_into(&config, self.name.as_deref(), to, &told).await;
        bar.finish_and_clear();
        let restored = restored.map_err(|e| Failure::new(format!("{e} ({})", e.code)))?;
        output::out(format!(
            "{}{} is in {}: {} collections, {} points, {}",
            restored.snapshot,
            to.map_or_else(String::new, |_| format!(", followed to {},", restored.token)),
            config.data_dir.display(),
            restored.collections,
            output::number(restored.points),
            output::bytes(restored.bytes)
        ));
        Ok(())
    }
}
