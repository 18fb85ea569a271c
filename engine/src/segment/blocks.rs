//! The blocks of a container, each of them checked before anything looks at it, and once.
//!
//! Opening checks the tables only, so that it takes as long for a large file as for a small one. Whoever needs bytes asks
//! [`Blocks::verify`] for them first; what was checked is remembered. Files are read for it with plain reads before the
//! mapping is touched: a disk that cannot give a block back is an error there, and a signal that ends the process in a mapping.
//!
//! Guarantees: after `verify` returned for a range, each of its blocks has once been seen with its checksum, in the page cache
//! that the mapping shows. The first failure is kept ([`Blocks::damage`]), and it is for good.
//! Not guaranteed: that a page is still what it was when it is read from disk a second time. [`Blocks::check_again`] looks.

use std::collections::BTreeSet;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::file::{self, Tables};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::BLOCK_BYTES;
use crate::storage::{Backing, Dir, ReadAt};

/// A container and what is known of its blocks.
pub(super) struct Blocks {
    backing: Backing,
    tables: Tables,
    /// Where its file is; none for what was made in memory and is trusted.
    source: Option<Source>,
    checked: Box<[AtomicU64]>,
    /// Blocks that were not checked yet.
    left: AtomicUsize,
    damage: OnceLock<Error>,
    /// Blocks that failed: a disk that cannot give one back takes its time for it, each time.
    failed: Mutex<BTreeSet<usize>>,
}

struct Source {
    disk: Arc<dyn Dir>,
    path: PathBuf,
}

impl Blocks {
    /// What was made in memory: nothing needs to be checked but that its parts can be found.
    pub(super) fn trusted(backing: Backing) -> Result<Self> {
        let tables = file::tables(backing.bytes())?;
        Ok(Self {
            backing,
            tables,
            source: None,
            checked: Box::default(),
            left: AtomicUsize::new(0),
            damage: OnceLock::new(),
            failed: Mutex::default(),
        })
    }

