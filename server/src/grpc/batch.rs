//! Several searches in one call, answered as they are done.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use diptych_proto::v1::batch_search_response::Outcome;
use diptych_proto::v1::{BatchSearchResponse, SearchRequest, SearchResponse};
use prost::Message as _;
use tokio::task::{Id, JoinSet};
use tokio_stream::Stream;
use tonic::Status;

use super::receive::Received;
use super::reply::Sending;
use super::room::Room;
use super::status::to_message;
use crate::deadline::{self, Deadline, within};
use crate::error::{Error, Result};

/// Searches of one batch that are under way or wait to be sent: what a batch takes of threads, and of memory while its caller
/// is slow.
const IN_FLIGHT: usize = 8;

/// The answers of a batch in the order in which they come.
///
/// Searches run as tasks of their own, so that one that waits for a slow caller holds nothing that others wait for. A finished
/// answer keeps its place among those in flight until it is sent, and a large one has room among all replies, or is an error that
/// says that there is none. When the caller leaves, the stream is dropped, and what runs
/// is dropped with it.
pub(super) struct Answers<S> {
    waiting: std::iter::Zip<std::ops::RangeFrom<u32>, std::vec::IntoIter<SearchRequest>>,
    running: JoinSet<Result<(SearchResponse, Option<Room>)>>,
    /// Which search a task runs.
    places: HashMap<Id, u32>,
    search: Arc<S>,
    sending: Option<Sending>,
    /// Room of the request, whose pictures are parts of it, until its last search has ended.
    received: Option<Received>,
    /// Room of the answer that is being sent: who asks for the next one has handed it on.
    sent: Option<Room>,
    /// Of the whole call.
    deadline: Option<Deadline>,
}

