//! A file that is not what was written: it is set aside, and nothing else is. What can be answered without it is, what cannot
//! fails and names it, and nothing is ever answered from it.

use std::path::{Path, PathBuf};

use super::*;
use crate::limits;
use crate::patience::Patience;
use crate::query::With;

/// Two collections, each with two sealed files of several blocks and some documents; `c` has two shards.
fn written(dir: &Path) -> Engine {
    let settings = Settings {
        // Nothing is merged unless a test says so.
        merge_fanin: 100,
        ..small()
    };
    let engine = Engine::open(dir, settings, components()).unwrap();
    for (name, shards) in [("c", 2), ("other", 1)] {
        engine.create_collection(name, schema(shards)).unwrap();
        for part in 0..2 {
            let points = (0..150).map(|i| point(part * 150 + i)).collect();
            engine.upsert(name, points, &options()).unwrap();
            for i in 0..6 {
                let id = format!("doc{}", part * 6 + i);
                engine.put_document(name, document(&id, 1, 5), &options()).unwrap();
            }
            while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
        }
        engine.delete(name, by_id(&["p3", "p170"]), &options()).unwrap();
    }
    engine.flush().unwrap();
    engine
}

fn options() -> WriteOptions {
    WriteOptions::default()
}

fn by_id(ids: &[&str]) -> Selector {
    Selector::Ids(ids.iter().map(|id| PointId::new(*id).unwrap()).collect())
}

