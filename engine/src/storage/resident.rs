//! Bytes that are read at random places all the time, in memory of their own.
//!
//! In pages of 2 MiB where the system has them: a walk of a graph reads a record here and a record there, and in pages of 4 KiB the processor
//! has to find out for nearly each of them where it is. A file that was read piece by piece is in small pages in the cache of the system,
//! and stays so.
//!
//! Not promised: large pages. Where there are none, or not so many in one piece, small ones serve.

use std::io;
use std::ops::Range;

use memmap2::{Advice, MmapMut};

/// Where parts begin: a cache line, as sections do in a file.
const ALIGN: usize = 64;

/// Copies of some parts.
pub struct Resident {
    map: MmapMut,
    parts: Vec<Range<usize>>,
}

impl Resident {
    /// Copies them.
    pub fn copy(parts: &[&[u8]]) -> io::Result<Self> {
        let mut end = 0;
        let place = |part: &&[u8]| {
            let start = usize::next_multiple_of(end, ALIGN);
            end = start + part.len();
            start..end
        };
        let places: Vec<Range<usize>> = parts.iter().map(place).collect();
        let mut map = MmapMut::map_anon(end.max(1))?;
        // An old system, or one that was told not to, has none: the same, slower.
        let _ = map.advise(Advice::HugePage);
        for (place, part) in places.iter().zip(parts) {
            map[place.clone()].copy_from_slice(part);
        }
        Ok(Self { map, parts: places })
    }

    /// The n-th part.
    #[inline]
    pub fn part(&self, n: usize) -> &[u8] {
        &self.map[self.parts[n].clone()]
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.map.len()
    }
}
