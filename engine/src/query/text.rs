//! BM25: one leg over all segments, with statistics over the live rows of the whole collection.

use std::collections::BTreeMap;

use super::exec::{self, Context, Found, Raw};
use super::view::Place;
use super::{ExplainLeg, TextField, score};
use crate::error::{Error, Result};
use crate::filter::Filter;
use crate::inverted::top::Walk;
use crate::limits;
use crate::text::analyzer::Analyzer;
use crate::text::bm25::{self, FieldStats};

pub(super) fn search(
    context: &Context<'_>,
    leg: &str,
    query: &str,
    fields: &[TextField],
    filters: &[&Filter],
    k: usize,
    explain: &mut Vec<ExplainLeg>,
) -> Result<Vec<Found>> {
    let fields = resolve(context, fields)?;
    // Statistics first: how many live rows have the field, how long they are, how many hold each term.
    let mut plans = Vec::new();
    // Analyzers are shared by fields of a language, and a long text is cut once for each.
    let mut cut: Vec<(&Analyzer, BTreeMap<String, u32>)> = Vec::new();
    for field in &fields {
        context.check_patience()?;
        let analyzer: &Analyzer = context.analyzers[field.path.as_str()];
        if !cut.iter().any(|(other, _)| std::ptr::eq(*other, analyzer)) {
            cut.push((analyzer, bm25::query_terms(analyzer, query)));
        }
        let terms = cut.iter().find(|(other, _)| std::ptr::eq(*other, analyzer));
        let terms = terms.map(|(_, terms)| terms.iter()).into_iter().flatten();
        let mut stats = FieldStats::default();
        for (_, view) in context.view.segments() {
            if let Some(text) = view.segment.text(&field.path) {
                let dead = view.dead.text(&view.segment, &field.path);
                stats.add(FieldStats {
                    docs: u64::from(text.docs()).saturating_sub(dead.docs),
                    total_len: text.total_len().saturating_sub(dead.total_len),
                });
            }
        }
        let mut weighted = Vec::new();
        for (term, times) in terms {
            let mut df = 0;
            for (_, view) in context.view.segments() {
                context.check_patience()?;
                if let Some(text) = view.segment.text(&field.path) {
                    let dead = view.dead.rows();
                    let is_dead = |o| dead.contains(o);
                    df += bm25::live_df(
                        &text,
                        term,
                        (!dead.is_empty()).then_some(&is_dead as &dyn Fn(u32) -> bool),
                    )?;
                }
            }
            if df > 0 {
                weighted.push((df, term, *times));
            }
        }
        // A very long prompt is scored by its rarest terms.
        weighted.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        weighted.truncate(limits::QUERY_TERMS_MAX);
        let terms: Vec<(String, f32)> = weighted
            .into_iter()
            .map(|(df, term, times)| (term.clone(), bm25::idf(stats.docs, df) * times as f32 * field.weight))
            .collect();
        plans.push((field.path.as_str(), stats.avg_len(), terms));
    }
    let stop = || context.patience.is_over();
    let mut found: Vec<Found> = Vec::new();
    for (place, view) in context.view.segments() {
        context.check_patience()?;
        let segment = &view.segment;
        let mut terms = Vec::new();
        for (path, avg_len, weighted) in &plans {
            if let Some(text) = segment.text(path) {
                for (term, weight) in weighted {
                    terms.extend(bm25::Scored::new(text, term, *weight, *avg_len)?);
                }
            }
        }
        if terms.is_empty() {
            continue;
        }
        let matches = context.matches(view, filters)?;
        let mut holder = None;
        let allowed = exec::allowed(&matches, view, &mut holder);
        let ask = bm25::Ask {
            k,
            floor: exec::floor(&mut found, k),
            allow: &|n| allowed.map_or(u64::MAX, |set| set.word(n as usize)),
            // Ties by id here too, or the cut would depend on where rows happen to stand.
            id_of: &|ordinal| segment.id_of(ordinal),
            stop: &stop,
        };
        let top = bm25::search(segment.rows(), &terms, Walk::Pruned, &ask)?;
        explain.push(ExplainLeg {
            leg: leg.to_owned(),
            shard: place.shard,
            segment: view.no,
            strategy: "postings",
            matches: matches.count(),
            evaluated: top.evaluated,
        });
        found.extend(top.hits.into_iter().map(|(raw, ordinal)| Found {
            place: Place { ordinal, ..place },
            key: raw,
            score: score::of_bm25(raw),
            raws: vec![Raw {
                leg: leg.to_owned(),
                raw,
                rank: 0,
            }],
        }));
    }
    Ok(found)
}

fn resolve(context: &Context<'_>, fields: &[TextField]) -> Result<Vec<TextField>> {
    let known = || context.analyzers.keys().cloned().collect::<Vec<_>>().join(", ");
    if context.analyzers.is_empty() {
        return Err(Error::invalid(
            "no_text_field",
            "the collection has no text field; declare one in its schema",
        )
        .at("/text"));
    }
    if fields.is_empty() {
        return Ok(context
            .analyzers
            .keys()
            .map(|path| TextField {
                path: path.clone(),
                weight: 1.0,
            })
            .collect());
    }
    for (i, field) in fields.iter().enumerate() {
        if !context.analyzers.contains_key(&field.path) {
            return Err(Error::invalid(
                "text_field_not_found",
                format!(
                    "{:?} is not a text field of the collection; those are: {}",
                    field.path,
                    known()
                ),
            )
            .at(format!("/text/fields/{i}")));
        }
    }
    Ok(fields.to_vec())
}