/// With a payload that does not compress, so that files have several blocks.
fn point(i: u64) -> PointInput {
    let mut chance = Chance::new(i);
    let pad: String = (0..100)
        .map(|_| format!("{:08x}", chance.below(1 << 32) as u32))
        .collect();
    let mut point = simple_point(&format!("p{i}"), i);
    point.payload.insert("pad".into(), json!(pad));
    point.payload.insert("n".into(), json!(i % 7));
    point
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

fn sealed(dir: &Path, collection: u32) -> Vec<PathBuf> {
    files_below(&dir.join("segments").join(collection.to_string()))
}

fn flip(path: &Path, byte: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[byte] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

/// The answers to some questions of every kind, as text; an error is its code and message.
fn answers(engine: &Engine, name: &str, partial: bool) -> Vec<std::result::Result<String, Error>> {
    let moment = || {
        let moment = engine.moment(name, None, Patience::default()).unwrap();
        moment.allow_partial(partial)
    };
    let all = With {
        vectors: true,
        ..With::default()
    };
    let nearest = |exact: bool| {
        let mut query = query(
            Source::Nearest {
                using: Some("dense".into()),
                vector: (0..DIM).map(|i| i as f32 - 3.0).collect(),
            },
            Filter::default(),
            10,
        );
        query.params.exact = exact;
        query.with = all;
        query
    };
    let text = query(
        Source::Text {
            query: "alpha".into(),
            fields: Vec::new(),
        },
        Filter::must(Condition::Any {
            field: "n".into(),
            values: vec![crate::filter::Scalar::Int(3)],
        }),
        20,
    );
    let sparse = query(
        Source::Sparse {
            using: None,
            vector: three(),
        },
        Filter::default(),
        20,
    );
    let ids: Vec<PointId> = ["p1", "p3", "p149", "p200", "p299"]
        .map(|id| PointId::new(id).unwrap())
        .into();
    let scroll = Scroll {
        limit: 1_000,
        with: all,
        allow_partial: partial,
        ..Scroll::default()
    };
    let ask = |query: &Query| moment().query(query).map(|found| format!("{:?}", found.hits));
    let mut answers = vec![
        ask(&nearest(true)),
        ask(&nearest(false)),
        ask(&text),
        ask(&sparse),
        moment().get(&ids, all).map(|found| format!("{found:?}")),
        moment().count(&Filter::default()).map(|n| n.to_string()),
        engine.scroll(name, &scroll).map(|page| format!("{:?}", page.points)),
    ];
    if !partial {
        let id = PointId::new("doc7").unwrap();
        answers.push(
            engine
                .document_with_chunks(name, &id, all, Patience::endless())
                .map(|found| format!("{found:?}")),
        );
    }
    answers
}

fn is_told(error: &Error) -> bool {
    error.kind == ErrorKind::Damaged && error.code == "segment_damaged" && error.message.contains(".seg")
}

/// Every answer is what it was, or says what is missing.
fn judge(engine: &Engine, name: &str, before: &[std::result::Result<String, Error>], what: &str) -> usize {
    let mut failed = 0;
    for (now, before) in answers(engine, name, false).iter().zip(before) {
        match now {
            Ok(now) => assert_eq!(now, before.as_ref().unwrap(), "{what}"),
            Err(error) => {
                assert!(is_told(error), "{what}: {error:?}");
                failed += 1;
            }
        }
    }
    failed
}

#[test]
fn a_damaged_file_is_set_aside_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let (before, other) = (answers(&engine, "c", false), answers(&engine, "other", false));
    let points = engine.collection("c").unwrap().points;
    drop(engine);
    let victim = sealed(&dir, 0).remove(0);
    flip(&victim, 200, 3);

    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(judge(&engine, "other", &other, "the other collection"), 0);
    assert!(
        judge(&engine, "c", &before, "the damaged one") >= 5,
        "a scan needs every file"
    );
    let info = engine.collection("c").unwrap();
    assert_eq!(
        (info.points, info.damaged.len()),
        (points, 1),
        "its points are known, and it is"
    );
    let missing = &info.damaged[0];
    assert!(missing.points > 0 && missing.reason.contains("block 0"), "{missing:?}");
    assert_eq!(engine.damaged()[0].collection, "c");

    // A part will do, if the caller says so, and is called a part.
    let moment = engine
        .moment("c", None, Patience::default())
        .unwrap()
        .allow_partial(true);
    assert_eq!(moment.count(&Filter::default()).unwrap(), points - missing.points);
    assert_eq!(moment.missing(), info.damaged);
    assert!(answers(&engine, "c", true).iter().all(Result::is_ok));
    let scroll = Scroll {
        limit: 10,
        allow_partial: true,
        ..Scroll::default()
    };
    assert_eq!(engine.scroll("c", &scroll).unwrap().missing, info.damaged);

    // It is neither merged away nor removed, and there is no copy of it.
    engine.optimize("c", &|| false, &mut |_| {}).unwrap();
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert!(victim.exists());
    let cut = engine.cut(&|| false, &mut |_| ()).unwrap_err();
    assert!(is_told(&cut) && cut.message.contains("\"c\""), "{cut:?}");

    // The bytes come back: so does everything.
    drop(engine);
    flip(&victim, 200, 3);
    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(judge(&engine, "c", &before, "as it was"), 0);
    while engine.verify_step(1 << 20).unwrap() > 0 {}
    let stats = engine.stats();
    assert!(stats.blocks > 0 && stats.blocks == stats.blocks_verified && stats.damaged_segments == 0);
    drop(engine.cut(&|| false, &mut |_| ()).unwrap());
}

#[test]
fn writes_go_on_and_those_that_would_need_the_damage_are_refused_whole() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    drop(engine);
    let victims = sealed(&dir, 1);
    let aside = root.path().join("aside");
    std::fs::rename(&victims[0], &aside).unwrap();
    let engine = Engine::open(&dir, small(), components()).unwrap();
    let points = engine.collection("other").unwrap().points;
    let missing = engine.collection("other").unwrap().damaged[0].clone();
    assert!(missing.reason.contains("missing"), "{missing:?}");

    // By id: what is in the file dies unseen, and is written anew.
    let deleted = engine
        .delete("other", by_id(&["p0", "p0", "nobody"]), &options())
        .unwrap();
    assert_eq!(deleted.changed, 1);
    let again = engine.delete("other", by_id(&["p0"]), &options()).unwrap();
    assert_eq!(again.changed, 0, "nobody dies twice");
    engine
        .upsert("other", vec![point(1), point(1_000)], &options())
        .unwrap();
    assert_eq!(engine.collection("other").unwrap().points, points);
    assert_eq!(
        engine.collection("other").unwrap().damaged[0].points,
        missing.points - 2
    );

    // What has to look into it: nothing of it is written.
    let applied = engine.applied();
    let filter = Filter::must(Condition::Any {
        field: "n".into(),
        values: vec![crate::filter::Scalar::Int(3)],
    });
    let change = PayloadChange {
        set: json!({"touched": 1}).as_object().unwrap().clone(),
        ..PayloadChange::default()
    };
    let one = |id: &str| vec![PointId::new(id).unwrap()];
    let refused = [
        engine.delete("other", Selector::Matching(filter), &options()).map(drop),
        engine
            .set_payload("other", one("p2"), change.clone(), &options())
            .map(drop),
        engine
            .put_document("other", document("doc0", 2, 3), &options())
            .map(drop),
        engine.delete_documents("other", one("doc0"), &options()).map(drop),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(
            is_told(&error) && error.message.starts_with("nothing was written"),
            "{error:?}"
        );
    }
    assert_eq!(engine.applied(), applied);
    // A change of points that are elsewhere is none of its business.
    engine.set_payload("other", one("p1000"), change, &options()).unwrap();
    let with = With {
        payload: true,
        ..With::default()
    };
    let got = engine.get("other", &one("p1000"), with).unwrap();
    assert_eq!(got[0].payload.as_ref().unwrap()["touched"], 1);
    assert!(is_told(
        &engine.get("other", &one("nobody"), With::default()).unwrap_err()
    ));

    // All that is there after a restart, also before the file comes back, and when it has.
    let was = engine.collection("other").unwrap();
    drop(engine);
    let engine = Engine::open(&dir, small(), components()).unwrap();
    let now = engine.collection("other").unwrap();
    assert_eq!((now.points, &now.damaged), (was.points, &was.damaged));
    engine.delete("other", by_id(&["p5"]), &options()).unwrap();
    drop(engine);
    std::fs::rename(&aside, &victims[0]).unwrap();
    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), points - 1);
    for (id, there) in [("p0", false), ("p1", true), ("p2", true), ("p5", false), ("p6", true)] {
        assert_eq!(
            engine.get("other", &one(id), With::default()).unwrap().len() == 1,
            there,
            "{id}"
        );
    }
    engine.optimize("other", &|| false, &mut |_| {}).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), points - 1);
}

