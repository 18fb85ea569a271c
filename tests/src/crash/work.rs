//! The writers and the reader, and what they write: every byte follows from the seed, the key and the number of the operation.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cairn_client::{
    Client, Collection, Condition, Document, Error, ErrorKind, Filter, Payload, Point, Scroll, Selection, StoredPoint,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::Counts;
use super::judge::{DocumentSeen, document_seen};
use super::oracle::{Line, Op, Oracle, Outcome, What};

pub const POINTS: &str = "crash-points";
pub const DOCUMENTS: &str = "crash-documents";
pub const DIM: usize = 16;
/// Writers of points, numbered from 0; writers of documents come after them.
pub const POINT_WRITERS: usize = 6;
pub const DOCUMENT_WRITERS: usize = 2;
/// Keys of one writer, `writer * KEYS ..`.
const KEYS: u32 = 800;
pub const GROUPS: u32 = 8;
/// Documents of one writer.
const DOCUMENTS_EACH: u32 = 20;
/// Points of one upsert.
const UPSERT_MAX: usize = 60;

pub const POINT_KEYS: u32 = POINT_WRITERS as u32 * KEYS;
pub const DOCUMENT_KEYS: u32 = DOCUMENT_WRITERS as u32 * DOCUMENTS_EACH;

pub fn writer_of(key: u32) -> usize {
    (key / KEYS) as usize
}

pub fn group_of(key: u32) -> u32 {
    key % GROUPS
}

pub fn document_writer(document: u32) -> usize {
    POINT_WRITERS + (document / DOCUMENTS_EACH) as usize
}

/// What is written, as a function of a seed.
#[derive(Debug, Clone, Copy)]
pub struct Content {
    pub seed: u64,
}

impl Content {
    fn rng(&self, key: u64, op: Op) -> StdRng {
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ op.wrapping_mul(0xc2b2_ae3d_27d4_eb4f).rotate_left(31);
        StdRng::seed_from_u64(self.seed ^ mixed)
    }

    pub fn vector(&self, key: u32, upsert: Op) -> Vec<f32> {
        let mut rng = self.rng(u64::from(key), upsert);
        (0..DIM).map(|_| rng.random_range(-1.0f32..1.0)).collect()
    }

    /// What an upsert writes, changed by `set` if there was one.
    pub fn payload(&self, key: u32, upsert: Op, set: Option<Op>) -> Payload {
        let mut rng = self.rng(u64::from(key) | 1 << 32, upsert);
        let mut payload = Payload::new();
        let mut add = |name: &str, value: Value| payload.insert(name.to_owned(), value);
        add("writer", writer_of(key).into());
        add("group", format!("g{}", group_of(key)).into());
        add("op", upsert.into());
        add("note", format!("{} mark{upsert}", words(&mut rng, 6)).into());
        add(
            "mixed",
            json!({"f": rng.random::<f64>(), "big": rng.random::<i64>(), "list": [1, "größe", null, {"deep": true}]}),
        );
        if rng.random_ratio(1, 10) {
            add("long", words(&mut rng, 200).into());
        }
        if let Some(op) = set {
            payload.extend(self.change(key, op));
        }
        payload
    }

    /// What a payload change sets; it is the same for all keys of the operation.
    fn change(&self, key: u32, op: Op) -> Payload {
        let mut rng = self.rng(writer_of(key) as u64 | 1 << 33, op);
        let mut change = Payload::new();
        change.insert("set".to_owned(), op.into());
        change.insert("note".to_owned(), format!("{} mark{op}", words(&mut rng, 4)).into());
        change
    }

    fn point(&self, key: u32, op: Op) -> Point {
        Point::new(point_id(key))
            .vector(self.vector(key, op))
            .payload(self.payload(key, op, None))
    }

    /// Half of the paragraphs stay the same from version to version, so that chunks are reused, and their number differs.
    pub fn text(&self, document: u32, op: Op) -> String {
        let mut rng = self.rng(u64::from(document) | 1 << 34, op);
        let count = rng.random_range(2..12);
        let paragraph = |i: u32| {
            if i % 2 == 1 {
                format!(
                    "Always {}.",
                    words(&mut self.rng(u64::from(document) << 8 | u64::from(i) | 1 << 35, 0), 14)
                )
            } else {
                format!(
                    "Version mark{op} {}.",
                    words(&mut self.rng(u64::from(document) << 8 | u64::from(i) | 1 << 35, op), 14)
                )
            }
        };
        (0..count).map(paragraph).collect::<Vec<_>>().join("\n\n")
    }
}

