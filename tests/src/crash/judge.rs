//! After a restart: everything is read back and compared with what the oracle allows.
//!
//! A writer's keys must be exactly as acknowledged, with its one unknown operation done on all of its keys or on none. What does
//! not fit is counted by kind; nothing is repaired, the first cycle that does not fit ends the bench.

use std::collections::{BTreeMap, HashMap};
use std::sync::{LazyLock, Mutex};

use anyhow::Context;
use cairn_client::{Client, Collection, Condition, Query, Scroll, StoredPoint};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::Value;

use super::Counts;
use super::oracle::{Expected, Line, Op, PointState, What};
use super::work::{self, Content, DOCUMENT_KEYS, DOCUMENTS, GROUPS, POINT_KEYS, POINTS, World, document_id, point_id};

/// Points, groups and documents that are also asked for in other ways, of each kind.
const SAMPLES: usize = 8;
/// Small enough that the planner prefers a graph where there is one.
const GRAPH_EF: u32 = 24;
/// Points of one page of the scan: less than all, so that cursors are used.
const PAGE: u32 = 700;

/// What one judgement found.
#[derive(Default)]
pub struct Judged {
    pub counts: Counts,
    /// Unknown operations that had happened.
    pub happened: u64,
    pub not_happened: u64,
    /// Searches of points by their own vectors that walked a graph, and those that found them first.
    pub graph: (u64, u64),
    pub points: usize,
    pub documents: usize,
}

/// A document as its chunks show it.
pub enum DocumentSeen {
    Absent,
    /// All chunks, all of this operation, all bytes as sent.
    Whole(Op),
    /// Anything else.
    Torn(String),
}

/// Everything that is there, as the operations that it is of.
#[derive(Default)]
pub struct Seen {
    pub points: BTreeMap<u32, PointState>,
    /// With the number of chunks.
    pub documents: BTreeMap<u32, (Op, usize)>,
    /// What is of no operation.
    pub counts: Counts,
}

/// Reads all points and chunks.
pub async fn read_back(content: Content, client: &Client) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    seen.points = seen_points(content, scan(&client.collection(POINTS)).await?, &mut seen.counts);
    seen.documents = seen_documents(content, scan(&client.collection(DOCUMENTS)).await?, &mut seen.counts);
    Ok(seen)
}

impl Seen {
    /// What is wrong if this is what should be there.
    pub fn differences(&self, expected: &Expected) -> Counts {
        let mut counts = self.counts.clone();
        for writer in 0..work::POINT_WRITERS + work::DOCUMENT_WRITERS {
            counts += self.differences_of(writer, expected);
        }
        counts
    }

    fn differences_of(&self, writer: usize, expected: &Expected) -> Counts {
        let mut counts = Counts::default();
        compare_points(writer, expected, &self.points, &mut counts);
        compare_documents(writer, expected, &self.documents, &mut counts);
        counts
    }
}

/// Compares with what the oracle allows, and tells it what became of operations that nobody knew of.
pub async fn judge(world: &World, client: &Client, rng: &mut StdRng) -> anyhow::Result<Judged> {
    let expected = world.oracle.expected()?;
    let seen = read_back(world.content, client).await?;
    let mut judged = Judged {
        counts: seen.counts.clone(),
        points: seen.points.len(),
        documents: seen.documents.len(),
        ..Judged::default()
    };

    for writer in 0..work::POINT_WRITERS + work::DOCUMENT_WRITERS {
        let compare = |expected: &Expected| seen.differences_of(writer, expected);
        let before = compare(&expected);
        let clean = Counts::default();
        let Some((op, what)) = expected.pending.get(&writer) else {
            judged.counts += before;
            continue;
        };
        let mut done = expected.clone();
        done.apply(writer, *op, what);
        let after = compare(&done);
        let happened = match (before == clean, after == clean) {
            (true, _) => false,
            (false, true) => true,
            (false, false) => {
                let mut counts = before;
                // If the keys that the operation touched are all as before or as after, only its atomicity is broken.
                if only_partly(what, &expected, &done, &seen.points) {
                    counts = Counts {
                        torn_writes: 1,
                        examples: counts.examples,
                        ..Counts::default()
                    };
                }
                counts.example(format!("writer {writer}: {what:?} of operation {op} was under way"));
                judged.counts += counts;
                continue;
            }
        };
        judged.happened += u64::from(happened);
        judged.not_happened += u64::from(!happened);
        world.oracle.say(&Line::Judged {
            writer,
            op: *op,
            happened,
        })?;
    }

    other_ways(world.content, client, &seen, rng, &mut judged).await?;
    Ok(judged)
}