#[test]
fn a_file_in_the_place_of_another_is_damage_too() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    drop(written(&dir));
    let (ours, theirs) = (sealed(&dir, 1).remove(0), sealed(&dir, 1).remove(1));
    std::fs::copy(theirs, &ours).unwrap();
    let engine = Engine::open(&dir, small(), components()).unwrap();
    let error = engine.count("other", &Filter::default()).unwrap_err();
    assert!(is_told(&error) && error.message.contains("not the file"), "{error:?}");
}

/// Whatever bit of whatever sealed file is flipped, or wherever a file is cut: answers are what they were, or say it. Also when it
/// happens under a running engine, as far as it reads the block for the first time after it.
#[test]
fn any_damage_is_told_or_makes_no_difference() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let before: Vec<_> = ["c", "other"].map(|name| answers(&engine, name, false)).into();
    drop(engine);
    let files = files_below(&dir.join("segments"));
    let mut chance = Chance::new(7);
    let (mut told, mut same) = (0, 0);
    for trial in 0..40 {
        let path = &files[chance.below(files.len() as u64) as usize];
        let whole = std::fs::read(path).unwrap();
        let (byte, bit) = (chance.below(whole.len() as u64) as usize, chance.below(8) as u8);
        let what = format!(
            "trial {trial}: bit {bit} of byte {byte} of {} bytes of {}",
            whole.len(),
            path.display()
        );
        let engine = match trial % 4 {
            0 => {
                std::fs::write(path, &whole[..byte]).unwrap();
                Engine::open(&dir, small(), components()).unwrap()
            }
            1 => {
                let engine = Engine::open(&dir, small(), components()).unwrap();
                flip(path, byte, bit);
                engine
            }
            _ => {
                flip(path, byte, bit);
                Engine::open(&dir, small(), components()).unwrap()
            }
        };
        let failed = judge(&engine, "c", &before[0], &what) + judge(&engine, "other", &before[1], &what);
        *(if failed > 0 { &mut told } else { &mut same }) += 1;
        while engine.verify_step(1 << 16).unwrap() > 0 {}
        // What no question has read yet is found now. (A file that was flipped while open may have been read before that.)
        if trial % 4 != 1 {
            assert_eq!(engine.stats().damaged_segments, 1, "{what}");
            assert!(judge(&engine, "c", &before[0], &what) + judge(&engine, "other", &before[1], &what) > 0);
        }
        for name in ["c", "other"] {
            assert!(answers(&engine, name, true).iter().all(Result::is_ok), "{what}");
        }
        drop(engine);
        std::fs::write(path, &whole).unwrap();
    }
    assert!(told > 20, "{told} told, {same} without a difference");
}

