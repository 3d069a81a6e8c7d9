//! Pages of searches and listings: complete, without repeats, and a token good for its own query only.

use std::time::Duration;

use diptych_index::EmbeddedConfig;
use diptych_proto::v1;
use proptest::prelude::*;

use super::support::*;

async fn filled() -> Server {
    let server = Server::start().await;
    fill(&server).await;
    server
}

async fn fill(server: &Server) {
    server.make(create("things")).await;
    for n in 0..23 {
        let mut item = text_item(&format!("t{n:02}"), &format!("thing number {n}"));
        item.group = format!("g{}", n % 4);
        server.put("things", item).await;
    }
}

/// Ids of all pages of a search.
async fn walk(server: &Server, mut search: v1::SearchRequest) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let reply = server.search().search(search.clone()).await.unwrap().into_inner();
        assert!(reply.hits.len() <= search.limit as usize);
        found.extend(reply.hits.into_iter().map(|hit| hit.id));
        if reply.next_page_token.is_empty() {
            return found;
        }
        search.page_token = reply.next_page_token;
    }
}

#[tokio::test]
async fn the_pages_of_a_search_are_the_whole_search_in_order() {
    let server = filled().await;
    let search = ask("things", v1::Modality::Text, by_text("thing number 7"));
    let whole = walk(&server, v1::SearchRequest { limit: 1000, ..search.clone() }).await;
    assert_eq!(whole.len(), 23);
    assert_eq!(whole[0], "t07");
    for limit in [1, 5, 22, 23] {
        assert_eq!(walk(&server, v1::SearchRequest { limit, ..search.clone() }).await, whole);
    }
    let groups = v1::SearchRequest { one_per_group: true, limit: 3, ..search };
    let best = walk(&server, groups).await;
    let group = |id: &String| id[1..].parse::<usize>().unwrap() % 4;
    let mut firsts: Vec<String> = Vec::new();
    for id in whole {
        if firsts.iter().all(|first| group(first) != group(&id)) {
            firsts.push(id);
        }
    }
    assert_eq!(best, firsts);
}

#[tokio::test]
async fn a_token_works_for_its_own_query_only_whatever_the_limit() {
    let server = filled().await;
    let search = v1::SearchRequest {
        limit: 5,
        ..ask("things", v1::Modality::Text, by_text("thing number 7"))
    };
    let reply = server.search().search(search.clone()).await.unwrap().into_inner();
    let token = reply.next_page_token;
    let told = invalid("PAGE_TOKEN_INVALID", "page_token", None);
    let mut others = vec![
        ask("things", v1::Modality::Text, by_text("thing number 8")),
        ask("things", v1::Modality::Image, by_text("thing number 7")),
        v1::SearchRequest { one_per_group: true, ..search.clone() },
        v1::SearchRequest { min_score: Some(0.5), ..search.clone() },
    ];
    for other in &mut others {
        other.page_token.clone_from(&token);
        assert_eq!(refused(server.search().search(other.clone())).await, told);
    }
    let list = v1::ListItemsRequest {
        collection: "things".to_owned(),
        page_token: token.clone(),
        ..Default::default()
    };
    assert_eq!(refused(server.items().list_items(list)).await, told);
    let wider = v1::SearchRequest { page_token: token, limit: 9, ..search };
    let reply = server.search().search(wider).await.unwrap().into_inner();
    assert_eq!(reply.hits.len(), 9);
    assert_eq!(reply.info.unwrap().page_consistency, i32::from(v1::PageConsistency::Pinned));
}

#[tokio::test]
async fn a_text_query_and_a_picture_query_of_the_same_bytes_do_not_share_tokens() {
    let server = Server::with_things().await;
    for n in 0..3 {
        server.put("things", image_item(&format!("p{n}"), black_png(1 + n, 1))).await;
    }
    let text = v1::SearchTextToImageRequest {
        collection: "things".to_owned(),
        text: "a".to_owned(),
        limit: 1,
        ..Default::default()
    };
    let reply = server.search().search_text_to_image(text).await.unwrap().into_inner();
    let image = v1::SearchImageToTextRequest {
        collection: "things".to_owned(),
        image: "a".into(),
        limit: 1,
        page_token: reply.next_page_token,
        ..Default::default()
    };
    let told = invalid("PAGE_TOKEN_INVALID", "page_token", None);
    assert_eq!(refused(server.search().search_image_to_text(image)).await, told);
}

