//! One bound for the bytes of all requests that are being received or worked on.
//!
//! A body is collected before there is a place for its work, so that the pools' queues do not bound it: without this,
//! memory would be bounded only by connections times `limits.body_bytes_max`. Bytes are taken as a request announces or
//! sends them, and given back when its work has really ended, as a place in a pool is. There is no waiting: requests
//! that hold half of what they need and wait for the rest could wait for each other forever.
//!
//! A message that came compressed is counted as what it is, once that is known. Not counted: what a decoded message takes
//! beyond its encoding, and answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::BoxError;
use axum::body::{Body, Bytes, HttpBody};
use cairn_engine::{Error, ErrorKind, Result};
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All bytes that requests may hold.
#[derive(Debug)]
pub(crate) struct Bodies(Arc<Semaphore>);

/// What one request holds of them; given back when its last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Held(Arc<Mutex<OwnedSemaphorePermit>>);

impl Bodies {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max)))
    }

    /// Nothing yet.
    pub(crate) fn hold(&self) -> Held {
        let none = Arc::clone(&self.0).try_acquire_many_owned(0);
        Held(Arc::new(Mutex::new(none.expect("nothing is always free"))))
    }
}

impl Held {
    /// Takes this many more, or refuses the request.
    pub(crate) fn take(&self, bytes: usize) -> Result<()> {
        let mut held = self.0.lock();
        let free = Arc::clone(held.semaphore());
        let more = u32::try_from(bytes)
            .ok()
            .and_then(|n| free.try_acquire_many_owned(n).ok());
        let overloaded = || {
            let message = "the requests under way hold too many bytes, try again shortly";
            Error::new(ErrorKind::Exhausted, "overloaded", message)
        };
        held.merge(more.ok_or_else(overloaded)?);
        Ok(())
    }

    /// Takes what is missing to this many, or refuses the request.
    pub(crate) fn take_in_all(&self, bytes: usize) -> Result<()> {
        let held = self.0.lock().num_permits();
        self.take(bytes.saturating_sub(held))
    }

    /// Gives back all that is held so far.
    pub(crate) fn give_back(&self) {
        let mut held = self.0.lock();
        let all = held.num_permits();
        drop(held.split(all));
    }
}

/// A body whose bytes are taken as they arrive; `refuse` makes the error that ends it.
pub(crate) struct Counted {
    pub(crate) body: Body,
    pub(crate) held: Held,
    pub(crate) refuse: fn(&Error) -> BoxError,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        Poll::Ready(frame.map(|frame| {
            let frame = frame?;
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            self.held.take(bytes).map_err(|e| (self.refuse)(&e))?;
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_can_be_enlarged_and_given_back_before_its_end() {
        let bodies = Bodies::new(10);
        let (first, second) = (bodies.hold(), bodies.hold());
        first.take(3).unwrap();
        first.take_in_all(8).unwrap();
        first.take_in_all(2).unwrap();
        assert!(second.take(3).is_err(), "8 of 10 are held");
        assert_eq!(first.take_in_all(11).unwrap_err().code, "overloaded");
        first.give_back();
        second.take(10).unwrap();
        assert!(first.take(1).is_err());
    }

    #[test]
    fn bytes_are_given_back_with_the_last_clone() {
        let bodies = Bodies::new(10);
        let (first, second) = (bodies.hold(), bodies.hold());
        first.take(4).unwrap();
        first.take(4).unwrap();
        assert_eq!(second.take(3).unwrap_err().code, "overloaded");
        second.take(2).unwrap();
        let at_work = first.clone();
        drop(first);
        assert!(second.take(1).is_err(), "the work has not ended");
        drop(at_work);
        second.take(8).unwrap();
        assert!(second.take(usize::MAX).is_err());
    }
}
