//! `cairn ingest`: files to documents, a bounded number of requests at a time.
//!
//! Nothing is remembered here: the server says which documents are unchanged, so running the command again resumes an
//! interrupted run, retries what failed and updates what changed. A document's id is its path below the directory that
//! was named (a file named directly: its file name; a line or row: its own id), so that the same folder gives the same
//! ids from everywhere. One wrong file does not stop the others.
//!
//! `find` says which files there are, `read` and `fields` what documents they hold, `send` sends them and `put` finds out what
//! became of each, `report` counts; `watch` says what changed since, `known` what that means, and `follow` keeps up with it.

mod fields;
mod find;
mod follow;
mod known;
mod progress;
mod put;
mod read;
mod report;
mod send;
mod stop;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;

use cairn_client::{Collection, ErrorKind, OnNearDuplicate, Provenance, Schema, Trust};
use clap::{Args, ValueEnum};

use super::{Connection, DurabilityArg, Failure, output};

use self::fields::Fields;
use self::find::Source;
pub(super) use self::find::{Found, find, some};
use self::follow::{Again, Follow};
use self::known::Known;
pub(super) use self::progress::Progress;
use self::read::Reading;
use self::report::FAILURES_SHOWN;
pub(super) use self::report::Summary;
pub(super) use self::send::{Plan, ingest};
use self::stop::Stop;
use self::watch::Watch;

const EXAMPLES: &str = "\
Examples:
  cairn ingest ./docs --collection docs --create     a directory, with everything below it
  cairn ingest README.md notes.txt paper.pdf -c docs single files
  cairn ingest articles.jsonl -c docs                one document a line
  cairn ingest rows.csv -c docs --id-field sku --text-field name,description --metadata-field all
  cairn ingest ./docs -c docs --prefix handbook/     ids begin with handbook/
  cairn ingest ./docs -c docs --watch --delete-missing   follow the directory until Ctrl-C

Files: .md and .markdown (cut along headings), .txt, .html (visible text), .pdf
(text layer), .jsonl and .csv or .tsv with a header (one document a line or
row). Without the options under Records, a line of JSONL has \"id\" and \"text\",
and if wanted \"title\", \"source\", \"format\" (plain, markdown or html) and
\"metadata\". In .tsv a quote is a character like any other. Other files of a
directory are left out, and so is what begins with a dot. A file without text that
is not empty, such as scanned pages, has failed; an empty one takes what was stored
under its id with it. Running it again skips what is unchanged and goes on where it was
stopped; Ctrl-C finishes what is on its way, for 5 seconds at most.

A document's id is its path below the directory that you name, so that two
folders with a file of the same path overwrite each other: give each its own
--prefix. A file that you remove stays in the collection until its document is
deleted, which --watch --delete-missing does.

Exit codes: 0 all stored, 1 nothing done, 3 server unreachable, 4 some documents failed,
130 stopped before the end, or while files waited to be tried again.";

/// `cairn ingest`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ingest {
    /// Files, or directories to walk.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// The collection.
    #[arg(long, short)]
    collection: String,
    /// Make the collection if there is none.
    #[arg(long)]
    create: bool,
    /// Put before every id.
    #[arg(long, default_value = "")]
    prefix: String,
    /// How far the documents are trusted. What is quarantined is kept out of prompts.
    #[arg(long, value_enum)]
    trust: Option<TrustArg>,
    /// Who or what brought them in, shown with citations.
    #[arg(long, value_name = "TEXT", default_value = "")]
    origin: String,
    /// Who wrote them.
    #[arg(long, value_name = "TEXT", default_value = "")]
    author: String,
    /// What may be done with them.
    #[arg(long, value_name = "TEXT", default_value = "")]
    licence: String,
    /// What to do with a document that says almost the same as a stored one. Either way the report names it.
    #[arg(long, value_enum, default_value = "store")]
    on_near_duplicate: OnNearDuplicateArg,
    /// When the server answers: after a document is on disk, or before that, which then takes 100 ms at most
    /// [default: the collection's].
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
    #[command(flatten)]
    fields: Fields,
    /// Requests at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Go on until Ctrl-C: put in what changes.
    #[arg(long)]
    watch: bool,
    /// Delete the document of a file that is removed while watching. Lines and rows are not looked for, and nothing is
    /// deleted while the directory that you named is not there, or of what is below one that cannot be read.
    #[arg(long, requires = "watch")]
    delete_missing: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Clone, Copy, ValueEnum)]
