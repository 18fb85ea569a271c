//! Labels of trust against those who put documents in: what is quarantined reaches no prompt, and takes no place of what
//! may.

use std::sync::Arc;

use cairn_engine::Engine;
use cairn_engine::config::{Clock, Components, Settings, Workers};
use cairn_engine::schema::Schema;
use cairn_engine::types::Durability;

use super::*;
use crate::config::Config;
use crate::rag::extract::apart::PdfReader;
use crate::rag::models::Models;
use crate::rag::trust::Trust;

struct Noon;

impl Clock for Noon {
    fn now_ms(&self) -> u64 {
        43_200_000
    }
}

struct Fixture {
    service: Service,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let components = Components {
        clock: Arc::new(Noon),
        workers: Workers::alone(),
        files: Arc::new(cairn_engine::storage::LocalDir),
    };
    let engine = Arc::new(Engine::open(dir.path(), Settings::default(), components).unwrap());
    let config = Config {
        data_dir: dir.path().to_owned(),
        ..Config::default()
    };
    let snapshots = SnapshotsOf::open(&config).unwrap();
    let service = Service::new(engine, Models::builtin(), PdfReader::Here, Limits::default(), snapshots);
    Fixture { service, _dir: dir }
}

impl Fixture {
    fn call(&self) -> Call {
        self.service.call(Api::Rest, None)
    }

    /// The documents preset, with or without an index of undeclared fields.
    async fn create(&self, dynamic: bool) {
        let schema = Schema {
            dynamic,
            ..empty_schema()
        };
        let create = CreateCollection {
            name: "c".into(),
            schema,
        };
        self.service.create_collection(self.call(), create).await.unwrap();
    }

    async fn put(&self, id: &str, text: &str, trust: Trust, on_near_duplicate: OnNearDuplicate) -> PutOne {
        let document = DocumentText {
            id: id.into(),
            text: text.into(),
            trust,
            ..DocumentText::default()
        };
        let mut put = self.put_all(vec![document], on_near_duplicate).await;
        put.results.remove(0)
    }

    async fn put_all(&self, documents: Vec<DocumentText>, on_near_duplicate: OnNearDuplicate) -> PutAll {
        let params = WriteParams {
            durability: Some(Durability::Async),
            ..WriteParams::default()
        };
        let put = self
            .service
            .put_documents(self.call(), "c".into(), documents, on_near_duplicate, params);
        put.await.unwrap()
    }
}

#[tokio::test]
async fn quarantined_chunks_take_nobodys_place_though_their_label_is_not_indexed() {
    let f = fixture();
    f.create(false).await;
    let document = |id: String, text: String, trust| DocumentText {
        id,
        text,
        trust,
        ..DocumentText::default()
    };
    // More of them than a leg takes by default, and each better in both legs.
    let mut documents: Vec<_> = (0..150)
        .map(|n| {
            document(
                format!("bad{n}"),
                format!("The leader counts the votes {n}."),
                Trust::Quarantined,
            )
        })
        .collect();
    let good =
        "In some places, long ago, and for other reasons, somebody there counts the votes of a few dozen others.";
    documents.push(document("good".into(), good.into(), Trust::Unverified));
    f.put_all(documents, OnNearDuplicate::Store).await;
    for mode in [Mode::Hybrid, Mode::Dense, Mode::Bm25] {
        let enrich = Enrich {
            prompt: "who counts the votes, the leader?".into(),
            mode,
            ..Enrich::default()
        };
        let enriched = f.service.enrich(f.call(), vec!["c".into()], enrich).await.unwrap();
        let context: Vec<&str> = enriched.packed.context.iter().map(|c| c.document.as_str()).collect();
        assert_eq!(context, ["good"], "{mode:?}");
        let said = enriched.stages.iter().find_map(|stage| stage.skipped.clone()).unwrap();
        assert!(said.starts_with("150 chunks were left out"), "{said}");
    }
}

#[tokio::test]
async fn what_is_trusted_less_keeps_no_near_duplicate_out() {
    use OnNearDuplicate::{Skip, Store};
    let f = fixture();
    f.create(true).await;
    let text = "There is a pass between the two peaks that carriers use in summer, when the river is low and the snow is gone.";
    let like = |put: &PutOne| {
        (
            put.near_duplicate_of.as_ref().map(|id| id.as_str().to_owned()),
            put.skipped,
        )
    };
    let of = |id: &str, skipped| (Some(id.to_owned()), skipped);
    f.put("copy", text, Trust::Quarantined, Store).await;
    // What is in quarantine keeps only what would go there as well.
    assert_eq!(
        like(&f.put("bad", text, Trust::Quarantined, Skip).await),
        of("copy", true)
    );
    assert_eq!(
        like(&f.put("plain", text, Trust::Unverified, Skip).await),
        of("copy", false)
    );
    assert_eq!(
        like(&f.put("other", text, Trust::Unverified, Skip).await),
        of("plain", true)
    );
    assert!(!f.put("original", text, Trust::Trusted, Skip).await.skipped);
    // The reason of skipping is named, though others are as like.
    for trust in [Trust::Trusted, Trust::Unverified, Trust::Quarantined] {
        assert_eq!(like(&f.put("again", text, trust, Skip).await), of("original", true));
    }
}
