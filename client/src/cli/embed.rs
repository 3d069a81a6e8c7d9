//! `diptych embed`.

use anyhow::{Context as _, Result};
use diptych::{Client, v1};
use serde::Serialize;

use super::args::EmbedArgs;
use super::out::Out;
use super::search::read_picture;
use super::table::facts;

/// Components shown to people.
const SHOWN: usize = 6;

/// The vectors as JSON; numbers as short as they can be read back.
#[derive(Serialize)]
struct Answer {
    embedding_digest: String,
    shared: Vec<f32>,
    exclusive: Vec<f32>,
}

/// Embeds one input and prints its vectors.
pub(crate) async fn run(client: &Client, args: EmbedArgs, out: Out) -> Result<()> {
    let (embedding, embedding_digest) = match args.image {
        Some(path) => {
            let request =
                v1::EmbedImageRequest { image: read_picture(&path)?, ..Default::default() };
            let reply = client.embed_image(request).await?;
            (reply.embedding, reply.embedding_digest)
        }
        None => {
            let text = args.text.unwrap_or_default();
            let reply = client.embed_text(v1::EmbedTextRequest { text, ..Default::default() });
            let reply = reply.await?;
            (reply.embedding, reply.embedding_digest)
        }
    };
    let embedding = embedding.context("the server's answer holds no vectors")?;
    let components = |vector: Option<&v1::Vector>| vector.map(diptych::components);
    let answer = Answer {
        embedding_digest,
        shared: components(embedding.shared.as_ref()).unwrap_or_default(),
        exclusive: components(embedding.exclusive.as_ref()).unwrap_or_default(),
    };
    if out.json {
        return out.value(&answer);
    }
    let lines = [
        ("bundle", answer.embedding_digest),
        ("shared", summary(&answer.shared)),
        ("exclusive", summary(&answer.exclusive)),
    ];
    Ok(out.line(&facts(out, &lines).trim_fmt())?)
}

/// How many components, and the first of them.
fn summary(vector: &[f32]) -> String {
    if vector.is_empty() {
        return "none".to_owned();
    }
    let first: Vec<String> = vector.iter().take(SHOWN).map(|value| format!("{value:.4}")).collect();
    let more = if vector.len() > SHOWN { ", …" } else { "" };
    format!("{} components: {}{more}", vector.len(), first.join(", "))
}
