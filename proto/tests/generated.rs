//! The committed code is what the protos say.

#[expect(dead_code, reason = "the example's main is not run here")]
#[path = "../examples/gen.rs"]
mod generator;

use std::path::Path;

#[test]
fn committed_code_agrees_with_the_protos() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().unwrap();
    generator::generate(&root.join("proto"), out.path()).unwrap();
    for file in ["diptych.v1.rs", "diptych_descriptor.bin"] {
        let fresh = std::fs::read(out.path().join(file)).unwrap();
        let committed = std::fs::read(root.join("src/gen").join(file)).unwrap();
        assert!(fresh == committed, "{file} is stale: run `just gen` and commit what it writes");
    }
}
