"""When a failed call is tried again, and after how long: the rules of the Rust client.

A call has one deadline over all its attempts. Tried again is what says "not now": the server is unavailable, a bound is
reached, or the connection broke. Waits grow exponentially with full jitter (uniform between 0 and the bound; Brooker,
"Exponential Backoff and Jitter", AWS 2015), because clients that were refused together would otherwise come back
together. A server's hint is the least that is waited. All attempts of a write carry one request id, and the server does a
request once: what is repeated because its answer was lost is answered again, not done again.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .errors import CairnError


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a call is repeated."""

    #: Attempts after the first one. 0 turns retries off.
    retries: int = 5
    #: Bound of the first wait in seconds; it doubles with each attempt.
    first_wait: float = 0.05
    #: Bound of any wait that the server did not ask for, in seconds.
    wait_max: float = 5.0

    def bound(self, attempt: int) -> float:
        """The bound of the wait before repetition `attempt` (from 1)."""
        return min(self.first_wait * 2.0 ** min(attempt - 1, 63), self.wait_max)

    def wait(self, error: CairnError, attempt: int, left: float) -> float | None:
        """Seconds to wait before trying again after `error`; None: give up."""
        if not error.retryable or attempt > self.retries:
            return None
        wait = max(random.uniform(0, self.bound(attempt)), error.retry_after or 0.0)
        # Waiting it out could only end in a deadline error that says less.
        return wait if wait < left else None
