//! `diptych search --explain`: why one item scores as it does.

use anyhow::{Context as _, Result};
use diptych::{Client, v1};
use serde_json::json;

use super::out::Out;
use super::search::hit_json;
use super::table::facts;

/// Explains an item under a search and prints it.
pub(crate) async fn run(
    client: &Client,
    search: v1::SearchRequest,
    id: String,
    out: Out,
) -> Result<()> {
    let request = v1::ExplainMatchRequest { search: Some(search), item_id: id };
    let reply = client.explain_match(request).await?;
    let hit = reply.hit.as_ref().context("the server's answer holds no item")?;
    let cut = reply.info.as_ref().is_some_and(|info| info.cut);
    if out.json {
        return out.value(&json!({
            "hit": hit_json(hit),
            "term_scores": hit.term_scores,
            "passes": reply.passes,
            "rank": reply.rank,
            "route": reply.route,
            "visited": reply.visited,
            "cut": cut,
        }));
    }
    Ok(out.line(&facts(out, &lines(&reply, hit, cut)).trim_fmt())?)
}

fn lines(
    reply: &v1::ExplainMatchResponse,
    hit: &v1::Hit,
    cut: bool,
) -> Vec<(&'static str, String)> {
    let terms: Vec<String> = hit.term_scores.iter().map(|score| format!("{score:.4}")).collect();
    let rank = match (reply.passes, reply.rank) {
        (false, _) => "none: it does not pass".to_owned(),
        (true, 0) => "none: a better one of its group stands for it".to_owned(),
        (true, rank) => rank.to_string(),
    };
    let mut lines = vec![("id", hit.id.clone()), ("score", format!("{:.4}", hit.score))];
    lines.extend(hit.probability.map(|share| ("probability", format!("{share:.3}"))));
    lines.extend([
        ("terms", terms.join(", ")),
        ("rank", rank),
        ("route", reply.route.clone()),
        ("rows looked at", reply.visited.to_string()),
        ("answer", if cut { "may miss better ones" } else { "proved right" }.to_owned()),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_without_a_rank_is_told_why() {
        let hit = v1::Hit { id: "a".to_owned(), probability: Some(0.25), ..Default::default() };
        let rank = |passes, rank| {
            let reply = v1::ExplainMatchResponse { passes, rank, ..Default::default() };
            let lines = lines(&reply, &hit, true);
            lines.into_iter().find(|(name, _)| *name == "rank").unwrap().1
        };
        assert_eq!(rank(true, 3), "3");
        assert!(rank(false, 0).contains("not pass"));
        assert!(rank(true, 0).contains("group"));
    }
}