enum TrustArg {
    Unverified,
    Trusted,
    Quarantined,
}

#[derive(Clone, Copy, ValueEnum)]
enum OnNearDuplicateArg {
    Store,
    Skip,
}

impl Ingest {
    pub(super) async fn run(mut self) -> Result<(), Failure> {
        if self.watch {
            // Events have absolute paths.
            for path in &mut self.paths {
                *path = std::path::absolute(&*path).map_err(|e| Failure::usage(format!("{}: {e}", path.display())))?;
            }
        }
        // Before the server is asked: a wrong path is wrong whether or not it runs.
        let found = find(&self.paths, &self.prefix)?;
        let found = if self.watch { found } else { some(found)? };
        let collection = self.collection().await?;
        let plan = self.plan()?;
        let mut summary = Summary::default();
        let progress = Progress::new(true);
        if self.watch {
            let watch = Watch::start(&self.paths)?;
            // Looked for again: what came since the first look made no event.
            let found = find(&self.paths, &self.prefix)?;
            let mut follow = Follow {
                collection: &collection,
                plan: &plan,
                known: Known::new(&self.paths, &self.prefix, self.delete_missing),
                again: Again::default(),
            };
            follow.first(found, &progress, &mut summary).await;
            follow.changes(watch, &mut summary).await;
            return self.report(&summary, None);
        }
        summary.unread(found.unread);
        let lost = ingest(&collection, found.sources, &plan, &progress, &mut summary)
            .await
            .err();
        self.report(&summary, lost)
    }

    async fn collection(&self) -> Result<Collection, Failure> {
        let client = self.connection.client().await?;
        match client.get_collection(&self.collection).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound && self.create => {
                client.create_collection(&self.collection, Schema::documents()).await?;
                output::note(format!("made collection {}", self.collection));
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Failure::new(format!(
                    "there is no collection {:?}: say --create to make it",
                    self.collection
                )));
            }
            Err(e) => return Err(e.into()),
        }
        let collection = client.collection(&self.collection);
        Ok(match self.durability {
            None => collection,
            Some(durability) => collection.with_durability(durability.into()),
        })
    }

    fn plan(&self) -> Result<Plan, Failure> {
        Ok(Plan {
            reading: Arc::new(Reading {
                prefix: self.prefix.clone(),
                fields: self.fields.clone(),
                trust: match self.trust {
                    None | Some(TrustArg::Unverified) => Trust::Unverified,
                    Some(TrustArg::Trusted) => Trust::Trusted,
                    Some(TrustArg::Quarantined) => Trust::Quarantined,
                },
                provenance: Provenance {
                    origin: self.origin.clone(),
                    author: self.author.clone(),
                    licence: self.licence.clone(),
                    fetched_at_ms: None,
                },
            }),
            on_near_duplicate: match self.on_near_duplicate {
                OnNearDuplicateArg::Store => OnNearDuplicate::Store,
                OnNearDuplicateArg::Skip => OnNearDuplicate::Skip,
            },
            parallel: self.parallel.into(),
            stop: Stop::on_signal()?,
        })
    }

    /// What became of everything, also if the server was lost on the way.
    fn report(&self, summary: &Summary, lost: Option<Failure>) -> Result<(), Failure> {
        if self.json {
            output::json(summary)?;
        } else {
            output::out(summary.to_string());
        }
        summary.show_failures();
        if let Some(lost) = lost {
            return Err(lost);
        }
        match summary.failed {
            0 if summary.interrupted => Err(Failure {
                code: Failure::STOPPED,
                message: "stopped before the end; run it again to go on".to_owned(),
            }),
            0 => Ok(()),
            n if n > FAILURES_SHOWN as u64 => Err(Failure::partly(format!(
                "{n} documents failed, the first {FAILURES_SHOWN} are above"
            ))),
            n => Err(Failure::partly(format!("{n} documents failed"))),
        }
    }
}
