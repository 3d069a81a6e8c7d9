//! `diptych recall`.

use anyhow::Result;
use diptych::v1::measure_recall_response::Index;
use diptych::{Client, v1};
use serde_json::{Value as Json, json};

use super::args::{RecallArgs, Shared};
use super::out::Out;
use super::table::{number, table};
use super::value::{modality_name, space_name};

/// Compares the indexes of a collection with exact search, and prints how much they find.
pub(crate) async fn run(
    client: &Client,
    shared: &Shared,
    args: RecallArgs,
    out: Out,
) -> Result<()> {
    let reply = client.measure_recall(request(shared, args)).await?;
    if out.json {
        let indexes: Vec<Json> = reply.indexes.iter().map(index_json).collect();
        return out.value(&json!({ "limit": shared.limit, "indexes": indexes }));
    }
    if reply.indexes.is_empty() {
        return Ok(out.line("no items")?);
    }
    let mut table = table(out, &["items", "space", "rows", "queries", "recall"]);
    for index in &reply.indexes {
        table.add_row([
            modality_name(index.modality).into(),
            space_name(index.space()).into(),
            number(&index.rows),
            number(&index.queries),
            number(&format!("{:.4}", index.recall)),
        ]);
    }
    Ok(out.line(&table.trim_fmt())?)
}

fn request(shared: &Shared, args: RecallArgs) -> v1::MeasureRecallRequest {
    v1::MeasureRecallRequest {
        collection: args.name.unwrap_or_else(|| shared.collection.clone()),
        queries: args.queries,
        limit: shared.limit,
        ef_search: args.ef_search,
        seed: args.seed,
    }
}

fn index_json(index: &Index) -> Json {
    json!({
        "modality": modality_name(index.modality),
        "space": space_name(index.space()),
        "rows": index.rows,
        "queries": index.queries,
        "recall": index.recall,
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    #[test]
    fn the_collection_is_named_either_way() {
        for line in
            ["diptych recall photos --limit 5", "diptych recall --collection photos --limit 5"]
        {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            let Command::Recall(args) = arguments.command else { panic!("no recall") };
            let request = request(&arguments.shared, args);
            assert_eq!((request.collection.as_str(), request.limit), ("photos", 5));
            assert_eq!((request.queries, request.seed), (0, 0));
        }
    }
}
