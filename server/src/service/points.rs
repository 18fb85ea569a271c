//! Points: write, read, delete, page, count, change payloads.

use std::collections::BTreeMap;

use cairn_engine::engine::{Page, PayloadChange, Scroll, Selector, WriteOptions};
use cairn_engine::filter::Filter;
use cairn_engine::log::Request;
use cairn_engine::op::Applied;
use cairn_engine::query::With;
use cairn_engine::schema::{EmbedderFingerprint, Schema};
use cairn_engine::segment::Missing;
use cairn_engine::types::{Durability, Payload, PointId, PointInput, SparseVectors, Token, Vectors};
use cairn_engine::{Error, Result, limits};

use super::bounds::DEFAULT_PAGE;
use super::collections::applied;
use super::embed::same_maker;
use super::fingerprint::Fingerprint;
use super::inputs::{EmbedInput, Wanted, unknown_vector};
use super::pools::Budget;
use super::{Call, Core, Service, check_count, check_limit};

/// A point as a caller gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPoint {
    /// Chosen by the caller.
    pub id: PointId,
    /// Its vectors.
    pub vectors: GivenVectors,
    /// What the server embeds, by vector name.
    pub embed: BTreeMap<String, EmbedInput>,
    /// Its sparse vectors by name.
    pub sparse: SparseVectors,
    /// JSON payload.
    pub payload: Payload,
    /// The document it is a chunk of.
    pub document: Option<PointId>,
    /// Milliseconds since the Unix epoch.
    pub expires_at_ms: Option<u64>,
}

/// Vectors with their names, or the vector of a collection that has exactly one.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenVectors {
    /// By name; may be empty.
    Named(Vectors),
    /// Of the only name there is.
    Only(Vec<f32>),
}

/// How a caller wants a write to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteParams {
    /// The caller's name for the request, the same for all its attempts.
    pub request_id: Option<String>,
    /// When to answer; otherwise as the collection says.
    pub durability: Option<Durability>,
}

/// A page of points.
#[derive(Debug, Clone, Default)]
pub struct ScrollRequest {
    /// Which points.
    pub filter: Filter,
    /// Points in a page; [`DEFAULT_PAGE`] if not said.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
    /// What points carry.
    pub with: With,
    /// A write that must be visible.
    pub after: Option<Token>,
    /// Whether points of damaged segments may be missing.
    pub allow_partial: bool,
}

impl Service {
    /// Inserts points or replaces them whole, atomically. `made_by` are the models that the caller says made the given
    /// vectors, by their names.
    pub async fn upsert(
        &self,
        call: Call,
        collection: String,
        points: Vec<NewPoint>,
        made_by: BTreeMap<String, EmbedderFingerprint>,
        params: WriteParams,
    ) -> Result<Applied> {
        self.write(call, "Points.Upsert", move |core, budget| {
            let schema = core.schema(&collection)?;
            check_count("points", points.len(), limits::BATCH_POINTS_MAX, "/points")?;
            for (name, stated) in &made_by {
                let recorded = recorded_for(&schema, name).and_then(|recorded| same_maker(name, recorded, stated));
                recorded.map_err(|e| e.at(format!("/embedders/{name}")))?;
            }
            let options = write_options(budget, params, |f| {
                f.text("upsert").text(&collection).all(&points, Fingerprint::point);
            })?;
            if let Some(done) = core.replayed(&collection, &options)? {
                return Ok(done);
            }
            let name =
                |(i, point): (usize, NewPoint)| point.named(&schema).map_err(|e| e.at(format!("/points/{i}/vector")));
            let mut points = points;
            let wanted = wanted(&mut points);
            let mut points = points.into_iter().enumerate().map(name).collect::<Result<Vec<_>>>()?;
            core.embed_points(&schema, wanted, &mut points, budget)?;
            core.engine.upsert(&collection, points, &options).and_then(applied)
        })
        .await
    }

    /// Points by id, in the order asked; missing ones are left out. No cursor.
    pub async fn get_points(
        &self,
        call: Call,
        collection: String,
        ids: Vec<PointId>,
        with: With,
        allow_partial: bool,
    ) -> Result<Page> {
        self.read(call, "Points.Get", move |core, budget| {
            core.schema(&collection)?;
            check_count("ids", ids.len(), limits::BATCH_POINTS_MAX, "/ids")?;
            let moment = core.engine.moment(&collection, None, budget.patience().clone())?;
            let moment = moment.allow_partial(allow_partial);
            let (points, bytes) = moment.get(&ids, with)?;
            Ok(Page {
                points,
                cursor: None,
                bytes,
                missing: moment.missing(),
            })
        })
        .await
    }

    /// Deletes points.
    pub async fn delete_points(
        &self,
        call: Call,
        collection: String,
        selector: Selector,
        params: WriteParams,
    ) -> Result<Applied> {
        self.write(call, "Points.Delete", move |core, budget| {
            core.schema(&collection)?;
            match &selector {
                Selector::Ids(ids) => check_count("ids", ids.len(), limits::BATCH_POINTS_MAX, "/ids")?,
                Selector::Matching(filter) if filter.is_empty() => {
                    return Err(
                        Error::invalid("empty_filter", "a filter that deletes must hold a condition").at("/filter"),
                    );
                }
                Selector::Matching(filter) => filter.check().map_err(|e| e.at("/filter"))?,
            }
            let options = write_options(budget, params, |f| {
                f.text("delete").text(&collection).selector(&selector);
            })?;
            core.engine.delete(&collection, selector, &options).and_then(applied)
        })
        .await
    }