#[test]
fn what_rots_later_is_found_by_reading_it_again() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let passes = |engine: &Engine| while !engine.scrub_step(1 << 16).unwrap().1 {};
    passes(&engine);
    let scrubbed = engine.scrubbed();
    assert_eq!((scrubbed.passes, scrubbed.errors), (1, 0));
    assert!(scrubbed.bytes > 100_000 && scrubbed.last_pass_ms > 0, "{scrubbed:?}");
    flip(&sealed(&dir, 0)[1], 5_000, 0);
    assert!(engine.damaged().is_empty());
    passes(&engine);
    assert_eq!((engine.scrubbed().errors, engine.damaged().len()), (1, 1));
    let error = engine.count("c", &Filter::default()).unwrap_err();
    assert!(is_told(&error), "{error:?}");
    passes(&engine);
    assert_eq!(engine.scrubbed().errors, 1, "it is told once");
}

/// A record that must be applied again and cannot: opening says so, and does it when the file is back.
#[test]
fn a_replay_that_needs_the_damage_waits_for_the_file() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let filter = Filter::must(Condition::Any {
        field: "n".into(),
        values: vec![crate::filter::Scalar::Int(3)],
    });
    let deleted = engine.delete("other", Selector::Matching(filter), &options()).unwrap();
    assert!(deleted.changed > 0);
    let left = engine.count("other", &Filter::default()).unwrap();
    let image = root.path().join("image");
    crash_image(&dir, &image);
    drop(engine);
    let victim = sealed(&image, 1).remove(0);
    flip(&victim, 300, 1);
    let error = Engine::open(&image, small(), components()).unwrap_err();
    assert!(
        is_told(&error) && error.message.contains("to apply it again"),
        "{error:?}"
    );
    flip(&victim, 300, 1);
    let engine = Engine::open(&image, small(), components()).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), left);
}

