//! Repeated requests on collections, aliases and snapshots: the same request sent again gets the answer of the first.
//!
//! Items' writes have a durable ledger in the engine. Collections come and go seldom, so their answers are kept in memory: a
//! repeat across a restart is answered from the state of the collection (ALREADY_EXISTS, NOT_FOUND).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use diptych_index::RequestKey;
use diptych_proto::v1::ErrorReason;
use parking_lot::Mutex;

use crate::collections::CollectionView;
use crate::error::{Error, Kind, Result};
use crate::operations::OperationView;

/// How long an answer is kept.
const RETENTION: Duration = Duration::from_secs(3600);
/// Most answers kept; beyond, the oldest goes.
const MOST: usize = 1000;

/// What came of a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Something is gone, or done without a word.
    Done,
    /// The collection that was made or changed.
    Collection(Box<CollectionView>),
    /// The collection that an alias pointed at before.
    Alias(Option<String>),
    /// The work that was begun.
    Operation(Box<OperationView>),
}

impl Answer {
    /// The collection. A digest covers the method, so that a repeat never gets the answer of another one.
    pub(crate) fn collection(self) -> Result<CollectionView> {
        match self {
            Self::Collection(view) => Ok(*view),
            _ => Err(Error::internal("a request has the answer of another method")),
        }
    }

    /// The operation.
    pub(crate) fn operation(self) -> Result<OperationView> {
        match self {
            Self::Operation(view) => Ok(*view),
            _ => Err(Error::internal("a request has the answer of another method")),
        }
    }
}

/// Answers to requests that named an id.
#[derive(Debug, Default)]
pub(crate) struct Requests(Mutex<HashMap<String, Arc<Request>>>);

#[derive(Debug)]
struct Request {
    digest: [u8; 32],
    when: Instant,
    /// Held by who works; `None` until that went well.
    answer: tokio::sync::Mutex<Option<Answer>>,
}

impl Requests {
    /// Runs `work`, or gives the answer of the same request before. A repeat that overtakes its first waits for it. Errors are
    /// not kept: what failed may be tried again.
    ///
    /// # Errors
    /// ABORTED `REQUEST_ID_REUSED`; those of `work`.
    pub(crate) async fn once(
        &self,
        request: Option<RequestKey>,
        work: impl Future<Output = Result<Answer>>,
    ) -> Result<Answer> {
        let Some(key) = request else { return work.await };
        let request = self.entry(&key)?;
        let mut answer = request.answer.lock().await;
        if let Some(answer) = &*answer {
            return Ok(answer.clone());
        }
        match work.await {
            Ok(found) => {
                *answer = Some(found.clone());
                Ok(found)
            }
            Err(error) => {
                self.0.lock().retain(|_, known| !Arc::ptr_eq(known, &request));
                Err(error)
            }
        }
    }

    fn entry(&self, key: &RequestKey) -> Result<Arc<Request>> {
        let mut known = self.0.lock();
        known.retain(|_, known| known.when.elapsed() < RETENTION);
        if let Some(found) = known.get(&key.id) {
            if found.digest == key.digest {
                return Ok(Arc::clone(found));
            }
            let message = "request_id was used before for another request";
            return Err(Error::new(Kind::Conflict, ErrorReason::RequestIdReused, message));
        }
        if known.len() >= MOST {
            let oldest = known.iter().min_by_key(|(_, known)| known.when);
            let oldest = oldest.map(|(id, _)| id.clone()).unwrap_or_default();
            known.remove(&oldest);
        }
        let answer = tokio::sync::Mutex::default();
        let request = Request { digest: key.digest, when: Instant::now(), answer };
        let request = Arc::new(request);
        known.insert(key.id.clone(), Arc::clone(&request));
        Ok(request)
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
        assert!(requests.once(key(1), async { Ok(Answer::Done) }).await.is_ok());
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
        assert!(requests.once(key(1), async { Ok(Answer::Done) }).await.is_ok());
    }
}
