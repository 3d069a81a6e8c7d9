//! Probabilities of hits: where there are some, and that they rise with the score.

use diptych_model::testing::{calibrated_bundle, disc};
use diptych_proto::v1;
use diptych_proto::v1::term::Source;

use super::support::*;

async fn filled(calibrated: bool) -> Server {
    let plain = Setup::default();
    let bundle = if calibrated { calibrated_bundle(7).unwrap() } else { plain.bundle };
    let server = Server::with(Setup { bundle, ..Setup::default() }).await;
    server.make(create("things")).await;
    for n in 1..=8 {
        server.put("things", image_item(&format!("p{n}"), disc(5 * n, 20).unwrap())).await;
        server.put("things", text_item(&format!("t{n}"), &format!("thing {n}"))).await;
    }
    server
}

fn picture() -> Source {
    Source::Image(disc(16, 20).unwrap().into())
}

#[tokio::test]
async fn a_question_from_the_other_modality_has_probabilities_that_rise_with_the_score() {
    let server = filled(true).await;
    for (source, target) in
        [(by_text("a red heart"), v1::Modality::Image), (picture(), v1::Modality::Text)]
    {
        for weight in [0.0, 0.25, 3.0] {
            let mut request = ask("things", target, source.clone());
            request.terms[0].weight = weight;
            let reply = server.search().search(request).await.unwrap().into_inner();
            assert_eq!(reply.hits.len(), 8);
            let weight = if weight == 0.0 { 1.0 } else { f64::from(weight) };
            let mut last = 1.0;
            for hit in &reply.hits {
                // The straight line from 0.1 at -1 to 0.9 at 1.
                let probability = hit.probability.unwrap();
                assert!((probability - (0.5 + 0.4 * hit.score / weight)).abs() < 1e-6);
                assert!(probability <= last);
                last = probability;
            }
        }
    }
    let plain = v1::SearchTextToImageRequest {
        collection: "things".to_owned(),
        text: "a red heart".to_owned(),
        ..Default::default()
    };
    let reply = server.search().search_text_to_image(plain).await.unwrap().into_inner();
    assert!(reply.hits.iter().all(|hit| hit.probability.is_some()));
}

#[tokio::test]
async fn questions_that_the_calibration_does_not_hold_for_have_none() {
    let server = filled(true).await;
    let term = |source, weight, space: v1::Space| v1::Term {
        source: Some(source),
        weight,
        space: space.into(),
    };
    let (shared, exclusive) = (v1::Space::Shared, v1::Space::Exclusive);
    let text = || by_text("a red heart");
    let vector = Source::Vector(floats(&[0.5; SHARED]));
    let (image, words) = (v1::Modality::Image, v1::Modality::Text);
    for (what, target, terms) in [
        ("several terms", image, vec![term(text(), 1.0, shared), term(text(), 1.0, shared)]),
        ("an item", image, vec![term(Source::ItemId("t1".to_owned()), 1.0, shared)]),
        ("a vector", image, vec![term(vector, 1.0, shared)]),
        ("the same modality", words, vec![term(text(), 1.0, shared)]),
        ("the exclusive space", words, vec![term(text(), 1.0, exclusive)]),
    ] {
        let request = v1::SearchRequest {
            collection: "things".to_owned(),
            terms,
            target: target.into(),
            ..Default::default()
        };
        let reply = server.search().search(request).await.unwrap().into_inner();
        assert_eq!(reply.hits.len(), 8);
        assert!(reply.hits.iter().all(|hit| hit.probability.is_none()), "{what}");
    }
}

#[tokio::test]
async fn a_bundle_without_calibration_has_none() {
    let server = filled(false).await;
    let request = ask("things", v1::Modality::Image, by_text("a red heart"));
    let reply = server.search().search(request).await.unwrap().into_inner();
    assert!(reply.hits.iter().all(|hit| hit.probability.is_none()));
    let models = server.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let model = &models.into_inner().models[0];
    assert_eq!((model.calibrated, model.calibration_prior), (false, 0.0));
}

#[tokio::test]
async fn the_prior_and_an_explained_item_tell_it_too() {
    let server = filled(true).await;
    let models = server.info().list_models(v1::ListModelsRequest::default()).await.unwrap();
    let model = &models.into_inner().models[0];
    assert_eq!((model.calibrated, model.calibration_prior), (true, 0.5));
    let search = ask("things", v1::Modality::Image, by_text("a red heart"));
    let reply = server.search().search(search.clone()).await.unwrap().into_inner();
    for (id, expected) in [(reply.hits[2].id.as_str(), reply.hits[2].probability), ("t1", None)] {
        let request =
            v1::ExplainMatchRequest { search: Some(search.clone()), item_id: id.to_owned() };
        let told = server.search().explain_match(request).await.unwrap().into_inner();
        assert_eq!(told.hit.unwrap().probability, expected);
    }
}
