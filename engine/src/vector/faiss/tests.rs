//! Claims about indexes of Faiss, against the exact scan.

use proptest::prelude::*;

use super::layout::Layout;
use super::native::{Ids, Measure, Native};
use super::*;
use crate::config::Workers;
use crate::error::ErrorKind;
use crate::schema::Metric;
use crate::types::Ordinal;
use crate::vector::tests::{Random, Rows, clustered, coarse_rows, never, queries_near, search};
use crate::vector::{Allow, BitSet, Flat, Scored, VectorIndex};

/// Those that Faiss can be asked in.
const METRICS: [Metric; 3] = [Metric::Cosine, Metric::Dot, Metric::Euclid];
const FACTORIES: [&str; 6] = [
    "Flat",
    "IVF16,Flat",
    "HNSW16",
    "IVF16,PQ8x4fs,RFlat",
    "PCA8,IVF16,SQ8",
    // Cannot be told what may be answered.
    "PQ8x4fs",
];

fn made(rows: &Rows, factory: &str) -> Option<Vec<u8>> {
    let parts = build(&rows.view(), factory, &Workers::alone(), &never).unwrap();
    parts.map(|parts| parts.concat())
}

fn opened(rows: &Rows, bytes: &[u8]) -> crate::Result<Faiss> {
    let view = rows.view();
    Faiss::read(bytes, view.metric, view.dim, view.len(), view.absent).map(|index| index.expect("this build has Faiss"))
}

fn index(rows: &Rows, factory: &str) -> Faiss {
    opened(rows, &made(rows, factory).expect(factory)).unwrap()
}