/// Whether counts, filters, ids, lists, vector and text search tell the same as the scan.
pub async fn other_ways(
    content: Content,
    client: &Client,
    seen: &Seen,
    rng: &mut StdRng,
    judged: &mut Judged,
) -> anyhow::Result<()> {
    other_ways_points(content, &client.collection(POINTS), &seen.points, rng, judged).await?;
    other_ways_documents(&client.collection(DOCUMENTS), &seen.documents, rng, &mut judged.counts).await
}

/// True if every point that the operation touches is either as it was or as it should become.
fn only_partly(what: &What, before: &Expected, after: &Expected, seen: &BTreeMap<u32, PointState>) -> bool {
    let touched = |key: &u32| match what {
        What::Upsert(keys) | What::SetPayload(keys) | What::Delete(keys) => keys.contains(key),
        What::DeleteGroup(group) => work::group_of(*key) == *group,
        What::PutDocument(_) | What::DeleteDocument(_) => false,
    };
    let fits =
        |key: &u32| seen.get(key) == before.points.get(key) || (touched(key) && seen.get(key) == after.points.get(key));
    !matches!(what, What::PutDocument(_) | What::DeleteDocument(_)) && (0..POINT_KEYS).all(|key| fits(&key))
}

/// Every point of a collection, with everything.
async fn scan(collection: &Collection) -> anyhow::Result<Vec<StoredPoint>> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let scroll = Scroll {
            cursor,
            ..Scroll::new().limit(PAGE).with_vectors()
        };
        let page = collection.scroll(scroll).await?;
        all.extend(page.points);
        cursor = page.cursor;
        if cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Which operations each point's bytes are of; bytes of no operation are counted here.
fn seen_points(content: Content, scanned: Vec<StoredPoint>, counts: &mut Counts) -> BTreeMap<u32, PointState> {
    let mut seen = BTreeMap::new();
    for point in scanned {
        let Some(key) = work::number_of(&point.id, "p", POINT_KEYS) else {
            counts.phantom += 1;
            counts.example(format!("point {:?} was never sent", point.id));
            continue;
        };
        let payload = point.payload.unwrap_or_default();
        let number = |name: &str| payload.get(name).and_then(Value::as_u64);
        let state = PointState {
            upsert: number("op").unwrap_or(0),
            set: number("set"),
        };
        let vector = point.vectors.as_ref().and_then(|v| v.get("v"));
        let same_vector = vector.is_some_and(|v| bits(v) == bits(&content.vector(key, state.upsert)));
        if !same_vector || payload != content.payload(key, state.upsert, state.set) {
            counts.wrong_bytes += 1;
            counts.example(format!("{} is {vector:?} with {payload:?}", point.id));
        }
        if seen.insert(key, state).is_some() {
            counts.phantom += 1;
            counts.example(format!("{} is there twice", point.id));
        }
    }
    seen
}

fn bits(vector: &[f32]) -> Vec<u32> {
    vector.iter().map(|x| x.to_bits()).collect()
}

fn seen_documents(content: Content, scanned: Vec<StoredPoint>, counts: &mut Counts) -> BTreeMap<u32, (Op, usize)> {
    let mut chunks: BTreeMap<u32, Vec<StoredPoint>> = BTreeMap::new();
    for chunk in scanned {
        if !same_embedding(&chunk) {
            counts.wrong_bytes += 1;
            counts.example(format!(
                "chunk {:?} has another vector than the same text had before",
                chunk.id
            ));
        }
        let document = chunk
            .document
            .as_deref()
            .and_then(|id| work::number_of(id, "doc/", DOCUMENT_KEYS));
        match document {
            Some(document) => chunks.entry(document).or_default().push(chunk),
            None => {
                counts.phantom += 1;
                counts.example(format!(
                    "chunk {:?} of document {:?} was never sent",
                    chunk.id, chunk.document
                ));
            }
        }
    }
    let mut seen = BTreeMap::new();
    for (document, mut chunks) in chunks {
        let n = chunks.len();
        match document_seen(content, document, &mut chunks) {
            DocumentSeen::Absent => {}
            DocumentSeen::Whole(op) => {
                seen.insert(document, (op, n));
            }
            DocumentSeen::Torn(why) => {
                counts.torn_documents += 1;
                counts.example(format!("{} is torn: {why}", document_id(document)));
            }
        }
    }
    seen
}

