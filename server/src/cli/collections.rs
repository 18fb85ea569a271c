//! `cairn collections`: list, create, get, optimize, delete.

use cairn_client::{ChunkStrategy, Client, CollectionInfo, Field, Index, Metric, Schema, SparseSpec, VectorSpec};
use clap::{Args, Subcommand, ValueEnum};

use super::{Connection, DurabilityArg, Failure, operations, output};

const EXAMPLES: &str = "\
Examples:
  cairn collections                                             names of all collections
  cairn collections create docs                                 for documents: built-in embedder, full text
  cairn collections create docs2 --embedder minilm              for documents: a model of the server's configuration
  cairn collections create images --dim 512 --metric dot        for vectors of your own
  cairn collections create web --sparse splade --field text=text for sparse vectors of your own, beside BM25
  cairn collections create docs3 --sparse terms=splade --embedder minilm
                                                                for documents: a sparse and a dense model of the server
  cairn collections create big --dim 384 --index faiss --factory IVF1024,PQ48x4fs
                                                                what Faiss makes, in servers that were built with it
  cairn collections create shop --dim 384 --field brand=keyword --field title=text --shards 4
  cairn collections get docs --json
  cairn collections create faq --strategy sentence --max-tokens 128
  cairn collections optimize docs                               one segment a shard: fastest to search
  cairn collections delete docs --yes";

