//! Page tokens: where the next page begins, signed, so that a token works only with the query it came from.
//!
//! A token is URL-safe base64 of the fields below and an HMAC-SHA256 over them and the query's digest. It holds no secret and
//! grants nothing: every page is checked as the first one was.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use diptych_index::PinId;
use diptych_proto::v1::ErrorReason;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::error::{Error, Result};

/// How long a token is taken.
pub const LIFETIME: Duration = Duration::from_secs(300);

const VERSION: u8 = 2;
const TAG_BYTES: usize = 16;
/// Version, expiry, generation, epoch, hits seen, score.
const HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 4 + 4;

/// Signs tokens. Servers that share a key take each other's.
#[derive(Clone)]
pub struct PageKey(Vec<u8>);

impl std::fmt::Debug for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageKey(..)")
    }
}

/// Where a page ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Generation of the collection that the page showed.
    pub generation: u64,
    /// [`PinId::epoch`] of the generation when it is held for the next page; 0 when the next page shows what is there then.
    pub epoch: u64,
    /// Hits on all pages so far.
    pub seen: u32,
    /// Score of the last hit; 0 in a listing.
    pub score: f32,
    /// Id of the last hit or item.
    pub id: String,
}

impl Mark {
    /// The end of a page of a listing, which goes on behind a number, a name, or both.
    pub fn listed(number: u64, id: String) -> Self {
        Self { generation: number, epoch: 0, seen: 0, score: 0.0, id }
    }

    /// The generation that the next page shows; `None` for the present one.
    pub fn pin(&self) -> Option<PinId> {
        let Self { generation, epoch, .. } = *self;
        (epoch != 0).then_some(PinId { generation, epoch })
    }
}

impl PageKey {
    /// A key of at least 16 bytes.
    pub fn new(secret: impl Into<Vec<u8>>) -> Self {
        Self(secret.into())
    }

    /// The token for the page after `mark` of the query with this digest.
    pub fn issue(&self, query: &[u8; 32], mark: &Mark) -> String {
        self.issue_at(query, mark, now() + LIFETIME.as_secs())
    }

    fn issue_at(&self, query: &[u8; 32], mark: &Mark, expires: u64) -> String {
        let mut token = vec![VERSION];
        token.extend_from_slice(&expires.to_be_bytes());
        token.extend_from_slice(&mark.generation.to_be_bytes());
        token.extend_from_slice(&mark.epoch.to_be_bytes());
        token.extend_from_slice(&mark.seen.to_be_bytes());
        token.extend_from_slice(&mark.score.to_bits().to_be_bytes());
        token.extend_from_slice(mark.id.as_bytes());
        self.seal(query, token)
    }

    /// A token of these bytes, signed, whether or not they say where a page ended.
    pub fn seal(&self, query: &[u8; 32], body: impl Into<Vec<u8>>) -> String {
        let mut token = body.into();
        let tag = self.tag(query, &token);
        token.extend_from_slice(&tag);
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// Where the page before ended; `None` for an empty token, the first page.
    ///
    /// # Errors
    /// INVALID_ARGUMENT on `page_token`: `PAGE_TOKEN_INVALID` when it is damaged or of another query, `PAGE_TOKEN_EXPIRED`.
    pub fn read(&self, query: &[u8; 32], token: &str) -> Result<Option<Mark>> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let (body, tag) =
            bytes.split_at_checked(bytes.len().saturating_sub(TAG_BYTES)).ok_or_else(invalid)?;
        let mut mac = self.mac();
        mac.update(query);
        mac.update(body);
        mac.verify_truncated_left(tag).map_err(|_| invalid())?;
        if tag.len() != TAG_BYTES || body.len() < HEAD_BYTES || body[0] != VERSION {
            return Err(invalid());
        }
        if number(&body[1..9]) < now() {
            return Err(expired("the token is too old"));
        }
        let id = String::from_utf8(body[HEAD_BYTES..].to_vec()).map_err(|_| invalid())?;
        Ok(Some(Mark {
            generation: number(&body[9..17]),
            epoch: number(&body[17..25]),
            seen: u32::try_from(number(&body[25..29])).map_err(|_| invalid())?,
            score: f32::from_bits(u32::try_from(number(&body[29..33])).map_err(|_| invalid())?),
            id,
        }))
    }