/// A text is embedded the same way every time, over all processes.
fn same_embedding(chunk: &StoredPoint) -> bool {
    static KNOWN: LazyLock<Mutex<HashMap<String, Vec<u32>>>> = LazyLock::new(Mutex::default);
    let text = chunk
        .payload
        .as_ref()
        .and_then(|p| p.get("text"))
        .and_then(Value::as_str);
    let vector = chunk.vectors.as_ref().and_then(|v| v.values().next());
    let (Some(text), Some(vector), Ok(mut known)) = (text, vector, KNOWN.lock()) else {
        return false;
    };
    // Enough for a comparison, small enough to keep for every text.
    let some: Vec<u32> = bits(vector).into_iter().step_by(16).collect();
    *known.entry(text.to_owned()).or_insert_with(|| some.clone()) == some
}

/// Sorts a document's chunks and says what they are together.
pub fn document_seen(content: Content, document: u32, chunks: &mut [StoredPoint]) -> DocumentSeen {
    if chunks.is_empty() {
        return DocumentSeen::Absent;
    }
    match whole(content, document, chunks) {
        Ok(op) => DocumentSeen::Whole(op),
        Err(why) => DocumentSeen::Torn(why),
    }
}

fn whole(content: Content, document: u32, chunks: &mut [StoredPoint]) -> Result<Op, String> {
    let field = |c: &StoredPoint, name: &str| {
        c.payload
            .as_ref()
            .and_then(|p| p.get(name))
            .cloned()
            .unwrap_or_default()
    };
    let op_of = |c: &StoredPoint| field(c, "op").as_u64().unwrap_or(0);
    chunks.sort_by_key(|c| field(c, "chunk").as_u64());
    let op = op_of(&chunks[0]);
    let text = content.text(document, op);
    let mut end = 0;
    for (n, chunk) in chunks.iter().enumerate() {
        if op_of(chunk) != op {
            return Err(format!("chunks of operations {op} and {}", op_of(chunk)));
        }
        let span = field(chunk, "span");
        let at = |i: usize| {
            span.get(i)
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0)
        };
        let (from, to) = (at(0), at(1));
        let between = text
            .get(end..from)
            .ok_or_else(|| format!("chunk {n} begins at {from}, the one before it ends at {end}"))?;
        let as_sent = chunk.id == format!("{}#{n}", document_id(document))
            && field(chunk, "chunk").as_u64() == Some(n as u64)
            && field(chunk, "document") == document_id(document)
            && between.trim().is_empty()
            && text.get(from..to).is_some_and(|t| field(chunk, "text") == t);
        if !as_sent {
            return Err(format!(
                "chunk {n} of operation {op} is {:?} {:?}",
                chunk.id, chunk.payload
            ));
        }
        end = to;
    }
    if !text.get(end..).is_some_and(|rest| rest.trim().is_empty()) {
        return Err(format!(
            "operation {op} has {} bytes of text, chunks end at {end}",
            text.len()
        ));
    }
    Ok(op)
}

fn compare_points(writer: usize, expected: &Expected, seen: &BTreeMap<u32, PointState>, counts: &mut Counts) {
    for key in (0..POINT_KEYS).filter(|key| work::writer_of(*key) == writer) {
        let (should, is) = (expected.points.get(&key), seen.get(&key));
        if should == is {
            continue;
        }
        match (should, is) {
            (None, _) => counts.phantom += 1,
            (Some(_), _) => counts.acked_lost += 1,
        }
        counts.example(format!("{} should be {should:?}, is {is:?}", point_id(key)));
    }
}

fn compare_documents(writer: usize, expected: &Expected, seen: &BTreeMap<u32, (Op, usize)>, counts: &mut Counts) {
    for document in (0..DOCUMENT_KEYS).filter(|d| work::document_writer(*d) == writer) {
        let (should, is) = (expected.documents.get(&document), seen.get(&document).map(|(op, _)| op));
        if should == is {
            continue;
        }
        match should {
            None => counts.phantom += 1,
            Some(_) => counts.acked_lost += 1,
        }
        counts.example(format!(
            "{} should be of {should:?}, is of {is:?}",
            document_id(document)
        ));
    }
}

