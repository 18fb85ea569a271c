//! Candidates for a prompt: what the engine is asked, for one collection or several, and which labels it may find.
//!
//! Labels are part of the filter wherever the collection indexes `trust`, so that quarantined documents take nobody's
//! place. Where it does not, more candidates are taken and those not allowed are left out afterwards.
//!
//! Several collections are asked leg by leg, and the legs are joined by `rag::rank::several`.

use std::collections::HashMap;

use cairn_engine::Result;
use cairn_engine::engine::Moment;
use cairn_engine::filter::{Condition, Filter, Scalar, extract};
use cairn_engine::patience::Patience;
use cairn_engine::query::{Fuse, Hit, Input, LegScore, Params, Query, Source, With};
use cairn_engine::schema::{Metric, Schema};
use cairn_engine::types::{Payload, Point, PointId};

use super::Core;
use super::bounds::CANDIDATES_MAX;
use super::ranking::Found;
use crate::rag::rank::several::{self, Leg, join};
use crate::rag::retrieval;
use crate::rag::trust::{TRUST_KEY, Trust};

/// Which labels may be found.
pub(super) struct Labels {
    allowed: Vec<Trust>,
}

impl Labels {
    /// Those named; by default all but quarantined.
    pub(super) fn new(named: &[Trust]) -> Self {
        let default = [Trust::Unverified, Trust::Trusted];
        let allowed = if named.is_empty() { &default } else { named };
        Self {
            allowed: allowed.to_vec(),
        }
    }

    pub(super) fn allow(&self, payload: &Payload) -> bool {
        self.allowed.contains(&Trust::of(payload))
    }

    /// The filter that lets only these through; none if the collection cannot filter by label.
    fn narrow(&self, filter: &Filter, schema: &Schema) -> Option<Filter> {
        extract::filterable(schema, TRUST_KEY).ok()?;
        let is_any = |labels: Vec<Trust>| Condition::Any {
            field: TRUST_KEY.to_owned(),
            values: labels
                .into_iter()
                .map(|trust| Scalar::Str(trust.name().into()))
                .collect(),
        };
        let others: Vec<Trust> = Trust::ALL
            .into_iter()
            .filter(|trust| !self.allowed.contains(trust))
            .collect();
        let mut filter = filter.clone();
        // Conditions are added to the filter, not put around it: it may be as deep as a filter can be.
        match self.allowed.contains(&Trust::Unverified) {
            // What has no label is unverified.
            true if others.is_empty() => {}
            true => filter.must_not.push(is_any(others)),
            false => filter.must.push(is_any(self.allowed.clone())),
        }
        Some(filter)
    }

    /// How many candidates must be taken so that `limit` are likely to remain: more where a collection cannot filter by
    /// label. The same for all collections, so that their legs are as long as each other.
    pub(super) fn wanted<'s>(&self, schemas: impl IntoIterator<Item = &'s Schema>, limit: usize) -> usize {
        let filters = |schema| self.narrow(&Filter::default(), schema).is_some();
        match schemas.into_iter().all(filters) {
            true => limit,
            false => CANDIDATES_MAX,
        }
    }

    /// What a stage says of those that were left out.
    pub(super) fn said(&self, excluded: u64) -> Option<String> {
        let names: Vec<&str> = self.allowed.iter().map(|trust| trust.name()).collect();
        (excluded > 0).then(|| {
            format!(
                "{excluded} chunks were left out: their trust is not among {}",
                names.join(", ")
            )
        })
    }
}

/// What was found.
#[derive(Default)]
pub(super) struct Retrieved {
    /// Best first.
    pub(super) hits: Vec<Found>,
    /// Chunks that match but for their label.
    pub(super) excluded: u64,
}

/// Whether a source compares with a vector.
pub(super) fn has_vector(source: &Source) -> bool {
    match source {
        Source::Nearest { .. } | Source::Sparse { .. } => true,
        Source::Text { .. } => false,
        Source::Fusion { inputs, .. } => inputs.iter().any(|input| has_vector(&input.source)),
    }
}

