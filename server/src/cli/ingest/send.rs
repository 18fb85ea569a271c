//! Sending documents: in batches, some at the same time, each answered for. Memory is bounded by the batches on their
//! way.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cairn_client::{Collection, ErrorKind, OnNearDuplicate};
use futures::StreamExt;
use xxhash_rust::xxh3::xxh3_128;

use super::super::Failure;
use super::find::Source;
use super::progress::Progress;
use super::put::{Outcome, Why, put};
use super::read::{Item, Reading};
use super::report::Summary;
use super::stop::Stop;

/// Documents in one request. Small, so that requests overlap and progress moves.
const BATCH_DOCUMENTS: usize = 32;
/// Bytes in one request.
const BATCH_BYTES: usize = 1 << 20;
/// How long what is on its way is waited for after somebody said stop. Each document is stored whole or not at all, and
/// the next run asks which.
const STOPPING_MAX: Duration = Duration::from_secs(5);

/// How files become documents of a collection.
#[derive(Clone)]
pub(in crate::cli) struct Plan {
    pub(super) reading: Arc<Reading>,
    pub(super) on_near_duplicate: OnNearDuplicate,
    /// Requests at the same time.
    pub(super) parallel: usize,
    pub(super) stop: Stop,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            reading: Arc::default(),
            on_near_duplicate: OnNearDuplicate::Store,
            parallel: 4,
            stop: Stop::default(),
        }
    }
}

/// Reads and sends everything, and adds what became of it to `summary`. Gives back the files that hold what
/// the server could not take now and may take later. Fails only if nothing answers any more.
pub(in crate::cli) async fn ingest(
    collection: &Collection,
    sources: Vec<Source>,
    plan: &Plan,
    progress: &Progress,
    summary: &mut Summary,
) -> Result<HashSet<String>, Failure> {
    let began = Instant::now();
    let before = (summary.documents, summary.chunks);
    progress.begin(sources.iter().map(|s| s.bytes).sum());
    // Once nobody answers, the rest is not tried: each batch would wait for its own deadline.
    let unreachable = AtomicBool::new(false);
    let mut seen = HashSet::new();
    let items = sources
        .into_iter()
        .flat_map(|source| plan.reading.documents(source))
        .map(move |item| once(&mut seen, item));
    let cut_short = AtomicBool::new(false);
    let batches = Batches { items, waiting: None }.take_while(|_| {
        cut_short.fetch_or(plan.stop.is_asked(), Ordering::Relaxed);
        !cut_short.load(Ordering::Relaxed) && !unreachable.load(Ordering::Relaxed)
    });
    let mut answers = futures::stream::iter(batches)
        .map(|batch| {
            let cut_short = &cut_short;
            async move {
                let sent = batch.len();
                let outcomes = put(collection, batch, plan).await;
                cut_short.fetch_or(outcomes.len() < sent, Ordering::Relaxed);
                outcomes
            }
        })
        .buffer_unordered(plan.parallel);
    let mut stopping = pin!(async {
        plan.stop.asked().await;
        tokio::time::sleep(STOPPING_MAX).await;
    });

    let mut lost = None;
    let mut later = HashSet::new();
    loop {
        let outcomes = tokio::select! {
            // What has arrived counts, however late.
            biased;
            answered = answers.next() => match answered {
                Some(outcomes) => outcomes,
                None => break,
            },
            () = &mut stopping => {
                cut_short.store(true, Ordering::Relaxed);
                break;
            }
        };
        for Outcome { what, bytes, result } in outcomes {
            summary.documents += 1;
            summary.bytes += bytes;
            match result {
                Ok(None) => summary.empty += 1,
                Ok(Some(put)) => summary.put(put),
                Err(why) => {
                    if let Why::Refused(e) | Why::NotTried(e) = &why {
                        if e.kind() == ErrorKind::Unreachable {
                            unreachable.store(true, Ordering::Relaxed);
                            lost.get_or_insert_with(|| e.clone());
                        }
                        if e.is_retryable() || e.kind() == ErrorKind::Deadline {
                            later.insert(what.file.clone());
                        }
                    }
                    summary.failed(what, why.to_string());
                }
            }
            let (documents, chunks) = (summary.documents - before.0, summary.chunks - before.1);
            progress.moved(bytes, documents, chunks, began.elapsed());
        }
    }
    drop(answers);
    progress.end();
    summary.interrupted |= cut_short.into_inner();
    summary.seconds += began.elapsed().as_secs_f64();
    match lost {
        Some(e) => {
            let mut failure = Failure::from(e);
            let stored = summary.documents - summary.failed;
            failure.message = format!(
                "{}; {stored} documents are stored, run it again to go on",
                failure.message
            );
            Err(failure)
        }
        None => Ok(later),
    }
}

/// Refuses a second document of the same id: requests overlap, so that it would be chance which one stays. Ids are kept
/// as hashes: a million of them are some tens of megabytes whatever their length.
fn once(seen: &mut HashSet<u128>, mut item: Item) -> Item {
    if let Ok(document) = &item.document
        && !seen.insert(xxh3_128(document.id.as_bytes()))
    {
        item.document = Err(format!(
            "an earlier document of this run has the same id: {:?}; ingest its folder by itself, with --prefix",
            document.id
        ));
    }
    item
}

/// Groups items by number and bytes.
struct Batches<I> {
    items: I,
    waiting: Option<Item>,
}

impl<I: Iterator<Item = Item>> Iterator for Batches<I> {
    type Item = Vec<Item>;

    fn next(&mut self) -> Option<Vec<Item>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.waiting.take().or_else(|| self.items.next()) {
            let size = item.document.as_ref().map_or(0, |d| d.text.len() + d.data.len());
            if !batch.is_empty() && (batch.len() >= BATCH_DOCUMENTS || bytes + size > BATCH_BYTES) {
                self.waiting = Some(item);
                break;
            }
            bytes += size;
            batch.push(item);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use cairn_client::Document;

    use super::super::read::Origin;
    use super::*;

    fn item(id: &str, bytes: usize) -> Item {
        Item {
            what: Origin {
                file: String::new(),
                line: None,
            },
            bytes: 0,
            document: Ok(Document::plain(id, "a".repeat(bytes))),
        }
    }

    #[test]
    fn the_first_document_of_an_id_wins() {
        let mut seen = HashSet::new();
        let items = ["a", "b", "a"].map(|id| once(&mut seen, item(id, 1)));
        assert!(items[0].document.is_ok() && items[1].document.is_ok());
        assert!(items[2].document.as_ref().unwrap_err().contains("same id"));
    }

    #[test]
    fn batches_are_bounded_and_lose_nothing() {
        let sizes = |items: Vec<Item>| -> Vec<usize> {
            Batches {
                items: items.into_iter(),
                waiting: None,
            }
            .map(|b| b.len())
            .collect()
        };
        assert_eq!(sizes((0..70).map(|_| item("x", 1)).collect()), [32, 32, 6]);
        let large = [BATCH_BYTES * 2, 10, BATCH_BYTES - 10, 1].map(|bytes| item("x", bytes));
        assert_eq!(sizes(large.into()), [1, 2, 1]);
        assert!(sizes(Vec::new()).is_empty());
    }
}