    /// A page of points, in the order they were inserted.
    pub async fn scroll(&self, call: Call, collection: String, request: ScrollRequest) -> Result<Page> {
        self.read(call, "Points.Scroll", move |core, budget| {
            core.scroll(&collection, request, budget)
        })
        .await
    }

    /// Live points that match, exactly, and the damaged segments that were not counted.
    pub async fn count(
        &self,
        call: Call,
        collection: String,
        filter: Filter,
        allow_partial: bool,
    ) -> Result<(u64, Vec<Missing>)> {
        self.read(call, "Points.Count", move |core, budget| {
            core.schema(&collection)?;
            filter.check().map_err(|e| e.at("/filter"))?;
            let moment = core.engine.moment(&collection, None, budget.patience().clone())?;
            let moment = moment.allow_partial(allow_partial);
            Ok((moment.count(&filter)?, moment.missing()))
        })
        .await
    }

    /// Changes payloads of existing points.
    pub async fn set_payload(
        &self,
        call: Call,
        collection: String,
        ids: Vec<PointId>,
        change: PayloadChange,
        params: WriteParams,
    ) -> Result<Applied> {
        self.write(call, "Points.SetPayload", move |core, budget| {
            core.schema(&collection)?;
            check_count("ids", ids.len(), limits::BATCH_POINTS_MAX, "/ids")?;
            if change.set.is_empty() && change.unset.is_empty() && !change.replace {
                return Err(Error::invalid(
                    "bad_change",
                    "set or unset must name a key, or replace must be true",
                ));
            }
            let options = write_options(budget, params, |f| {
                f.text("set_payload").text(&collection).ids(&ids).change(&change);
            })?;
            core.engine
                .set_payload(&collection, ids, change, &options)
                .and_then(applied)
        })
        .await
    }
}

impl Core {
    /// What a request was answered when it was done before: asked before work that would be in vain.
    pub(super) fn replayed(&self, collection: &str, options: &WriteOptions) -> Result<Option<Applied>> {
        let Some(request) = &options.request else {
            return Ok(None);
        };
        self.engine.replayed(collection, request, options)
    }

    fn scroll(&self, collection: &str, request: ScrollRequest, budget: &Budget) -> Result<Page> {
        self.schema(collection)?;
        let limit = request.limit.unwrap_or(DEFAULT_PAGE);
        check_limit(limit)?;
        request.filter.check().map_err(|e| e.at("/filter"))?;
        let scroll = Scroll {
            filter: request.filter,
            limit,
            cursor: request.cursor,
            with: request.with,
            after: request.after,
            patience: budget.patience().clone(),
            allow_partial: request.allow_partial,
        };
        self.engine.scroll(collection, &scroll)
    }
}

impl NewPoint {
    fn named(self, schema: &Schema) -> Result<PointInput> {
        let vectors = match self.vectors {
            GivenVectors::Named(vectors) => vectors,
            GivenVectors::Only(vector) => match schema.vectors.keys().next() {
                Some(name) if schema.vectors.len() == 1 => Vectors::from([(name.clone(), vector)]),
                _ => {
                    let names: Vec<&str> = schema.vectors.keys().map(String::as_str).collect();
                    return Err(Error::invalid(
                        "vector_not_named",
                        format!(
                            "a vector without a name needs a collection with exactly one, this one has {}: {}",
                            names.len(),
                            names.join(", ")
                        ),
                    ));
                }
            },
        };
        Ok(PointInput {
            id: self.id,
            vectors,
            sparse: self.sparse,
            payload: self.payload,
            document: self.document,
            expires_at_ms: self.expires_at_ms,
        })
    }
}

/// Takes out of points what they want embedded.
fn wanted(points: &mut [NewPoint]) -> Vec<Wanted> {
    let of = |(point, new): (usize, &mut NewPoint)| {
        let wanted = move |(name, input)| Wanted { point, name, input };
        std::mem::take(&mut new.embed).into_iter().map(wanted)
    };
    points.iter_mut().enumerate().flat_map(of).collect()
}

/// The model that a collection records for a vector of any kind.
fn recorded_for<'a>(schema: &'a Schema, name: &str) -> Result<Option<&'a EmbedderFingerprint>> {
    let dense = schema.vectors.get(name).map(|spec| spec.embedder.as_ref());
    let found = dense.or_else(|| schema.sparse.get(name).map(|spec| spec.embedder.as_ref()));
    found.ok_or_else(|| unknown_vector(schema, name))
}

/// What the engine is told about a write. `say` feeds what the request asks for, which is looked at if it has an id.
pub(super) fn write_options(
    budget: &Budget,
    params: WriteParams,
    say: impl FnOnce(&mut Fingerprint),
) -> Result<WriteOptions> {
    let request = params.request_id.map(|id| {
        let mut fingerprint = Fingerprint::default();
        say(&mut fingerprint);
        Request {
            id,
            fingerprint: fingerprint.end(),
            ..Request::default()
        }
    });
    if let Some(request) = &request {
        request.check().map_err(|e| e.at("/request_id"))?;
    }
    Ok(WriteOptions {
        request,
        durability: params.durability,
        patience: budget.patience().clone(),
    })
}