/// What all tasks share.
pub struct World {
    pub content: Content,
    pub oracle: Oracle,
    /// The last operation number given out.
    last_op: AtomicU64,
    /// By document: the last acknowledged operation on it.
    acked_documents: Vec<AtomicU64>,
}

impl World {
    pub fn new(seed: u64, oracle: Oracle) -> Arc<Self> {
        let acked_documents = (0..DOCUMENT_KEYS).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Self {
            content: Content { seed },
            oracle,
            last_op: AtomicU64::new(0),
            acked_documents,
        })
    }
}

pub fn point_id(key: u32) -> String {
    format!("p{key}")
}

pub fn document_id(document: u32) -> String {
    format!("doc/{document}")
}

pub fn number_of(id: &str, prefix: &str, bound: u32) -> Option<u32> {
    id.strip_prefix(prefix)?.parse().ok().filter(|n| *n < bound)
}

fn words(rng: &mut StdRng, n: usize) -> String {
    const WORDS: [&str; 24] = [
        "stone", "path", "river", "segment", "ledger", "mountain", "winter", "harbour", "signal", "engine", "garden",
        "letter", "northern", "quiet", "copper", "window", "island", "market", "shadow", "thread", "valley", "lantern",
        "bridge", "orchard",
    ];
    (0..n)
        .map(|_| WORDS[rng.random_range(0..WORDS.len())])
        .collect::<Vec<_>>()
        .join(" ")
}

/// What one cycle's tasks did.
#[derive(Default)]
pub struct Done {
    pub acked: u64,
    pub refused: u64,
    pub unknown: u64,
    pub reads: u64,
    pub counts: Counts,
}

pub struct Tasks {
    writers: Vec<JoinHandle<anyhow::Result<Done>>>,
    reader: JoinHandle<Done>,
}

impl Tasks {
    /// Waits for all of them; they end by themselves when the server is gone.
    pub async fn finish(self) -> anyhow::Result<Done> {
        let mut all = self.reader.await?;
        for writer in self.writers {
            let done = writer.await??;
            all.acked += done.acked;
            all.refused += done.refused;
            all.unknown += done.unknown;
        }
        Ok(all)
    }
}

pub fn start(world: &Arc<World>, client: &Client, stop: &Arc<AtomicBool>, seed: u64) -> Tasks {
    let writer = |w: usize| {
        let (world, client, stop) = (Arc::clone(world), client.clone(), Arc::clone(stop));
        let rng = StdRng::seed_from_u64(seed.wrapping_add(w as u64));
        tokio::spawn(async move { write(&world, &client, w, rng, &stop).await })
    };
    let reader = {
        let (world, client, stop) = (Arc::clone(world), client.clone(), Arc::clone(stop));
        let rng = StdRng::seed_from_u64(seed ^ u64::MAX);
        tokio::spawn(async move { read(&world, &client, rng, &stop).await })
    };
    Tasks {
        writers: (0..POINT_WRITERS + DOCUMENT_WRITERS).map(writer).collect(),
        reader,
    }
}

/// One operation after the other, until one of them has no answer.
async fn write(
    world: &World,
    client: &Client,
    writer: usize,
    mut rng: StdRng,
    stop: &AtomicBool,
) -> anyhow::Result<Done> {
    let mut done = Done::default();
    while !stop.load(Ordering::Relaxed) {
        let op = world.last_op.fetch_add(1, Ordering::Relaxed) + 1;
        let what = if writer < POINT_WRITERS {
            any_points(&mut rng, writer)
        } else {
            any_document(&mut rng, writer)
        };
        world.oracle.say(&Line::Intent {
            writer,
            op,
            what: what.clone(),
        })?;
        let outcome = match send(world.content, client, writer, op, &what).await {
            Ok(()) => Outcome::Acked,
            // Refused before anything was done: the server says so.
            Err(e) if matches!(e.kind(), ErrorKind::Exhausted) => Outcome::Refused,
            // The end of the process, or of its disk just before it.
            Err(e)
                if matches!(e.kind(), ErrorKind::Unreachable | ErrorKind::Unavailable)
                    || e.code() == "write_failed" =>
            {
                Outcome::Unknown
            }
            Err(e) => anyhow::bail!("writer {writer}, {what:?}: {e}"),
        };
        world.oracle.say(&Line::Outcome {
            writer,
            op,
            is: outcome,
        })?;
        match outcome {
            Outcome::Acked => {
                done.acked += 1;
                if let What::PutDocument(document) | What::DeleteDocument(document) = what {
                    world.acked_documents[document as usize].store(op, Ordering::Release);
                }
            }
            Outcome::Refused => done.refused += 1,
            // The next operation on these keys would be of unknown order.
            Outcome::Unknown => {
                done.unknown += 1;
                break;
            }
        }
    }
    Ok(done)
}

