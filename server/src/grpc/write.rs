//! Calls that change something run in tasks of their own.

use std::future::Future;

use tonic::{Request, Response, Status};

use super::admission::Places;
use super::receive::Received;
use crate::deadline;
use crate::error::{Error, Result};

/// Runs a write in a task of its own: a caller that leaves never leaves it half done. What the call holds of the server, its places and
/// the room of its bytes, is held until the write has ended, so that callers who leave do not make room for more than can be done.
pub(super) async fn write<Q, T, F>(
    request: Request<Q>,
    work: impl FnOnce(Q) -> F,
) -> Result<Response<T>, Status>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let (_, mut extensions, message) = request.into_parts();
    let holds = (extensions.remove::<Places>(), extensions.remove::<Received>());
    let work = work(message);
    let done = tokio::spawn(deadline::inherited(async move {
        let done = work.await;
        drop(holds);
        done
    }));
    let done = done.await.unwrap_or_else(|_| Err(Error::internal("the write ended early")));
    Ok(Response::new(done?))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_write_goes_on_when_its_caller_leaves_and_holds_its_places_until_it_ends() {
        let (begun, begins) = oneshot::channel();
        let (go, wait) = oneshot::channel::<()>();
        let mut request = Request::new(1);
        let places = Places::default();
        request.extensions_mut().insert(places.clone());
        let caller = tokio::spawn(write(request, |one| async move {
            begun.send(()).unwrap();
            wait.await.unwrap();
            Ok(one)
        }));
        begins.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert!(places.are_shared());
        go.send(()).unwrap();
        while places.are_shared() {
            tokio::task::yield_now().await;
        }
    }
}