/// Names and bytes of everything in a directory.
fn everything(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let files = files_below(dir).into_iter();
    files.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

fn damages(examined: &Examined) -> Vec<&Finding> {
    let findings = examined.findings.iter();
    findings.filter(|finding| finding.kind == FindingKind::Damage).collect()
}

#[test]
fn a_check_finds_what_is_wrong_and_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let error = examine(&dir, &|| false, &mut |_| {}).unwrap_err();
    assert_eq!(error.code, "directory_locked");
    let points = engine.collection("c").unwrap().points;
    // What is not sealed, and records that are not flushed.
    engine.upsert("c", vec![point(2_000), point(4)], &options()).unwrap();
    let image = root.path().join("image");
    crash_image(&dir, &image);
    drop(engine);
    let dir = image;
    let before = everything(&dir);
    let whole = examine(&dir, &|| false, &mut |_| {}).unwrap();
    assert!(everything(&dir) == before, "nothing is written");
    assert!(whole.is_sound(), "{:#?}", whole.findings);
    assert_eq!((whole.segments, whole.to_replay), (6, 1), "{whole:?}");
    assert_eq!(whole.collections["c"], points, "as of the last flush");
    assert!(whole.blocks > 10 && whole.entries > 500, "{whole:?}");

    let victim = sealed(&dir, 0).remove(0);
    let bytes = std::fs::read(&victim).unwrap();
    let mut chance = Chance::new(3);
    for _ in 0..15 {
        let (byte, bit) = (chance.below(bytes.len() as u64) as usize, chance.below(8) as u8);
        flip(&victim, byte, bit);
        let before = everything(&dir);
        let examined = examine(&dir, &|| false, &mut |_| {}).unwrap();
        let damages = damages(&examined);
        assert_eq!(damages.len(), 1, "bit {bit} of byte {byte}: {damages:#?}");
        assert!(
            damages[0].place.ends_with(".seg") && damages[0].segment.is_some(),
            "{damages:?}"
        );
        assert!(everything(&dir) == before);
        flip(&victim, byte, bit);
    }
    std::fs::remove_file(&victim).unwrap();
    let examined = examine(&dir, &|| false, &mut |_| {}).unwrap();
    assert!(damages(&examined)[0].what.contains("missing"), "{examined:?}");
    std::fs::write(&victim, &bytes).unwrap();
    // What a crash left is no damage.
    std::fs::write(victim.with_file_name("0000009999.tmp"), b"half").unwrap();
    let examined = examine(&dir, &|| false, &mut |_| {}).unwrap();
    assert!(examined.is_sound() && examined.findings.len() == 1, "{examined:?}");

    // Bytes of the database: found, or where nothing stands.
    let tables: Vec<PathBuf> = files_below(&dir.join("db"))
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "sst"))
        .collect();
    assert!(!tables.is_empty());
    for table in &tables {
        let len = std::fs::metadata(table).unwrap().len() as usize;
        flip(table, len / 4, 2);
        let examined = examine(&dir, &|| false, &mut |_| {}).unwrap();
        assert!(!examined.is_sound(), "{}", table.display());
        flip(table, len / 4, 2);
    }
    assert_eq!(
        examine(root.path(), &|| false, &mut |_| {}).unwrap_err().code,
        "not_a_data_directory"
    );
}

#[test]
fn a_repair_takes_back_what_it_can_prove_and_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let before = answers(&engine, "c", false);
    assert_eq!(Repair::begin(&dir).err().unwrap().code, "directory_locked");
    drop(engine);
    let files = sealed(&dir, 0);
    let copies = root.path().join("copies");
    std::fs::create_dir(&copies).unwrap();
    for (i, file) in files.iter().enumerate() {
        std::fs::copy(file, copies.join(i.to_string())).unwrap();
    }
    assert_eq!(Repair::begin(&dir).unwrap().damaged(&|| false).unwrap(), []);
    flip(&files[0], 70_000, 1);
    std::fs::remove_file(&files[1]).unwrap();
    let repair = Repair::begin(&dir).unwrap();
    let damaged = repair.damaged(&|| false).unwrap();
    assert_eq!(damaged.len(), 2);
    let at = |i: usize| damaged.iter().find(|d| files[i].ends_with(&d.path)).unwrap().segment;
    // Another file, a damaged copy, and none are no proof.
    let wrong = copies.join("wrong");
    std::fs::copy(copies.join("1"), &wrong).unwrap();
    flip(&wrong, 66_000, 0);
    for (i, candidate) in [
        (0, copies.join("1")),
        (1, wrong),
        (0, files[0].clone()),
        (1, copies.join("none")),
    ] {
        let error = repair.take_back(at(i), &candidate, &|| false).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Damaged, "{error:?}");
    }
    assert_eq!(repair.damaged(&|| false).unwrap(), damaged, "nothing changed");
    for i in [0, 1] {
        repair.take_back(at(i), &copies.join(i.to_string()), &|| false).unwrap();
    }
    assert_eq!(repair.damaged(&|| false).unwrap(), []);
    assert_eq!(files_below(&dir.join("damaged")).len(), 1, "what was damaged is kept");
    drop(repair);
    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(judge(&engine, "c", &before, "as it was"), 0);
}