fn any_points(rng: &mut StdRng, writer: usize) -> What {
    points_of(rng, writer, KEYS, UPSERT_MAX)
}

/// An operation on some of a writer's first `keys` keys, at most `most` of them.
pub fn points_of(rng: &mut StdRng, writer: usize, keys: u32, most: usize) -> What {
    let first = writer as u32 * KEYS;
    let n = rng.random_range(1..=most);
    let keys: BTreeSet<u32> = (0..n).map(|_| first + rng.random_range(0..keys)).collect();
    let keys = keys.into_iter().collect();
    match rng.random_range(0..100) {
        0..60 => What::Upsert(keys),
        60..80 => What::SetPayload(keys),
        80..96 => What::Delete(keys),
        _ => What::DeleteGroup(rng.random_range(0..GROUPS)),
    }
}

/// An operation on one of a writer's documents.
pub fn any_document(rng: &mut StdRng, writer: usize) -> What {
    let document = (writer - POINT_WRITERS) as u32 * DOCUMENTS_EACH + rng.random_range(0..DOCUMENTS_EACH);
    if rng.random_ratio(1, 8) {
        What::DeleteDocument(document)
    } else {
        What::PutDocument(document)
    }
}

/// Asks the server for it.
pub async fn send(content: Content, client: &Client, writer: usize, op: Op, what: &What) -> Result<(), Error> {
    let (points, documents) = (client.collection(POINTS), client.collection(DOCUMENTS));
    match what {
        What::Upsert(keys) => points
            .upsert(keys.iter().map(|key| content.point(*key, op)))
            .await
            .map(drop),
        What::SetPayload(keys) => {
            let change = content.change(keys[0], op);
            points
                .set_payload(keys.iter().map(|key| point_id(*key)), change)
                .await
                .map(drop)
        }
        What::Delete(keys) => points
            .delete(Selection::ids(keys.iter().map(|key| point_id(*key))))
            .await
            .map(drop),
        What::DeleteGroup(group) => {
            let filter = Filter::new()
                .must(Condition::equals("writer", writer as u64))
                .must(Condition::equals("group", format!("g{group}")));
            points.delete(filter).await.map(drop)
        }
        What::PutDocument(document) => {
            let text = content.text(*document, op);
            documents
                .put_document(Document::plain(document_id(*document), text).with("op", op))
                .await
                .map(drop)
        }
        What::DeleteDocument(document) => documents.delete_documents([document_id(*document)]).await.map(drop),
    }
}

/// Reads documents while they are replaced: each is there as one version or not at all, and not older than was acknowledged before.
async fn read(world: &World, client: &Client, mut rng: StdRng, stop: &AtomicBool) -> Done {
    let documents = client.collection(DOCUMENTS);
    let mut done = Done::default();
    while !stop.load(Ordering::Relaxed) {
        let document = rng.random_range(0..DOCUMENT_KEYS);
        let acked = world.acked_documents[document as usize].load(Ordering::Acquire);
        let by_filter = rng.random_bool(0.5);
        let Ok(mut chunks) = chunks(&documents, document, by_filter).await else {
            break;
        };
        done.reads += 1;
        match document_seen(world.content, document, &mut chunks) {
            DocumentSeen::Torn(why) => {
                done.counts.mixed_reads += 1;
                done.counts
                    .example(format!("a reader saw {} torn: {why}", document_id(document)));
            }
            DocumentSeen::Whole(op) if op < acked => {
                done.counts.stale_reads += 1;
                done.counts.example(format!(
                    "a reader saw {} of operation {op}, {acked} was acknowledged before",
                    document_id(document)
                ));
            }
            DocumentSeen::Whole(_) | DocumentSeen::Absent => {}
        }
    }
    done
}

/// A document's chunks by two ways that share little code.
async fn chunks(documents: &Collection, document: u32, by_filter: bool) -> Result<Vec<StoredPoint>, Error> {
    let id = document_id(document);
    if by_filter {
        let scroll = Scroll::new().filter(Condition::has_document([id])).limit(1_000);
        return Ok(documents.scroll(scroll).await?.points);
    }
    Ok(documents
        .get_document_with_chunks(&id)
        .await?
        .map(|d| d.chunks)
        .unwrap_or_default())
}