/// The chunks of a document with these ids, as far as filter and labels allow.
pub(super) fn beside(
    moment: &Moment<'_>,
    filter: &Filter,
    labels: &Labels,
    document: PointId,
    ids: Vec<PointId>,
) -> Result<Vec<Point>> {
    let limit = ids.len();
    if limit == 0 {
        return Ok(Vec::new());
    }
    let mut filter = labels.narrow(filter, moment.schema()).unwrap_or_else(|| filter.clone());
    filter.must.push(Condition::HasId { ids });
    filter.must.push(Condition::HasDocument { ids: vec![document] });
    let with = With {
        payload: true,
        ..With::default()
    };
    moment.matching(&filter, limit, with)
}

impl Core {
    /// Hits of all moments in one list, best first, without payloads. Each source comes with the name of its leg, if it has
    /// only one. `wanted` is what [`Labels::wanted`] said.
    pub(super) fn retrieve(
        &self,
        moments: &[Moment<'_>],
        sources: Vec<(Source, Option<&'static str>)>,
        filter: &Filter,
        labels: &Labels,
        wanted: usize,
    ) -> Result<Retrieved> {
        let mut retrieved = Retrieved::default();
        let mut asked = Vec::with_capacity(moments.len());
        for moment in moments {
            match labels.narrow(filter, moment.schema()) {
                Some(narrowed) if narrowed == *filter => asked.push(narrowed),
                Some(narrowed) => {
                    retrieved.excluded += moment.count(filter)?.saturating_sub(moment.count(&narrowed)?);
                    asked.push(narrowed);
                }
                None => asked.push(filter.clone()),
            }
        }
        retrieved.hits = match (moments, sources.as_slice()) {
            ([moment], [_]) => {
                let (source, name) = sources.into_iter().next().expect("there is one");
                let hits = self
                    .search(moment, &plain(source, asked.remove(0), wanted), "Documents.Enrich")?
                    .hits;
                hits.into_iter()
                    .map(|hit| Found {
                        collection: 0,
                        hit: named(hit, name),
                    })
                    .collect()
            }
            _ => self.of_several(moments, sources, &asked, wanted)?,
        };
        Ok(retrieved)
    }

    fn of_several(
        &self,
        moments: &[Moment<'_>],
        sources: Vec<(Source, Option<&'static str>)>,
        filters: &[Filter],
        limit: usize,
    ) -> Result<Vec<Found>> {
        let mut legs = Vec::new();
        let mut points: HashMap<(usize, PointId), Point> = HashMap::new();
        for (collection, ((source, name), (moment, filter))) in
            sources.into_iter().zip(moments.iter().zip(filters)).enumerate()
        {
            for (input, weight) in parts(source, name, limit) {
                let name = input.name.unwrap_or_else(|| "fusion".to_owned());
                let (scale, sign) = scale(&name, &input.source, moment.schema());
                let query = plain(input.source, filter.clone(), input.limit);
                let mut hits = Vec::new();
                for hit in self.search(moment, &query, "Documents.Enrich")?.hits {
                    let raw = hit.legs.first().map_or(hit.score, |leg| leg.raw);
                    let key = hit.point.id.clone();
                    hits.push(several::Found {
                        key: key.clone(),
                        value: sign * raw,
                        score: hit.score,
                        raw,
                    });
                    points.insert((collection, key), hit.point);
                }
                legs.push(Leg {
                    collection,
                    name,
                    scale,
                    weight,
                    limit: input.limit,
                    hits,
                });
            }
        }
        let joined = join(legs).into_iter().take(limit).filter_map(|hit| {
            let point = points.remove(&(hit.collection, hit.key))?;
            let legs = hit
                .legs
                .into_iter()
                .map(|(leg, raw, rank)| LegScore { leg, raw, rank })
                .collect();
            Some(Found {
                collection: hit.collection,
                hit: Hit {
                    point,
                    score: hit.score,
                    legs,
                },
            })
        });
        Ok(joined.collect())
    }
}

/// A query for ids and scores.
fn plain(source: Source, filter: Filter, limit: usize) -> Query {
    Query {
        source,
        filter,
        limit,
        offset: 0,
        // Packing applies the threshold, so that what it drops is accounted for.
        score_threshold: None,
        with: With::default(),
        params: Params::default(),
        after: None,
        // The moment has the request's.
        patience: Patience::default(),
    }
}

/// A hit of a single leg under that leg's name.
fn named(mut hit: Hit, name: Option<&str>) -> Hit {
    if let Some(name) = name {
        hit.legs.iter_mut().for_each(|leg| name.clone_into(&mut leg.leg));
    }
    hit
}

/// The legs of a source with their weights.
fn parts(source: Source, name: Option<&str>, limit: usize) -> Vec<(Input, f32)> {
    match source {
        Source::Fusion { inputs, method } => {
            let (Fuse::Rrf { weights, .. } | Fuse::Weighted { weights }) = method;
            let weights = weights.into_iter().chain(std::iter::repeat(1.0));
            inputs.into_iter().zip(weights).collect()
        }
        source => {
            let input = Input {
                name: name.map(str::to_owned),
                source,
                filter: Filter::default(),
                limit: limit.max(retrieval::DEFAULT_LEG_LIMIT),
            };
            vec![(input, 1.0)]
        }
    }
}

/// Under which name a leg's values can be compared with another collection's, and whether more is better.
fn scale(name: &str, source: &Source, schema: &Schema) -> (String, f32) {
    match source {
        Source::Nearest { using, .. } => {
            let named = using.as_ref().and_then(|using| schema.vectors.get(using));
            let Some(spec) = named.or(schema.vectors.values().next()) else {
                return (name.to_owned(), 1.0);
            };
            let sign = match spec.metric {
                Metric::Cosine | Metric::Dot => 1.0,
                Metric::Euclid | Metric::Manhattan | Metric::Hamming => -1.0,
            };
            (format!("{name} {:?} {:?}", spec.metric, spec.embedder), sign)
        }
        Source::Sparse { using, .. } => {
            let named = using.as_ref().and_then(|using| schema.sparse.get(using));
            let spec = named.or(schema.sparse.values().next());
            (format!("{name} {:?}", spec.map(|spec| &spec.embedder)), 1.0)
        }
        Source::Text { .. } | Source::Fusion { .. } => (name.to_owned(), 1.0),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::service::empty_schema;

    #[test]
    fn labels_narrow_a_filter_by_what_they_do_not_allow() {
        use Trust::{Quarantined, Trusted, Unverified};
        let any = |labels: &[&str]| Condition::Any {
            field: "trust".into(),
            values: labels.iter().map(|l| Scalar::Str((*l).into())).collect(),
        };
        let not = |labels: &[&str]| Filter {
            must_not: vec![any(labels)],
            ..Filter::default()
        };
        let cases = [
            (vec![], not(&["quarantined"])),
            (vec![Unverified], not(&["trusted", "quarantined"])),
            (vec![Trusted], Filter::must(any(&["trusted"]))),
            (
                vec![Trusted, Quarantined],
                Filter::must(any(&["trusted", "quarantined"])),
            ),
            (vec![Unverified, Trusted, Quarantined], Filter::default()),
        ];
        for (named, filter) in cases {
            let labels = Labels::new(&named);
            assert_eq!(
                labels.narrow(&Filter::default(), &empty_schema()).unwrap(),
                filter,
                "{named:?}"
            );
        }
        let closed = Schema {
            dynamic: false,
            ..empty_schema()
        };
        assert_eq!(Labels::new(&[]).narrow(&Filter::default(), &closed), None);
        let wanted = |schemas: &[&Schema]| Labels::new(&[]).wanted(schemas.iter().copied(), 50);
        assert_eq!(wanted(&[&empty_schema()]), 50);
        assert_eq!(wanted(&[&empty_schema(), &closed]), CANDIDATES_MAX);
    }

    #[test]
    fn what_has_no_label_is_unverified() {
        let allow =
            |named: &[Trust], payload: serde_json::Value| Labels::new(named).allow(payload.as_object().unwrap());
        assert!(allow(&[], json!({})) && allow(&[], json!({"trust": "trusted"})));
        assert!(!allow(&[], json!({"trust": "quarantined"})) && !allow(&[Trust::Trusted], json!({})));
        assert!(allow(&[Trust::Quarantined], json!({"trust": "quarantined"})));
    }
}