async fn other_ways_points(
    content: Content,
    points: &Collection,
    seen: &BTreeMap<u32, PointState>,
    rng: &mut StdRng,
    judged: &mut Judged,
) -> anyhow::Result<()> {
    let (counts, graph) = (&mut judged.counts, &mut judged.graph);
    let mut check = |same: bool, what: String| {
        if !same {
            counts.index_mismatch += 1;
            counts.example(what);
        }
    };
    let total = points.count(cairn_client::Filter::new()).await?;
    check(
        total == seen.len() as u64,
        format!("{total} points are counted, {} are there", seen.len()),
    );
    let group = rng.random_range(0..GROUPS);
    let in_group = seen.keys().filter(|key| work::group_of(**key) == group).count() as u64;
    let counted = points.count(Condition::equals("group", format!("g{group}"))).await?;
    check(
        counted == in_group,
        format!("{counted} points of group {group} are counted, {in_group} are there"),
    );

    let keys: Vec<u32> = seen.keys().copied().collect();
    for key in keys.choose_multiple(rng, SAMPLES) {
        let (id, state) = (point_id(*key), seen[key]);
        let vector = content.vector(*key, state.upsert);
        for (how, query) in [
            ("exactly", Query::nearest(vector.clone()).exact()),
            ("by graph", Query::nearest(vector.clone()).ef(GRAPH_EF)),
            (
                "with a filter",
                Query::nearest(vector.clone()).filter(Condition::equals("group", format!("g{}", work::group_of(*key)))),
            ),
        ] {
            let answer = points.query(query.limit(3).explain()).await?;
            let first = answer.hits.first().map(|h| h.point.id.clone());
            let found = first.as_ref() == Some(&id);
            if answer.explain.iter().any(|leg| leg.strategy.starts_with("graph")) {
                *graph = (graph.0 + 1, graph.1 + u64::from(found));
            } else {
                check(found, format!("the nearest to {id} {how} is {first:?}"));
            }
            let dead = answer
                .hits
                .iter()
                .find(|h| work::number_of(&h.point.id, "p", POINT_KEYS).is_none_or(|k| !seen.contains_key(&k)));
            check(
                dead.is_none(),
                format!("search {how} finds {dead:?}, which is not there"),
            );
        }
        let got = points.get([id.clone()]).await?;
        let op = got.first().and_then(|p| p.payload.as_ref()?.get("op")?.as_u64());
        check(
            op == Some(state.upsert),
            format!("{id} by its id is of {op:?}, by the scan of {}", state.upsert),
        );
    }
    // Words that only one operation wrote: found as long as that operation's text is there, and not after.
    for key in keys.choose_multiple(rng, SAMPLES) {
        let state = seen[key];
        let mark = format!("mark{}", state.set.unwrap_or(state.upsert));
        let found = points.query(Query::text(mark.clone()).limit(100)).await?;
        let ids: Vec<&str> = found.hits.iter().map(|h| h.point.id.as_str()).collect();
        check(
            ids.contains(&point_id(*key).as_str()),
            format!("{mark} is not found in {}", point_id(*key)),
        );
        let with_mark = |k: &u32| {
            let (op, s) = (state.set.unwrap_or(state.upsert), seen.get(k));
            s.is_some_and(|s| s.set.unwrap_or(s.upsert) == op)
        };
        let wrong = ids
            .iter()
            .find(|id| work::number_of(id, "p", POINT_KEYS).is_none_or(|k| !with_mark(&k)));
        check(
            wrong.is_none(),
            format!("{mark} is found in {wrong:?}, which does not hold it"),
        );
    }
    Ok(())
}

