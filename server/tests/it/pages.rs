//! Pages of searches and listings: complete, without repeats, and a token good for its own query only.

use diptych_proto::v1;

use super::support::*;

async fn filled() -> Server {
    let server = Server::with_things().await;
    for n in 0..23 {
        let mut item = text_item(&format!("t{n:02}"), &format!("thing number {n}"));
        item.group = format!("g{}", n % 4);
        server.put("things", item).await;
    }
    server
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
    assert_eq!(reply.info.unwrap().page_consistency, i32::from(v1::PageConsistency::BestEffort));
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
