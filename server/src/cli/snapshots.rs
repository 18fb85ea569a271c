//! `cairn snapshots`: create, list, look at, verify, restore and delete snapshots of a running server.

use std::time::Duration;

use cairn_client::{Client, Operation, Restore, Snapshot};
use cairn_server::snapshot::{parse_time, show_time};
use clap::{Args, Subcommand};

use super::{Connection, Failure, operations, output};

const EXAMPLES: &str = "\
Examples:
  cairn snapshots create                                   a snapshot of this moment, named by date and time
  cairn snapshots create before-upgrade
  cairn snapshots                                          all, the newest first
  cairn snapshots get before-upgrade --json
  cairn snapshots verify before-upgrade                    read everything, compare every hash
  cairn snapshots restore before-upgrade --collection docs --as docs-old
  cairn snapshots restore before-upgrade --collection docs --replace
  cairn snapshots restore --to-time 2026-11-26T09:30:00Z --collection docs --as docs-0930
  cairn snapshots delete before-upgrade --yes

`snapshots.url` of the server's configuration says where they are kept. A whole
instance is brought back into an empty data directory with `cairn restore`.";

/// `cairn snapshots`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Snapshots {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand)]
enum Action {
    /// All snapshots, the newest first (the default).
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a snapshot of this moment; waits for the end.
    Create {
        /// Its name [default: the date and time].
        name: Option<String>,
        /// Do not wait: print the operation's id.
        #[arg(long)]
        no_wait: bool,
    },
    /// What is in a snapshot.
    Get {
        /// Its name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Read everything that a snapshot names and compare it with what it should be; waits for the end.
    Verify {
        /// Its name.
        name: String,
        /// Do not wait: print the operation's id.
        #[arg(long)]
        no_wait: bool,
    },
    /// Bring one collection back, or all; waits for the end.
    Restore(RestoreArgs),
    /// Remove a snapshot and what no other needs; waits for the end.
    Delete {
        /// Its name.
        name: String,
        /// Yes, this one.
        #[arg(long)]
        yes: bool,
        /// Do not wait: print the operation's id.
        #[arg(long)]
        no_wait: bool,
    },
}

#[derive(Args)]
struct RestoreArgs {
    /// The snapshot's name; not needed with --to-token or --to-time.
    #[arg(required_unless_present_any = ["to_token", "to_time"])]
    name: Option<String>,
    /// As it was right after this write.
    #[arg(long, value_name = "TOKEN", conflicts_with = "to_time")]
    to_token: Option<String>,
    /// As it was then: a time such as 2026-11-26T09:30:00Z, or milliseconds since 1970.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to_time: Option<u64>,
    /// One collection; without it, all.
    #[arg(long, short)]
    collection: Option<String>,
    /// The name it gets [default: the one it has].
    #[arg(long = "as", value_name = "NAME", requires = "collection")]
    rename: Option<String>,
    /// Shards it gets [default: as many as it has].
    #[arg(long, requires = "collection", value_parser = clap::value_parser!(u32).range(1..))]
    shards: Option<u32>,
    /// Replace collections that have the names, with everything in them.
    #[arg(long)]
    replace: bool,
    /// Do not wait: print the operation's id.
    #[arg(long)]
    no_wait: bool,
}

impl Snapshots {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let client = self.connection.client().await?;
        match self.action.unwrap_or(Action::List { json: false }) {
            Action::List { json } => {
                let all = client.snapshots().await?;
                if json {
                    return output::json(&all);
                }
                if all.is_empty() {
                    output::note("no snapshots");
                }
                all.iter().for_each(|snapshot| output::out(line(snapshot)));
                Ok(())
            }
            Action::Create { name, no_wait } => {
                let begun = client.create_snapshot(name.as_deref()).await?;
                if !no_wait {
                    output::out(begun.snapshot.as_deref().unwrap_or_default());
                }
                follow(&client, &begun, no_wait).await
            }
            Action::Get { name, json } => {
                let found = client.snapshot(&name).await?;
                if json {
                    return output::json(&found);
                }
                output::out(line(&found));
                if let Some(range) = &found.restorable {
                    output::out(format!(
                        "  restorable from {} ({}) to {} ({})",
                        range.from_token,
                        show_time(range.from_ms),
                        range.to_token,
                        show_time(range.to_ms)
                    ));
                }
                for c in &found.collections {
                    output::out(format!(
                        "  {}  {} points, {} documents",
                        c.collection,
                        output::number(c.points),
                        output::number(c.documents)
                    ));
                }
                Ok(())
            }
            Action::Verify { name, no_wait } => {
                let begun = client.verify_snapshot(&name).await?;
                follow(&client, &begun, no_wait).await
            }
            Action::Restore(args) => {
                let mut what = args.collection.map_or_else(Restore::all, Restore::collection);
                if let Some(name) = args.rename {
                    what = what.rename(name);
                }
                if let Some(shards) = args.shards {
                    what = what.shards(shards);
                }
                if args.replace {
                    what = what.replace();
                }
                if let Some(token) = args.to_token {
                    what = what.to_token(token);
                }
                if let Some(ms) = args.to_time {
                    what = what.to_time_ms(ms);
                }
                let begun = match args.name {
                    Some(name) => client.restore_snapshot(&name, what).await?,
                    None => client.restore(what).await?,
                };
                follow(&client, &begun, args.no_wait).await
            }
            Action::Delete { yes: false, name, .. } => Err(Failure::usage(format!(
                "this removes snapshot {name:?} for good: say --yes if that is meant"
            ))),
            Action::Delete { name, no_wait, .. } => {
                let begun = client.delete_snapshot(&name).await?;
                follow(&client, &begun, no_wait).await
            }
        }
    }
}

async fn follow(client: &Client, begun: &Operation, no_wait: bool) -> Result<(), Failure> {
    match no_wait {
        true => {
            output::out(&begun.id);
            Ok(())
        }
        false => operations::wait(client, &begun.id, false).await,
    }
}

fn line(s: &Snapshot) -> String {
    if let Some(why) = &s.damaged {
        return format!("{}  {why}", s.snapshot);
    }
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let age = now.saturating_sub(Duration::from_millis(s.created_at_ms)).as_secs();
    let age = match age {
        0..120 => format!("{age} s"),
        120..7_200 => format!("{} min", age / 60),
        7_200..172_800 => format!("{} h", age / 3_600),
        _ => format!("{} days", age / 86_400),
    };
    format!(
        "{}  {age} old, {} collections, {} in {} files",
        s.snapshot,
        s.collections_total,
        output::bytes(s.bytes),
        output::number(s.files)
    )
}
