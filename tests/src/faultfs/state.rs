//! The file system behind the mount: what is there, what was done to it, and what is to fail.
//!
//! Every change goes through [`State::change`], which counts it, fails it if that is planned, does it, and writes it down. So the
//! journal is complete, and [`super::crash::after_crash`] can say what any crash at any of its steps would have left.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::image::{BLOCK, Change, Image, Ino, Node, ROOT};
use super::{Caused, Class, Fault, Op, Step};

pub(super) const EIO: i32 = 5;
pub(super) const ENOENT: i32 = 2;
pub(super) const EEXIST: i32 = 17;
pub(super) const ENOTDIR: i32 = 20;
pub(super) const EINVAL: i32 = 22;
pub(super) const ENOSPC: i32 = 28;
pub(super) const ENOTEMPTY: i32 = 39;

/// An error number.
type Failed = i32;

pub(super) struct State {
    pub(super) live: Image,
    pub(super) base: Image,
    pub(super) journal: Vec<Step>,
    /// How often each was tried.
    pub(super) counts: BTreeMap<(Op, Class), u64>,
    pub(super) faults: Vec<Fault>,
    pub(super) caused: Vec<Caused>,
    /// Pages that cannot be read.
    pub(super) unreadable: BTreeSet<(Ino, usize)>,
    /// Since then nothing that changes anything succeeds.
    pub(super) power_is_cut: bool,
    /// Bytes of the disk.
    pub(super) capacity: Option<u64>,
    next_ino: Ino,
    opened: HashMap<Ino, usize>,
    /// How many names each file and directory has.
    links: HashMap<Ino, usize>,
    /// Where each file and directory got its last name, for paths.
    named: HashMap<Ino, (Ino, String)>,
}

impl State {
    pub(super) fn new(base: Image) -> Self {
        let (mut named, mut links) = (HashMap::new(), HashMap::new());
        for ino in 1..=base.last_ino() {
            if let Some(Node::Dir(names)) = base.node(ino) {
                for (name, child) in names {
                    named.insert(*child, (ino, name.clone()));
                    *links.entry(*child).or_default() += 1;
                }
            }
        }
        Self {
            live: base.clone(),
            next_ino: base.last_ino() + 1,
            base,
            journal: Vec::new(),
            counts: BTreeMap::new(),
            faults: Vec::new(),
            caused: Vec::new(),
            unreadable: BTreeSet::new(),
            power_is_cut: false,
            capacity: None,
            opened: HashMap::new(),
            links,
            named,
        }
    }

    /// The path of a file or directory, by the name it got last.
    pub(super) fn path(&self, ino: Ino) -> String {
        let (mut parts, mut at) = (Vec::new(), ino);
        while let Some((dir, name)) = self.named.get(&at) {
            parts.push(name.as_str());
            at = *dir;
        }
        parts.reverse();
        parts.join("/")
    }

    fn path_in(&self, dir: Ino, name: &str) -> String {
        match self.path(dir).as_str() {
            "" => name.to_owned(),
            dir => format!("{dir}/{name}"),
        }
    }

    pub(super) fn make(&mut self, dir: Ino, name: &str, is_dir: bool) -> Result<Ino, Failed> {
        match self.live.node(dir) {
            Some(Node::Dir(names)) if names.contains_key(name) => return Err(EEXIST),
            Some(Node::Dir(_)) => {}
            _ => return Err(ENOTDIR),
        }
        let (path, ino) = (self.path_in(dir, name), self.next_ino);
        let room = self.room().unwrap_or(u64::MAX) >= BLOCK as u64;
        let made = Change::Make {
            dir,
            name: name.to_owned(),
            ino,
            is_dir,
        };
        self.change(Op::Create, path, made, room)?;
        self.next_ino += 1;
        self.links.insert(ino, 1);
        self.named.insert(ino, (dir, name.to_owned()));
        Ok(ino)
    }

    pub(super) fn link(&mut self, ino: Ino, dir: Ino, name: &str) -> Result<(), Failed> {
        if self.live.child(dir, name).is_some() {
            return Err(EEXIST);
        }
        let linked = Change::Link {
            dir,
            name: name.to_owned(),
            ino,
        };
        self.change(Op::Link, self.path_in(dir, name), linked, true)?;
        *self.links.entry(ino).or_default() += 1;
        Ok(())
    }

    pub(super) fn remove(&mut self, dir: Ino, name: &str, is_dir: bool) -> Result<(), Failed> {
        let ino = self.live.child(dir, name).ok_or(ENOENT)?;
        match self.live.node(ino) {
            Some(Node::Dir(names)) if is_dir && !names.is_empty() => return Err(ENOTEMPTY),
            Some(Node::Dir(_)) if is_dir => {}
            Some(Node::File(_)) if !is_dir => {}
            _ => return Err(ENOTDIR),
        }
        let removed = Change::Remove {
            dir,
            name: name.to_owned(),
        };
        self.change(Op::Remove, self.path_in(dir, name), removed, true)?;
        self.unlinked(ino);
        Ok(())
    }

