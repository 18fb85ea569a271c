//! The reader against a writer of its own, against RocksDB's files, and against hostile bytes; and what is cut or refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::limits;
use crate::log::{LocalLog, Log, Record};
use crate::storage::Storage;
use crate::types::{Durability, Seq};

/// Logical records as RocksDB's writer lays them out.
fn laid_out(records: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for record in records {
        let mut rest = &record[..];
        let mut first = true;
        loop {
            let left = BLOCK - file.len() % BLOCK;
            if left < HEADER {
                file.resize(file.len() + left, 0);
                continue;
            }
            let (part, after) = rest.split_at(rest.len().min(left - HEADER));
            let kind = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            let covered: Vec<u8> = [&[kind], part].concat();
            let crc = crc32c::crc32c(&covered);
            file.extend_from_slice(&crc.rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes());
            file.extend_from_slice(&(part.len() as u16).to_le_bytes());
            file.extend_from_slice(&covered);
            rest = after;
            first = false;
            if rest.is_empty() {
                break;
            }
        }
    }
    file
}

/// Offsets and first bytes of what reads well, and offsets of what does not.
fn walk(file: &[u8]) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
    let mut walk = Walk::new(file, 7);
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while let Some(step) = walk.step().unwrap() {
        match step {
            Step::Record { at, prefix } => good.push((at, prefix)),
            Step::Bad { at } => bad.push(at),
        }
    }
    (good, bad)
}

fn record(number: usize, len: usize) -> Vec<u8> {
    let mut bytes = vec![number as u8 | 1; len];
    bytes
        .iter_mut()
        .enumerate()
        .for_each(|(i, byte)| *byte ^= (i * 7) as u8);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_written_is_read_and_a_cut_leaves_a_prefix(
        lens in proptest::collection::vec(prop_oneof![0..60_usize, 32_700..32_800_usize, 0..100_000_usize], 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let records: Vec<_> = lens.iter().enumerate().map(|(i, len)| record(i, *len)).collect();
        let file = laid_out(&records);
        let (good, bad) = walk(&file);
        prop_assert!(bad.is_empty());
        prop_assert_eq!(good.len(), records.len());
        for ((_, prefix), record) in good.iter().zip(&records) {
            prop_assert_eq!(&prefix[..], &record[..record.len().min(PREFIX)]);
        }
        let cut = cut.index(file.len() + 1);
        let (left, bad) = walk(&file[..cut]);
        prop_assert_eq!(&left[..], &good[..left.len()]);
        // All whole records are there, and what is bad is the next one, unless only padding was cut.
        match (good.get(left.len()), bad.first()) {
            (Some((next, _)), Some(at)) => prop_assert!(at == next || (*at < *next && *at + (HEADER as u64) > *next)),
            (Some((next, _)), None) => prop_assert!(cut as u64 <= *next),
            (None, bad) => prop_assert!(bad.is_none()),
        }
    }

    #[test]
    fn a_changed_byte_loses_no_record_before_it(
        lens in proptest::collection::vec(prop_oneof![0..60_usize, 0..70_000_usize], 1..8),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
    ) {
        let records: Vec<_> = lens.iter().enumerate().map(|(i, len)| record(i, *len)).collect();
        let mut file = laid_out(&records);
        let (before, _) = walk(&file);
        let at = at.index(file.len());
        file[at] ^= 1 << bit;
        let (after, bad) = walk(&file);
        let hit = before.iter().rposition(|(begin, _)| *begin <= at as u64).unwrap();
        prop_assert!(after.len() >= hit && after[..hit] == before[..hit]);
        // A flip in padding is noticed as well, though nothing is lost; one in a record is always.
        prop_assert!(!bad.is_empty() || after == before);
        prop_assert!(after.iter().all(|record| before.contains(record)), "nothing is read that was not written");
    }

    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..70_000), zeros in 0..40_000_usize) {
        walk(&bytes);
        let mut file = laid_out(&[bytes]);
        file.extend(vec![0; zeros]);
        walk(&file);
        if file.len() > 20 {
            walk(&file[13..]);
        }
    }

    #[test]
    fn marks_come_back_and_any_bytes_are_no_panic(numbers in any::<[u64; 6]>(), bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let [first, count, synced, unsynced_groups, unsynced_bytes, run] = numbers;
        let mark = Mark { first, count, synced, unsynced_groups, unsynced_bytes, run };
        let mut batch = vec![0; BATCH_HEADER];
        batch.extend_from_slice(&[LOG_DATA, MARK as u8]);
        batch.extend_from_slice(&mark.encode());
        prop_assert_eq!(Mark::decode(&batch), Some(mark));
        Mark::decode(&bytes);
    }
}

