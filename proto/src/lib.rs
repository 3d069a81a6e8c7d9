//! The wire contract of Diptych: package `diptych.v1`.
//!
//! `proto/` holds the sources, commented field by field; `src/gen` what `examples/gen.rs` makes of them. Written by hand are
//! this page and [`codec`], which bounds what a message becomes in memory.

pub mod codec;

/// Messages, clients and servers of package `diptych.v1`.
#[expect(clippy::large_enum_variant, reason = "generated; an answer is the usual case")]
pub mod v1 {
    include!("gen/diptych.v1.rs");
}

/// Descriptors of the whole package and what it imports, as reflection serves them.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/diptych_descriptor.bin");

/// Domain of every `google.rpc.ErrorInfo` of this service.
pub const ERROR_DOMAIN: &str = "diptych";