#[tokio::test]
async fn deleted_items_never_come_back_on_a_later_page() {
    let server = filled().await;
    let search = v1::SearchRequest {
        limit: 5,
        ..ask("things", v1::Modality::Text, by_text("thing number 7"))
    };
    let first = server.search().search(search.clone()).await.unwrap().into_inner();
    let rest = v1::SearchRequest { page_token: first.next_page_token, limit: 1000, ..search };
    let before = server.search().search(rest.clone()).await.unwrap().into_inner();
    let gone = vec![first.hits[4].id.clone(), before.hits[3].id.clone()];
    let selection = v1::delete_items_request::Selection::Ids(v1::ItemIds { ids: gone.clone() });
    let delete = v1::DeleteItemsRequest {
        collection: "things".to_owned(),
        selection: Some(selection),
        ..Default::default()
    };
    server.items().delete_items(delete).await.unwrap();
    let after = server.search().search(rest).await.unwrap().into_inner();
    let expected: Vec<&str> =
        ids(&before.hits).into_iter().filter(|id| !gone.iter().any(|gone| gone == id)).collect();
    assert_eq!(ids(&after.hits), expected);
}

/// The first page of a search, and the request for the second.
async fn first_page(server: &Server) -> (v1::SearchResponse, v1::SearchRequest) {
    let search = v1::SearchRequest {
        limit: 5,
        ..ask("things", v1::Modality::Text, by_text("thing number 7"))
    };
    let reply = server.search().search(search.clone()).await.unwrap().into_inner();
    let page_token = reply.next_page_token.clone();
    (reply, v1::SearchRequest { page_token, ..search })
}

async fn delete(server: &Server, ids: Vec<String>) {
    let selection = v1::delete_items_request::Selection::Ids(v1::ItemIds { ids });
    let delete = v1::DeleteItemsRequest {
        collection: "things".to_owned(),
        selection: Some(selection),
        ..Default::default()
    };
    server.items().delete_items(delete).await.unwrap();
}

#[tokio::test]
async fn later_pages_show_the_generation_of_the_first() {
    let server = filled().await;
    let (first, rest) = first_page(&server).await;
    let rest = v1::SearchRequest { limit: 1000, ..rest };
    let before = server.search().search(rest.clone()).await.unwrap().into_inner();
    // One that would come first, one put anew as something else, one put anew as it was.
    server.put("things", text_item("new", "thing number 7")).await;
    let far = before.hits.last().unwrap().id.clone();
    server.put("things", text_item(&far, "thing number 7")).await;
    let after = server.search().search(rest).await.unwrap().into_inner();
    assert_eq!(ids(&after.hits), ids(&before.hits));
    let (first, after) = (first.info.unwrap(), after.info.unwrap());
    assert_eq!(after.generation, first.generation);
    for info in [first, after] {
        assert_eq!(info.page_consistency(), v1::PageConsistency::Pinned);
    }
}

#[tokio::test]
async fn after_a_restart_a_token_of_before_has_expired() {
    let server = filled().await;
    let (_, rest) = first_page(&server).await;
    let server = server.restart().await;
    let told = invalid("PAGE_TOKEN_EXPIRED", "page_token", None);
    assert_eq!(refused(server.search().search(rest)).await, told);
    // Lists go on: they need nothing held.
    let (_, rest) = first_page(&server).await;
    assert_eq!(server.search().search(rest).await.unwrap().into_inner().hits.len(), 5);
}

#[tokio::test]
async fn a_token_of_a_collection_that_was_made_anew_has_expired() {
    let server = filled().await;
    let (_, rest) = first_page(&server).await;
    let gone = v1::DeleteCollectionRequest { name: "things".to_owned(), ..Default::default() };
    server.collections().delete_collection(gone).await.unwrap();
    server.make(create("things")).await;
    let told = invalid("PAGE_TOKEN_EXPIRED", "page_token", None);
    assert_eq!(refused(server.search().search(rest)).await, told);
}

#[tokio::test]
async fn a_generation_that_is_not_held_any_longer_has_expired() {
    let engine = |config| EmbeddedConfig { pin_time: Duration::from_nanos(1), ..config };
    let server = Server::with(Setup { engine, ..Setup::default() }).await;
    fill(&server).await;
    let (_, rest) = first_page(&server).await;
    server.put("things", text_item("new", "thing number 7")).await;
    let told = invalid("PAGE_TOKEN_EXPIRED", "page_token", None);
    assert_eq!(refused(server.search().search(rest)).await, told);
}

