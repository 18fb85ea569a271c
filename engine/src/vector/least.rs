//! The least of many, kept in order: for the few dozen that a measurement remembers, where most of what is offered is not among
//! them and costs one comparison.

/// So many of what was offered, the least by a key, ascending.
#[derive(Debug, Clone)]
pub(super) struct Least<T> {
    count: usize,
    kept: Vec<T>,
}

impl<T> Least<T> {
    pub(super) fn new(count: usize) -> Self {
        Self {
            count,
            kept: Vec::with_capacity(count + 1),
        }
    }

    /// Keeps it if it is among the least. Of equal ones the first that came stays.
    #[inline]
    pub(super) fn offer<K: PartialOrd>(&mut self, item: T, key: impl Fn(&T) -> K) {
        if self.kept.len() < self.count || self.kept.last().is_some_and(|last| key(&item) < key(last)) {
            let place = self.kept.partition_point(|other| key(other) <= key(&item));
            self.kept.insert(place, item);
            self.kept.truncate(self.count);
        }
    }

    /// Ascending.
    pub(super) fn as_slice(&self) -> &[T] {
        &self.kept
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        self.kept
    }
}