#[test]
fn points_that_are_given_up_are_listed_and_gone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let points = engine.collection("other").unwrap().points;
    // To be applied again at the next start.
    engine.delete("other", by_id(&["p1", "p299"]), &options()).unwrap();
    let image = root.path().join("image");
    crash_image(&dir, &image);
    drop(engine);
    let victim = sealed(&image, 1).remove(0);
    flip(&victim, 100, 1);
    let repair = Repair::begin(&image).unwrap();
    let damaged = repair.damaged(&|| false).unwrap().remove(0);
    assert_eq!(damaged.collection, "other");
    let list = root.path().join("lost.jsonl");
    let other = sealed(&image, 1).pop().unwrap();
    let number = |path: &Path| -> u64 { path.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let whole = SegmentPlace {
        shard: number(other.parent().unwrap()) as u32,
        segment: number(&other),
        ..damaged.segment
    };
    assert_ne!(whole, damaged.segment);
    let refused = repair.drop_segment(whole, Some(&list), &|| false).unwrap_err();
    assert!(refused.code == "segment_not_damaged" && !list.exists(), "{refused}");
    let lost = repair.drop_segment(damaged.segment, None, &|| false).unwrap();
    assert!(!list.exists() && victim.exists());
    assert_eq!(
        repair.drop_segment(damaged.segment, Some(&list), &|| false).unwrap(),
        lost
    );
    assert!(
        repair.drop_segment(damaged.segment, Some(&list), &|| false).is_err(),
        "it is gone"
    );
    drop(repair);
    assert!(!victim.exists());
    let listed: Vec<serde_json::Value> = std::fs::read_to_string(&list)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(listed.len() as u64, lost);
    assert!(lost > 100 && lost < points);
    let examined = examine(&image, &|| false, &mut |_| {}).unwrap();
    assert!(examined.is_sound(), "{:#?}", examined.findings);
    let engine = Engine::open(&image, small(), components()).unwrap();
    let expected = points - lost - u64::from(!listed.iter().any(|l| l["id"] == "p299"));
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), expected);
    for line in &listed {
        let id = PointId::new(line["id"].as_str().unwrap()).unwrap();
        assert!(engine.get("other", &[id], With::default()).unwrap().is_empty());
    }
    // The same points, and documents, can be written again.
    engine.upsert("other", vec![point(2)], &options()).unwrap();
    let put = engine
        .put_document("other", document("doc0", 1, 5), &options())
        .unwrap();
    assert!(put.changed > 0, "a document that lost its chunks is not unchanged");
    engine.optimize("other", &|| false, &mut |_| {}).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), expected + 1 + 5);
}

#[test]
fn a_copy_takes_the_place_of_a_damaged_file_under_a_running_engine() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    drop(written(&dir));
    let (victim, other) = (sealed(&dir, 1).remove(0), sealed(&dir, 1).remove(1));
    let copy = root.path().join("copy");
    std::fs::copy(&victim, &copy).unwrap();
    // Which rows there are cannot be told either, so that nobody knows where those stand that die meanwhile.
    std::fs::write(&victim, b"short").unwrap();
    let engine = Engine::open(&dir, small(), components()).unwrap();
    let ids = by_id(&["p1", "p140", "p299"]);
    assert_eq!(engine.delete("other", ids, &options()).unwrap().changed, 3);
    let points = engine.collection("other").unwrap().points;
    let damaged = engine.wanted().remove(0);
    assert_eq!(dir.join(&damaged.path), victim);
    assert_eq!(damaged.bytes, std::fs::metadata(&copy).unwrap().len());
    assert!(is_told(&engine.count("other", &Filter::default()).unwrap_err()));
    for wrong in [&other, &victim, &root.path().join("none")] {
        let refused = engine.take_back(damaged.place, wrong, &|| false).unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Damaged, "{refused}");
    }
    assert_eq!(engine.damaged().len(), 1, "nothing changed");
    assert!(!victim.with_extension("tmp").exists());
    let aside = dir.join("damaged");
    std::fs::create_dir_all(&aside).unwrap();
    let given_up = aside.join("0-0-0000000001.0.seg");
    std::fs::write(&given_up, b"nowhere else").unwrap();
    for segment in 2..40 {
        std::fs::write(aside.join(format!("0-0-{segment:010}.replaced.seg")), b"long ago").unwrap();
    }
    assert!(engine.take_back(damaged.place, &copy, &|| false).unwrap());
    assert!(
        !engine.take_back(damaged.place, &copy, &|| false).unwrap(),
        "it is whole"
    );
    assert!(engine.damaged().is_empty() && engine.stats().taken_back == 1);
    let filter = Filter::must(Condition::Any {
        field: "n".into(),
        values: (0..7).map(crate::filter::Scalar::Int).collect(),
    });
    assert!(engine.count("other", &filter).unwrap() > 200);
    let now = answers(&engine, "other", false);
    assert!(now.iter().all(Result::is_ok), "{now:?}");
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), points);
    drop(engine.cut(&|| false, &mut |_| ()).unwrap());
    let kept = files_below(&aside);
    assert_eq!(kept.len(), limits::REPLACED_FILES_MAX + 1, "{kept:?}");
    let is_kept = |path: &PathBuf| std::fs::read(path).unwrap() == b"short";
    assert!(kept.contains(&given_up) && kept.iter().any(is_kept), "{kept:?}");
    drop(engine);
    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(judge(&engine, "other", &now, "after a restart"), 0);
    engine.optimize("other", &|| false, &mut |_| {}).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), points);
}

