//! The face of the service, said once and tested through both protocols: what works, what is refused, what is served beside.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod cases;
mod citations;
mod damage;
mod gone;
mod lists;
mod makers;
mod models;
mod pictures;
mod refusals;
mod reliability;
mod restores;
mod snapshots;
mod stores;
mod surroundings;
