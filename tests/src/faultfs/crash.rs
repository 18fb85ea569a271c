//! What a crash leaves: a pure function of what was on disk, what was done since, and how kind the disk is.
//!
//! The rules are those that POSIX gives, not those that one file system happens to keep. Bytes of a file, and its length, are on disk
//! when an fsync of that file returned. A name is on disk when an fsync of its directory returned; an fsync of the file is not
//! enough. A rename across directories is there whole or not at all, and an fsync of either brings it. Everything else may be lost,
//! kept, or kept in part, in any order. After a failed fsync of a file nothing that it should have brought is on disk, and no later
//! one brings it: the kernel forgets that those pages were ever dirty. Names are different: they go through a journal, and a file
//! system whose journal fails does nothing any more, so an fsync of a directory that does succeed brings all names before it.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::image::{BLOCK, Change, Image, Ino};

/// What becomes of changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsynced {
    /// All are lost.
    Lost,
    /// All are kept, as after the death of a process.
    Kept,
    /// Each is kept or not, writes by blocks of 4 KiB, by this seed.
    Some(u64),
}

/// How the last write before the crash is cut: at a multiple of `unit` bytes of the file, or before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torn {
    pub unit: u64,
    pub seed: u64,
}

/// The image after a crash that follows the last of `changes`; if `torn` is given and that is a write, only its beginning is
/// there, synced or not.
pub fn after_crash<'a>(
    base: &Image,
    changes: impl IntoIterator<Item = &'a Change>,
    unsynced: Unsynced,
    torn: Option<Torn>,
) -> Image {
    let mut changes: Vec<&Change> = changes.into_iter().collect();
    let cut = torn.and_then(|torn| cut(changes.last()?, torn));
    if cut.is_some() {
        changes.pop();
    }
    let mut disk = Disk {
        image: base.clone(),
        changes: &changes,
        waiting: BTreeMap::new(),
        settled: vec![false; changes.len()],
    };
    for (i, change) in changes.iter().enumerate() {
        disk.take(i, change);
    }
    let settled = disk.settled;
    let mut image = disk.image;
    let rest = changes.iter().zip(&settled).filter(|(_, settled)| !**settled);
    match unsynced {
        Unsynced::Lost => {}
        Unsynced::Kept => rest.for_each(|(change, _)| image.apply(change)),
        Unsynced::Some(seed) => {
            let mut rng = StdRng::seed_from_u64(seed);
            let kept = [0.1, 0.5, 0.9][rng.random_range(0..3)];
            for (change, _) in rest {
                keep_some(&mut image, change, kept, &mut rng);
            }
        }
    }
    if let Some(write) = cut {
        image.apply(&write);
    }
    image.prune();
    image
}

/// The beginning of a write, if it is one.
fn cut(last: &Change, torn: Torn) -> Option<Change> {
    let Change::Write { ino, at, bytes } = last else {
        return None;
    };
    let end = at + bytes.len() as u64;
    let first = (at / torn.unit + 1) * torn.unit;
    let mut places: Vec<u64> = (first..end)
        .step_by(usize::try_from(torn.unit).unwrap_or(BLOCK))
        .collect();
    places.push(*at);
    let place = places[StdRng::seed_from_u64(torn.seed).random_range(0..places.len())];
    let kept = usize::try_from(place - at).expect("a part of a write");
    Some(Change::Write {
        ino: *ino,
        at: *at,
        bytes: bytes[..kept].into(),
    })
}

fn keep_some(image: &mut Image, change: &Change, kept: f64, rng: &mut StdRng) {
    let Change::Write { ino, at, bytes } = change else {
        if rng.random_bool(kept) {
            image.apply(change);
        }
        return;
    };
    let (mut from, end) = (*at, at + bytes.len() as u64);
    while from < end {
        let to = (from / BLOCK as u64 + 1) * BLOCK as u64;
        let to = to.min(end);
        if rng.random_bool(kept) {
            let part = |n: u64| usize::try_from(n - at).expect("a part of a write");
            image.apply(&Change::Write {
                ino: *ino,
                at: from,
                bytes: bytes[part(from)..part(to)].into(),
            });
        }
        from = to;
    }
}

