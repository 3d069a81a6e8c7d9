//! Repeated requests to make or delete a collection: the same request sent again gets the answer of the first.
//!
//! Items' writes have a durable ledger in the engine. Collections come and go seldom, so their answers are kept in memory: a
//! repeat across a restart is answered from the state of the collection (ALREADY_EXISTS, NOT_FOUND).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use diptych_index::RequestKey;
use diptych_proto::v1::ErrorReason;
use tokio::sync::Mutex;

use crate::collections::CollectionView;
use crate::error::{Error, Kind, Result};

/// How long an answer is kept.
const RETENTION: Duration = Duration::from_secs(3600);
/// Most answers kept; beyond, the oldest goes.
const MOST: usize = 1000;

/// Answers to requests that named an id.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<HashMap<String, Answered>>);

#[derive(Debug)]
struct Answered {
    digest: [u8; 32],
    when: Instant,
    /// The collection that was made; `None` of a delete.
    answer: Option<CollectionView>,
}

impl Requests {
    /// Runs `work`, or gives the answer of the same request before. One at a time, so that a repeat that overtakes its first
    /// waits for it. Errors are not kept: what failed may be tried again.
    ///
    /// # Errors
    /// ABORTED `REQUEST_ID_REUSED`; those of `work`.
    pub(crate) async fn once(
        &self,
        request: Option<RequestKey>,
        work: impl Future<Output = Result<Option<CollectionView>>>,
    ) -> Result<Option<CollectionView>> {
        let Some(RequestKey { id, digest }) = request else { return work.await };
        let mut answered = self.0.lock().await;
        answered.retain(|_, known| known.when.elapsed() < RETENTION);
        match answered.get(&id) {
            Some(known) if known.digest == digest => return Ok(known.answer.clone()),
            Some(_) => {
                let message = "request_id was used before for another request";
                return Err(Error::new(Kind::Conflict, ErrorReason::RequestIdReused, message));
            }
            None => {}
        }
        let answer = work.await?;
        if answered.len() >= MOST {
            let oldest = answered.iter().min_by_key(|(_, known)| known.when);
            let oldest = oldest.map(|(id, _)| id.clone()).unwrap_or_default();
            answered.remove(&oldest);
        }
        answered.insert(id, Answered { digest, when: Instant::now(), answer: answer.clone() });
        Ok(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digest: u8) -> Option<RequestKey> {
        Some(RequestKey { id: "a".to_owned(), digest: [digest; 32] })
    }

    #[tokio::test]
    async fn a_repeat_is_answered_without_work_and_another_request_is_refused() {
        let requests = Requests::default();
        assert_eq!(requests.once(key(1), async { Ok(None) }).await.unwrap().map(|_| ()), None);
        let fault = || async { Err(Error::internal("was run")) };
        assert!(requests.once(key(1), fault()).await.is_ok());
        let refused = requests.once(key(2), fault()).await.unwrap_err();
        assert_eq!(refused.details().reason, ErrorReason::RequestIdReused);
        assert!(requests.once(None, fault()).await.is_err());
    }

    #[tokio::test]
    async fn what_failed_may_be_tried_again() {
        let requests = Requests::default();
        let failed = requests.once(key(1), async { Err(Error::internal("no")) }).await;
        assert!(failed.is_err());
        assert!(requests.once(key(1), async { Ok(None) }).await.is_ok());
    }
}