#[test]
fn a_damaged_file_in_which_nothing_lives_goes_and_keeps_no_snapshot_from_being_made() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let scroll = Scroll {
        limit: 1_000,
        ..Scroll::default()
    };
    let ids: Vec<PointId> = engine
        .scroll("other", &scroll)
        .unwrap()
        .points
        .into_iter()
        .map(|p| p.id)
        .collect();
    drop(engine);
    let victims = sealed(&dir, 1);
    flip(&victims[0], 70_000, 1);
    std::fs::remove_file(&victims[1]).unwrap();
    let engine = Engine::open(&dir, small(), components()).unwrap();
    while engine.verify_step(1 << 20).unwrap() > 0 {}
    assert_eq!(engine.damaged().len(), 2);
    engine.delete("other", Selector::Ids(ids), &options()).unwrap();
    engine.upsert("other", vec![point(7)], &options()).unwrap();
    assert_eq!(engine.collection("other").unwrap().points, 1);
    drop(engine.cut(&|| false, &mut |_| ()).unwrap());
    assert!(engine.damaged().is_empty(), "a cut does not wait for background work");
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    assert!(!victims[0].exists());
    drop(engine);
    let examined = examine(&dir, &|| false, &mut |_| {}).unwrap();
    assert!(examined.is_sound(), "{:#?}", examined.findings);
    let engine = Engine::open(&dir, small(), components()).unwrap();
    assert_eq!(engine.count("other", &Filter::default()).unwrap(), 1);
}

/// What was whole when it was verified, and is read again days later to be copied.
#[test]
fn what_rots_after_it_was_verified_is_never_copied() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    let victim = sealed(&dir, 1).remove(0);
    let len = std::fs::metadata(&victim).unwrap().len() as usize;
    drop(engine);
    let verified = || {
        let engine = Engine::open(&dir, small(), components()).unwrap();
        while engine.verify_step(1 << 20).unwrap() > 0 {}
        engine
    };
    // In a merge.
    let engine = verified();
    flip(&victim, len / 2, 1);
    engine.optimize("other", &|| false, &mut |_| {}).unwrap();
    assert_eq!(engine.damaged().len(), 1);
    assert!(victim.exists());
    flip(&victim, len / 2, 1);
    drop(engine);
    // In a snapshot, in what is read for it.
    for byte in [len / 2, len - 40] {
        let engine = verified();
        let cut = engine.cut(&|| false, &mut |_| ()).unwrap();
        let file = cut.files.iter().find(|file| victim.ends_with(&file.path)).unwrap();
        let original = file.original.as_ref().unwrap();
        let mut bytes = std::fs::read(cut.dir().join(&file.path)).unwrap();
        let step = 4 * limits::BLOCK_BYTES;
        let check = |bytes: &[u8]| {
            let parts = bytes.chunks(step).enumerate();
            parts
                .into_iter()
                .try_for_each(|(i, part)| original.check((i * step) as u64, part))
        };
        check(&bytes).unwrap();
        assert!(engine.damaged().is_empty());
        bytes[byte] ^= 2;
        let refused = check(&bytes).unwrap_err();
        assert!(is_told(&refused), "{refused:?}");
        assert_eq!(engine.damaged().len(), 1, "set aside at once");
        assert!(is_told(&engine.cut(&|| false, &mut |_| ()).unwrap_err()));
    }
}

