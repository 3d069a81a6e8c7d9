//! The limits that GetServerInfo tells: every one that a caller can run into.

use std::time::Duration;

use diptych_index::filter::{FILTER_MAX_DEPTH, FILTER_MAX_NODES, FILTER_MAX_VALUES};
use diptych_index::types::{ID_MAX_BYTES, METADATA_MAX_BYTES, METADATA_MAX_FIELDS};
use diptych_proto::{codec, v1};

use super::super::SystemLimits;
use super::super::convert::{GROUP_BYTES, REQUEST_ID_BYTES};
use super::super::value::{KEY_BYTES, LIST_TEXTS, TEXT_BYTES};
use crate::collections::{MAX_DIMENSION, NAME_MAX_BYTES};
use crate::ingest::WINDOW;
use crate::items::MAX_DELETE_IDS;
use crate::retrieval::{MAX_EF_SEARCH, MAX_TERMS};
use crate::service::Limits;

/// All of them, as the wire has them.
pub(super) fn out(limits: &Limits, system: &SystemLimits) -> v1::Limits {
    v1::Limits {
        receive_message_bytes: limits.message_bytes as u64,
        send_message_bytes: limits.message_bytes as u64,
        image_bytes: limits.image_bytes,
        image_pixels: limits.image_pixels,
        image_side: limits.image_side,
        text_bytes: small(limits.text_bytes),
        batch_items: small(limits.batch_items),
        search_limit: small(limits.search_limit),
        page_size: small(limits.page_size),
        ..with_encoders(system, with_transport(system, &fixed()))
    }
}

/// Limits that no setting changes.
fn fixed() -> v1::Limits {
    v1::Limits {
        id_bytes: small(ID_MAX_BYTES),
        filter_depth: small(FILTER_MAX_DEPTH),
        filter_nodes: small(FILTER_MAX_NODES),
        filter_values: small(FILTER_MAX_VALUES),
        search_terms: small(MAX_TERMS),
        message_parts: small(codec::MAX_PARTS),
        request_id_bytes: small(REQUEST_ID_BYTES),
        name_bytes: small(NAME_MAX_BYTES),
        group_bytes: small(GROUP_BYTES),
        metadata_keys: small(METADATA_MAX_FIELDS),
        metadata_key_bytes: small(KEY_BYTES),
        metadata_text_bytes: small(TEXT_BYTES),
        metadata_list_texts: small(LIST_TEXTS),
        metadata_bytes: small(METADATA_MAX_BYTES),
        delete_ids: small(MAX_DELETE_IDS),
        dimension: small(MAX_DIMENSION),
        ef_search: small(MAX_EF_SEARCH),
        ingest_window: small(WINDOW),
        ..Default::default()
    }
}

/// Connections and calls.
fn with_transport(system: &SystemLimits, others: &v1::Limits) -> v1::Limits {
    let SystemLimits { calls, connections, .. } = system;
    let timeout = |(method, time): (&String, &Duration)| v1::MethodTimeout {
        method: method.clone(),
        timeout: span(*time),
    };
    v1::Limits {
        connections: small(connections.connections),
        streams_per_connection: connections.streams,
        calls_per_caller: small(calls.per_caller),
        calls: small(calls.calls),
        header_bytes: connections.header_bytes,
        local_resets: small(connections.local_resets),
        pending_resets: small(connections.pending_resets),
        handshake_timeout: span(connections.handshake),
        keepalive_interval: span(connections.keepalive_interval),
        keepalive_timeout: span(connections.keepalive_timeout),
        connection_age: span(connections.age),
        call_timeout: span(calls.timeout),
        stream_timeout: span(calls.stream_timeout),
        method_timeouts: calls.methods.iter().map(timeout).collect(),
        receive_bytes: system.receive_bytes,
        reply_bytes: system.reply_bytes,
        streams: small(calls.streams),
        stream_idle_timeout: span(calls.stream_idle),
        memory_bytes: system.memory_bytes,
        ..*others
    }
}

/// Queues and batches.
fn with_encoders(system: &SystemLimits, others: v1::Limits) -> v1::Limits {
    let encoder = &system.encoder;
    v1::Limits {
        decode_bytes: system.decode_bytes,
        queue_items: small(encoder.queue_items),
        queue_wait: span(encoder.queue_wait),
        encode_images: small(encoder.batch_images),
        encode_texts: small(encoder.batch_texts),
        encode_tokens: small(encoder.batch_ids),
        ..others
    }
}

fn small(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

fn span(time: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(time).ok()
}
