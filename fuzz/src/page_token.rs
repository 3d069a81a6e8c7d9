//! Page tokens: as they come, and with a signature that fits whatever they hold.

use diptych_server::page::{Mark, PageKey};

const QUERY: [u8; 32] = [7; 32];

fn key() -> PageKey {
    PageKey::new(*b"0123456789abcdef")
}

/// Of a server that is not this one.
fn other_key() -> PageKey {
    PageKey::new(*b"fedcba9876543210")
}

/// What is read again gives the same mark; a token that the key did not sign is refused.
pub fn page_token(data: &[u8]) {
    let (signed, body) = crate::choice(data);
    let token = if signed % 2 == 1 {
        key().seal(&QUERY, body)
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    let Ok(Some(mark)) = key().read(&QUERY, &token) else { return };
    assert!(signed % 2 == 1, "taken without the key's signature");
    let again = key().issue(&QUERY, &mark);
    let read = key().read(&QUERY, &again).expect("a token that was issued").expect("a mark");
    // Scores that are no numbers are equal to none: their bits are.
    assert_eq!((read.score.to_bits(), &read.id), (mark.score.to_bits(), &mark.id));
    assert_eq!((read.generation, read.epoch, read.seen), (mark.generation, mark.epoch, mark.seen));
    assert!(key().read(&[8; 32], &again).is_err(), "taken for another query");
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mark = Mark { generation: 7, epoch: 3, seen: 20, score: -0.25, id: "bild/ä".to_owned() };
    let token = other_key().issue(&QUERY, &mark);
    // Version, an expiry far away, generation, epoch, seen, score, id.
    let body = [[2, 0xF0].as_slice(), &[0; 31], b"id"].concat();
    vec![
        [&[0], token.as_bytes()].concat(),
        [&[1], body.as_slice()].concat(),
        [&[1], &body[..33]].concat(),
        vec![0],
    ]
}
