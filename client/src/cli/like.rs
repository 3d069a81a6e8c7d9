//! `diptych search --like`: what a picture shows is in its shared vector, how it is drawn in its exclusive one. So the first is
//! asked for, and the second is pushed away, or that of another picture asked for beside it.

use std::path::Path;

use anyhow::Result;
use bytes::Bytes;
use diptych::v1;
use diptych::v1::term::Source;

use super::args::LikeArgs;
use super::search::read_picture;

/// The terms of a search for pictures like this one: what it shows, then the style if one was asked for.
pub(crate) fn terms(picture: &Path, args: &LikeArgs) -> Result<Vec<v1::Term>> {
    let picture = read_picture(picture)?;
    let mut terms = vec![term(picture.clone(), 1.0, v1::Space::Shared)];
    if let Some(other) = &args.style_of {
        terms.push(term(read_picture(other)?, args.style_weight, v1::Space::Exclusive));
    } else if args.other_style {
        terms.push(term(picture, -args.style_weight, v1::Space::Exclusive));
    }
    Ok(terms)
}

fn term(picture: Bytes, weight: f32, space: v1::Space) -> v1::Term {
    v1::Term { source: Some(Source::Image(picture)), weight, space: space.into() }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use tempfile::TempDir;

    use super::*;
    use crate::cli::args::{Arguments, Command};

    /// The terms of `diptych search --like A` with these options, in a folder with the pictures A and B.
    fn asked(options: &str) -> Result<Vec<v1::Term>> {
        let folder = TempDir::new().unwrap();
        for name in ["A", "B"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        let path = |word| match word {
            "A" | "B" | "C" => folder.path().join(word).into_os_string(),
            other => other.into(),
        };
        let line = format!("diptych search --like A{options}");
        let arguments = Arguments::try_parse_from(line.split(' ').map(path)).unwrap();
        let Command::Search(args) = arguments.command else { panic!("no search") };
        terms(args.like.picture.as_deref().unwrap(), &args.like)
    }

    fn check(options: &str, expected: &[(&'static str, f32, v1::Space)]) {
        let expected: Vec<v1::Term> = expected
            .iter()
            .map(|&(picture, weight, space)| term(picture.into(), weight, space))
            .collect();
        assert_eq!(asked(options).unwrap(), expected, "{options}");
    }

    #[test]
    fn a_picture_alone_is_asked_for_by_what_it_shows() {
        check("", &[("A", 1.0, v1::Space::Shared)]);
    }

    #[test]
    fn another_style_than_its_own_is_its_own_pushed_away() {
        let shown = ("A", 1.0, v1::Space::Shared);
        check(" --other-style", &[shown, ("A", -0.3, v1::Space::Exclusive)]);
        check(" --other-style --style-weight 2", &[shown, ("A", -2.0, v1::Space::Exclusive)]);
    }

    #[test]
    fn a_style_is_taken_from_another_picture() {
        let shown = ("A", 1.0, v1::Space::Shared);
        check(" --style-of B", &[shown, ("B", 0.3, v1::Space::Exclusive)]);
        check(" --style-of B --style-weight 0.5", &[shown, ("B", 0.5, v1::Space::Exclusive)]);
    }

    #[test]
    fn a_picture_that_is_not_there_is_named() {
        let told = format!("{:#}", asked(" --style-of C").unwrap_err());
        assert!(told.contains("cannot read the picture") && told.contains("/C"), "{told}");
    }
}