/// A log of groups with these durabilities, each of about `bytes`, as it stands in the page cache: a copy of the directory.
fn written(groups: &[Durability], bytes: usize) -> tempfile::TempDir {
    let live = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let log = LocalLog::new(
        Arc::new(Storage::open(&live.path().join("db"), false).unwrap()),
        0,
        Duration::from_secs(3_600),
    );
    for (i, durability) in groups.iter().enumerate() {
        let record = Record {
            group: 0,
            by: crate::types::Opening::BEFORE,
            timestamp_ms: i as u64,
            request: None,
            ops: vec![crate::op::Op::CreateCollection {
                no: crate::types::CollectionNo(i as u32),
                name: "n".repeat(bytes),
                schema: String::new(),
            }],
        };
        log.append(Seq(i as u64 + 1), &[record.encode().unwrap()], *durability)
            .unwrap();
    }
    fs::create_dir(copy.path().join("db")).unwrap();
    for entry in fs::read_dir(live.path().join("db")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join("db").join(entry.file_name())).unwrap();
    }
    copy
}

fn mended(dir: &Path) -> Result<Option<Dropped>> {
    mend(&dir.join("db"), &dir.join("dropped-log"))
}

/// The only log with anything in it, and where its groups of records begin.
fn only_log(dir: &Path) -> (PathBuf, Vec<u64>) {
    let logs = logs(&dir.join("db")).unwrap();
    let (_, path, _) = logs.into_iter().max_by_key(|(_, _, len)| *len).unwrap();
    let (good, bad) = walk(&fs::read(&path).unwrap());
    assert!(bad.is_empty());
    let groups = good
        .iter()
        .filter(|(_, prefix)| Mark::decode(prefix).is_some_and(|mark| mark.count > 0));
    (path.clone(), groups.map(|(at, _)| *at).collect())
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// How many records the log gives after RocksDB opened it.
fn records(dir: &Path) -> u64 {
    let log = LocalLog::new(
        Arc::new(Storage::open(&dir.join("db"), false).unwrap()),
        0,
        Duration::ZERO,
    );
    let mut count = 0;
    log.read(Seq(1), &mut |seq, record, _| {
        count += 1;
        assert_eq!((seq.0, record.timestamp_ms), (count, count - 1));
        Ok(true)
    })
    .unwrap();
    count
}

const SYNC: Durability = Durability::Sync;
const ASYNC: Durability = Durability::Async;

#[test]
fn a_log_that_reads_well_is_left_alone() {
    let dir = written(&[SYNC, ASYNC, ASYNC, SYNC], 50_000);
    let (path, groups) = only_log(dir.path());
    assert_eq!(groups.len(), 4, "marks are found in RocksDB's own files");
    let before = fs::read(&path).unwrap();
    assert_eq!(mended(dir.path()).unwrap(), None);
    assert_eq!(fs::read(&path).unwrap(), before);
    assert!(!dir.path().join("dropped-log").exists());
    assert_eq!(records(dir.path()), 4);
}

#[test]
fn damage_before_a_group_that_knew_it_was_synced_is_refused_and_nothing_changes() {
    // Small groups lie in one block, where a length that is wrong leads nowhere; large ones in several.
    for bytes in [100, 40_000] {
        for victim in 0..3 {
            for offset in [0, 4, 5, 6, 8, 30, 90] {
                let dir = written(&[SYNC; 5], bytes);
                let (path, groups) = only_log(dir.path());
                change(&path, |file| file[groups[victim] as usize + offset] ^= 4);
                let before = fs::read(&path).unwrap();
                let error = mended(dir.path()).expect_err(&format!("byte {offset} of group {victim} of {bytes} bytes"));
                assert_eq!(error.code, "data_damaged");
                let place = format!("{} is damaged at byte {}", path.display(), groups[victim]);
                assert!(error.message.contains(&place), "{error}");
                assert_eq!(fs::read(&path).unwrap(), before);
                assert!(!dir.path().join("dropped-log").exists());
            }
        }
    }
}

#[test]
fn a_payload_that_looks_like_a_group_proves_nothing() {
    let fake = |run| {
        let mut batch = vec![0; BATCH_HEADER];
        batch.extend_from_slice(&[LOG_DATA, MARK as u8]);
        let mark = Mark {
            first: 900,
            count: 1,
            synced: 899,
            unsynced_groups: 0,
            unsynced_bytes: 0,
            run,
        };
        batch.extend_from_slice(&mark.encode());
        batch
    };
    // A real group, and one whose payload holds a whole group; the crash tears the first bytes of the latter.
    let mut file = laid_out(&[fake(7)]);
    let torn = file.len();
    let payload = [vec![9; 40], laid_out(&[fake(8)]), vec![9; 40]].concat();
    file.extend(laid_out(&[payload]));
    file[torn + 5] ^= 1;
    let (good, bad) = walk(&file);
    assert_eq!((good.len(), bad), (1, vec![torn as u64]));
    let inside = file.windows(8).rposition(|bytes| bytes == 8_u64.to_le_bytes()).unwrap();
    assert!(inside > torn, "it is there");
}

#[test]
fn damage_of_the_last_group_is_cut_set_aside_and_reported() {
    let dir = written(&[SYNC, SYNC, SYNC], 40_000);
    let (path, groups) = only_log(dir.path());
    let whole = fs::read(&path).unwrap();
    change(&path, |file| file[groups[2] as usize + 35_000] ^= 1);
    let flipped = fs::read(&path).unwrap();
    let dropped = mended(dir.path()).unwrap().unwrap();
    assert_eq!(
        (dropped.at, dropped.bytes, dropped.groups),
        (groups[2], whole.len() as u64 - groups[2], 0)
    );
    let kept: Vec<_> = fs::read_dir(&dropped.kept_in)
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(fs::read(&kept[0]).unwrap(), flipped[groups[2] as usize..]);
    assert_eq!(mended(dir.path()).unwrap(), None, "once is enough");
    assert_eq!(records(dir.path()), 2);
}

#[test]
fn every_torn_end_opens_as_a_prefix() {
    let dir = written(&[SYNC, ASYNC, ASYNC], 40_000);
    let (path, groups) = only_log(dir.path());
    let whole = fs::read(&path).unwrap();
    for cut in [
        groups[2] + 3,
        groups[2] + 7,
        groups[2] + 4_096,
        65_536,
        65_540,
        whole.len() as u64 - 1,
    ] {
        fs::write(&path, &whole[..cut as usize]).unwrap();
        let dropped = mended(dir.path()).unwrap().unwrap();
        let (left, _) = walk(&fs::read(&path).unwrap());
        let expected = groups.iter().rev().find(|at| **at <= cut).unwrap();
        assert_eq!((dropped.at, dropped.bytes), (*expected, cut - expected), "{cut}");
        assert!(left.len() >= 2);
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_hole_in_what_was_never_synced_is_cut_with_what_follows_it() {
    // As a loss of power leaves it: a page that did not reach the disk, and later ones that did.
    for (hole, left) in [(2, 2), (3, 3)] {
        let dir = written(&[SYNC, SYNC, ASYNC, ASYNC, ASYNC, ASYNC], 40_000);
        let (path, groups) = only_log(dir.path());
        change(&path, |file| file[groups[hole] as usize + 100..][..20_000].fill(0));
        let dropped = mended(dir.path()).unwrap().unwrap();
        assert_eq!((dropped.at, dropped.groups > 0), (groups[hole], true));
        assert_eq!(records(dir.path()), left);
    }
    // The same hole, but a later group knows that what is missing was synced.
    let dir = written(&[SYNC, SYNC, ASYNC, SYNC, ASYNC, ASYNC], 40_000);
    let (path, groups) = only_log(dir.path());
    change(&path, |file| file[groups[2] as usize + 100..][..20_000].fill(0));
    assert_eq!(mended(dir.path()).unwrap_err().code, "data_damaged");
}

#[test]
fn a_log_that_begins_with_a_hole_is_judged_by_how_much_was_unsynced() {
    let place = Place {
        file: 0,
        at: 0,
        last: None,
    };
    let mark = |unsynced_groups, unsynced_bytes| {
        Some(Mark {
            first: 100,
            count: 1,
            synced: 90,
            unsynced_groups,
            unsynced_bytes,
            run: 1,
        })
    };
    assert!(!proves(&place, mark(2, 40_000), 40_030), "all of it was unsynced");
    assert!(
        proves(&place, mark(2, 30_000), 40_030),
        "10,000 bytes of it were synced"
    );
    assert!(proves(&place, None, 10));
}

#[test]
fn a_hole_in_the_first_group_is_no_more_than_was_unsynced_however_small_the_records() {
    // The smaller a record, the more of a group's bytes in the file stand around it.
    for len in [1, 1_000, 40_000] {
        let dir = written(&[ASYNC, ASYNC, ASYNC], len);
        let (path, groups) = only_log(dir.path());
        change(&path, |file| file[groups[0] as usize + 30..][..8].fill(0xff));
        let dropped = mended(dir.path()).unwrap().unwrap();
        assert_eq!((dropped.at, dropped.groups), (groups[0], 2), "records of {len} bytes");
    }
}

#[test]
fn a_hole_takes_later_files_with_it_and_pieces_set_aside_are_few() {
    let first = written(&[SYNC, ASYNC, ASYNC], 40_000);
    let (path, groups) = only_log(first.path());
    let number: u64 = path.file_stem().unwrap().to_str().unwrap().parse().unwrap();
    // A later file whose groups were written before anything of the hole was synced.
    let mut batch = vec![0; BATCH_HEADER];
    batch.extend_from_slice(&[LOG_DATA, MARK as u8]);
    let mark = Mark {
        first: 4,
        count: 1,
        synced: 1,
        unsynced_groups: 2,
        unsynced_bytes: 80_000,
        run: 1,
    };
    batch.extend_from_slice(&mark.encode());
    let later = path.with_file_name(format!("{:06}.log", number + 1));
    fs::write(&later, laid_out(std::slice::from_ref(&batch))).unwrap();
    change(&path, |file| file[groups[1] as usize + 50..][..9_000].fill(0));
    let aside = first.path().join("dropped-log");
    fs::create_dir(&aside).unwrap();
    for i in 0..limits::DROPPED_LOGS_MAX {
        fs::write(aside.join(format!("000000-from-{i:02}.log")), "old").unwrap();
    }
    let dropped = mended(first.path()).unwrap().unwrap();
    assert_eq!((dropped.at, dropped.groups), (groups[1], 2));
    assert!(!later.exists());
    let kept: BTreeMap<_, _> = fs::read_dir(&aside)
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| (e.file_name(), e.metadata().unwrap().len()))
        .collect();
    assert_eq!(kept.len(), limits::DROPPED_LOGS_MAX);
    assert_eq!(records(first.path()), 1);
}
