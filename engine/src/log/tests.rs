//! The log's contract, checked on each log: order, durability across reopen, damage noticed, any bytes survived.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::memory::MemoryLog;
use super::{LocalLog, Log, Record, Request};
use crate::op::Op;
use crate::storage::faulty::{Chance, Faults};
use crate::storage::{Effects, LOG, Storage, key};
use crate::types::{CollectionNo, Durability, EpochId, Opening, PointId, Seq};

fn record(i: u64) -> Record {
    let ids = (0..i % 5).map(|n| PointId::new(format!("p{n}")).unwrap()).collect();
    Record {
        group: 0,
        by: Opening {
            epoch: EpochId(7 + i),
            at_ms: 1_600_000_000_000 + i,
        },
        timestamp_ms: 1_700_000_000_000 + i,
        request: (i % 2 == 1).then(|| Request {
            id: format!("req-{i}"),
            part: i as u32,
            fingerprint: [i as u8; 16],
            note: vec![7; (i % 3) as usize],
        }),
        ops: vec![Op::Delete {
            no: CollectionNo(i as u32),
            ids,
        }],
    }
}

const WINDOW: Duration = Duration::from_secs(3_600);

fn open(dir: &Path) -> LocalLog {
    LocalLog::new(Arc::new(Storage::open(dir, false).unwrap()), 0, WINDOW)
}

fn read_all(log: &dyn Log, from: u64) -> Vec<(u64, Record)> {
    let mut all = Vec::new();
    log.read(Seq(from), &mut |seq, record, _| {
        all.push((seq.0, record));
        Ok(true)
    })
    .unwrap();
    all
}

/// Records of before there were epochs lack the bytes that say which.
#[test]
fn a_record_of_version_2_is_read() {
    for i in 0..4 {
        let now = record(i);
        let mut bytes = now.encode().unwrap();
        bytes.drain(36..52);
        bytes[4] = 2;
        let crc = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        let by = Opening::BEFORE;
        assert_eq!(Record::decode(&bytes).unwrap(), Record { by, ..now });
    }
}

/// What every log must do. `reopen` gives the log back as it is after the process ended at once.
fn conform(mut reopen: impl FnMut() -> Arc<dyn Log>) {
    let expected: Vec<_> = (1..=20).map(|i| (i, record(i))).collect();
    let bytes: Vec<_> = expected.iter().map(|(_, r)| r.encode().unwrap()).collect();
    {
        let log = reopen();
        assert_eq!((log.first().unwrap(), log.get(Seq(1)).unwrap()), (None, None));
        log.append(Seq(1), &bytes[..7], Durability::Sync).unwrap();
        log.append(Seq(8), &bytes[7..], Durability::Sync).unwrap();
        assert_eq!(read_all(&*log, 1), expected);
    }
    let log = reopen();
    assert_eq!(read_all(&*log, 1), expected);
    assert_eq!(read_all(&*log, 13), expected[12..]);
    assert_eq!(log.get(Seq(5)).unwrap(), Some((record(5), bytes[4].len())));
    let mut some = 0;
    log.read(Seq(3), &mut |_, _, _| {
        some += 1;
        Ok(some < 4)
    })
    .unwrap();
    assert_eq!(some, 4, "reading ends when it is told to");
    log.trim(Seq(1), Seq(11)).unwrap();
    assert_eq!(
        (log.first().unwrap(), log.last().unwrap()),
        (Some(Seq(11)), Some(Seq(20)))
    );
    assert_eq!(read_all(&*log, 1), expected[10..]);
    assert!(log.get(Seq(10)).unwrap().is_none());
    log.trim(Seq(11), Seq(21)).unwrap();
    assert_eq!(log.first().unwrap(), None);
    log.append(Seq(21), &bytes[..1], Durability::Sync).unwrap();
    assert_eq!(
        log.first().unwrap(),
        Some(Seq(21)),
        "numbers go on after everything was trimmed"
    );
}

#[test]
fn what_was_appended_is_read_in_order_also_after_reopen() {
    let dir = tempfile::tempdir().unwrap();
    conform(|| Arc::new(open(dir.path())));
    let memory = Arc::new(MemoryLog::new(Arc::new(Faults::default())));
    conform(|| {
        memory.lose_power(&mut Chance::new(1));
        Arc::<MemoryLog>::clone(&memory)
    });
}

