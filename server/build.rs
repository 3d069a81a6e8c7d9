//! Lists the files of the sample bundle, so that the binary carries whatever `diptych-train export` wrote to `sample/bundle`.

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=sample");
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").ok_or("not run by cargo")?);
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("not run by cargo")?);
    let bundle = root.join("sample/bundle");
    let mut files = Vec::new();
    collect(&bundle, &mut files)?;
    files.sort();
    let mut code = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&bundle)?.to_str().ok_or("a file name is not UTF-8")?;
        let name = name.replace('\\', "/");
        // Not by its whole path: a folder of build outputs may serve a repository that was moved.
        writeln!(
            code,
            "    ({name:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})) as &[u8]),",
            format!("/sample/bundle/{name}")
        )?;
    }
    code.push_str("]\n");
    std::fs::write(out.join("sample_bundle.rs"), code)?;
    Ok(())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
