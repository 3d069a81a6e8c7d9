//! Regenerates the committed code from the protos: `cargo run --release -p diptych-proto --example gen [FOLDER]`.
//!
//! Pure Rust (`protox`), so that neither a build nor a contributor needs protoc. Without a folder it writes to `src/gen`.

use std::error::Error;
use std::path::{Path, PathBuf};

/// Fields that are large: kept as `bytes::Bytes`, so that a picture or a vector is not copied on its way in.
const BYTES_FIELDS: [&str; 7] = [
    ".diptych.v1.Vector.packed_f32",
    ".diptych.v1.Source.image",
    ".diptych.v1.EmbedImageRequest.image",
    ".diptych.v1.EmbedInput.image",
    ".diptych.v1.SearchImageToTextRequest.image",
    ".diptych.v1.Term.image",
    ".diptych.v1.ItemInput.image",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = std::env::args_os().nth(1).map_or_else(|| root.join("src/gen"), PathBuf::from);
    generate(&root.join("proto"), &out)
}

/// Writes `diptych.v1.rs` and `diptych_descriptor.bin` for the protos below `protos` into `out`.
pub fn generate(protos: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(protos.join("diptych/v1"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut compiler = protox::Compiler::new([protos])?;
    compiler.include_imports(true).include_source_info(true).open_files(files)?;
    let described = compiler.file_descriptor_set();
    std::fs::create_dir_all(out)?;
    // Reflection serves the descriptors; comments would treble them and no client shows them.
    let mut lean = described.clone();
    for file in &mut lean.file {
        file.source_code_info = None;
    }
    std::fs::write(out.join("diptych_descriptor.bin"), prost::Message::encode_to_vec(&lean))?;
    // Ordered maps: the bytes of a message are the same each time, so that a digest over them means something.
    let mut config = tonic_prost_build::configure().out_dir(out).btree_map(".");
    config = config.codec_path("crate::codec::BoundedCodec");
    for field in BYTES_FIELDS {
        config = config.bytes(field);
    }
    config.compile_fds(described)?;
    Ok(())
}