#[test]
fn what_a_crash_leaves_is_looked_at_as_a_start_would_find_it() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("data");
    let engine = written(&dir);
    engine.upsert("c", vec![point(2_000)], &options()).unwrap();
    let image = root.path().join("image");
    crash_image(&dir, &image);
    drop(engine);
    let db = image.join("db");
    let logs = files_below(&db)
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    let newest = logs.max().unwrap();
    let whole = std::fs::read(&newest).unwrap();
    assert!(!whole.is_empty());
    let (torn, current) = (
        [&whole[..], &[0x5a; 50]].concat(),
        std::fs::read(db.join("CURRENT")).unwrap(),
    );
    let victim = sealed(&image, 1).remove(0);
    for (log, name) in [
        (&torn, &current[..]),
        (&whole, b"MANIFEST-009999\n"),
        (&torn, b"MANIFEST-009999\n"),
    ] {
        std::fs::write(&newest, log).unwrap();
        std::fs::write(db.join("CURRENT"), name).unwrap();
        let before = everything(&image);
        let notes = usize::from(*log == torn) + usize::from(name != current);
        let examined = examine(&image, &|| false, &mut |_| {}).unwrap();
        assert!(examined.is_sound(), "{:#?}", examined.findings);
        assert_eq!(
            (examined.findings.len(), examined.to_replay),
            (notes, 1),
            "{examined:?}"
        );
        let repair = Repair::begin(&image).unwrap();
        assert_eq!(repair.damaged(&|| false).unwrap(), []);
        flip(&victim, 100, 1);
        let damaged = repair.damaged(&|| false).unwrap().remove(0);
        assert!(repair.drop_segment(damaged.segment, None, &|| false).unwrap() > 100);
        flip(&victim, 100, 1);
        drop(repair);
        assert!(everything(&image) == before, "nothing is written");
    }
    let engine = Engine::open(&image, small(), components()).unwrap();
    assert!(engine.dropped().is_some_and(|dropped| dropped.bytes == 50));
    assert!(
        engine
            .get("c", &[PointId::new("p2000").unwrap()], With::default())
            .unwrap()
            .len()
            == 1
    );
}

/// The bytes of RocksDB's manifest, and which file it is.
fn manifest(dir: &Path) -> (PathBuf, Vec<u8>) {
    let db = dir.join("db");
    let current = std::fs::read_to_string(db.join("CURRENT")).unwrap();
    let file = db.join(current.trim_end());
    let bytes = std::fs::read(&file).unwrap();
    (file, bytes)
}

#[test]
fn a_manifest_that_rots_after_a_merge_is_refused_and_the_merged_file_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let engine = written(&path);
    let inputs = sealed(&path, 1);
    let ends = manifest(&path).1.len();
    // No record is written: RocksDB's log is the same before and after.
    engine.optimize("other", &|| false, &mut |_| {}).unwrap();
    while engine.maintain(&|| false).unwrap() == Maintained::Worked {}
    engine.flush().unwrap();
    drop(engine);
    let merged = sealed(&path, 1);
    assert!(merged.len() == 1 && !inputs.contains(&merged[0]), "{merged:?}");
    let (file, whole) = manifest(&path);
    assert!(whole.len() > ends + 40, "{ends} of {}", whole.len());
    for hole in [0, 10] {
        let mut rotten = whole.clone();
        rotten[ends + hole..][..20].fill(0);
        std::fs::write(&file, rotten).unwrap();
        let refused = Engine::open(&path, small(), components()).err().unwrap();
        assert_eq!(refused.kind, ErrorKind::Damaged, "{refused}");
        assert!(refused.message.contains("MANIFEST"), "{refused}");
        assert_eq!(sealed(&path, 1), merged);
        let found = examine(&path, &|| false, &mut |_| {}).unwrap();
        assert!(!found.is_sound());
    }
    std::fs::write(&file, whole).unwrap();
    let engine = Engine::open(&path, small(), components()).unwrap();
    assert!(answers(&engine, "other", false).iter().all(std::result::Result::is_ok));
}
