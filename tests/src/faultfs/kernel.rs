//! What the kernel asks of a file system, answered from [`State`].
//!
//! Pages are cached by the kernel as for any file system (writes go through at once), so that `mmap` works. Locks are the kernel's
//! own. Extended attributes, `O_DIRECT` and punching holes are not supported, and say so as file systems without them do.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;

use super::image::{BLOCK, Ino, Node};
use super::state::{EINVAL, ENOENT, State};

/// The kernel may remember all it hears for as long as it likes: nobody else changes anything.
const TTL: Duration = Duration::from_secs(86_400);
/// `fallocate` that leaves the length as it is.
const KEEP_SIZE: i32 = 1;
/// Bytes of a disk that has no capacity set.
const LARGE: u64 = 1 << 40;

/// Entries of a directory.
type Listing = Vec<(Ino, FileType, String)>;

pub(super) struct Kernel {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) began: SystemTime,
    /// Directories that are being read, as they were when they were opened: their readers may remove entries meanwhile.
    listings: Mutex<HashMap<u64, Listing>>,
    next_listing: AtomicU64,
}

impl Kernel {
    pub(super) fn new(state: Arc<Mutex<State>>) -> Self {
        Self {
            state,
            began: SystemTime::now(),
            listings: Mutex::default(),
            next_listing: AtomicU64::new(1),
        }
    }

    fn attr(&self, state: &State, ino: Ino) -> Option<FileAttr> {
        let (kind, size, nlink) = match state.live.node(ino)? {
            Node::File(bytes) => (FileType::RegularFile, bytes.len() as u64, state.links(ino)),
            Node::Dir(_) => (FileType::Directory, BLOCK as u64, 2),
        };
        Some(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: size.div_ceil(BLOCK as u64) * (BLOCK as u64 / 512),
            atime: self.began,
            mtime: self.began,
            ctime: self.began,
            crtime: self.began,
            kind,
            perm: if kind == FileType::Directory { 0o755 } else { 0o644 },
            nlink: u32::try_from(nlink).unwrap_or(u32::MAX),
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }

    fn entry(&self, state: &State, found: Result<Ino, i32>, reply: ReplyEntry) {
        match found.and_then(|ino| self.attr(state, ino).ok_or(ENOENT)) {
            Ok(attr) => reply.entry(&TTL, &attr, Generation(0)),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }
}

fn text(name: &OsStr) -> Result<&str, i32> {
    name.to_str().ok_or(EINVAL)
}

fn empty(done: Result<(), i32>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(Errno::from_i32(errno)),
    }
}

/// Pages stay valid from one `open` to the next, and `close` has nothing to tell us.
const OPENED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE.union(FopenFlags::FOPEN_NOFLUSH);

impl Filesystem for Kernel {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.state.lock();
        let found = text(name).and_then(|name| state.live.child(parent.0, name).ok_or(ENOENT));
        self.entry(&state, found, reply);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(&self.state.lock(), ino.0) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.state.lock();
        let done = size.map_or(Ok(()), |len| state.resize(ino.0, len));
        match done.and_then(|()| self.attr(&state, ino.0).ok_or(ENOENT)) {
            Ok(attr) => reply.attr(&TTL, &attr),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn mkdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let made = text(name).and_then(|name| state.make(parent.0, name, true));
        self.entry(&state, made, reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state.lock();
        empty(text(name).and_then(|name| state.remove(parent.0, name, false)), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut state = self.state.lock();
        empty(text(name).and_then(|name| state.remove(parent.0, name, true)), reply);
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let mut state = self.state.lock();
        let names = text(name).and_then(|from| Ok((from, text(newname)?)));
        empty(
            names.and_then(|(from, to)| state.rename((parent.0, from), (newparent.0, to))),
            reply,
        );
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let mut state = self.state.lock();
        let linked = text(newname).and_then(|name| state.link(ino.0, newparent.0, name));
        self.entry(&state, linked.map(|()| ino.0), reply);
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let mut state = self.state.lock();
        if state.live.node(ino.0).is_none() {
            return reply.error(Errno::ENOENT);
        }
        state.opened(ino.0);
        reply.opened(FileHandle(0), OPENED);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut state = self.state.lock();
        let made = text(name).and_then(|name| state.make(parent.0, name, false));
        match made.and_then(|ino| self.attr(&state, ino).ok_or(ENOENT)) {
            Ok(attr) => {
                state.opened(attr.ino.0);
                reply.created(&TTL, &attr, Generation(0), FileHandle(0), OPENED);
            }
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let state = self.state.lock();
        let Some(bytes) = state.live.bytes(ino.0) else {
            return reply.error(Errno::ENOENT);
        };
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let to = from.saturating_add(size as usize).min(bytes.len());
        let pages = (ino.0, from / BLOCK)..(ino.0, to.div_ceil(BLOCK));
        if state.unreadable.range(pages).next().is_some() {
            return reply.error(Errno::EIO);
        }
        reply.data(&bytes[from..to]);
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.state.lock().write(ino.0, offset, data) {
            Ok(written) => reply.written(u32::try_from(written).expect("a request holds less")),
            Err(errno) => reply.error(Errno::from_i32(errno)),
        }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.state.lock().sync(ino.0), reply);
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        empty(self.state.lock().sync(ino.0), reply);
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.state.lock().closed(ino.0);
        reply.ok();
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.state.lock();
        let has = state.live.bytes(ino.0).map_or(0, <[u8]>::len) as u64;
        match mode {
            KEEP_SIZE => reply.ok(),
            0 if offset + length <= has => reply.ok(),
            0 => empty(state.resize(ino.0, offset + length), reply),
            _ => reply.error(Errno::EOPNOTSUPP),
        }
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let state = self.state.lock();
        let Some(Node::Dir(names)) = state.live.node(ino.0) else {
            return reply.error(Errno::ENOTDIR);
        };
        let dots = [".", ".."].map(|name| (ino.0, FileType::Directory, name.to_owned()));
        let children = names.iter().map(|(name, child)| {
            let kind = match state.live.node(*child) {
                Some(Node::Dir(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            (*child, kind, name.clone())
        });
        let handle = self.next_listing.fetch_add(1, Ordering::Relaxed);
        self.listings
            .lock()
            .insert(handle, dots.into_iter().chain(children).collect());
        reply.opened(FileHandle(handle), FopenFlags::empty());
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listings = self.listings.lock();
        let listing = listings.get(&fh.0).map(Vec::as_slice).unwrap_or_default();
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        for (i, (ino, kind, name)) in listing.iter().enumerate().skip(from) {
            if reply.add(INodeNo(*ino), i as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().remove(&fh.0);
        reply.ok();
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let state = self.state.lock();
        let capacity = state.capacity.unwrap_or(LARGE);
        let block = BLOCK as u64;
        let free = state.room().unwrap_or(LARGE - state.live.disk_bytes()) / block;
        reply.statfs(
            capacity / block,
            free,
            free,
            1 << 20,
            1 << 20,
            BLOCK as u32,
            255,
            BLOCK as u32,
        );
    }
}