#[test]
fn the_log_in_memory_keeps_what_it_acked_when_the_power_goes() {
    let bytes: Vec<_> = (1..=9).map(|i| record(i).encode().unwrap()).collect();
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let faults = Arc::new(Faults::default());
        let log = MemoryLog::new(Arc::clone(&faults));
        log.append(Seq(1), &bytes[..3], Durability::Sync).unwrap();
        faults.plan_crash(0);
        log.append(Seq(4), &bytes[3..], Durability::Sync).unwrap_err();
        faults.power_on();
        log.lose_power(&mut Chance::new(seed));
        let left = read_all(&log, 1);
        assert!(left.len() >= 3 && left.iter().map(|(seq, _)| *seq).eq(1..=left.len() as u64));
        lost += usize::from(left.len() < 9);
        kept += usize::from(left.len() > 3);
    }
    assert!(lost > 10 && kept > 10, "{lost} {kept}");
}

#[test]
fn a_gap_and_a_changed_byte_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Arc::new(Storage::open(dir.path(), false).unwrap());
    let log = LocalLog::new(Arc::clone(&storage), 0, WINDOW);
    let bytes: Vec<_> = (1..=3).map(|i| record(i).encode().unwrap()).collect();
    log.append(Seq(1), &bytes, Durability::Sync).unwrap();
    let mut bad = bytes[1].clone();
    bad[25] ^= 1;
    let mut batch = Effects::new(&storage);
    batch.put(LOG, &key::log(0, Seq(2)), &bad);
    storage.append(batch, true).unwrap();
    let error = log.read(Seq(1), &mut |_, _, _| Ok(true)).unwrap_err();
    assert!(
        error.message.contains("record 2") && error.message.contains("checksum"),
        "{error}"
    );
    let mut batch = Effects::new(&storage);
    batch.delete(LOG, &key::log(0, Seq(2)));
    storage.append(batch, true).unwrap();
    assert!(
        log.read(Seq(1), &mut |_, _, _| Ok(true))
            .unwrap_err()
            .message
            .contains("gap")
    );
}

#[test]
fn an_asynchronous_append_is_synced_by_the_next_synchronous_one_and_by_sync() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let bytes: Vec<_> = (1..=4).map(|i| record(i).encode().unwrap()).collect();
    let append = |i: usize, wanted| log.append(Seq(i as u64 + 1), &bytes[i..=i], wanted).unwrap();
    assert_eq!(append(0, Durability::Async), Durability::Async);
    assert_eq!(append(1, Durability::Async), Durability::Async);
    assert_eq!((log.unsynced().records, log.fsyncs().count), (2, 0));
    assert_eq!(log.durability(Seq(1)), Durability::Async);
    assert_eq!(append(2, Durability::Sync), Durability::Sync);
    assert_eq!((log.unsynced().records, log.fsyncs().count), (0, 1));
    append(3, Durability::Async);
    log.sync().unwrap();
    log.sync().unwrap();
    assert_eq!(log.fsyncs().count, 2, "nothing waits, so nothing is synced");
    assert_eq!(log.durability(Seq(4)), Durability::Sync);
    // One whose window is over is synced by the append itself.
    let hasty = LocalLog::new(
        Arc::new(Storage::open(&dir.path().join("2"), false).unwrap()),
        0,
        Duration::ZERO,
    );
    assert_eq!(
        hasty.append(Seq(1), &bytes[..1], Durability::Async).unwrap(),
        Durability::Sync
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn decoding_survives_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&bytes);
        // Past the checksum too.
        if bytes.len() > 4 {
            let mut signed = bytes.clone();
            let crc = crc32c::crc32c(&signed[4..]);
            signed[..4].copy_from_slice(&crc.to_le_bytes());
            signed[4] = 2;
            let crc = crc32c::crc32c(&signed[4..]);
            signed[..4].copy_from_slice(&crc.to_le_bytes());
            let _ = Record::decode(&signed);
        }
    }
}
