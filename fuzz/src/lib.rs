//! What each fuzz target does with its bytes, and the seeds that it begins with.
//!
//! A target fails by a panic, by memory or time beyond libFuzzer's limits, or by an assertion below. Each input is one byte that
//! chooses, where there is a choice, and content.

mod archive;
mod bundle;
mod filter;
mod image;
mod page_token;
mod requests;

pub use self::archive::archive;
pub use self::bundle::bundle;
pub use self::filter::filter;
pub use self::image::image;
pub use self::page_token::page_token;
pub use self::requests::requests;

/// Writes the seeds of a target into its folder of the corpus: sound inputs, and some that are nearly so.
///
/// # Panics
/// When the folder cannot be written.
pub fn sow(target: &str) {
    let seeds = match target {
        "image" => image::seeds(),
        "filter" => filter::seeds(),
        "page_token" => page_token::seeds(),
        "requests" => requests::seeds(),
        "bundle" => bundle::seeds(),
        "archive" => archive::seeds(),
        _ => panic!("no target is called {target}"),
    };
    let folder = checkout().join("fuzz/corpus").join(target);
    std::fs::create_dir_all(&folder).expect("the folder of the corpus");
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed).expect("a seed");
    }
}

/// A panic that the code under test catches and tells of is no failure here. What panics outside of that still ends the run.
fn quiet() {
    static QUIET: std::sync::Once = std::sync::Once::new();
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// The root of the checkout.
fn checkout() -> &'static std::path::Path {
    std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The first byte, and the rest.
fn choice(data: &[u8]) -> (usize, &[u8]) {
    data.split_first().map_or((0, data), |(first, rest)| (usize::from(*first), rest))
}

/// The files below a folder of the checkout, by their path in it.
fn files(folder: &str) -> Vec<(String, Vec<u8>)> {
    fn walk(root: &std::path::Path, folder: &std::path::Path, found: &mut Vec<(String, Vec<u8>)>) {
        for entry in std::fs::read_dir(folder).expect("a folder of fixtures") {
            let path = entry.expect("a fixture").path();
            if path.is_dir() {
                walk(root, &path, found);
            } else {
                let name = path.strip_prefix(root).expect("below the root").to_string_lossy();
                found.push((name.into_owned(), std::fs::read(&path).expect("a fixture")));
            }
        }
    }
    let root = checkout().join(folder);
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort();
    found
}
