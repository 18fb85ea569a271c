//! Segments: what is written is what is read; merging drops the dead and keeps the rest; damage is noticed; no bytes panic.

use std::collections::BTreeMap;

use serde_json::json;

use super::file;
use super::*;
use crate::config::Workers;
use crate::inverted::top::Walk;
use crate::patience::Patience;
use crate::schema::{AnalyzerSpec, Chunking, FieldSpec, IndexSpec, Metric, Quantization, SparseSpec, VectorSpec};
use crate::sparse::{self, row as sparse_row};
use crate::storage::{Dir, LocalDir};
use crate::text::analyzer::Analyzer;
use crate::text::bm25;
use crate::types::{PointId, Row, Seq, SparseVector};
use crate::vector::floats::Owned;
use crate::vector::{Allow, VectorIndex, flat};

fn graphs(stop: &dyn Fn() -> bool) -> Graphs<'_> {
    Graphs {
        rows_min: 10,
        with_packs: true,
        workers: Box::leak(Box::new(Workers::alone())),
        stop,
    }
}

fn disk() -> Arc<dyn Dir> {
    Arc::new(LocalDir)
}

fn schema() -> Schema {
    let spec = |dim, metric, index| VectorSpec {
        dim,
        metric,
        index,
        quantization: Default::default(),
        embedder: None,
    };
    Schema {
        vectors: BTreeMap::from([
            ("a".into(), spec(4, Metric::Cosine, IndexSpec::default())),
            ("b".into(), spec(3, Metric::Euclid, IndexSpec::Ivf { nlist: Some(5) })),
        ]),
        sparse: BTreeMap::from([("s".into(), SparseSpec::default()), ("t".into(), SparseSpec::default())]),
        fields: BTreeMap::from([(
            "text".into(),
            FieldSpec::Text {
                analyzer: AnalyzerSpec::default(),
            },
        )]),
        dynamic: true,
        shards: 1,
        chunking: Chunking::default(),
        durability: None,
    }
}

fn analyzers() -> BTreeMap<String, &'static Analyzer> {
    BTreeMap::from([("text".to_owned(), Analyzer::shared(&AnalyzerSpec::default()).unwrap())])
}

fn row(i: u64) -> PendingRow {
    let f = i as f32;
    PendingRow {
        row: Row(i * 3 + 1),
        birth: Seq(i + 10),
        id: PointId::new(format!("id-{i}-é")).unwrap(),
        document: (!i.is_multiple_of(3)).then(|| PointId::new(format!("doc{}", i / 4)).unwrap()),
        expires_at_ms: if i.is_multiple_of(7) { 1_000 + i } else { 0 },
        acl: (0..i as u32 % 3).collect(),
        // The first are no halves.
        vectors: vec![
            Some(Owned::Singles(vec![f, 0.1, -f, 0.5])),
            (!i.is_multiple_of(4)).then(|| Owned::Singles(vec![f, f, f])),
        ],
        sparse: vec![
            (i % 3 != 1).then(|| {
                sparse_row::encode(&SparseVector {
                    indices: vec![i as u32 % 5, 7, 1_000 + i as u32],
                    values: vec![1.0, 0.25 + f, -f - 1.0],
                })
            }),
            None,
        ],
        payload: json!({"text": format!("word{} common running", i % 5), "n": i, "pad": "x".repeat(i as usize * 40)})
            .to_string(),
        inline: false,
        dead: false,
    }
}