    pub(super) fn rename(&mut self, from: (Ino, &str), to: (Ino, &str)) -> Result<(), Failed> {
        let ino = self.live.child(from.0, from.1).ok_or(ENOENT)?;
        let replaced = self.live.child(to.0, to.1);
        if let Some(Node::Dir(names)) = replaced.and_then(|ino| self.live.node(ino))
            && !names.is_empty()
        {
            return Err(ENOTEMPTY);
        }
        let renamed = Change::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
        };
        self.change(Op::Rename, self.path_in(to.0, to.1), renamed, true)?;
        self.named.insert(ino, (to.0, to.1.to_owned()));
        if let Some(replaced) = replaced.filter(|old| *old != ino) {
            self.unlinked(replaced);
        }
        Ok(())
    }

    /// Returns how many bytes were written: on a full disk fewer than given, as real ones do.
    pub(super) fn write(&mut self, ino: Ino, at: u64, bytes: &[u8]) -> Result<usize, Failed> {
        let old = self.live.bytes(ino).ok_or(EINVAL)?.len() as u64;
        let has = old.next_multiple_of(BLOCK as u64);
        let fits = self
            .room()
            .map_or(u64::MAX, |room| (has + room).saturating_sub(at))
            .min(bytes.len() as u64);
        let bytes = &bytes[..usize::try_from(fits).expect("at most what was given")];
        let written = Change::Write {
            ino,
            at,
            bytes: bytes.into(),
        };
        self.change(Op::Write, self.path(ino), written, !bytes.is_empty())?;
        Ok(bytes.len())
    }

    pub(super) fn resize(&mut self, ino: Ino, len: u64) -> Result<(), Failed> {
        let old = self.live.bytes(ino).ok_or(EINVAL)?.len() as u64;
        let more = len.saturating_sub(old.next_multiple_of(BLOCK as u64));
        let room = self.room().is_none_or(|room| room >= more);
        self.change(Op::Resize, self.path(ino), Change::Resize { ino, len }, room)
    }

    pub(super) fn sync(&mut self, ino: Ino) -> Result<(), Failed> {
        let op = match self.live.node(ino) {
            Some(Node::Dir(_)) => Op::SyncDir,
            _ => Op::Sync,
        };
        self.change(op, self.path(ino), Change::Synced { ino }, true)
    }

    /// Bytes that are left, in whole blocks.
    pub(super) fn room(&self) -> Option<u64> {
        let left = self.capacity?.saturating_sub(self.live.disk_bytes());
        Some(left - left % BLOCK as u64)
    }

    fn change(&mut self, op: Op, path: String, change: Change, has_room: bool) -> Result<(), Failed> {
        let class = Class::of(&path);
        *self.counts.entry((op, class)).or_default() += 1;
        if self.power_is_cut {
            return Err(EIO);
        }
        if let Some(errno) = self.planned(op, class) {
            self.caused.push(Caused {
                op,
                class,
                path: path.clone(),
                step: self.journal.len(),
            });
            if let Change::Synced { ino } = change {
                let change = Change::SyncFailed { ino };
                self.journal.push(Step { op, path, change });
            }
            return Err(errno);
        }
        if !has_room {
            return Err(ENOSPC);
        }
        self.live.apply(&change);
        self.journal.push(Step { op, path, change });
        Ok(())
    }

    fn planned(&mut self, op: Op, class: Class) -> Option<i32> {
        let mut errno = None;
        for fault in &mut self.faults {
            if !fault.ops.contains(&op) || !Class::chosen(fault.class, class) || fault.times == 0 {
                continue;
            }
            fault.nth = fault.nth.saturating_sub(1);
            if fault.nth == 0 {
                fault.times -= 1;
                errno = Some(fault.errno);
            }
        }
        errno
    }

    pub(super) fn opened(&mut self, ino: Ino) {
        *self.opened.entry(ino).or_default() += 1;
    }

    pub(super) fn closed(&mut self, ino: Ino) {
        if let Some(n) = self.opened.get_mut(&ino) {
            *n -= 1;
            if *n == 0 {
                self.opened.remove(&ino);
                self.forget_if_unused(ino);
            }
        }
    }

    /// How many names a file has.
    pub(super) fn links(&self, ino: Ino) -> usize {
        self.links.get(&ino).copied().unwrap_or(0)
    }

    fn unlinked(&mut self, ino: Ino) {
        if let Some(links) = self.links.get_mut(&ino) {
            *links = links.saturating_sub(1);
        }
        self.forget_if_unused(ino);
    }

    fn forget_if_unused(&mut self, ino: Ino) {
        if ino != ROOT && !self.opened.contains_key(&ino) && self.links(ino) == 0 {
            self.live.forget(ino);
            self.links.remove(&ino);
            self.named.remove(&ino);
        }
    }
}
