//! Which epoch wrote which records: how a token is told from that of another history with the same numbers.
//!
//! Each record says the epoch that wrote it, so the table is what the records say, in short: applying them makes it, replaying
//! them into another database takes it over. An epoch that wrote nothing is not in it.
//!
//! Guarantees: a token is known exactly if the record at its place was written by its epoch. Two directories that went on
//! from one moment differ in every token after it (but for a chance of 1 in 2^63).
//! Bounded: the oldest of [`limits::EPOCHS_MAX`] epochs is forgotten for a new one. Its tokens are not known any more.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{EpochId, Seq, Token};
use crate::limits;

/// Consecutive records that one opening of a directory wrote: up to the next epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch {
    /// Who.
    pub id: EpochId,
    /// Its first record.
    pub first: Seq,
    /// When the record before that was written, in milliseconds since the Unix epoch; 0: it is not known, or there is none.
    pub silent_from_ms: u64,
    /// When the directory was opened for it. From then on there was nothing else.
    pub opened_ms: u64,
}

/// The epochs of a log, from the first that is known on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Epochs(Vec<Epoch>);

impl Default for Epochs {
    /// Of a database without a record, and of one that was written before there were epochs.
    fn default() -> Self {
        Self(vec![Epoch {
            id: EpochId::BEFORE,
            first: Seq(0),
            silent_from_ms: 0,
            opened_ms: 0,
        }])
    }
}

impl Epochs {
    /// Of what was written down; none if it is not a table.
    pub fn new(epochs: Vec<Epoch>) -> Option<Self> {
        let ascends = epochs.is_sorted_by(|a, b| a.first < b.first);
        (ascends && (1..=limits::EPOCHS_MAX).contains(&epochs.len())).then_some(Self(epochs))
    }

    /// All of them, by their first records.
    pub fn all(&self) -> &[Epoch] {
        &self.0
    }

    /// The one that wrote the last record.
    pub fn last(&self) -> EpochId {
        self.0.last().map_or(EpochId::FORGOTTEN, |epoch| epoch.id)
    }

    /// A record came that another epoch wrote than the one before it.
    #[must_use]
    pub(crate) fn begin(&self, epoch: Epoch) -> Self {
        let from = (self.0.len() + 1).saturating_sub(limits::EPOCHS_MAX);
        let kept = self.0[from..].iter().filter(|before| before.first < epoch.first);
        Self(kept.chain([&epoch]).copied().collect())
    }

    /// The token of a record.
    pub fn token(&self, seq: Seq) -> Token {
        let epoch = match self.0.partition_point(|epoch| epoch.first <= seq).checked_sub(1) {
            Some(i) => self.0[i].id,
            // Before the first record every history is the same.
            None if seq == Seq(0) => EpochId::BEFORE,
            None => EpochId::FORGOTTEN,
        };
        Token { epoch, group: 0, seq }
    }

    /// Whether a write of this history, of which `last` is the last record, answered with this token.
    pub fn knows(&self, token: Token, last: Seq) -> bool {
        token.seq <= last && token.epoch != EpochId::FORGOTTEN && self.token(token.seq) == token
    }

    /// The pause around a time between the last record of one epoch and the opening of the next, if it lies in one. What was
    /// there then is not certain: the directory may have gone on elsewhere, or with writes that were lost.
    pub fn pause_at(&self, ms: u64) -> Option<Range<u64>> {
        let pauses = self.0.iter().map(|epoch| epoch.silent_from_ms..epoch.opened_ms);
        pauses.rev().find(|pause| pause.contains(&ms))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn epoch(id: u64, first: u64) -> Epoch {
        Epoch {
            id: EpochId(id),
            first: Seq(first),
            silent_from_ms: first * 10 - 10,
            opened_ms: first * 10,
        }
    }

    fn token(id: u64, seq: u64) -> Token {
        Token {
            epoch: EpochId(id),
            group: 0,
            seq: Seq(seq),
        }
    }

    #[test]
    fn a_token_is_known_where_its_epoch_wrote_and_nowhere_else() {
        let of_old = Epochs::default();
        assert!(of_old.knows(token(1, 5), Seq(5)) && !of_old.knows(token(1, 6), Seq(5)));
        let one = of_old.begin(epoch(10, 6));
        // Another opening of the same directory, or of a copy.
        let (two, other) = (one.begin(epoch(20, 9)), one.begin(epoch(30, 9)));
        for (epochs, own, others) in [(&two, 20, 30), (&other, 30, 20)] {
            assert!(epochs.knows(token(1, 5), Seq(12)) && epochs.knows(token(10, 8), Seq(12)));
            assert!(epochs.knows(token(own, 9), Seq(12)) && !epochs.knows(token(own, 13), Seq(12)));
            for unknown in [token(others, 9), token(10, 9), token(own, 8), token(1, 6), token(0, 2)] {
                assert!(!epochs.knows(unknown, Seq(12)), "{unknown}");
            }
        }
        let group = Token {
            group: 1,
            ..token(20, 9)
        };
        assert!(!two.knows(group, Seq(12)));
        assert_eq!(two.last(), EpochId(20));
    }

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let most = limits::EPOCHS_MAX as u64;
        let epochs = (1..=most + 5).fold(Epochs::default(), |all, n| all.begin(epoch(100 + n, n)));
        assert_eq!(epochs.all().len(), limits::EPOCHS_MAX);
        let last = Seq(most + 5);
        assert_eq!(epochs.token(Seq(5)).epoch, EpochId::FORGOTTEN);
        assert!(!epochs.knows(epochs.token(Seq(5)), last) && !epochs.knows(token(105, 5), last));
        assert!(epochs.knows(Token::default(), last), "before the first record");
        assert!(epochs.knows(token(106, 6), last) && epochs.knows(token(105 + most, most + 5), last));
    }

    #[test]
    fn a_time_lies_in_a_pause_or_in_an_epoch() {
        let epochs = Epochs::default().begin(epoch(10, 6)).begin(epoch(20, 9));
        assert_eq!(epochs.pause_at(49), None);
        assert_eq!(epochs.pause_at(50), Some(50..60));
        assert_eq!(epochs.pause_at(60), None);
        assert_eq!(epochs.pause_at(89), Some(80..90));
        assert_eq!(epochs.pause_at(1_000), None);
    }

    proptest! {
        /// Two histories that part somewhere, each written by several openings: what both know is what both have.
        #[test]
        fn two_histories_know_the_same_tokens_up_to_where_they_parted(
            shared in prop::collection::vec(1..4u64, 1..6),
            mine in prop::collection::vec(1..4u64, 0..6),
            theirs in prop::collection::vec(1..4u64, 0..6),
        ) {
            let mut ids = 1_000..;
            // Applies so many records of each epoch, as an applier does.
            let mut write = |from: &(Epochs, u64), lengths: &[u64]| {
                lengths.iter().fold(from.clone(), |(epochs, last), length| {
                    let id = ids.next().unwrap();
                    (epochs.begin(epoch(id, last + 1)), last + length)
                })
            };
            let base = write(&(Epochs::default(), 0), &shared);
            let (mine, theirs) = (write(&base, &mine), write(&base, &theirs));
            for seq in 0..=mine.1 {
                let token = mine.0.token(Seq(seq));
                prop_assert!(mine.0.knows(token, Seq(mine.1)));
                prop_assert_eq!(theirs.0.knows(token, Seq(theirs.1)), seq <= base.1);
                prop_assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
            }
            prop_assert_eq!(Epochs::new(mine.0.all().to_vec()), Some(mine.0));
        }
    }
}