    fn tag(&self, query: &[u8; 32], body: &[u8]) -> Vec<u8> {
        let mut mac = self.mac();
        mac.update(query);
        mac.update(body);
        mac.finalize().into_bytes()[..TAG_BYTES].to_vec()
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104)")]
    fn mac(&self) -> Hmac<Sha256> {
        Hmac::new_from_slice(&self.0).expect("HMAC takes keys of any length")
    }
}

/// Big-endian bytes, at most 8, as a number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a page token can no longer give.
pub(crate) fn expired(why: &str) -> Error {
    let text = format!("{why}: start again without one");
    Error::field_for(ErrorReason::PageTokenExpired, "page_token", text)
}

fn invalid() -> Error {
    let text = "is damaged or belongs to another query: repeat the query that gave it, or start without one";
    Error::field_for(ErrorReason::PageTokenInvalid, "page_token", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { generation: 7, epoch: 3, seen: 20, score: -0.25, id: "bild/ä".to_owned() }
    }

    fn reason(outcome: Result<Option<Mark>>) -> ErrorReason {
        outcome.unwrap_err().details().reason
    }

    proptest::proptest! {
        #[test]
        fn a_token_gives_back_its_mark(
            generation: u64, epoch: u64, seen: u32, score in -1e6_f32..1e6, id in "\\PC{1,64}", query: [u8; 32],
        ) {
            let key = PageKey::new(*b"0123456789abcdef");
            let mark = Mark { generation, epoch, seen, score, id };
            let token = key.issue(&query, &mark);
            proptest::prop_assert_eq!(key.read(&query, &token).unwrap(), Some(mark));
        }

        #[test]
        fn no_text_is_a_token(text in "[A-Za-z0-9_-]{1,120}") {
            let key = PageKey::new(*b"0123456789abcdef");
            proptest::prop_assert!(key.read(&[1; 32], &text).is_err());
        }
    }

    #[test]
    fn no_token_is_the_first_page() {
        let key = PageKey::new(*b"0123456789abcdef");
        assert_eq!(key.read(&[1; 32], "").unwrap(), None);
    }

    #[test]
    fn a_token_of_another_query_or_key_is_refused() {
        let key = PageKey::new(*b"0123456789abcdef");
        let token = key.issue(&[1; 32], &mark());
        assert_eq!(reason(key.read(&[2; 32], &token)), ErrorReason::PageTokenInvalid);
        let other = PageKey::new(*b"fedcba9876543210");
        assert_eq!(reason(other.read(&[1; 32], &token)), ErrorReason::PageTokenInvalid);
    }

    #[test]
    fn any_changed_byte_is_refused() {
        let key = PageKey::new(*b"0123456789abcdef");
        let token = BASE64_URL_SAFE_NO_PAD.decode(key.issue(&[1; 32], &mark())).unwrap();
        for place in 0..token.len() {
            let mut changed = token.clone();
            changed[place] ^= 1;
            let changed = BASE64_URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(reason(key.read(&[1; 32], &changed)), ErrorReason::PageTokenInvalid);
        }
        assert_eq!(reason(key.read(&[1; 32], "AAAA")), ErrorReason::PageTokenInvalid);
        assert_eq!(reason(key.read(&[1; 32], "not base64!")), ErrorReason::PageTokenInvalid);
    }

    #[test]
    fn an_old_token_is_refused_as_expired() {
        let key = PageKey::new(*b"0123456789abcdef");
        let token = key.issue_at(&[1; 32], &mark(), now() - 1);
        assert_eq!(reason(key.read(&[1; 32], &token)), ErrorReason::PageTokenExpired);
    }
}