fn check_row(segment: &Segment, ordinal: Ordinal, expected: &PendingRow) {
    assert_eq!(segment.row_of(ordinal), expected.row);
    assert_eq!(segment.ordinal_of(expected.row), Some(ordinal));
    assert_eq!(segment.birth_of(ordinal), expected.birth);
    assert_eq!(segment.id_of(ordinal), expected.id.as_str());
    assert_eq!(
        segment.document_of(ordinal),
        expected.document.as_ref().map(PointId::as_str)
    );
    assert_eq!(segment.expires_at_ms(ordinal), expected.expires_at_ms);
    assert_eq!(segment.acl_of(ordinal), expected.acl);
    assert_eq!(segment.payload_json(ordinal).unwrap(), expected.payload);
    for (i, vector) in expected.vectors.iter().enumerate() {
        let vector = vector.as_ref().map(|vector| vector.view().singles());
        assert_eq!(segment.vector_of(i, ordinal), vector);
    }
    for (i, bytes) in expected.sparse.iter().enumerate() {
        assert_eq!(segment.sparse(i).row(ordinal), bytes.as_deref());
    }
    assert_eq!(segment.find_id(expected.id.as_str()).collect::<Vec<_>>(), [ordinal]);
    if let Some(document) = &expected.document {
        assert!(segment.find_document(document.as_str()).contains(ordinal));
    }
}

#[test]
fn what_is_written_is_read_in_memory_merged_and_sealed() {
    let (schema, analyzers) = (schema(), analyzers());
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let rows: Vec<PendingRow> = (0..60).map(row).collect();
    let parts: Vec<SegmentView> = rows
        .chunks(25)
        .map(|part| SegmentView::fresh(Arc::new(write_memory(&spec, part).unwrap())))
        .collect();
    for (part, rows) in parts.iter().zip(rows.chunks(25)) {
        assert_eq!(part.segment.rows() as usize, rows.len());
        rows.iter()
            .enumerate()
            .for_each(|(i, row)| check_row(&part.segment, i as Ordinal, row));
    }
    // Some die; the others survive a merge in memory and a seal alike.
    let mut views = parts.clone();
    for view in &mut views {
        let segment = Arc::clone(&view.segment);
        let dead = Arc::make_mut(&mut view.dead);
        (0..segment.rows())
            .filter(|o| o % 5 == 2)
            .for_each(|o| assert!(dead.kill(Some(&segment), o)));
        assert!(!dead.kill(Some(&segment), 2), "nobody dies twice");
    }
    let kept: Vec<Kept> = views.iter().map(Kept::live).collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/7.seg");
    let merged = merge_memory(&spec, &kept).unwrap();
    let file = seal(&spec, &kept, &disk(), &path, 7, &graphs(&|| false)).unwrap();
    let sealed = file.segment(Patience::endless()).unwrap();
    let live: Vec<&PendingRow> = rows
        .chunks(25)
        .flat_map(|part| part.iter().enumerate().filter(|(i, _)| i % 5 != 2).map(|(_, r)| r))
        .collect();
    for segment in [&merged, &*sealed] {
        assert_eq!(segment.rows() as usize, live.len());
        live.iter()
            .enumerate()
            .for_each(|(i, row)| check_row(segment, i as Ordinal, row));
        let common = segment.text("text").unwrap().postings("common").unwrap().unwrap();
        assert_eq!(common.iter().count(), live.len());
        let seven = sparse::Question::from(&SparseVector {
            indices: vec![7],
            values: vec![1.0],
        });
        let with_it = live.iter().filter(|row| row.sparse[0].is_some()).count() as u64;
        assert_eq!(segment.sparse(0).postings(&seven).unwrap(), with_it);
        assert_eq!(segment.sparse(1).postings(&seven).unwrap(), 0);
    }
    assert!(sealed.graph(0).is_some() && merged.graph(0).is_none());
    assert!(sealed.lists(1).is_some() && merged.lists(1).is_none() && sealed.lists(0).is_none());
    assert!(!path.with_extension("tmp").exists());
    // In memory or in the file, a graph is the same; and what has none takes none.
    let walked = |segment: &Segment| {
        let search = |question: [f32; 4]| {
            let vectors = segment.vectors(0);
            assert!(vectors.codes.is_some() && vectors.packs.is_some());
            let graph = segment.graph(0).unwrap();
            graph
                .search(&vectors, &question, 5, 12, &Allow::All, &|| false)
                .unwrap()
                .hits
        };
        [[3.0, 0.1, -3.0, 0.5], [40.0, 0.1, -41.0, 0.5]].map(search)
    };
    let (mapped, bytes) = (walked(&sealed), sealed.keep_graph_in_memory().unwrap());
    assert!(bytes > 48 * 16 && sealed.graph_bytes_in_memory() == bytes);
    assert_eq!(walked(&sealed), mapped);
    assert_eq!(sealed.keep_graph_in_memory().unwrap(), 0, "once is enough");
    assert_eq!(merged.keep_graph_in_memory().unwrap(), 0);
    // Exactly what was written is what is opened; every changed byte is noticed.
    let schema = Arc::new(schema);
    let open = || {
        let opened = Sealed::open(&disk(), &path, file.entry, &schema).unwrap();
        opened.whole(&mut || Ok(())).map(|_| opened)
    };
    drop(open().unwrap());
    let bytes = std::fs::read(&path).unwrap();
    // Every bit of the tables and the footer, and some of the rest.
    let tables = (bytes.len() - 400..bytes.len()).flat_map(|i| (0..8).map(move |bit| (i, bit)));
    for (i, bit) in (0..bytes.len()).step_by(97).map(|i| (i, 4)).chain(tables) {
        let mut bad = bytes.clone();
        bad[i] ^= 1 << bit;
        std::fs::write(&path, &bad).unwrap();
        let error = open()
            .err()
            .unwrap_or_else(|| panic!("bit {bit} of byte {i} changed unnoticed"));
        assert_eq!(error.kind, crate::ErrorKind::Damaged);
    }
    for len in [0, 10, 96, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert_eq!(open().err().unwrap().kind, crate::ErrorKind::Damaged);
    }
}