/// Changes on their way to the disk.
struct Disk<'a> {
    image: Image,
    changes: &'a [&'a Change],
    /// By file or directory: changes that its next fsync brings.
    waiting: BTreeMap<Ino, Vec<usize>>,
    /// Those that are on disk, or never will be.
    settled: Vec<bool>,
}

impl Disk<'_> {
    fn take(&mut self, i: usize, change: &Change) {
        match change {
            Change::Make { dir, ino, is_dir, .. } => {
                // It exists, empty and unnamed: without its name nobody will see it.
                self.image.add_node(*ino, *is_dir);
                self.wait(*dir, i);
            }
            Change::Link { dir, .. } | Change::Remove { dir, .. } => self.wait(*dir, i),
            Change::Rename { from, to } => {
                self.wait(from.0, i);
                if to.0 != from.0 {
                    self.wait(to.0, i);
                }
            }
            Change::Write { ino, .. } | Change::Resize { ino, .. } => self.wait(*ino, i),
            Change::Synced { ino } => {
                self.settled[i] = true;
                self.settle(*ino, i);
            }
            Change::SyncFailed { ino } if self.image.is_dir(*ino) => self.settled[i] = true,
            Change::SyncFailed { ino } => {
                self.settled[i] = true;
                for lost in self.waiting.remove(ino).unwrap_or_default() {
                    self.settled[lost] = true;
                }
            }
        }
    }

    fn wait(&mut self, ino: Ino, i: usize) {
        self.waiting.entry(ino).or_default().push(i);
    }

    /// Brings to disk what waits for a file or directory and is older than `before`; for a rename, what is older in its other
    /// directory as well, so that the order of changes to a name stays.
    fn settle(&mut self, ino: Ino, before: usize) {
        let waiting = self.waiting.remove(&ino).unwrap_or_default();
        let (now, later): (Vec<usize>, Vec<usize>) = waiting.into_iter().partition(|i| *i < before);
        if !later.is_empty() {
            self.waiting.insert(ino, later);
        }
        for i in now {
            if self.settled[i] {
                continue;
            }
            if let Change::Rename { from, to } = self.changes[i] {
                let other = if from.0 == ino { to.0 } else { from.0 };
                self.settle(other, i);
            }
            self.image.apply(self.changes[i]);
            self.settled[i] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::image::ROOT;
    use super::*;

    const FILE: Ino = 2;

    fn make(name: &str, ino: Ino) -> Change {
        Change::Make {
            dir: ROOT,
            name: name.to_owned(),
            ino,
            is_dir: false,
        }
    }

    fn write(ino: Ino, at: u64, bytes: &[u8]) -> Change {
        Change::Write {
            ino,
            at,
            bytes: bytes.into(),
        }
    }

    fn rename(from: &str, to: &str) -> Change {
        Change::Rename {
            from: (ROOT, from.to_owned()),
            to: (ROOT, to.to_owned()),
        }
    }

    fn remove(name: &str) -> Change {
        Change::Remove {
            dir: ROOT,
            name: name.to_owned(),
        }
    }

    /// Names and bytes after a crash in which everything that was not synced was lost.
    fn left(changes: &[Change]) -> Vec<(String, Vec<u8>)> {
        content(&after_crash(&Image::default(), changes, Unsynced::Lost, None))
    }

    fn content(image: &Image) -> Vec<(String, Vec<u8>)> {
        let bytes = |ino| image.bytes(ino).unwrap().to_vec();
        image
            .files()
            .into_iter()
            .map(|(path, ino)| (path, bytes(ino)))
            .collect()
    }

    fn file(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), bytes.to_vec())
    }

    const SYNC_FILE: Change = Change::Synced { ino: FILE };
    const SYNC_DIR: Change = Change::Synced { ino: ROOT };

    #[test]
    fn bytes_need_an_fsync_of_the_file_and_names_one_of_the_directory() {
        let (made, written) = (make("a", FILE), write(FILE, 0, b"x"));
        assert_eq!(left(&[made.clone(), written.clone()]), []);
        assert_eq!(left(&[made.clone(), written.clone(), SYNC_FILE]), []);
        assert_eq!(left(&[made.clone(), written.clone(), SYNC_DIR]), [file("a", b"")]);
        let both = [made, written, SYNC_FILE, SYNC_DIR];
        assert_eq!(left(&both), [file("a", b"x")]);
        let later = [&both[..], &[write(FILE, 1, b"y"), Change::Resize { ino: FILE, len: 0 }]].concat();
        assert_eq!(left(&later), [file("a", b"x")]);
    }

    #[test]
    fn a_rename_or_removal_that_was_not_synced_did_not_happen() {
        let old = [
            make("a", FILE),
            make("b", 3),
            write(FILE, 0, b"new"),
            SYNC_FILE,
            SYNC_DIR,
        ];
        let renamed = [&old[..], &[rename("a", "b")]].concat();
        assert_eq!(left(&renamed), [file("a", b"new"), file("b", b"")]);
        assert_eq!(left(&[&renamed[..], &[SYNC_DIR]].concat()), [file("b", b"new")]);
        let removed = [&old[..], &[remove("a")]].concat();
        assert_eq!(left(&removed).len(), 2);
        assert_eq!(left(&[&removed[..], &[SYNC_DIR]].concat()), [file("b", b"")]);
    }

    #[test]
    fn a_rename_across_directories_comes_with_either() {
        let dir = Change::Make {
            dir: ROOT,
            name: "d".to_owned(),
            ino: 9,
            is_dir: true,
        };
        let old = Change::Make {
            dir: 9,
            name: "b".to_owned(),
            ino: 3,
            is_dir: false,
        };
        let over = Change::Rename {
            from: (ROOT, "a".to_owned()),
            to: (9, "b".to_owned()),
        };
        let before = [
            dir,
            SYNC_DIR,
            make("a", FILE),
            write(FILE, 0, b"x"),
            SYNC_FILE,
            old,
            over,
        ];
        assert_eq!(left(&before), []);
        for synced in [ROOT, 9] {
            let mut all = before.to_vec();
            all.push(Change::Synced { ino: synced });
            assert_eq!(left(&all), [file("d/b", b"x")], "by fsync of {synced}");
        }
    }

    #[test]
    fn what_a_failed_fsync_should_have_brought_never_comes() {
        let changes = [
            make("a", FILE),
            SYNC_DIR,
            write(FILE, 0, b"x"),
            Change::SyncFailed { ino: FILE },
            write(FILE, 1, b"y"),
            SYNC_FILE,
        ];
        assert_eq!(left(&changes), [file("a", b"\0y")]);
        // Names are in a journal.
        let named = [make("a", FILE), Change::SyncFailed { ino: ROOT }];
        assert_eq!(left(&named), []);
        assert_eq!(left(&[&named[..], &[SYNC_DIR]].concat()), [file("a", b"")]);
    }

    #[test]
    fn a_torn_write_ends_at_a_multiple_of_the_unit() {
        let changes = [make("a", FILE), SYNC_DIR, write(FILE, 100, &[7; 3000])];
        let mut lengths = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let torn = Torn { unit: 512, seed };
            let image = after_crash(&Image::default(), &changes, Unsynced::Lost, Some(torn));
            lengths.insert(content(&image)[0].1.len());
        }
        let all: Vec<usize> = lengths.into_iter().collect();
        assert_eq!(all, [0, 512, 1024, 1536, 2048, 2560, 3072]);
    }

    #[test]
    fn some_of_what_was_not_synced_is_kept_by_the_seed() {
        let mut changes = vec![make("a", FILE), SYNC_DIR];
        changes.extend((0..64).map(|i| write(FILE, i * BLOCK as u64, &[7; BLOCK])));
        let of = |seed| content(&after_crash(&Image::default(), &changes, Unsynced::Some(seed), None));
        assert_eq!(of(3), of(3));
        let kept = |seed: u64| of(seed)[0].1.chunks(BLOCK).filter(|b| b[0] == 7).count();
        let all: Vec<usize> = (0..20).map(kept).collect();
        assert!(all.iter().any(|n| *n < 20) && all.iter().any(|n| *n > 44), "{all:?}");
        let everything = after_crash(&Image::default(), &changes, Unsynced::Kept, None);
        assert_eq!(content(&everything)[0].1.len(), 64 * BLOCK);
    }
}
