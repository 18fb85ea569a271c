//! Files as the engine asks for them. What it serves from outside RocksDB goes through one trait, so that a test can put a
//! disk that tears, fills, fails and forgets under the very code that serves.
//!
//! What does not go through it: RocksDB, its part of a cut (`engine::snapshot`), and what is done to its log before it is
//! opened (`wal`); the room that is left (`space`); and in the server what a restore brings into a directory that no engine
//! serves yet.
//!
//! Guarantees asked of an implementation: what [`NewFile::sync`] returned for survives the loss of power, and so do the
//! entries of a directory (made, renamed, removed) once [`Dir::sync_dir`] returned for it.
//! Not guaranteed: that anything else survives, or in which order it does.
//! Failure: a sync that failed may have lost what it was to save, and saying it again may lie. Nothing is retried: the file
//! is given up and made anew under another name.

use std::any::Any;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::error::Result;

/// The files of a data directory.
pub trait Dir: Send + Sync {
    /// Makes a directory and those above it.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes a file, or empties the one that is there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>>;
    /// A file's bytes as they are now: files are written front to back and never changed, so these stay what they are.
    fn map(&self, path: &Path) -> io::Result<Backing>;
    /// A file to read parts of. Unlike in a mapping, a disk that cannot give bytes back is an error.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(self.map(path)?))
    }
    /// Gives a file another name in the same directory, in the place of one that had it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Gives a file one more name, in a directory that is made if need be. Each is removed by itself.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Brings a directory's entries to disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// What is in a directory.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// Removes a file, or a directory with everything in it. None there is fine.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes a lock that ends with the value, or with the process. None if somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Held>>;
    /// Told before and after RocksDB writes the state, whose files it handles itself: a disk that fails can so fail there
    /// too. A real one has nothing to say.
    fn state(&self, _step: &'static str, _done: bool) -> io::Result<()> {
        Ok(())
    }
}

impl dyn Dir {
    /// Does a step of the state with a word before and after it.
    pub fn around<T>(&self, step: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.state(step, false)?;
        let done = work()?;
        self.state(step, true)?;
        Ok(done)
    }
}

/// A file that is being written.
pub trait NewFile: Write + Send {
    /// Brings its bytes to disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// A file that parts are read of.
pub trait ReadAt: Send {
    /// Which file it is, where files have numbers.
    fn identity(&self) -> Option<FileId>;
    /// Fills `into` with the bytes from `at` on; fewer than that is an error.
    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()>;
}

/// A lock, held as long as the value lives.
pub type Held = Box<dyn Any + Send + Sync>;

/// An entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: OsString,
    /// It is a directory itself.
    pub is_dir: bool,
}

/// Where bytes are.
pub enum Backing {
    /// In memory, 8-byte aligned.
    Memory {
        /// The words.
        words: Box<[u64]>,
        /// Bytes in use.
        len: usize,
    },
    /// In a mapped file.
    Mapped {
        /// The mapping.
        map: memmap2::Mmap,
        /// Which file.
        file: FileId,
    },
}

/// Which file, whatever its name: its device and its number there.
pub type FileId = (u64, u64);

impl Backing {
    /// A copy in memory.
    pub fn copy(bytes: &[u8]) -> Self {
        let mut words = vec![0u64; bytes.len().div_ceil(8)].into_boxed_slice();
        bytemuck::cast_slice_mut::<u64, u8>(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self::Memory {
            words,
            len: bytes.len(),
        }
    }

    /// All bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Memory { words, len } => &bytemuck::cast_slice(words)[..*len],
            Self::Mapped { map, .. } => map,
        }
    }
}

impl ReadAt for Backing {
    fn identity(&self) -> Option<FileId> {
        match self {
            Self::Memory { .. } => None,
            Self::Mapped { file, .. } => Some(*file),
        }
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(at).unwrap_or(usize::MAX);
        let end = from.saturating_add(into.len());
        let bytes = self.bytes().get(from..end);
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for File {
    fn identity(&self) -> Option<FileId> {
        file_id(self).ok()
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.seek(SeekFrom::Start(at))?;
        self.read_exact(into)
    }
}

/// The file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalDir;

impl Dir for LocalDir {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(File::create(path)?))
    }

    #[expect(unsafe_code, reason = "mapping sealed files is how they are read without copying")]
    fn map(&self, path: &Path) -> io::Result<Backing> {
        let file = File::open(path)?;
        // SAFETY: bytes below the length at the time of mapping never change: a sealed file is written by nobody, and one
        // that is being built is only appended to, by the thread that maps it. Only the process that holds the directory's
        // lock writes here at all, and unlinking leaves a mapping intact.
        let map = unsafe { memmap2::Mmap::map(&file) }?;
        let file = file_id(&file)?;
        Ok(Backing::Mapped { map, file })
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadAt>> {
        Ok(Box::new(File::open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::hard_link(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        fs::read_dir(path)?
            .map(|entry| {
                let entry = entry?;
                Ok(Entry {
                    is_dir: entry.file_type()?.is_dir(),
                    name: entry.file_name(),
                })
            })
            .collect()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = match fs::symlink_metadata(path) {
            Ok(what) if what.is_dir() => fs::remove_dir_all(path),
            Ok(_) => fs::remove_file(path),
            Err(error) => Err(error),
        };
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Held>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }
}

fn file_id(file: &File) -> io::Result<FileId> {
    let meta = file.metadata()?;
    Ok((meta.dev(), meta.ino()))
}

impl NewFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