/// Vectors are kept as halves while every one of a segment is that, and are given back as they came.
#[test]
fn vectors_are_halves_until_one_is_not() {
    let (schema, analyzers) = (schema(), analyzers());
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let all: Vec<PendingRow> = (0..60).map(row).collect();
    let halved = |row: &PendingRow, vector: Option<Vec<f32>>| PendingRow {
        vectors: vec![vector.map(Owned::Singles), row.vectors[1].clone()],
        ..row.clone()
    };
    let halves: Vec<PendingRow> = all[..40]
        .iter()
        .map(|row| {
            let number = 1.0 / (1u64 << (row.row.0 % 24)) as f32;
            halved(row, (row.row.0 % 7 != 0).then(|| vec![number, -0.0, 65_504.0, -number]))
        })
        .collect();
    let written = |rows: &[PendingRow]| SegmentView::fresh(Arc::new(write_memory(&spec, rows).unwrap()));
    let (exact, inexact) = (written(&halves), written(&all[40..]));
    let forms = [&exact, &inexact].map(|view| view.segment.form(0));
    assert_eq!(forms, [Form::Halves, Form::Singles]);
    let merged = merge_memory(&spec, &[Kept::live(&exact), Kept::live(&inexact)]).unwrap();
    assert_eq!([merged.form(0), merged.form(1)], [Form::Singles, Form::Halves]);
    let rows: Vec<&PendingRow> = halves.iter().chain(&all[40..]).collect();
    let check = |segment: &Segment, rows: &[&PendingRow]| {
        assert_eq!(segment.rows() as usize, rows.len());
        for (ordinal, row) in rows.iter().enumerate() {
            check_row(segment, ordinal as Ordinal, row);
            let vector = segment.vector_of(0, ordinal as Ordinal);
            let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            let expected = row.vectors[0].as_ref().map(|vector| vector.view().singles());
            assert_eq!(vector.as_deref().map(bits), expected.as_deref().map(bits));
        }
    };
    check(&merged, &rows);
    // Those that are none have died.
    let mut view = SegmentView::fresh(Arc::new(merged));
    let segment = Arc::clone(&view.segment);
    for ordinal in 40..60 {
        assert!(Arc::make_mut(&mut view.dead).kill(Some(&segment), ordinal));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/1.seg");
    let sealed = seal(&spec, &[Kept::live(&view)], &disk(), &path, 1, &graphs(&|| false)).unwrap();
    let sealed = sealed.segment(Patience::endless()).unwrap();
    assert!(sealed.form(0) == Form::Halves && sealed.graph(0).is_some());
    check(&sealed, &rows[..40]);
}

/// Zeros and ones are kept as bits, which walks read, in memory, merged and sealed, and are given back as they came.
#[test]
fn vectors_compared_by_hamming_are_kept_as_bits() {
    const DIM: usize = 24;
    let spec = |index| VectorSpec {
        dim: DIM as u32,
        metric: Metric::Hamming,
        index,
        quantization: Quantization::Int8,
        embedder: None,
    };
    let schema = Schema {
        vectors: BTreeMap::from([
            ("a".into(), spec(IndexSpec::default())),
            ("b".into(), spec(IndexSpec::Ivf { nlist: Some(5) })),
        ]),
        sparse: BTreeMap::new(),
        ..schema()
    };
    let analyzers = analyzers();
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let bits = |i: u64| -> Vec<f32> { (0..DIM as u64).map(|j| ((i * 7 + i * j * j) / 3 % 2) as f32).collect() };
    let rows: Vec<PendingRow> = (0..60)
        .map(|i| PendingRow {
            vectors: [i % 4 != 2, i % 5 != 2]
                .into_iter()
                .zip([i, i + 9])
                .map(|(has, i)| has.then(|| Owned::new(Metric::Hamming, bits(i).into())))
                .collect(),
            sparse: Vec::new(),
            ..row(i)
        })
        .collect();
    let check = |segment: &Segment| {
        assert_eq!([segment.form(0), segment.form(1)], [Form::Bits; 2]);
        assert_eq!(segment.blocks.section("bits/a").len(), 60 * DIM / 8);
        rows.iter()
            .enumerate()
            .for_each(|(i, row)| check_row(segment, i as Ordinal, row));
    };
    let parts: Vec<SegmentView> = rows
        .chunks(25)
        .map(|part| SegmentView::fresh(Arc::new(write_memory(&spec, part).unwrap())))
        .collect();
    let kept: Vec<Kept> = parts.iter().map(Kept::live).collect();
    check(&merge_memory(&spec, &kept).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/1.seg");
    let file = seal(&spec, &kept, &disk(), &path, 1, &graphs(&|| false)).unwrap();
    let sealed = file.segment(Patience::endless()).unwrap();
    check(&sealed);
    let near = |segment: &Segment, index: usize| -> Vec<u64> {
        let vectors = segment.vectors(index);
        assert!(vectors.touch.is_none() && vectors.codes.is_none());
        let query = bits(11);
        let found = match index {
            0 => segment
                .graph(0)
                .unwrap()
                .search(&vectors, &query, 8, 60, &Allow::All, &|| false),
            _ => segment
                .lists(1)
                .unwrap()
                .search(&vectors, &query, 8, 0, &Allow::All, &|| false),
        };
        found.unwrap().hits.iter().map(|hit| u64::from(hit.ordinal)).collect()
    };
    for (index, ahead) in [(0, 0), (1, 9)] {
        let differing = |i: u64| bits(i + ahead).iter().zip(bits(11)).filter(|(x, y)| **x != *y).count();
        let has = |i: &u64| rows[*i as usize].vectors[index].is_some();
        let mut expected: Vec<u64> = (0..60).filter(has).collect();
        expected.sort_by_key(|i| (differing(*i), *i));
        assert_eq!(near(&sealed, index), expected[..8], "vector {index}");
    }
    // Copied, bits are walked where the graph is.
    let before = near(&sealed, 0);
    let bytes = sealed.keep_graph_in_memory().unwrap();
    assert!(bytes >= sealed.blocks.section("graph/a").len() + sealed.blocks.section("bits/a").len());
    assert_eq!(near(&sealed, 0), before);
    check(&sealed);
    // Other vectors than these are damage.
    let cases: [&[(&str, &[u8])]; 4] = [
        &[("bits/a", &[0; 3])],
        &[("bits/a", &[])],
        &[("bits/a", &[]), ("vector/a", &[0; 60 * DIM * 4])],
        &[("halves/a", &[0; 60 * DIM * 2])],
    ];
    for changed in cases {
        let changed = with_sections(sealed.blocks.bytes(), changed);
        let read = Segment::growing(Backing::copy(&changed), &schema);
        assert_eq!(read.err().map(|error| error.kind), Some(crate::ErrorKind::Damaged));
    }
    survives_changes(sealed.blocks.bytes(), &schema);
}

/// `docs/format.md`, "Bytes of a vector".
fn bytes_of_a_vector(dim: usize, metric: Metric, quantization: Quantization, m: usize, form: Form) -> [f64; 2] {
    let graph = (8 * m) as f64 + (4 * m) as f64 / (m - 1) as f64 + 8.0;
    if form == Form::Bits {
        let walked = (dim / 8) as f64 + graph;
        return [walked, walked];
    }
    let lines = |bytes: usize| bytes.next_multiple_of(64);
    let beside = match quantization {
        Quantization::Int8 => lines(dim + 12),
        Quantization::Int4 => lines(dim.div_ceil(2) + 12),
        Quantization::None => match 8 * dim.div_ceil(64) + 12 {
            0..=32 => 32,
            more => lines(more),
        },
    };
    let packs = (2 * m).div_ceil(32) * lines(256 + 32 * dim.div_ceil(8));
    let given = form.row_bytes(dim) + if metric == Metric::Cosine { 4 } else { 0 };
    let walked = (beside + packs) as f64 + graph;
    [given as f64 + walked, walked]
}

#[test]
fn a_vector_takes_the_bytes_that_the_format_says() {
    const ROWS: u64 = 1_500;
    let mut state = 7u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    for (dim, metric, quantization, m, form) in [
        (100, Metric::Cosine, Quantization::Int8, 16, Form::Singles),
        (70, Metric::Euclid, Quantization::Int4, 24, Form::Halves),
        (64, Metric::Dot, Quantization::None, 8, Form::Halves),
        (1024, Metric::Hamming, Quantization::Int8, 16, Form::Bits),
    ] {
        let spec = VectorSpec {
            dim: dim as u32,
            metric,
            index: IndexSpec::Hnsw { m, ef_construction: 60 },
            quantization,
            embedder: None,
        };
        let schema = Schema {
            vectors: BTreeMap::from([("a".into(), spec)]),
            sparse: BTreeMap::new(),
            ..schema()
        };
        let analyzers = analyzers();
        let spec = Spec {
            schema: &schema,
            analyzers: &analyzers,
        };
        let given = |x: f32| match form {
            Form::Singles => x,
            Form::Halves => (x * 1024.0).round() / 1024.0,
            Form::Bits => f32::from(u8::from(x > 0.0)),
        };
        let rows: Vec<PendingRow> = (0..ROWS)
            .map(|i| PendingRow {
                vectors: vec![Some(Owned::new(metric, (0..dim).map(|_| given(random())).collect()))],
                sparse: Vec::new(),
                ..row(i % 10)
            })
            .enumerate()
            .map(|(i, row)| PendingRow {
                row: Row(i as u64),
                id: PointId::new(format!("{i}")).unwrap(),
                ..row
            })
            .collect();
        let memory = SegmentView::fresh(Arc::new(write_memory(&spec, &rows).unwrap()));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0/0/7.seg");
        let file = seal(&spec, &[Kept::live(&memory)], &disk(), &path, 7, &graphs(&|| false)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let sections = file::tables(&bytes).unwrap().sections;
        let of_vector = |name: &str| name.ends_with("/a") && !name.starts_with("recall");
        let on_disk: usize = sections
            .iter()
            .filter(|(name, _)| of_vector(name))
            .map(|(_, at)| at.len())
            .sum();
        let in_memory = file
            .segment(Patience::endless())
            .unwrap()
            .keep_graph_in_memory()
            .unwrap();
        for (found, said) in
            [on_disk, in_memory]
                .into_iter()
                .zip(bytes_of_a_vector(dim, metric, quantization, m as usize, form))
        {
            let found = found as f64 / ROWS as f64;
            assert!(
                (found / said - 1.0).abs() < 0.05,
                "{metric:?}, {quantization:?}: {found} bytes a vector, {said} in the format"
            );
        }
    }
}

#[test]
fn a_cancelled_seal_leaves_nothing() {
    let (schema, analyzers) = (schema(), analyzers());
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let rows: Vec<PendingRow> = (0..60).map(row).collect();
    let view = SegmentView::fresh(Arc::new(write_memory(&spec, &rows).unwrap()));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/1.seg");
    let error = seal(&spec, &[Kept::live(&view)], &disk(), &path, 1, &graphs(&|| true))
        .err()
        .unwrap();
    assert_eq!(error.kind, crate::ErrorKind::Cancelled);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

/// Another container with sections changed, added or (empty) left out, its checksums right.
fn with_sections(bytes: &[u8], changed: &[(&str, &[u8])]) -> Vec<u8> {
    let mut sections: BTreeMap<String, &[u8]> = file::tables(bytes)
        .unwrap()
        .sections
        .into_iter()
        .map(|(name, range)| (name, &bytes[range]))
        .collect();
    for (name, bytes) in changed {
        sections.insert((*name).to_owned(), bytes);
    }
    let mut writer = file::Writer::new(Vec::new()).unwrap();
    for (name, bytes) in sections {
        writer.section(&name, bytes).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn sections_that_contradict_each_other_are_damage() {
    let (schema, analyzers) = (schema(), analyzers());
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let read = |bytes: &[u8]| Segment::growing(Backing::copy(bytes), &schema);
    let none = write_memory(&spec, &[]).unwrap();
    let rows: Vec<PendingRow> = (0..60).map(row).collect();
    let some = write_memory(&spec, &rows).unwrap();
    let other_filter = some.slice(&some.filter.1).to_vec();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/3.seg");
    let kept = Kept::live(&SegmentView::fresh(Arc::new(some)));
    let sealed = seal(&spec, &[kept], &disk(), &path, 3, &graphs(&|| false)).unwrap();
    let sealed = sealed.segment(Patience::endless()).unwrap();
    assert!(
        sealed
            .graphs()
            .all(|coding| coding.is_some_and(|coding| coding.used.is_some()))
    );
    assert!(
        sealed
            .inverted()
            .all(|coding| coding.is_some_and(|coding| coding.used.is_some()))
    );
    assert!(!sealed.blocks.section("packs/a").is_empty());
    let (none, sealed) = (none.blocks.bytes(), sealed.blocks.bytes());
    let cases: [(&[u8], &[(&str, &[u8])]); 20] = [
        // Vectors of neither kind, of both, of a length that is not theirs.
        (sealed, &[("vector/a", &[])]),
        (sealed, &[("halves/b", &[])]),
        (sealed, &[("halves/a", &[0; 480])]),
        (sealed, &[("halves/b", &[0; 480])]),
        // An index of ids or documents of a segment that has no rows.
        (none, &[("ids.hash", &[0; 8])]),
        (none, &[("documents.hash", &[0; 8])]),
        (none, &[("filter", &other_filter)]),
        // Norms of a metric that has none, of a length that is no numbers.
        (sealed, &[("norm/b", &[0; 3])]),
        // Codes that were not chosen, and a choice without codes.
        (sealed, &[("coding/a", &[])]),
        (sealed, &[("coding/a", &[4, 0, 0, 0])]),
        (sealed, &[("codes/a", &[])]),
        // The same of lists; records without lists, lists of other records, codes beside them.
        (sealed, &[("coding/b", &[])]),
        (sealed, &[("ivf/b", &[])]),
        (sealed, &[("lists/b", &[])]),
        (sealed, &[("lists/b", &[0; 64])]),
        (sealed, &[("lists.packs/b", &[0; 64])]),
        (sealed, &[("codes/b", &[0; 64])]),
        // Packs that are none, packs without a graph, a calibration of packs that are not there.
        (sealed, &[("packs/a", &[0; 64])]),
        (sealed, &[("graph/a", &[])]),
        (sealed, &[("packs/a", &[]), ("recall.packs/a", &[0; 12])]),
    ];
    for (bytes, changed) in cases {
        read(&with_sections(bytes, &[])).unwrap();
        let error = read(&with_sections(bytes, changed)).err();
        let kind = error.map(|error| error.kind);
        assert_eq!(kind, Some(crate::ErrorKind::Damaged), "{changed:?}");
    }
}

/// Without checksums in the way: the reader behind them survives any change too.
#[test]
fn no_bytes_panic_the_reader() {
    let (schema, analyzers) = (schema(), analyzers());
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let rows: Vec<PendingRow> = (0..20).map(row).collect();
    let growing = write_memory(&spec, &rows).unwrap();
    survives_changes(growing.blocks.bytes(), &schema);
    // The same with graphs and codes.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0/0/1.seg");
    let kept = Kept::live(&SegmentView::fresh(Arc::new(growing)));
    let sealed = seal(&spec, &[kept], &disk(), &path, 1, &graphs(&|| false)).unwrap();
    let sealed = sealed.segment(Patience::endless()).unwrap();
    survives_changes(sealed.blocks.bytes(), &schema);
}

fn survives_changes(bytes: &[u8], schema: &Schema) {
    let mut seed = 1u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let (mut read, mut refused) = (0, 0);
    for _ in 0..3_000 {
        let mut bad = bytes.to_vec();
        for _ in 0..1 + random() % 4 {
            let at = (random() % bad.len() as u64) as usize;
            bad[at] = if random() % 3 == 0 { 0xff } else { random() as u8 };
        }
        // Checksums made right again, so that what lies behind them is reached.
        let blocks_at = u64::from_le_bytes(bad[bad.len() - 24..bad.len() - 16].try_into().unwrap()) as usize;
        if blocks_at < bad.len() {
            let crcs: Vec<u8> = bad[..blocks_at]
                .chunks(crate::limits::BLOCK_BYTES)
                .flat_map(|b| crc32c::crc32c(b).to_le_bytes())
                .collect();
            let table = bad.len() - 32;
            if blocks_at + crcs.len() == table {
                bad[blocks_at..table].copy_from_slice(&crcs);
                let crc = crc32c::crc32c(&bad[blocks_at..table + 16]).to_le_bytes();
                bad[table + 16..table + 20].copy_from_slice(&crc);
            }
        }
        match Segment::growing(Backing::copy(&bad), schema) {
            Err(_) => refused += 1,
            Ok(segment) => {
                read += 1;
                for ordinal in 0..segment.rows() {
                    let _ = segment.payload_json(ordinal).and_then(|json| parse_payload(&json));
                    let _ = (
                        segment.row_of(ordinal),
                        segment.birth_of(ordinal),
                        segment.acl_of(ordinal).len(),
                    );
                    let _ = (segment.id_of(ordinal).len(), segment.document_of(ordinal).map(str::len));
                    let _ = (
                        segment.vector_of(0, ordinal).map(|row| row.len()),
                        segment.vector_of(1, ordinal).map(|row| row.len()),
                    );
                }
                for (index, spec) in schema.vectors.values().enumerate() {
                    let query: Vec<f32> = [1.0, 2.0, -1.0, 0.5]
                        .into_iter()
                        .cycle()
                        .take(spec.dim as usize)
                        .collect();
                    let (vectors, query) = (segment.vectors(index), &query[..]);
                    let _ = flat::scan_codes(&vectors, query, || 0..segment.rows(), 3, &|| false);
                    if let Some(graph) = segment.graph(index) {
                        let _ = graph.search(&vectors, query, 3, 5, &Allow::All, &|| false);
                    }
                    if let Some(lists) = segment.lists(index) {
                        let _ = lists.search(&vectors, query, 3, 5, &Allow::All, &|| false);
                    }
                }
                let question = SparseVector {
                    indices: vec![1, 3, 7, 1_005],
                    values: vec![1.0, -1.0, 2.0, 0.5],
                };
                let question = sparse::Question::from(&question);
                let ask = sparse::Ask {
                    k: 3,
                    floor: f32::NEG_INFINITY,
                    id_of: &|ordinal| segment.id_of(ordinal),
                    stop: &|| false,
                };
                for index in 0..schema.sparse.len() {
                    let column = segment.sparse(index);
                    let _ = column.search(&question, Walk::Pruned, &|_| u64::MAX, &ask);
                    let _ = column.scan(&question, 0..segment.rows(), &ask);
                }
                for i in 0..8 {
                    let _ = segment.find_id(&format!("id-{i}-é")).count();
                    let _ = segment.find_document(&format!("doc{i}")).len();
                }
                let filter = crate::filter::Filter::must(crate::filter::Condition::IsEmpty { field: "n".into() });
                let _ = crate::filter::eval::eval(&filter, &segment.filter(), segment.rows(), &*segment);
                if let Some(text) = segment.text("text") {
                    let ask = bm25::Ask {
                        k: 5,
                        floor: f32::NEG_INFINITY,
                        allow: &|_| u64::MAX,
                        id_of: &|ordinal| segment.id_of(ordinal),
                        stop: &|| false,
                    };
                    if let Ok(Some(term)) = bm25::Scored::new(text, "common", 1.0, 3.0) {
                        let _ = bm25::search(segment.rows(), &[term], Walk::Pruned, &ask);
                    }
                }
            }
        }
    }
    assert!(
        read > 500 && refused > 500,
        "{read} read, {refused} refused: the test must reach both"
    );
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let mut bytes = file::Writer::new(Vec::new()).unwrap().finish().unwrap();
    bytes[8] = 9;
    let error = file::tables(&bytes).unwrap_err();
    assert!(error.message.contains("version Some(9)"), "{error}");
}

/// A container with its versions changed, its checksums right.
fn of_versions(bytes: &[u8], header: u8, footer: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let footer_at = bytes.len() - file::FOOTER_BYTES;
    (bytes[8], bytes[footer_at + 20]) = (header, footer);
    let blocks_at = u64::from_le_bytes(bytes[footer_at + 8..][..8].try_into().unwrap()) as usize;
    let first = crc32c::crc32c(&bytes[..blocks_at.min(crate::limits::BLOCK_BYTES)]);
    bytes[blocks_at..][..4].copy_from_slice(&first.to_le_bytes());
    let tables = crc32c::crc32c(&bytes[blocks_at..footer_at + 16]);
    bytes[footer_at + 16..][..4].copy_from_slice(&tables.to_le_bytes());
    bytes
}

#[test]
fn a_container_of_before_halves_is_read_and_one_of_two_versions_is_not() {
    let (schema, analyzers) = (schema(), analyzers());
    let schema = Schema {
        vectors: schema.vectors.into_iter().filter(|(name, _)| name == "a").collect(),
        ..schema
    };
    let spec = Spec {
        schema: &schema,
        analyzers: &analyzers,
    };
    let rows: Vec<PendingRow> = (0..60)
        .map(|i| PendingRow {
            vectors: row(i).vectors[..1].to_vec(),
            ..row(i)
        })
        .collect();
    let written = write_memory(&spec, &rows).unwrap();
    assert_eq!(written.form(0), Form::Singles);
    let bytes = written.blocks.bytes();
    let read = |bytes: &[u8]| Segment::growing(Backing::copy(bytes), &schema);
    let before = read(&of_versions(bytes, 2, 2)).unwrap();
    rows.iter()
        .enumerate()
        .for_each(|(i, row)| check_row(&before, i as Ordinal, row));
    for (header, footer) in [(2, 3), (3, 2)] {
        let error = read(&of_versions(bytes, header, footer)).err().unwrap();
        assert!(error.message.contains("differ in their format version"), "{error}");
    }
    for version in [1, 4] {
        assert!(read(&of_versions(bytes, version, version)).is_err());
    }
}