async fn other_ways_documents(
    documents: &Collection,
    seen: &BTreeMap<u32, (Op, usize)>,
    rng: &mut StdRng,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let mut listed = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = documents.list_documents(after.as_deref(), Some(7)).await?;
        for d in page.documents {
            let document =
                work::number_of(&d.id, "doc/", DOCUMENT_KEYS).with_context(|| format!("document {:?}", d.id))?;
            let op = d.metadata.get("op").and_then(Value::as_u64).unwrap_or(0);
            listed.insert(document, (op, usize::try_from(d.chunk_count)?));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let mut check = |same: bool, what: String| {
        if !same {
            counts.index_mismatch += 1;
            counts.example(what);
        }
    };
    check(
        listed == *seen,
        format!("documents listed: {listed:?}, by their chunks: {seen:?}"),
    );
    let info = documents.info().await?;
    check(
        info.documents == seen.len() as u64,
        format!("{} documents are counted, {} are there", info.documents, seen.len()),
    );
    let all: Vec<(u32, Op)> = seen.iter().map(|(d, (op, _))| (*d, *op)).collect();
    for (document, op) in all.choose_multiple(rng, SAMPLES) {
        for (how, query) in [
            ("bm25", Query::text(format!("mark{op}"))),
            ("hybrid", Query::hybrid(format!("mark{op}"))),
        ] {
            let found = documents.query(query.limit(3)).await?;
            let best = found.hits.first().and_then(|h| h.point.document.clone());
            check(
                best == Some(document_id(*document)),
                format!("{how}: mark{op} is in {}, found in {best:?}", document_id(*document)),
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONTENT: Content = Content { seed: 7 };

    /// The chunks of a document, one a paragraph, as the server would give them.
    fn chunks(op: Op) -> Vec<StoredPoint> {
        let (text, mut from) = (CONTENT.text(3, op), 0);
        let chunk = |(n, part): (usize, &str)| {
            let span = [from, from + part.len()];
            from += part.len() + 2;
            let payload = json!({"op": op, "chunk": n, "document": "doc/3", "text": part, "span": span});
            let mut point = StoredPoint::default();
            point.id = format!("doc/3#{n}");
            point.payload = payload.as_object().cloned();
            point
        };
        text.split("\n\n").enumerate().map(chunk).collect()
    }

    #[test]
    fn a_document_is_whole_only_with_all_chunks_of_one_operation() {
        let torn = |chunks: &mut Vec<StoredPoint>| matches!(document_seen(CONTENT, 3, chunks), DocumentSeen::Torn(_));
        assert!(matches!(
            document_seen(CONTENT, 3, &mut chunks(5)),
            DocumentSeen::Whole(5)
        ));
        for n in 0..chunks(5).len() {
            let mut missing = chunks(5);
            missing.remove(n);
            assert!(missing.is_empty() || torn(&mut missing), "without chunk {n}");
        }
        let mut mixed = chunks(5);
        mixed[1] = chunks(6).swap_remove(1);
        assert!(torn(&mut mixed));
        let mut twice = chunks(5);
        twice.push(twice[0].clone());
        assert!(torn(&mut twice));
    }

    #[test]
    fn what_is_lost_or_comes_back_is_counted() {
        let state = |upsert| PointState { upsert, set: None };
        let expected = Expected {
            points: BTreeMap::from([(1, state(4)), (2, state(5)), (3, state(6))]),
            documents: BTreeMap::from([(0, 9)]),
            ..Expected::default()
        };
        // 1 is right, 2 is gone, 3 is an older version, 4 was deleted.
        let seen = BTreeMap::from([(1, state(4)), (3, state(2)), (4, state(1))]);
        let mut counts = Counts::default();
        compare_points(0, &expected, &seen, &mut counts);
        compare_documents(
            work::POINT_WRITERS,
            &expected,
            &BTreeMap::from([(1, (8, 2))]),
            &mut counts,
        );
        assert_eq!((counts.acked_lost, counts.phantom), (2 + 1, 1 + 1));
    }

    #[test]
    fn half_of_an_operation_is_a_torn_write() {
        let state = |upsert| PointState { upsert, set: None };
        let what = What::Upsert(vec![1, 2]);
        let before = Expected {
            points: BTreeMap::from([(1, state(4)), (2, state(5))]),
            ..Expected::default()
        };
        let mut after = before.clone();
        after.apply(0, 9, &what);
        let half = BTreeMap::from([(1, state(9)), (2, state(5))]);
        assert!(only_partly(&what, &before, &after, &half));
        assert!(!only_partly(
            &what,
            &before,
            &after,
            &BTreeMap::from([(1, state(9)), (2, state(3))])
        ));
    }

    #[test]
    fn other_bytes_than_those_sent_are_counted() {
        let mut point = StoredPoint::default();
        point.id = "p7".to_owned();
        point.payload = Some(CONTENT.payload(7, 3, Some(4)));
        point.vectors = Some([("v".to_owned(), CONTENT.vector(7, 3))].into());
        let count = |point: &StoredPoint| {
            let mut counts = Counts::default();
            seen_points(CONTENT, vec![point.clone()], &mut counts);
            counts.wrong_bytes
        };
        assert_eq!(count(&point), 0);
        let mut bent = point.clone();
        bent.vectors.as_mut().unwrap().get_mut("v").unwrap()[3] *= 1.000_001;
        assert_eq!(count(&bent), 1);
        point.payload.as_mut().unwrap().insert("note".to_owned(), json!("else"));
        assert_eq!(count(&point), 1);
    }
}
