//! Full text: how text becomes terms (`analyzer`), where terms stand (`postings`), how well they match (`bm25`).

pub mod analyzer;
pub mod bm25;
pub mod postings;

#[cfg(test)]
mod quality;
