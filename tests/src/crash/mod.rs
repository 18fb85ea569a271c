//! A load whose every byte is known, an oracle outside the database of what must be there, and a judge that reads all of it back.
//!
//! Every key is written by one writer, which waits for each answer: so the order of a key's operations is known, and when a server
//! dies each writer has at most one operation of which nobody can say whether it happened. Two ways to use it: [`work`] writes with
//! eight writers at once and tells the [`oracle`], until something happens to the server; a [`script`] is one operation after the
//! other, so that what must be there at any moment is one of two states. [`judge`] compares either with what is there.

pub mod judge;
pub mod oracle;
pub mod script;
pub mod work;

use std::ops::AddAssign;

use cairn_client::{Client, Field, Schema, VectorSpec};

/// What was counted over all cycles.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Counts {
    /// Acknowledged states that are not there, or older than acknowledged.
    pub acked_lost: u64,
    /// Points or documents that nobody sent, or that were deleted.
    pub phantom: u64,
    /// Documents whose chunks are not all of one version, or not all of them.
    pub torn_documents: u64,
    /// Operations on several points of which only a part happened.
    pub torn_writes: u64,
    /// Vectors or payloads that are not what was sent.
    pub wrong_bytes: u64,
    /// Counts, filters and searches that do not agree with the scan.
    pub index_mismatch: u64,
    /// Reads beside the writers that saw a mix of two versions of a document.
    pub mixed_reads: u64,
    /// Reads beside the writers that saw less than was acknowledged before they began.
    pub stale_reads: u64,
    /// What exactly, for the first of them.
    pub examples: Vec<String>,
}

impl Counts {
    /// Each with its name.
    pub fn named(&self) -> [(&'static str, u64); 8] {
        [
            ("acked_lost", self.acked_lost),
            ("phantom", self.phantom),
            ("torn_documents", self.torn_documents),
            ("torn_writes", self.torn_writes),
            ("wrong_bytes", self.wrong_bytes),
            ("index_mismatch", self.index_mismatch),
            ("mixed_reads", self.mixed_reads),
            ("stale_reads", self.stale_reads),
        ]
    }

    pub fn all_zero(&self) -> bool {
        self.named().iter().all(|(_, n)| *n == 0)
    }

    /// Keeps a sentence about one of the first ten.
    pub fn example(&mut self, text: String) {
        if self.examples.len() < 10 {
            self.examples.push(text);
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.acked_lost += other.acked_lost;
        self.phantom += other.phantom;
        self.torn_documents += other.torn_documents;
        self.torn_writes += other.torn_writes;
        self.wrong_bytes += other.wrong_bytes;
        self.index_mismatch += other.index_mismatch;
        self.mixed_reads += other.mixed_reads;
        self.stale_reads += other.stale_reads;
        for example in other.examples {
            self.example(example);
        }
    }
}

/// The two collections: points whose every byte we choose, and documents that the server cuts and embeds.
pub async fn prepare(client: &Client) -> anyhow::Result<()> {
    let dim = u32::try_from(work::DIM)?;
    let points = Schema::default()
        .vector("v", VectorSpec::new(dim))
        .field("writer", Field::Integer)
        .field("group", Field::Keyword)
        .field("note", Field::text())
        .shards(2);
    client.create_collection(work::POINTS, points).await?;
    client
        .create_collection(work::DOCUMENTS, Schema::documents().chunking(24, 0).shards(2))
        .await?;
    Ok(())
}
