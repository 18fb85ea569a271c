//! Which requests were done, so that a repeated one is answered and not done again.
//!
//! A record may name its request. Applying it leaves an entry in the `requests` family: the record's sequence number, what
//! it changed, the request's fingerprint and note. A later record of the same id and part changes nothing and answers what
//! the first answered; with another fingerprint it is refused. Entries end after [`limits::REQUEST_MEMORY_MS`], counted
//! between the records' own timestamps, or when there are more than [`limits::REQUESTS_MAX`]. Everything is decided from
//! records and state, so a replay decides alike. A record that was refused leaves no entry: its repetition is decided anew.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::applier::{decode, encode};
use crate::error::{Error, ErrorKind, Result};
use crate::limits;
use crate::log::Request;
use crate::storage::{Effects, META, REQUESTS, Storage, key};
use crate::types::Seq;

/// Key in `meta`.
const COUNTED: &[u8] = b"seen_requests";

/// A request's entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Done {
    pub(super) seq: Seq,
    at_ms: u64,
    pub(super) changed: u64,
    fingerprint: [u8; 16],
    pub(super) note: Vec<u8>,
}

/// An entry's place in the order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Place {
    at_ms: u64,
    key: Vec<u8>,
}

/// The applier's account of them.
#[derive(Debug, Default)]
pub(super) struct Requests {
    count: u64,
    /// No entry is older than this record.
    from: Seq,
    /// Timestamp of the oldest entry, once it was looked for.
    oldest_ms: Option<u64>,
}

/// Entries of the group commit under construction, which are not in storage yet.
#[derive(Default)]
pub(super) struct Overlay {
    done: HashMap<Vec<u8>, Option<Done>>,
    order: BTreeMap<Seq, Place>,
    changed: bool,
}

/// What was answered to this request before `now_ms`, as storage has it.
pub(super) fn find(storage: &Storage, request: &Request, now_ms: u64) -> Result<Option<Done>> {
    let stored = storage.get(REQUESTS, &key::request(&request.id, request.part))?;
    let done = stored.map(|bytes| decode::<Done>(&bytes, "requests")).transpose()?;
    checked(done, request, now_ms)
}

fn is_over(at_ms: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(at_ms) >= limits::REQUEST_MEMORY_MS
}

/// The entry, if it is not too old and of the same request.
fn checked(done: Option<Done>, request: &Request, now_ms: u64) -> Result<Option<Done>> {
    let Some(done) = done.filter(|done| !is_over(done.at_ms, now_ms)) else {
        return Ok(None);
    };
    if done.fingerprint == request.fingerprint {
        return Ok(Some(done));
    }
    Err(Error::new(
        ErrorKind::Conflict,
        "request_id_reused",
        "this request id was used for another request; choose a new one for each request, and keep it for its retries",
    )
    .at("/request_id"))
}

impl Requests {
    /// As it was flushed last.
    pub(super) fn load(storage: &Storage) -> Result<Self> {
        let (count, from) = match storage.get(META, COUNTED)? {
            None => (0, Seq(0)),
            Some(bytes) => decode(&bytes, "meta: requests")?,
        };
        Ok(Self {
            count,
            from,
            oldest_ms: None,
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// What was answered to a record's request, as the records before it left it.
    pub(super) fn find(storage: &Storage, overlay: &Overlay, request: &Request, now_ms: u64) -> Result<Option<Done>> {
        match overlay.done.get(&key::request(&request.id, request.part)) {
            Some(done) => checked(done.clone(), request, now_ms),
            None => find(storage, request, now_ms),
        }
    }

    /// Keeps what a record did, and forgets what is over or too much.
    pub(super) fn remember(
        &mut self,
        storage: &Storage,
        overlay: &mut Overlay,
        effects: &mut Effects<'_>,
        request: &Request,
        (seq, at_ms, changed): (Seq, u64, u64),
    ) -> Result<()> {
        let key = key::request(&request.id, request.part);
        let done = Done {
            seq,
            at_ms,
            changed,
            fingerprint: request.fingerprint,
            note: request.note.clone(),
        };
        effects.put(REQUESTS, &key, &encode(&done)?);
        let place = Place { at_ms, key };
        effects.put(REQUESTS, &key::request_order(seq), &encode(&place)?);
        overlay.done.insert(place.key.clone(), Some(done));
        overlay.order.insert(seq, place);
        overlay.changed = true;
        self.count += 1;
        self.oldest_ms.get_or_insert(if self.count == 1 { at_ms } else { 0 });
        while self.count > limits::REQUESTS_MAX || self.oldest_ms.is_some_and(|oldest| is_over(oldest, at_ms)) {
            if !self.forget_oldest(storage, overlay, effects, at_ms)? {
                break;
            }
        }
        Ok(())
    }

    /// False if the oldest stays.
    fn forget_oldest(
        &mut self,
        storage: &Storage,
        overlay: &mut Overlay,
        effects: &mut Effects<'_>,
        now_ms: u64,
    ) -> Result<bool> {
        let Some((seq, place)) = self.oldest(storage, overlay)? else {
            self.oldest_ms = None;
            return Ok(false);
        };
        if !is_over(place.at_ms, now_ms) && self.count <= limits::REQUESTS_MAX {
            self.oldest_ms = Some(place.at_ms);
            return Ok(false);
        }
        // The id may have been used again since, once its first use was over: that entry stays.
        let current = match overlay.done.get(&place.key) {
            Some(done) => done.as_ref().map(|done| done.seq),
            None => match storage.get(REQUESTS, &place.key)? {
                None => None,
                Some(bytes) => Some(decode::<Done>(&bytes, "requests")?.seq),
            },
        };
        if current == Some(seq) {
            effects.delete(REQUESTS, &place.key);
            overlay.done.insert(place.key, None);
        }
        effects.delete(REQUESTS, &key::request_order(seq));
        overlay.order.remove(&seq);
        overlay.changed = true;
        self.count = self.count.saturating_sub(1);
        self.from = Seq(seq.0 + 1);
        self.oldest_ms = self.oldest(storage, overlay)?.map(|(_, place)| place.at_ms);
        Ok(true)
    }

    /// The oldest entry: in storage, or of this batch.
    fn oldest(&self, storage: &Storage, overlay: &Overlay) -> Result<Option<(Seq, Place)>> {
        let mut first = None;
        storage.scan(REQUESTS, b"s", &key::request_order(self.from), |key, value| {
            let seq = key.get(1..).and_then(|bytes| bytes.try_into().ok());
            let seq = seq.ok_or_else(|| Error::damaged("requests: a key of the wrong length"))?;
            first = Some((Seq(u64::from_be_bytes(seq)), decode::<Place>(value, "requests")?));
            Ok(false)
        })?;
        let newer = || overlay.order.iter().next().map(|(seq, place)| (*seq, place.clone()));
        Ok(first.or_else(newer))
    }

    /// Writes the account with the effects of a group commit.
    pub(super) fn finish(&self, overlay: &Overlay, effects: &mut Effects<'_>) -> Result<()> {
        if overlay.changed {
            effects.put(META, COUNTED, &encode(&(self.count, self.from))?);
        }
        Ok(())
    }
}