#[test]
fn finds_the_nearest_in_every_metric_of_all_and_of_some() {
    let mut random = Random(61);
    let vectors = clustered(&mut random, 16, 40, 60, 0.4);
    let queries = queries_near(&mut random, &vectors, 0.3);
    let mut wrong = Vec::new();
    for metric in METRICS {
        let rows = Rows::new(metric, 16, &vectors).without(|ordinal| ordinal % 9 == 4);
        let n = vectors.len() as Ordinal;
        let third = BitSet::from_iter(vectors.len(), (0..n).filter(|o| o % 3 == 1));
        for factory in FACTORIES {
            let index = index(&rows, factory);
            for (what, allow) in [("all", Allow::All), ("a third", Allow::Only(&third))] {
                let (mut found, mut wanted) = (0, 0);
                for query in &queries {
                    let exact = search(&Flat, &rows, query, 10, 0, &allow);
                    let edge = exact.last().map_or(f32::MIN, |hit: &Scored| hit.distance);
                    let hits = search(&index, &rows, query, 10, 0, &allow);
                    assert_eq!(hits.len(), 10, "{metric:?} {factory} {what}");
                    found += hits.iter().filter(|hit| hit.distance <= edge).count();
                    wanted += exact.len();
                }
                if found * 100 < wanted * 90 {
                    wrong.push(format!("{metric:?} {factory} {what}: {found} of {wanted}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "recall@10 below 0.9: {wrong:#?}");
}

#[test]
fn what_was_measured_is_what_is_asked_for() {
    let mut random = Random(62);
    let vectors = clustered(&mut random, 16, 40, 60, 0.4);
    let rows = Rows::new(Metric::Euclid, 16, &vectors);
    let lists = index(&rows, "IVF64,Flat");
    assert_eq!(lists.lists(), Some(64));
    let nprobe = |target, depth, given| lists.effort(10, depth, target, Some(1), given).nprobe.unwrap();
    assert!(nprobe(0.5, 1.0, None) <= nprobe(0.95, 1.0, None));
    assert!(nprobe(0.95, 1.0, None) < nprobe(0.95, 1e6, None));
    assert_eq!(nprobe(0.95, 1e6, None), 64);
    assert_eq!((nprobe(0.95, 1.0, Some(3)), nprobe(0.95, 1.0, Some(1000))), (3, 64));
    let graph = index(&rows, "HNSW16");
    assert_eq!(graph.lists(), None);
    assert_eq!(graph.effort(10, 1.0, 0.95, Some(77), Some(5)).candidates, 77);
    assert_eq!(graph.effort(10, 1.0, 0.95, None, None).nprobe, None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn there_are_k_hits_whenever_k_match((rows, query, allowed) in coarse_rows(120), k in 0usize..40) {
        if rows.view().metric != Metric::Manhattan {
            for factory in ["Flat", "HNSW4", "IVF2,Flat", "SQ8"] {
                // Too few rows for lists, or none at all.
                let Some(bytes) = made(&rows, factory) else { continue };
                let index = opened(&rows, &bytes).unwrap();
                for allow in [Allow::All, Allow::Only(&allowed)] {
                    let exact = search(&Flat, &rows, &query, k, 0, &allow);
                    let hits = search(&index, &rows, &query, k, 0, &allow);
                    prop_assert_eq!(hits.len(), exact.len(), "{}", factory);
                    if factory == "Flat" && k > 0 {
                        // With enough candidates it is an exact scan, but for rounding of equal distances.
                        let far = |hits: &[Scored]| hits.last().map(|hit| hit.distance);
                        prop_assert_eq!(far(&hits), far(&exact));
                    }
                }
            }
        }
    }
}

#[test]
fn too_few_rows_to_train_are_no_index_and_no_error() {
    let mut random = Random(63);
    let vectors: Vec<Vec<f32>> = (0..100).map(|_| random.vector(8)).collect();
    let rows = Rows::new(Metric::Cosine, 8, &vectors);
    for factory in ["IVF1024,Flat", "PQ4", "IVF16,PQ4x8"] {
        assert_eq!(made(&rows, factory), None, "{factory}");
    }
    let none = Rows::new(Metric::Cosine, 8, &vectors).without(|_| true);
    assert_eq!(made(&none, "Flat"), None);
    assert_eq!(made(&Rows::new(Metric::Cosine, 8, &[]), "Flat"), None);
}

#[test]
fn a_factory_string_is_refused_with_what_faiss_says() {
    for (factory, metric, dim) in [
        ("IVF16", Metric::Cosine, 8),
        ("nothing", Metric::Dot, 8),
        ("IVF16,PQ3", Metric::Euclid, 8),
        ("IDMap,Flat", Metric::Euclid, 8),
        ("Flat", Metric::Manhattan, 8),
        ("IVF99999999,Flat", Metric::Euclid, 8),
    ] {
        let refused = check(factory, metric, dim).unwrap_err();
        assert_eq!(
            (refused.kind, refused.code),
            (ErrorKind::Invalid, "bad_index"),
            "{factory}"
        );
        assert!(!refused.message.contains(".cpp"), "{}", refused.message);
    }
    for factory in FACTORIES {
        check(factory, Metric::Cosine, 16).unwrap();
    }
}

#[test]
fn a_build_that_is_called_off_is_cancelled() {
    let mut random = Random(64);
    let vectors: Vec<Vec<f32>> = (0..2_000).map(|_| random.vector(8)).collect();
    let rows = Rows::new(Metric::Dot, 8, &vectors);
    let looks = std::cell::Cell::new(0);
    for allowed in 0..4 {
        looks.set(0);
        let stop = || {
            looks.set(looks.get() + 1);
            looks.get() > allowed
        };
        let error = build(&rows.view(), "HNSW8", &Workers::alone(), &stop).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Cancelled, "at look {allowed}");
    }
}

#[test]
fn a_late_search_ends_as_such_before_faiss_is_asked() {
    let mut random = Random(65);
    let vectors: Vec<Vec<f32>> = (0..200).map(|_| random.vector(8)).collect();
    let rows = Rows::new(Metric::Dot, 8, &vectors);
    let index = index(&rows, "HNSW8");
    let late = index.search(&rows.view(), &vectors[0], 3, 0, &Allow::All, &|| true);
    assert_eq!(late.unwrap_err().kind, ErrorKind::Deadline);
    let short = index.search(&rows.view(), &vectors[0][..7], 3, 0, &Allow::All, &never);
    assert_eq!(short.unwrap_err().kind, ErrorKind::Invalid);
}

#[test]
fn many_threads_search_one_index() {
    let mut random = Random(66);
    let vectors = clustered(&mut random, 16, 20, 60, 0.4);
    let rows = Rows::new(Metric::Cosine, 16, &vectors);
    let half = BitSet::from_iter(vectors.len(), (0..vectors.len() as Ordinal).filter(|o| o % 2 == 0));
    for factory in FACTORIES {
        let index = index(&rows, factory);
        let ask = |i: usize, allow: &Allow<'_>| search(&index, &rows, &vectors[i], 5, 0, allow);
        let alone: Vec<_> = (0..40)
            .map(|i| (ask(i, &Allow::All), ask(i, &Allow::Only(&half))))
            .collect();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for (i, (all, some)) in alone.iter().enumerate() {
                        assert_eq!(&ask(i, &Allow::All), all, "{factory}");
                        assert_eq!(&ask(i, &Allow::Only(&half)), some, "{factory}");
                    }
                });
            }
        });
    }
}

#[test]
fn bytes_of_other_vectors_and_changed_bytes_are_damage() {
    let mut random = Random(67);
    let vectors: Vec<Vec<f32>> = (0..300).map(|_| random.vector(8)).collect();
    let rows = |metric, n: usize| Rows::new(metric, 8, &vectors[..n]);
    let some = rows(Metric::Dot, 300).without(|ordinal| ordinal % 7 == 2);
    let bytes = made(&some, "IVF4,SQ8").unwrap();
    opened(&some, &bytes).unwrap();
    let damaged = |rows: &Rows, bytes: &[u8]| {
        let error = opened(rows, bytes).err();
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::Damaged));
    };
    damaged(&rows(Metric::Dot, 300), &bytes);
    damaged(&rows(Metric::Dot, 299), &bytes);
    damaged(&rows(Metric::Euclid, 300).without(|ordinal| ordinal % 7 == 2), &bytes);
    damaged(&rows(Metric::Dot, 300).without(|ordinal| ordinal % 7 == 3), &bytes);
    for at in (0..bytes.len()).step_by(3) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        damaged(&some, &changed);
    }
    for len in (0..bytes.len()).step_by(17) {
        damaged(&some, &bytes[..len]);
    }
    // What Faiss did not write, with a hash that is right.
    let layout = Layout::parse(&bytes).unwrap();
    let with = |index: &[u8]| [&layout.encode(index).unwrap()[..], index].concat();
    damaged(&some, &with(b""));
    damaged(&some, &with(b"nothing of this kind"));
    damaged(&some, &with(&bytes[layout.index.clone()][..200]));
    damaged(&some, &with(&[&bytes[layout.index.clone()], &b"more"[..]].concat()));
}

#[test]
fn a_file_of_faiss_gives_its_ids_and_rows() {
    let mut random = Random(68);
    let vectors: Vec<Vec<f32>> = (0..200).map(|_| random.vector(8)).collect();
    let mut native = Native::make(8, "IVF4,Flat", Measure::Euclid).unwrap();
    native.train(&vectors.concat()).unwrap();
    native.add(&vectors.concat()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let mut bytes = Vec::new();
    native
        .write(&mut |some| {
            bytes.extend_from_slice(some);
            true
        })
        .unwrap();
    std::fs::write(&path, &bytes).unwrap();
    let mut read = Native::read_file(path.to_str().unwrap()).unwrap();
    assert_eq!((read.len(), read.dim(), read.measure()), (200, 8, Measure::Euclid));
    assert!(matches!(read.ids(), Ids::Places));
    read.remember_places().unwrap();
    assert_eq!(read.rows(10, 3).unwrap(), vectors[10..13].concat());
    assert!(read.rows(199, 2).is_err());
    assert!(Native::read_file(dir.path().join("none").to_str().unwrap()).is_err());
    assert!(native.write(&mut |_| false).is_err(), "who writes may call it off");
}