#[tokio::test]
async fn an_engine_that_holds_no_generations_says_best_effort() {
    let engine = |config| EmbeddedConfig { pin_time: Duration::ZERO, ..config };
    let server = Server::with(Setup { engine, ..Setup::default() }).await;
    fill(&server).await;
    let (first, rest) = first_page(&server).await;
    server.put("things", text_item("new", "thing number 7")).await;
    let second = server.search().search(rest).await.unwrap().into_inner();
    assert_eq!(second.hits.len(), 5);
    for info in [first.info.unwrap(), second.info.unwrap()] {
        assert_eq!(info.page_consistency(), v1::PageConsistency::BestEffort);
    }
    let info = server.info().get_server_info(v1::GetServerInfoRequest::default()).await;
    let engines = info.unwrap().into_inner().engines;
    assert!(engines[0].capabilities.contains(&"page_best_effort".to_owned()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// While others put and delete, the pages of a search are the one exact search of the first page's generation, in order,
    /// without what was deleted before a page was asked for.
    #[test]
    fn pages_are_one_search_of_their_generation_without_what_was_deleted(
        limit in 2_u32..7,
        one_per_group: bool,
        gone in prop::collection::vec(0_usize..40, 0..8),
        seed in 0_u32..1000,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::with_things().await;
            for n in 0..40 {
                let mut item = text_item(&format!("t{n:02}"), &format!("thing number {n}"));
                item.group = format!("g{}", n % 17);
                server.put("things", item).await;
            }
            let text = format!("thing number {seed}");
            let mut search = v1::SearchRequest {
                limit: 1000,
                one_per_group,
                exact: true,
                ..ask("things", v1::Modality::Text, by_text(&text))
            };
            let whole = server.search().search(search.clone()).await.unwrap().into_inner();
            search.limit = limit;
            let first = server.search().search(search.clone()).await.unwrap().into_inner();
            let writes = busy(&server, seed);
            let mut gone = gone.into_iter().map(|n| format!("t{n:02}"));
            let mut deleted: Vec<String> = Vec::new();
            let mut found: Vec<String> = first.hits.into_iter().map(|hit| hit.id).collect();
            let mut expected: Vec<String> = found.clone();
            search.page_token = first.next_page_token;
            let mut rest = whole.hits.into_iter().map(|hit| hit.id).skip(found.len());
            while !search.page_token.is_empty() {
                if let Some(id) = gone.next() {
                    delete(&server, vec![id.clone()]).await;
                    deleted.push(id);
                }
                let page = server.search().search(search.clone()).await.unwrap().into_inner();
                expected.extend(
                    rest.by_ref().take(limit as usize).filter(|id| !deleted.contains(id)),
                );
                found.extend(page.hits.into_iter().map(|hit| hit.id));
                search.page_token = page.next_page_token;
            }
            writes.abort();
            assert_eq!(found, expected);
            assert_eq!(rest.next(), None);
        });
    }
}

/// Puts new items, until it is stopped.
fn busy(server: &Server, seed: u32) -> tokio::task::JoinHandle<()> {
    let mut items = server.items();
    tokio::spawn(async move {
        for n in 0.. {
            let text = format!("thing number {}", seed.wrapping_add(n % 50));
            let item = text_item(&format!("new{n}"), &text);
            items.upsert_item(upsert("things", item)).await.unwrap();
        }
    })
}

#[tokio::test]
async fn the_pages_of_a_listing_hold_every_item_in_the_order_of_ids() {
    let server = filled().await;
    let mut list = v1::ListItemsRequest {
        collection: "things".to_owned(),
        page_size: 4,
        group: "g1".to_owned(),
        ..Default::default()
    };
    let mut found = Vec::new();
    loop {
        let page = server.items().list_items(list.clone()).await.unwrap().into_inner();
        found.extend(page.items.into_iter().map(|item| item.id));
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!(found, ["t01", "t05", "t09", "t13", "t17", "t21"]);
}

#[tokio::test]
async fn a_page_ends_early_where_a_message_is_full() {
    let server = Server::small().await;
    server.make(create("things")).await;
    let texts = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n"];
    for id in texts {
        // Near 8 KiB each: a message of 64 KiB holds seven.
        server.put("things", text_item(id, &format!("{id} {}", "word ".repeat(1600)))).await;
    }
    let mut list = v1::ListItemsRequest {
        collection: "things".to_owned(),
        read_mask: mask(&["source"]),
        ..Default::default()
    };
    let mut pages = Vec::new();
    loop {
        let page = server.items().list_items(list.clone()).await.unwrap().into_inner();
        pages.push(page.items.len());
        assert!(page.items.iter().all(|item| item.source.is_some()));
        if page.next_page_token.is_empty() {
            break;
        }
        list.page_token = page.next_page_token;
    }
    assert_eq!(pages, [7, 7]);
    let search = v1::SearchRequest {
        read_mask: mask(&["source"]),
        limit: 100,
        ..ask("things", v1::Modality::Text, by_text("word"))
    };
    let mut found = walk(&server, search).await;
    found.sort();
    assert_eq!(found, texts);
}
