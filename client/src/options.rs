//! How a client connects and calls.

use crate::deadline::Deadlines;
use crate::hedge::Hedge;
use crate::retry::RetryPolicy;
use crate::transport::TransportOptions;

/// Largest message taken when nothing else is said; servers send at most 16 MiB unless told otherwise.
const MESSAGE_BYTES: usize = 64 << 20;

/// How a client connects and calls.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Longest calls, by what they are for.
    pub deadlines: Deadlines,
    /// When and how often a call is sent again.
    pub retry: RetryPolicy,
    /// When a slow read is sent a second time beside the first. Default: never.
    pub hedge: Option<Hedge>,
    /// How servers are found, reached and watched.
    pub transport: TransportOptions,
    /// Largest message sent or taken, in bytes. Default 64 MiB.
    pub message_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            deadlines: Deadlines::default(),
            retry: RetryPolicy::default(),
            hedge: None,
            transport: TransportOptions::default(),
            message_bytes: MESSAGE_BYTES,
        }
    }
}
