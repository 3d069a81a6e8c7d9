//! Sizes and times as people write them: a whole number with a unit.

use std::time::Duration;

const BYTES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const MILLISECONDS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// `16MiB`, `64 KiB`, or a bare number of bytes.
pub(super) fn bytes(text: &str) -> Option<u64> {
    match split(text)? {
        (number, "") => Some(number),
        (number, unit) => scaled(number, unit, &BYTES),
    }
}

/// `30s`, `1500ms`, `2 m`. A bare number has no meaning that all agree on, so it is refused.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    scaled(number, unit, &MILLISECONDS).map(Duration::from_millis)
}

/// A size in the largest unit that tells it exactly.
pub(super) fn show_bytes(bytes: u64) -> String {
    show(bytes, &BYTES)
}

/// A time in the largest unit that tells it exactly; below a millisecond it is cut.
pub(super) fn show_duration(time: Duration) -> String {
    show(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &MILLISECONDS)
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

fn show(number: u64, units: &[(&str, u64)]) -> String {
    let fits = |factor: u64| number >= factor && number.is_multiple_of(factor);
    match units.iter().find(|(_, factor)| fits(*factor)).or(units.last()) {
        Some((unit, factor)) => format!("{}{unit}", number / factor),
        None => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_read_with_and_without_a_unit() {
        let rows = [
            ("16MiB", Some(16 << 20)),
            ("64 kib", Some(64 << 10)),
            ("100", Some(100)),
            ("7B", Some(7)),
            ("0", Some(0)),
            ("", None),
            ("MiB", None),
            ("-1", None),
            ("1.5MiB", None),
            ("16MB", None),
            ("99999999999GiB", None),
        ];
        for (text, expected) in rows {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_time_needs_its_unit() {
        let rows = [
            ("30s", Some(30_000)),
            ("1500ms", Some(1500)),
            ("2 m", Some(120_000)),
            ("1h", Some(3_600_000)),
            ("30", None),
            ("s", None),
            ("1 day", None),
        ];
        for (text, expected) in rows {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_shown_is_read_again(number in 0_u64..1 << 40) {
            proptest::prop_assert_eq!(bytes(&show_bytes(number)), Some(number));
            let time = Duration::from_millis(number);
            proptest::prop_assert_eq!(duration(&show_duration(time)), Some(time));
        }
    }
}
