//! How much of the disk is left, and when to stop taking writes.
//!
//! A database that fills its disk cannot even clean up. So writes are refused while there is still room for what was taken:
//! flushes, seals, and the deletes that make room again, which may use half of the reserve. Refusing ends by itself when
//! there is room, an eighth more than the reserve, so that it does not flicker.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::limits;

/// What is known of the disk under a data directory.
pub struct Space {
    dir: PathBuf,
    /// Bytes to keep free; 0 = 5 % of the disk, at most [`limits::DISK_RESERVE_BYTES`].
    reserve: u64,
    refusing: AtomicBool,
    /// A flush found the disk full: nothing is taken before one succeeds, whatever the system says is free.
    stuck: AtomicBool,
    keeps_log: AtomicBool,
}

/// What the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Free {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes that are kept free.
    pub reserve: u64,
}

/// What a write does to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// It takes room.
    Takes,
    /// In the end it gives room back.
    Gives,
}

impl Space {
    /// Of the disk that holds `dir`.
    pub fn new(dir: &Path, reserve: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            reserve,
            refusing: AtomicBool::new(false),
            stuck: AtomicBool::new(false),
            keeps_log: AtomicBool::new(false),
        }
    }

    /// The directory whose disk it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What is free now.
    pub fn free(&self) -> io::Result<Free> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        let reserve = match self.reserve {
            0 => (disk.f_blocks.saturating_mul(disk.f_frsize) / 20).min(limits::DISK_RESERVE_BYTES),
            reserve => reserve,
        };
        Ok(Free {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            reserve,
        })
    }

    /// Whether writes are refused at the moment.
    pub fn is_refusing(&self) -> bool {
        self.refusing.load(Ordering::Relaxed)
    }

    /// Refuses a write of `bytes` if it would leave too little.
    pub fn check(&self, bytes: u64, room: Room) -> Result<()> {
        let Free { free, reserve } = self.free()?;
        let stuck = self.stuck.load(Ordering::Relaxed);
        let refuses = stuck || is_short(free, reserve, bytes, room, self.is_refusing());
        if room == Room::Takes {
            self.refusing.store(refuses, Ordering::Relaxed);
        }
        match refuses {
            false => Ok(()),
            true => Err(self.full(Free { free, reserve })),
        }
    }

    /// Refuses what was let in before a flush found the disk full.
    pub fn check_stuck(&self) -> Result<()> {
        match self.is_stuck() {
            false => Ok(()),
            true => Err(self.full(self.free().unwrap_or_default())),
        }
    }

    fn full(&self, Free { free, reserve }: Free) -> Error {
        Error::disk_full(format!(
            "the disk of {} is full: {free} bytes are free and {reserve} are kept in reserve. Nothing was written, reads go on, \
             and writes do as soon as there is room: delete points or make the disk larger",
            self.dir.display()
        ))
    }

    /// Whether log is kept that nobody needs. It goes when the disk is nearly full, so work that can wait leaves as much free as
    /// that takes.
    pub fn keeps_log(&self, keeps: bool) {
        self.keeps_log.store(keeps, Ordering::Relaxed);
    }

    /// The same, as it was said last.
    pub fn is_keeping_log(&self) -> bool {
        self.keeps_log.load(Ordering::Relaxed)
    }

    /// How many bytes are missing for `bytes` more beside what is kept free: asked before work that can wait.
    pub fn missing(&self, bytes: u64) -> Result<u64> {
        let Free { free, reserve } = self.free()?;
        let left = match self.is_keeping_log() {
            false => reserve,
            true => nearly_full(reserve),
        };
        Ok(left.saturating_add(bytes).saturating_sub(free))
    }

    /// Whether there is room for work that takes `bytes` and then gives back at least as many.
    pub fn has_room_to_give(&self, bytes: u64) -> Result<bool> {
        let Free { free, reserve } = self.free()?;
        Ok(!is_short(free, reserve, bytes, Room::Gives, false))
    }

    /// Close enough to the reserve that writers would be refused soon.
    pub fn is_nearly_full(&self) -> Result<bool> {
        let Free { free, reserve } = self.free()?;
        Ok(free < nearly_full(reserve))
    }

    /// Whether the last flush found the disk full.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }

    /// How a flush ended: found the disk full, or not.
    pub fn flushed(&self, full: bool) {
        self.stuck.store(full, Ordering::Relaxed);
    }
}

/// A disk with less than that free is.
fn nearly_full(reserve: u64) -> u64 {
    reserve.saturating_add(reserve / 4)
}

/// The decision alone.
fn is_short(free: u64, reserve: u64, bytes: u64, room: Room, refusing: bool) -> bool {
    let wanted = match (room, refusing) {
        (Room::Gives, _) => reserve / 2,
        (Room::Takes, false) => reserve,
        (Room::Takes, true) => reserve.saturating_add(reserve / 8),
    };
    free < wanted.saturating_add(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_stop_at_the_reserve_and_begin_again_above_it_and_deletes_go_further() {
        let cases = [
            // free, bytes, room, refusing, short
            (1_000, 0, Room::Takes, false, false),
            (999, 0, Room::Takes, false, true),
            (1_100, 101, Room::Takes, false, true),
            (1_124, 0, Room::Takes, true, true),
            (1_125, 0, Room::Takes, true, false),
            (500, 0, Room::Gives, true, false),
            (499, 0, Room::Gives, false, true),
        ];
        for (free, bytes, room, refusing, short) in cases {
            assert_eq!(
                is_short(free, 1_000, bytes, room, refusing),
                short,
                "{free} {bytes} {room:?} {refusing}"
            );
        }
        assert!(is_short(u64::MAX - 1, u64::MAX, 10, Room::Takes, true));
    }

    #[test]
    fn a_full_flush_refuses_until_one_succeeds() {
        let dir = tempfile::tempdir().unwrap();
        let space = Space::new(dir.path(), 1);
        space.check(0, Room::Takes).unwrap();
        space.flushed(true);
        let error = space.check(0, Room::Takes).unwrap_err();
        assert_eq!(error.code, "disk_full");
        assert!(space.is_refusing());
        space.flushed(false);
        space.check(0, Room::Takes).unwrap();
        assert!(!space.is_refusing());
    }

    #[test]
    fn work_that_can_wait_leaves_what_kept_log_needs() {
        let dir = tempfile::tempdir().unwrap();
        let free = Space::new(dir.path(), 1).free().unwrap().free;
        // Between the reserve and a quarter more.
        let space = Space::new(dir.path(), free / 100 * 89);
        assert!(space.is_nearly_full().unwrap() && space.missing(0).unwrap() == 0);
        assert!(space.missing(u64::MAX / 2).unwrap() > 0);
        space.keeps_log(true);
        assert!(space.missing(0).unwrap() > 0);
    }
}