impl<S, F> Answers<S>
where
    S: Fn(SearchRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Result<SearchResponse>> + Send,
{
    /// `search` answers one element.
    pub(super) fn new(
        searches: Vec<SearchRequest>,
        (sending, received): (Option<Sending>, Option<Received>),
        search: S,
    ) -> Self {
        let waiting = (0..).zip(searches);
        let (running, places) = (JoinSet::new(), HashMap::new());
        let (search, deadline) = (Arc::new(search), deadline::current());
        let mut answers =
            Self { waiting, running, places, search, sending, received, sent: None, deadline };
        answers.fill();
        answers
    }

    fn fill(&mut self) {
        while self.running.len() < IN_FLIGHT {
            let Some((index, wire)) = self.waiting.next() else { return };
            let (search, sending) = (Arc::clone(&self.search), self.sending.clone());
            let task = self.running.spawn(within(self.deadline, async move {
                let answer = search(wire).await?;
                let room = match sending {
                    Some(sending) => sending.room(answer.encoded_len())?,
                    None => None,
                };
                Ok((answer, room))
            }));
            self.places.insert(task.id(), index);
        }
    }
}

impl<S, F> Stream for Answers<S>
where
    S: Fn(SearchRequest) -> F + Send + Sync + 'static,
    F: Future<Output = Result<SearchResponse>> + Send,
{
    type Item = Result<BatchSearchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sent = None;
        let Some(done) = std::task::ready!(self.running.poll_join_next_with_id(context)) else {
            return Poll::Ready(None);
        };
        // One that panicked is answered like one that failed: the others go on.
        let (task, outcome) = match done {
            Ok(done) => done,
            Err(ended) => (ended.id(), Err(Error::internal("the search ended early"))),
        };
        let index = self.places.remove(&task).unwrap_or_default();
        self.fill();
        if self.running.is_empty() {
            self.received = None;
        }
        let outcome = match outcome {
            Ok((answer, room)) => {
                self.sent = room;
                Outcome::Response(answer)
            }
            Err(error) => Outcome::Status(to_message(&error.inside(&format!("searches[{index}]")))),
        };
        Poll::Ready(Some(Ok(BatchSearchResponse { index, outcome: Some(outcome) })))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;
    use tokio_stream::StreamExt as _;

    use super::*;
    use crate::grpc::room::Rooms;

    fn searches(count: u32) -> Vec<SearchRequest> {
        (0..count).map(|limit| SearchRequest { limit, ..Default::default() }).collect()
    }

    /// Counts itself while it lives.
    struct Living(Arc<AtomicUsize>);

    impl Living {
        fn new(count: &Arc<AtomicUsize>) -> Self {
            count.fetch_add(1, Ordering::SeqCst);
            Self(Arc::clone(count))
        }
    }

    impl Drop for Living {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn an_answer_comes_when_it_is_there_not_in_its_turn() {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let mut answers = Answers::new(searches(3), (None, None), move |wire: SearchRequest| {
            let gate = Arc::clone(&held);
            async move {
                if wire.limit == 0 {
                    gate.acquire().await.map_err(|_| Error::internal("closed"))?.forget();
                }
                Ok(SearchResponse::default())
            }
        });
        let mut first = Vec::new();
        for _ in 0..2 {
            first.push(answers.next().await.unwrap().unwrap().index);
        }
        first.sort_unstable();
        assert_eq!(first, [1, 2]);
        gate.add_permits(1);
        assert_eq!(answers.next().await.unwrap().unwrap().index, 0);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_search_that_breaks_is_told_at_its_place_and_the_others_go_on() {
        let mut answers =
            Answers::new(searches(20), (None, None), |wire: SearchRequest| async move {
                assert_ne!(wire.limit, 3, "as it should");
                Ok(SearchResponse::default())
            });
        let mut failed = Vec::new();
        let mut answered = 0;
        while let Some(answer) = answers.next().await {
            let answer = answer.unwrap();
            match answer.outcome.unwrap() {
                Outcome::Response(_) => answered += 1,
                Outcome::Status(_) => failed.push(answer.index),
            }
        }
        assert_eq!((answered, failed), (19, vec![3]));
    }

    #[tokio::test]
    async fn a_caller_who_does_not_read_makes_nobody_work_ahead() {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let mut answers = Answers::new(searches(100), (None, None), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Ok(SearchResponse::default()) }
        });
        for read in 0..100 {
            // Everything that may run has run by now: the runtime has one thread, and a turn for each task.
            for _ in 0..IN_FLIGHT {
                tokio::task::yield_now().await;
            }
            assert!(started.load(Ordering::SeqCst) <= read + IN_FLIGHT);
            assert!(answers.next().await.is_some());
        }
        assert!(answers.next().await.is_none());
        assert_eq!(started.load(Ordering::SeqCst), 100);
    }

    #[tokio::test]
    async fn the_work_of_a_caller_who_left_is_dropped() {
        let living = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&living);
        let answers = Answers::new(searches(100), (None, None), move |_| {
            let mark = Living::new(&count);
            async move {
                std::future::pending::<()>().await;
                drop(mark);
                Ok(SearchResponse::default())
            }
        });
        while living.load(Ordering::SeqCst) < IN_FLIGHT {
            tokio::task::yield_now().await;
        }
        drop(answers);
        while living.load(Ordering::SeqCst) > 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_large_answer_without_room_is_told_so_and_room_comes_back_as_answers_are_read() {
        let large = || async {
            let next_page_token = "x".repeat(100 << 10);
            Ok(SearchResponse { next_page_token, ..Default::default() })
        };
        let rooms = Rooms::new(250 << 10, 0);
        let sending = Sending { rooms: Arc::clone(&rooms), caller: None };
        let mut answers = Answers::new(searches(4), (Some(sending), None), move |_| large());
        let (mut answered, mut refused) = (0, 0);
        while let Some(answer) = answers.next().await {
            match answer.unwrap().outcome.unwrap() {
                Outcome::Response(_) => answered += 1,
                Outcome::Status(status) => {
                    assert_eq!(status.code, tonic::Code::ResourceExhausted as i32);
                    refused += 1;
                }
            }
        }
        assert_eq!((answered, refused, rooms.free()), (2, 2, 250 << 10));
    }
}
