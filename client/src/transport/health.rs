//! What a server says about itself by `grpc.health.v1`: watched, else asked, else taken for well.

use std::time::Duration;

use http::Uri;
use http::uri::Authority;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::TransportOptions;
use super::connection::Sender;

/// Whether a server takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Serving,
    NotServing,
}

#[derive(Debug)]
enum Means {
    /// The stream of the watch; none before it is begun.
    Watch(Option<Box<Streaming<HealthCheckResponse>>>),
    /// The server has no Watch.
    Check,
    /// The server has no health service, or is not to be asked.
    None,
}

/// The health of the server at the other end of one connection.
#[derive(Debug)]
pub(super) struct Health {
    client: HealthClient<Sender>,
    service: String,
    means: Means,
    /// How long a watch lasts, or the time between two questions.
    interval: Duration,
    unhealthy_interval: Duration,
    timeout: Duration,
}

impl Health {
    pub(super) fn new(sender: Sender, authority: &Authority, options: &TransportOptions) -> Self {
        let origin = Uri::builder().scheme("http").authority(authority.clone()).path_and_query("/");
        let client = HealthClient::with_origin(sender, origin.build().unwrap_or_default());
        Self {
            client,
            service: options.health_service.clone().unwrap_or_default(),
            means: if options.health_service.is_some() { Means::Watch(None) } else { Means::None },
            interval: options.health_interval,
            unhealthy_interval: options.unhealthy_interval,
            timeout: options.connect_timeout,
        }
    }

    /// What the server says now.
    ///
    /// # Errors
    /// A connection that broke, a server that does not answer in time.
    pub(super) async fn ask(&mut self) -> Result<Word, Status> {
        let late = |_| Status::deadline_exceeded("no answer in time");
        timeout(self.timeout, self.ask_now()).await.map_err(late)?
    }

    async fn ask_now(&mut self) -> Result<Word, Status> {
        let request = || HealthCheckRequest { service: self.service.clone() };
        if let Means::Watch(stream) = &mut self.means {
            // The one before ends with this.
            *stream = None;
            match begin(&mut self.client, request()).await {
                Ok((begun, word)) => {
                    *stream = Some(Box::new(begun));
                    return Ok(word);
                }
                Err(status) if status.code() == Code::Unimplemented => self.means = Means::Check,
                Err(status) => return Err(status),
            }
        }
        if matches!(self.means, Means::Check) {
            match self.client.check(request()).await {
                Ok(reply) => return Ok(word(&reply.into_inner())),
                // Older than the health service, or without this name in it.
                Err(status) if matches!(status.code(), Code::Unimplemented | Code::NotFound) => {
                    self.means = Means::None;
                }
                Err(status) => return Err(status),
            }
        }
        Ok(Word::Serving)
    }

    /// The next word after `now`, which may be the same.
    ///
    /// # Errors
    /// As [`Health::ask`].
    pub(super) async fn next(&mut self, now: Word) -> Result<Word, Status> {
        let pause = match now {
            Word::Serving => self.interval,
            Word::NotServing => self.unhealthy_interval,
        };
        match &mut self.means {
            Means::None => std::future::pending().await,
            Means::Check | Means::Watch(None) => sleep(pause).await,
            Means::Watch(Some(stream)) => {
                match timeout(pause, stream.message()).await {
                    Ok(Ok(Some(message))) => return Ok(word(&message)),
                    // The stream ended, and perhaps the connection: the next question tells.
                    Ok(_) => sleep(self.unhealthy_interval.min(pause)).await,
                    Err(_) => {}
                }
            }
        }
        self.ask().await
    }
}

async fn begin(
    client: &mut HealthClient<Sender>,
    request: HealthCheckRequest,
) -> Result<(Streaming<HealthCheckResponse>, Word), Status> {
    let mut stream = client.watch(request).await?.into_inner();
    let first = stream.message().await?;
    let first = first.ok_or_else(|| Status::unavailable("the watch ended at once"))?;
    Ok((stream, word(&first)))
}

fn word(response: &HealthCheckResponse) -> Word {
    match response.status() {
        // A service without an entry of its own says nothing against it.
        ServingStatus::Serving | ServingStatus::ServiceUnknown => Word::Serving,
        ServingStatus::NotServing | ServingStatus::Unknown => Word::NotServing,
    }
}
