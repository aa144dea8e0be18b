//! How well vectors find things: every query has one document that answers it, and all documents compete.
//!
//! Reported are the share of queries whose document comes first, or among the first ten, and the mean reciprocal rank. A document
//! that scores the same as the right one counts as before it, so vectors that are all alike find nothing.

use futures_util::{StreamExt, TryStreamExt, stream};
use protocol::{Embed, EmbedRequest, TextOrTokens};
use serde::{Deserialize, Serialize};

use crate::{Error, Estimate, Progress, Report, Row, bootstrap, wilson};

/// Texts per request: enough to fill a batch, few enough to tell of progress.
const BATCH: usize = 16;

/// How often the right document was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SearchResult {
    /// The model.
    pub model: String,
    /// Documents that competed.
    pub documents: usize,
    /// Share of queries whose document came first.
    pub first: Estimate,
    /// Share of queries whose document was among the first ten.
    pub first_ten: Estimate,
    /// Mean of 1 / rank.
    pub reciprocal_rank: Estimate,
}

/// Searches the second of every pair with the first, among the seconds of all pairs.
///
/// # Errors
/// The service's own, or that it sent a wrong number of vectors.
pub async fn search(
    service: &dyn Embed,
    model: &str,
    pairs: &[(String, String)],
    progress: Progress<'_>,
) -> Result<SearchResult, Error> {
    if pairs.is_empty() {
        return Err(Error::Invalid("a search needs at least one query with its document".into()));
    }
    let total = 2 * pairs.len();
    let queries = vectors(service, model, pairs.iter().map(|p| p.0.as_str()), &|done| progress(done, total)).await?;
    let documents = vectors(service, model, pairs.iter().map(|p| p.1.as_str()), &|done| {
        progress(pairs.len() + done, total);
    })
    .await?;
    let ranks: Vec<usize> = queries.iter().enumerate().map(|(i, query)| rank(query, &documents, i)).collect();
    let within = |limit: usize| wilson(ranks.iter().filter(|&&rank| rank <= limit).count(), ranks.len());
    Ok(SearchResult {
        model: service
            .models()
            .into_iter()
            .map(|card| card.id)
            .find(|id| model.is_empty() || id == model)
            .unwrap_or_default(),
        documents: documents.len(),
        first: within(1),
        first_ten: within(10),
        reciprocal_rank: bootstrap(&ranks.iter().map(|&rank| (1.0 / rank as f64, 1.0)).collect::<Vec<_>>()),
    })
}

async fn vectors<'a>(
    service: &dyn Embed,
    model: &str,
    texts: impl Iterator<Item = &'a str>,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Vec<Vec<f32>>, Error> {
    let inputs: Vec<TextOrTokens> = texts.map(|text| TextOrTokens::Text(text.to_owned())).collect();
    let batches = stream::iter(inputs.chunks(BATCH).enumerate()).then(|(i, inputs)| async move {
        let request = EmbedRequest { model: model.to_owned(), inputs: inputs.to_vec(), dimensions: None };
        let found = service.embed(request).await?.vectors;
        if found.len() != inputs.len() {
            return Err(Error::unexpected(format!("{} vectors", inputs.len()), found.len().to_string()));
        }
        progress(i * BATCH + inputs.len());
        Ok(found)
    });
    Ok(batches.try_collect::<Vec<_>>().await?.concat())
}

/// The place of document `right` among all, by inner product with the query.
fn rank(query: &[f32], documents: &[Vec<f32>], right: usize) -> usize {
    let score = |document: &[f32]| query.iter().zip(document).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let own = score(&documents[right]);
    1 + documents.iter().enumerate().filter(|(i, document)| *i != right && score(document) >= own).count()
}

impl SearchResult {
    /// As a table.
    #[must_use]
    pub fn report(&self) -> Report {
        let percent = |e: Estimate| e.map(|v| v * 100.0);
        let rows = vec![
            Row::of("found first", percent(self.first), "%"),
            Row::of("among the first ten", percent(self.first_ten), "%"),
            Row::of("mean reciprocal rank", self.reciprocal_rank, ""),
        ];
        Report::new(format!("Questions find their passages with {}", self.model), rows)
            .note(format!("one right document among {} for every query; n counts queries", self.documents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_by_hand() {
        let documents = vec![vec![1.0, 0.0], vec![0.6, 0.8], vec![0.0, 1.0]];
        let check = |query: [f32; 2], right, want| assert_eq!(rank(&query, &documents, right), want);
        check([1.0, 0.0], 0, 1);
        check([1.0, 0.0], 1, 2);
        check([1.0, 0.0], 2, 3);
        // Vectors that are all alike find nothing.
        assert_eq!(rank(&[1.0], &[vec![1.0], vec![1.0]], 0), 2);
    }
}
