//! `cairn repair`: damaged sealed files are brought back, or given up, without a server. Only what can be proved is done, and
//! nothing at all without `--apply`.

use std::path::{Path, PathBuf};

use cairn_engine::engine::{DamagedFile, Repair as Repairing, SegmentPlace};
use cairn_server::config::Config;
use cairn_server::{snapshot, telemetry};
use clap::Args;

use super::serve::{quoted, setting};
use super::{Failure, output};

const EXAMPLES: &str = "\
Examples:
  cairn repair --data-dir ./data                                 what could be done
  cairn repair --data-dir ./data --apply                         do it, from snapshots
  cairn repair --data-dir ./data --from ./copy-of-data --apply   from another copy
  cairn repair --data-dir ./data --drop-segment 0/1/17 --lost lost.jsonl --accept-loss --apply

A copy is taken if every byte of it is what the manifest says. What is replaced is moved
to damaged/ in the data directory. --drop-segment (collection number/shard/number, as
this command and `cairn check` print them) gives up the points of a file; their ids are
written to the file that --lost names first.

Exit codes: 0 nothing is damaged (any more), 1 something is, 2 it could not be looked at.";

/// `cairn repair`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Repair {
    /// A TOML file, as of `cairn serve`.
    #[arg(long, env = "CAIRN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the database [default: ./data].
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where the snapshots are: the key snapshots.url.
    #[arg(long, value_name = "URL")]
    snapshots: Option<String>,
    /// Take files from this snapshot only; otherwise from the newest that has them.
    #[arg(long, value_name = "NAME")]
    from_snapshot: Option<String>,
    /// Look here first: a copy of the data directory.
    #[arg(long, value_name = "DIR")]
    from: Option<PathBuf>,
    /// Give up the points of a file. Needs --lost and --accept-loss.
    #[arg(long, value_name = "C/S/N", value_parser = place, requires = "lost", requires = "accept_loss")]
    drop_segment: Option<SegmentPlace>,
    /// Where to write the ids of points that are given up: a new file, one JSON object a line.
    #[arg(long, value_name = "FILE")]
    lost: Option<PathBuf>,
    /// Points are to be lost.
    #[arg(long)]
    accept_loss: bool,
    /// Do it. Without this, say what would be done.
    #[arg(long)]
    apply: bool,
    /// Any configuration key, e.g. snapshots.transfers_max=8. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, String)>,
}

fn place(text: &str) -> Result<SegmentPlace, String> {
    let wrong = || format!("{text:?} is no segment; write collection number/shard/number, like 0/1/17");
    let mut parts = text.split('/');
    let (Some(collection), Some(shard), Some(segment), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    Ok(SegmentPlace {
        collection: collection.parse().map_err(|_| wrong())?,
        shard: shard.parse().map_err(|_| wrong())?,
        segment: segment.parse().map_err(|_| wrong())?,
    })
}

fn failed(error: cairn_engine::Error) -> Failure {
    Failure::usage(format!("{error} ({})", error.code))
}

impl Repair {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let mut flags = self.set.clone();
        for (key, value) in [("data_dir", &self.data_dir), ("snapshots.url", &self.snapshots)] {
            flags.extend(value.as_deref().map(|v| (key.to_owned(), quoted(v))));
        }
        let config = Config::load(self.config.as_deref(), &flags).map_err(|e| Failure::usage(e.to_string()))?;
        telemetry::init_logs(&config.log).map_err(|e| Failure::usage(format!("log.filter: {e}")))?;
        let repairing = Repairing::begin(&config.data_dir).map_err(failed)?;
        if let (Some(place), Some(lost)) = (self.drop_segment, &self.lost) {
            return self.give_up(&repairing, place, lost);
        }
        output::note(format!("reading every sealed file of {}", config.data_dir.display()));
        let damaged = tokio::task::block_in_place(|| repairing.damaged(&|| false)).map_err(failed)?;
        let mut left = 0;
        for file in &damaged {
            let SegmentPlace {
                collection,
                shard,
                segment,
            } = file.segment;
            output::out(format!(
                "damaged: {collection}/{shard}/{segment} of {}, {} rows: {}",
                file.collection,
                output::number(file.rows.into()),
                file.reason
            ));
            let done = self.bring_back(&config, &repairing, file).await?;
            left += u64::from(!done);
        }
        match (damaged.len(), left) {
            (0, _) => {
                output::out("no sealed file is damaged");
                Ok(())
            }
            (_, 0) => Ok(()),
            (_, left) => Err(Failure::new(format!("{left} damaged files are left"))),
        }
    }

    /// Whether the file is whole now.
    async fn bring_back(&self, config: &Config, repairing: &Repairing, file: &DamagedFile) -> Result<bool, Failure> {
        let scratch = tempfile::tempdir().map_err(|e| Failure::usage(format!("a temporary directory: {e}")))?;
        let fetched = scratch.path().join("fetched.seg");
        let accept = |path: &Path| repairing.is_the_file(file.segment, path, &|| false);
        let copy = self.from.as_ref().map(|from| from.join(&file.path));
        let copy = copy.filter(|copy| match tokio::task::block_in_place(|| accept(copy)) {
            Ok(()) => true,
            Err(error) => {
                output::note(format!("{} will not do: {error}", copy.display()));
                false
            }
        });
        let (from, candidate) = match copy {
            Some(copy) => (copy.display().to_string(), copy),
            None => {
                let (name, of) = (self.from_snapshot.as_deref(), (file.path.as_str(), file.bytes));
                match snapshot::find_file(config, name, of, &fetched, &accept)
                    .await
                    .map_err(failed)?
                {
                    Some(place) => (place, fetched),
                    None => {
                        output::out(
                            "  the store does not have it; --from names another copy of the data directory, and",
                        );
                        output::out("  --drop-segment gives its points up");
                        return Ok(false);
                    }
                }
            }
        };
        if !self.apply {
            output::out(format!("  {from} has it, byte by byte: --apply takes it back"));
            return Ok(false);
        }
        tokio::task::block_in_place(|| repairing.take_back(file.segment, &candidate, &|| false)).map_err(failed)?;
        output::out(format!("  taken back from {from}"));
        Ok(true)
    }

    fn give_up(&self, repairing: &Repairing, place: SegmentPlace, lost: &Path) -> Result<(), Failure> {
        let list = self.apply.then_some(lost);
        let points = tokio::task::block_in_place(|| repairing.drop_segment(place, list, &|| false)).map_err(failed)?;
        let points = output::number(points);
        output::out(match self.apply {
            false => format!("{points} points would be lost; --apply gives them up"),
            true => format!("{points} points are given up; their ids are in {}", lost.display()),
        });
        Ok(())
    }
}
