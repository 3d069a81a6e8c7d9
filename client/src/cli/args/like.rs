//! What can be said to `diptych search` of a picture that others are to be like.

use std::path::PathBuf;

use clap::Args;

/// Other things to search by. Every option here has to refuse them: clap asks for no --like where that could not stand.
const OTHERS: [&str; 2] = ["text", "image"];

/// A picture, and what of its style.
#[derive(Debug, Args)]
pub(crate) struct LikeArgs {
    /// Find pictures that show what this one shows: a JPEG, PNG, WebP or GIF file.
    #[arg(long = "like", value_name = "FILE", conflicts_with_all = OTHERS, conflicts_with = "target")]
    pub(crate) picture: Option<PathBuf>,
    /// With --like: drawn otherwise.
    #[arg(long, requires = "picture", conflicts_with_all = OTHERS, group = "style")]
    pub(crate) other_style: bool,
    /// With --like: drawn as this picture is.
    #[arg(long, value_name = "FILE", requires = "picture", conflicts_with_all = OTHERS, group = "style")]
    pub(crate) style_of: Option<PathBuf>,
    /// How much --other-style or --style-of counts, where what is shown counts 1.
    #[arg(long, value_name = "WEIGHT", default_value_t = 0.3, requires = "style", conflicts_with_all = OTHERS,
          value_parser = weight)]
    pub(crate) style_weight: f32,
}

/// Above zero, in the bounds of the contract: what it does to a style is said by the option that it goes with.
fn weight(text: &str) -> Result<f32, String> {
    let weight = text.parse().unwrap_or(f32::NAN);
    if !(1e-6..=1e6).contains(&weight) {
        return Err("must be a number from 0.000001 to 1000000, such as 0.3".to_owned());
    }
    Ok(weight)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::Arguments;
    use super::*;

    fn refusal(line: &str) -> String {
        let refused = Arguments::try_parse_from(line.split(' ')).unwrap_err();
        assert_eq!(refused.exit_code(), 2, "{line}");
        refused.to_string()
    }

    #[test]
    fn a_style_needs_a_picture_that_is_to_have_it() {
        for line in ["diptych search --other-style", "diptych search --style-of b"] {
            assert!(refusal(line).contains("--like <FILE>"), "{line}: {}", refusal(line));
        }
    }

    #[test]
    fn what_contradicts_itself_is_told_with_both_its_sides() {
        for (line, sides) in [
            ("diptych search --like a --other-style --style-of b", ["--other-style", "--style-of"]),
            ("diptych search heart --other-style", ["--other-style", "[TEXT]"]),
            ("diptych search --image a --style-of b", ["--style-of", "--image"]),
            ("diptych search heart --style-weight 1", ["--style-weight", "[TEXT]"]),
            ("diptych search heart --like a", ["--like", "[TEXT]"]),
            ("diptych search --image b --like a", ["--like", "--image"]),
            ("diptych search --like a --target text", ["--like", "--target"]),
        ] {
            let told = refusal(line);
            assert!(told.contains("cannot be used with"), "{line}: {told}");
            assert!(sides.iter().all(|side| told.contains(side)), "{line}: {told}");
        }
    }

    #[test]
    fn a_weight_without_a_style_is_refused() {
        let told = refusal("diptych search --like a --style-weight 0.5");
        assert!(told.contains("--other-style") && told.contains("--style-of"), "{told}");
    }

    #[test]
    fn weights_are_above_zero() {
        assert_eq!(weight("0.5"), Ok(0.5));
        for text in ["0", "-0.3", "1e7", "NaN", "inf", "much", ""] {
            assert!(weight(text).unwrap_err().contains("such as 0.3"), "{text}");
        }
        let told = refusal("diptych search --like a --other-style --style-weight=-0.3");
        assert!(told.contains("such as 0.3"), "{told}");
    }
}