/// `cairn collections`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Collections {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Subcommand)]
enum Action {
    /// Names of all collections (the default).
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a collection. Without --dim, --sparse and --field it is one for documents.
    Create(Create),
    /// A collection's definition and state.
    Get {
        /// Its name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Seal what grows and merge each shard into as few segments as its settings allow; waits for the end.
    Optimize {
        /// Its name.
        name: String,
        /// Do not wait: print the operation's id.
        #[arg(long)]
        no_wait: bool,
    },
    /// Remove a collection and everything in it.
    Delete {
        /// Its name.
        name: String,
        /// Yes, everything in it.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Create {
    /// Lowercase letters, digits, and . _ - inside.
    name: String,
    /// Numbers in a vector, named `dense`.
    #[arg(long)]
    dim: Option<u32>,
    /// Embedder of a collection for documents, one of the server's [default: its default_embedder].
    #[arg(long, value_name = "NAME", conflicts_with = "dim")]
    embedder: Option<String>,
    /// How nearness is measured.
    #[arg(long, value_enum, default_value_t = MetricArg::Cosine, requires = "dim")]
    metric: MetricArg,
    /// How sealed segments are searched.
    #[arg(long, value_enum, default_value_t = IndexArg::Hnsw, requires = "dim")]
    index: IndexArg,
    /// What Faiss makes an index of, with --index faiss: IVF1024,PQ48x4fs for example.
    #[arg(long, value_name = "STRING", required_if_eq("index", "faiss"))]
    factory: Option<String>,
    /// A sparse vector that you make, by name; or that one of the server's sparse embedders makes of documents and
    /// questions, which then have dense vectors only with --embedder. Repeatable.
    #[arg(long = "sparse", value_name = "NAME[=EMBEDDER]", value_parser = sparse)]
    sparse: Vec<(String, Option<String>)>,
    /// A payload field and its type: keyword, integer, float, bool, text, stored. Repeatable.
    #[arg(long = "field", value_name = "PATH=TYPE", value_parser = field)]
    fields: Vec<(String, Field)>,
    /// Parts that its points are divided into, 1 to 64 [default: 1].
    #[arg(long)]
    shards: Option<u32>,
    /// Most word pieces in a chunk of a document.
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Word pieces that a chunk repeats of the one before it.
    #[arg(long)]
    overlap_tokens: Option<u32>,
    /// Where documents are cut: at headings and blocks first; between sentences; or every max-tokens.
    #[arg(long, value_enum)]
    strategy: Option<StrategyArg>,
    /// When writes are answered: after they are on disk, or before that, which then takes 100 ms at most [default: as the
    /// server is configured, which is sync].
    #[arg(long, value_enum)]
    durability: Option<DurabilityArg>,
}

#[derive(Clone, Copy, ValueEnum)]
enum StrategyArg {
    Structure,
    Sentence,
    Fixed,
}

#[derive(Clone, Copy, ValueEnum)]
enum MetricArg {
    Cosine,
    Dot,
    Euclid,
    Manhattan,
    Hamming,
}

#[derive(Clone, Copy, ValueEnum)]
enum IndexArg {
    Hnsw,
    Ivf,
    Flat,
    /// In servers that were built with it.
    Faiss,
}

impl Collections {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let action = self.action.unwrap_or(Action::List { json: false });
        if let Action::Delete { name, yes: false } = &action {
            return Err(Failure::usage(format!(
                "this removes {name:?} and everything in it: say --yes"
            )));
        }
        if let Action::Create(create) = &action
            && create.factory.is_some()
            && !matches!(create.index, IndexArg::Faiss)
        {
            return Err(Failure::usage(
                "--factory says what Faiss makes: say --index faiss, too",
            ));
        }
        let client = self.connection.client().await?;
        match action {
            Action::List { json } => list(&client, json).await,
            Action::Create(create) => {
                let made = client.create_collection(&create.name, create.schema()).await?;
                show(&made);
                Ok(())
            }
            Action::Get { name, json } => {
                let found = client.get_collection(&name).await?;
                if json {
                    return output::json(&found);
                }
                show(&found);
                Ok(())
            }
            Action::Optimize { name, no_wait } => {
                let begun = client.optimize(&name).await?;
                if no_wait {
                    output::out(&begun.id);
                    return Ok(());
                }
                operations::wait(&client, &begun.id, false).await
            }
            Action::Delete { name, .. } => {
                client.delete_collection(&name).await?;
                output::note(format!("{name} is removed"));
                Ok(())
            }
        }
    }
}

impl Create {
    fn schema(&self) -> Schema {
        let mut schema = match self.dim {
            Some(dim) => {
                let metric = match self.metric {
                    MetricArg::Cosine => Metric::Cosine,
                    MetricArg::Dot => Metric::Dot,
                    MetricArg::Euclid => Metric::Euclid,
                    MetricArg::Manhattan => Metric::Manhattan,
                    MetricArg::Hamming => Metric::Hamming,
                };
                let index = match self.index {
                    IndexArg::Hnsw => Index::Hnsw {
                        m: None,
                        ef_construction: None,
                    },
                    IndexArg::Ivf => Index::Ivf { nlist: None },
                    IndexArg::Flat => Index::Flat,
                    IndexArg::Faiss => Index::Faiss {
                        factory: self.factory.clone().unwrap_or_default(),
                    },
                };
                Schema::default().vector("dense", VectorSpec::new(dim).metric(metric).index(index))
            }
            None => match &self.embedder {
                Some(embedder) => Schema::documents_by(embedder),
                None if self.sparse.iter().any(|(_, embedder)| embedder.is_some()) => {
                    Schema::default().document_fields()
                }
                None => Schema::documents(),
            },
        };
        for (name, embedder) in &self.sparse {
            let spec = embedder.as_ref().map_or_else(SparseSpec::new, SparseSpec::embedded_by);
            schema = schema.sparse(name, spec);
        }
        schema.fields.extend(self.fields.iter().cloned());
        schema.shards = self.shards;
        schema.durability = self.durability.map(Into::into);
        if self.max_tokens.is_some() || self.overlap_tokens.is_some() || self.strategy.is_some() {
            let chunking = schema.chunking.get_or_insert_default();
            chunking.max_tokens = self.max_tokens;
            chunking.overlap_tokens = self.overlap_tokens;
            chunking.strategy = self.strategy.map(|strategy| match strategy {
                StrategyArg::Structure => ChunkStrategy::Structure,
                StrategyArg::Sentence => ChunkStrategy::Sentence,
                StrategyArg::Fixed => ChunkStrategy::Fixed,
            });
        }
        schema
    }
}

fn sparse(text: &str) -> Result<(String, Option<String>), String> {
    match text.split_once('=') {
        None => Ok((text.to_owned(), None)),
        Some((name, embedder)) if !name.is_empty() && !embedder.is_empty() => {
            Ok((name.to_owned(), Some(embedder.to_owned())))
        }
        Some(_) => Err("write it as name, or as name=embedder".to_owned()),
    }
}

fn field(text: &str) -> Result<(String, Field), String> {
    let (path, kind) = text.split_once('=').ok_or("write it as path=type, e.g. lang=keyword")?;
    let field = match kind {
        "keyword" => Field::Keyword,
        "integer" => Field::Integer,
        "float" => Field::Float,
        "bool" => Field::Bool,
        "text" => Field::text(),
        "stored" => Field::Stored,
        other => {
            return Err(format!(
                "a type is keyword, integer, float, bool, text or stored, got {other:?}"
            ));
        }
    };
    Ok((path.to_owned(), field))
}

async fn list(client: &Client, json: bool) -> Result<(), Failure> {
    let names = client.list_collections().await?;
    if json {
        return output::json(&names);
    }
    if names.is_empty() {
        output::note("no collections yet: cairn collections create NAME");
    }
    for name in names {
        output::out(name);
    }
    Ok(())
}

fn show(c: &CollectionInfo) {
    output::out(output::bold(&c.name));
    let points = format!(
        "{} ({} indexed, in {} segments)",
        output::number(c.points),
        output::number(c.indexed_points),
        c.segments
    );
    output::out(format!(
        "  points     {points}{}",
        if c.optimizing { ", optimizing" } else { "" }
    ));
    output::out(format!("  documents  {}", output::number(c.documents)));
    output::out(format!(
        "  bytes      {} on disk, {} growing",
        output::bytes(c.disk_bytes),
        output::bytes(c.growing_bytes)
    ));
    if let Some(found) = &c.recall_estimate {
        output::out(format!(
            "  recall     {:.3} ({} searches asked again)",
            found.recall,
            output::number(found.questions)
        ));
    }
    for damaged in &c.damaged {
        output::out(format!(
            "  damaged    segment {} of shard {}, {} points: {}",
            damaged.segment,
            damaged.shard,
            output::number(damaged.points),
            damaged.reason
        ));
    }
    for (name, v) in &c.schema.vectors {
        let by = v
            .embedder
            .as_ref()
            .map_or_else(String::new, |e| format!(", embedded by {}", e.name));
        output::out(format!(
            "  vector     {name}: {} numbers, {}{by}",
            v.dim,
            format!("{:?}", v.metric).to_lowercase()
        ));
    }
    for (name, s) in &c.schema.sparse {
        let by = s.embedder.as_ref().map_or("", |e| e.name.as_str());
        let by = if by.is_empty() {
            String::new()
        } else {
            format!(", embedded by {by}")
        };
        output::out(format!("  sparse     {name}{by}"));
    }
    for (path, field) in &c.schema.fields {
        let kind = match field {
            Field::Keyword => "keyword".to_owned(),
            Field::Integer => "integer".to_owned(),
            Field::Float => "float".to_owned(),
            Field::Bool => "bool".to_owned(),
            Field::Text { analyzer } => format!("text, {}", analyzer.language.as_deref().unwrap_or("english")),
            Field::Stored => "stored".to_owned(),
        };
        output::out(format!("  field      {path}: {kind}"));
    }
    c.notes.iter().for_each(output::note);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_path_and_type() {
        assert_eq!(
            field("meta.lang=keyword").unwrap(),
            ("meta.lang".to_owned(), Field::Keyword)
        );
        assert!(field("lang").unwrap_err().contains("path=type"));
        assert!(field("lang=string").unwrap_err().contains("keyword"));
    }

    #[test]
    fn sparse_vectors_of_a_model_are_for_documents() {
        use clap::Parser;
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            create: Create,
        }
        let schema = |flags: &[&str]| {
            let flags = Flags::try_parse_from(["x", "c"].iter().chain(flags));
            flags.map(|flags| flags.create.schema()).map_err(|e| e.kind())
        };
        let own = schema(&["--sparse=a", "--field=text=text"]).unwrap();
        assert_eq!((own.fields.len(), &own.sparse["a"]), (1, &SparseSpec::new()));
        let made = schema(&["--sparse=a=splade"]).unwrap();
        assert!(made.vectors.is_empty() && made.fields.contains_key("text") && made.fields.contains_key("source"));
        assert_eq!(made.sparse["a"].embedder.as_ref().unwrap().name, "splade");
        let both = schema(&["--sparse=a=splade", "--embedder=minilm"]).unwrap();
        assert!(both.vectors.contains_key("dense") && both.fields == made.fields && both.sparse == made.sparse);
        for wrong in ["--sparse=a=", "--sparse==splade"] {
            assert!(schema(&[wrong]).is_err(), "{wrong}");
        }
    }
}