    /// Maps a file and checks its tables.
    pub(super) fn open(disk: &Arc<dyn Dir>, path: &Path) -> Result<Self> {
        let backing = disk.map(path).map_err(unreadable)?;
        let len = backing.bytes().len();
        let mut reader = disk.open(path).map_err(unreadable)?;
        if reader.identity() != backing.identity() {
            return Err(Error::damaged("another file took its place while it was opened"));
        }
        if let Some(footer_at) = len.checked_sub(file::FOOTER_BYTES) {
            let mut footer = [0; file::FOOTER_BYTES];
            reader.read_at(footer_at as u64, &mut footer).map_err(unreadable)?;
            let from = file::tables_at(&footer).min(footer_at as u64) as usize / BLOCK_BYTES * BLOCK_BYTES;
            let mut block = vec![0; BLOCK_BYTES];
            for at in std::iter::once(0).chain((from..len).step_by(BLOCK_BYTES)) {
                let end = (at + BLOCK_BYTES).min(len);
                reader.read_at(at as u64, &mut block[..end - at]).map_err(unreadable)?;
            }
        }
        let tables = file::tables(backing.bytes())?;
        let n = tables.blocks();
        Ok(Self {
            checked: (0..n.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            left: AtomicUsize::new(n),
            source: Some(Source {
                disk: Arc::clone(disk),
                path: path.to_owned(),
            }),
            backing,
            tables,
            damage: OnceLock::new(),
            failed: Mutex::default(),
        })
    }

    /// All bytes of the container. Those of blocks that were not verified may be anything.
    pub(super) fn bytes(&self) -> &[u8] {
        self.backing.bytes()
    }

    /// What the container says of itself.
    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Where a section is; empty if it is not there.
    pub(super) fn section(&self, name: &str) -> Range<usize> {
        self.tables.sections.get(name).cloned().unwrap_or(0..0)
    }

    /// What was found wrong first.
    pub(super) fn damage(&self) -> Option<&Error> {
        self.damage.get()
    }

    /// Says that the container is not to be trusted any more. Gives the error back, as it is kept.
    pub(super) fn condemn(&self, error: Error) -> Error {
        let error = match &self.source {
            Some(source) if !error.message.contains(".seg") => Error {
                message: format!("{}: {}", source.path.display(), error.message),
                ..error
            },
            _ => error,
        };
        if self.damage.set(error.clone()).is_ok() {
            tracing::error!(error = %error.message, "a sealed file is damaged: it is set aside");
        }
        error
    }

    /// Blocks, and those of them that were checked.
    pub(super) fn progress(&self) -> (u64, u64) {
        let all = self.tables.blocks();
        (all as u64, (all - self.left.load(Ordering::Relaxed).min(all)) as u64)
    }

    /// Every block was checked.
    pub(super) fn is_verified(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Checks the blocks of a range that were not checked yet.
    #[inline]
    pub(super) fn verify(&self, range: Range<usize>) -> Result<()> {
        match self.is_verified() {
            true => Ok(()),
            false => self.verify_all(&[range], &mut || Ok(())),
        }
    }

    /// The same of several ranges, in the order of the file. `go_on` is asked before each block and may end it: what was
    /// checked stays checked.
    pub(super) fn verify_all(&self, ranges: &[Range<usize>], go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut reader = None;
        for range in ranges.iter().filter(|range| !range.is_empty()) {
            for i in range.start / BLOCK_BYTES..=(range.end - 1) / BLOCK_BYTES {
                if !self.is_checked(i) {
                    go_on()?;
                    if let (Some(damage), true) = (self.damage(), self.failed.lock().contains(&i)) {
                        return Err(damage.clone());
                    }
                    self.check(i, &mut reader)?;
                }
            }
        }
        Ok(())
    }

    /// Checks blocks that were not checked yet, until `bytes` of them are. Returns how many bytes were read; 0 when all are.
    pub(super) fn verify_some(&self, bytes: usize) -> Result<usize> {
        let (mut reader, mut done) = (None, 0);
        for i in 0..self.tables.blocks() {
            if self.is_verified() || done >= bytes {
                break;
            }
            if !self.is_checked(i) {
                self.check(i, &mut reader)?;
                done += self.tables.block(i).len();
            }
        }
        Ok(done)
    }

    /// Reads all blocks again, whatever is known of them. `go_on` is asked before each and may end it.
    pub(super) fn check_all_again(&self, go_on: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let mut reader = None;
        for i in 0..self.tables.blocks() {
            go_on()?;
            self.check(i, &mut reader)?;
        }
        Ok(())
    }

    /// Compares bytes that somebody read of the file from `at` on, the beginning of a block, with what they should be: each block with
    /// its checksum, and the tables with those that were checked at open. The last block may go on after these bytes only where the
    /// blocks end.
    pub(super) fn check_read(&self, at: usize, bytes: &[u8]) -> Result<()> {
        let (own, end) = (self.bytes(), at + bytes.len());
        let in_blocks = bytes.len().min(self.tables.end.saturating_sub(at));
        for (i, block) in (at / BLOCK_BYTES..).zip(bytes[..in_blocks].chunks(BLOCK_BYTES)) {
            let checked = match self.tables.block(i).len() == block.len() {
                true => self.tables.check_block(own, i, block),
                false => Err(Error::damaged("it is cut off")),
            };
            checked.map_err(|error| self.condemn(error))?;
        }
        match own.get(at + in_blocks..end) == Some(&bytes[in_blocks..]) {
            true => Ok(()),
            false => Err(self.condemn(Error::damaged("its tables are not what they were"))),
        }
    }

    /// Reads some blocks again from `first` on, whatever is known of them. Returns the block after the last, and the bytes.
    pub(super) fn check_again(&self, first: usize, bytes: usize) -> Result<(usize, usize)> {
        let (mut reader, mut done, mut i) = (None, 0, first);
        while i < self.tables.blocks() && done < bytes {
            self.check(i, &mut reader)?;
            done += self.tables.block(i).len();
            i += 1;
        }
        Ok((i, done))
    }

    fn is_checked(&self, i: usize) -> bool {
        self.checked
            .get(i / 64)
            .is_none_or(|word| word.load(Ordering::Acquire) & (1 << (i % 64)) != 0)
    }

    fn check(&self, i: usize, reader: &mut Option<Box<dyn ReadAt>>) -> Result<()> {
        let range = self.tables.block(i);
        let bytes = self.bytes();
        if let Some(source) = &self.source
            && reader.is_none()
        {
            // A file that was merged away or dropped has no name any more, or another one has it, and one process opens only so many:
            // the mapping shows the same bytes.
            let opened = source.disk.open(&source.path).ok();
            *reader = opened.filter(|opened| opened.identity() == self.backing.identity());
        }
        let checked = match reader {
            None => self.tables.check_block(bytes, i, &bytes[range]),
            Some(reader) => {
                let mut block = [0; BLOCK_BYTES];
                let block = &mut block[..range.len()];
                match reader.read_at(range.start as u64, block) {
                    Err(error) => Err(match unreadable(error) {
                        error if error.kind == ErrorKind::Damaged => Error {
                            message: format!("block {i}: {}", error.message),
                            ..error
                        },
                        error => return Err(error),
                    }),
                    Ok(()) => self.tables.check_block(bytes, i, block),
                }
            }
        };
        checked.map_err(|error| {
            let error = self.condemn(error);
            self.failed.lock().insert(i);
            error
        })?;
        if let Some(word) = self.checked.get(i / 64) {
            let bit = 1 << (i % 64);
            if word.fetch_or(bit, Ordering::AcqRel) & bit == 0 {
                self.left.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }
}

/// Whether a failure is the file's, for good, or one of this process or moment (too many open files, no memory, no permission).
fn unreadable(error: io::Error) -> Error {
    // By number: most have no kind, and they are the same on every architecture of Linux that we build for.
    // A medium, and what stands between: EIO, ENODEV (what is there is no file), EISDIR, ENODATA (a medium error of some
    // drivers), EBADMSG and EUCLEAN (a file system found a wrong checksum, or is damaged itself), EILSEQ (protection
    // information does not fit), EREMOTEIO (the device failed).
    const OF_THE_FILE: [i32; 8] = [5, 19, 21, 61, 74, 84, 117, 121];
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::damaged("it is missing"),
        // Nothing of it can be mapped.
        io::ErrorKind::InvalidInput => Error::damaged("it is empty"),
        io::ErrorKind::UnexpectedEof => Error::damaged("it is cut off"),
        _ if error.raw_os_error().is_some_and(|n| OF_THE_FILE.contains(&n)) => {
            Error::damaged(format!("it cannot be read: {error}"))
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::file::Writer;
    use super::*;
    use crate::storage::{Entry, Held, LocalDir, NewFile};

    /// A disk that does not give one block of its files back, and counts how often it was asked for it.
    struct Bad {
        block: usize,
        asked: Arc<AtomicUsize>,
    }

    struct BadFile {
        file: Box<dyn ReadAt>,
        block: usize,
        asked: Arc<AtomicUsize>,
    }

    impl ReadAt for BadFile {
        fn identity(&self) -> Option<crate::storage::FileId> {
            self.file.identity()
        }
        fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
            if at as usize / BLOCK_BYTES == self.block {
                self.asked.fetch_add(1, Ordering::Relaxed);
                return Err(io::Error::from_raw_os_error(5));
            }
            self.file.read_at(at, into)
        }
    }

    impl Dir for Bad {
        fn map(&self, path: &Path) -> io::Result<Backing> {
            LocalDir.map(path)
        }
        fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
            Ok(Box::new(BadFile {
                file: LocalDir.open(path)?,
                block: self.block,
                asked: Arc::clone(&self.asked),
            }))
        }
        fn create_dir_all(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn create(&self, _: &Path) -> io::Result<Box<dyn NewFile>> {
            unreachable!()
        }
        fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn link(&self, _: &Path, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn sync_dir(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn list(&self, _: &Path) -> io::Result<Vec<Entry>> {
            unreachable!()
        }
        fn remove(&self, _: &Path) -> io::Result<()> {
            unreachable!()
        }
        fn lock(&self, _: &Path) -> io::Result<Option<Held>> {
            unreachable!()
        }
    }

    /// Four blocks of one section.
    fn container(path: &Path) {
        let mut writer = Writer::new(Vec::new()).unwrap();
        writer.section("s", &vec![7; 4 * BLOCK_BYTES - 200]).unwrap();
        let bytes = writer.finish().unwrap();
        std::fs::File::create(path).unwrap().write_all(&bytes).unwrap();
    }

    #[test]
    fn a_block_that_cannot_be_read_is_asked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.seg");
        container(&path);
        let asked = Arc::new(AtomicUsize::new(0));
        let disk: Arc<dyn Dir> = Arc::new(Bad {
            block: 1,
            asked: Arc::clone(&asked),
        });
        let blocks = Blocks::open(&disk, &path).unwrap();
        let range = blocks.section("s");
        for _ in 0..3 {
            let error = blocks.verify(range.clone()).unwrap_err();
            assert!(
                error.kind == ErrorKind::Damaged && error.message.contains("block 1"),
                "{error}"
            );
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        blocks.verify(3 * BLOCK_BYTES..3 * BLOCK_BYTES + 9).unwrap();
        assert!(
            blocks.check_again(0, usize::MAX).is_err(),
            "who wants to know it anew asks anew"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn what_was_opened_is_checked_and_not_what_has_its_name_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let (path, other) = (dir.path().join("a.seg"), dir.path().join("b.seg"));
        container(&path);
        let disk: Arc<dyn Dir> = Arc::new(LocalDir);
        let blocks = Blocks::open(&disk, &path).unwrap();
        std::fs::write(&other, vec![1; 5 * BLOCK_BYTES]).unwrap();
        std::fs::rename(&other, &path).unwrap();
        blocks.verify(blocks.section("s")).unwrap();
        blocks.check_again(0, usize::MAX).unwrap();
        assert!(blocks.damage().is_none());
    }

    #[test]
    fn what_a_disk_says_of_a_file_is_damage_and_what_a_process_lacks_is_not() {
        let said = |number: i32| unreadable(io::Error::from_raw_os_error(number));
        // ENOENT, EIO, ENOTDIR, ENODATA, EBADMSG, EILSEQ, EUCLEAN, EREMOTEIO.
        for of_the_file in [2, 5, 20, 61, 74, 84, 117, 121] {
            assert_eq!(said(of_the_file).kind, ErrorKind::Damaged, "{of_the_file}");
        }
        // EINTR, ENOMEM, EACCES, ENFILE, EMFILE, ETIMEDOUT, ESTALE.
        for of_the_moment in [4, 12, 13, 23, 24, 110, 116] {
            assert_ne!(said(of_the_moment).kind, ErrorKind::Damaged, "{of_the_moment}");
        }
    }
}
