//! The README's example: the README holds what stands between the marks below, word for word (a test compares them),
//! and the server's tests run it against a real server.

// --- README
use cairn_client::{Client, Condition, Document, Enrich, Error, Query, Schema};

/// Puts two documents in, asks, and gives back a prompt for a language model: the question with cited context.
pub async fn quickstart(url: &str) -> Result<String, Error> {
    let client = Client::connect(url).await?;
    client.create_collection("notes", Schema::documents()).await?;
    let notes = client.collection("notes");

    let raft = "# Raft\n\nA follower that hears from no leader within its election timeout becomes a candidate. \
                It is elected when a majority of the members votes for it.";
    let tea = "# Tea\n\nGreen tea is brewed with water of 70 to 80 degrees.";
    notes
        .put_documents([
            Document::markdown("raft.md", raft).with("topic", "consensus"),
            Document::markdown("tea.md", tea).with("topic", "kitchen"),
        ])
        .await?;

    // Vectors and BM25, fused; filters are typed.
    let found = notes
        .query(Query::hybrid("leader election").filter(Condition::equals("topic", "consensus")))
        .await?;
    assert_eq!(found.hits.len(), 1);

    // Retrieval, packing into a token budget and citations in one call.
    let enriched = notes
        .enrich(Enrich::new("How is a leader elected?").token_budget(500))
        .await?;
    assert!(enriched.tokens.context <= 500);
    Ok(enriched.prompt.unwrap_or_default())
}
// --- README

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows its result")]
async fn main() -> Result<(), Error> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "http://127.0.0.1:7700".to_owned());
    println!("{}", quickstart(&url).await?);
    Ok(())
}
