//! Durations as people write them: `90s`, `1h30m`, `500ms`.
//!
//! A small closed grammar instead of a library's, so that what is accepted never changes with a version:
//! whole numbers, each with one of `h`, `m`, `s`, `ms`, from the largest to the smallest.

/// Unit and milliseconds, from the largest.
const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The milliseconds, at most `u64::MAX`; nothing when it is no duration.
pub(crate) fn parse(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut units = UNITS.iter();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|&len| len > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let (_, ms) = units.find(|(name, _)| *name == unit)?;
        // Only too many digits can be wrong here: that is as long as can be.
        let number = number.parse().unwrap_or(u64::MAX);
        total = total.saturating_add(ms.saturating_mul(number));
        rest = after;
    }
    (!text.is_empty()).then_some(total)
}

/// The text that reads back as `ms`.
pub(crate) fn print(ms: u64) -> String {
    let mut rest = ms;
    let mut text = String::new();
    for (unit, size) in UNITS {
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_whole_numbers_with_units_from_large_to_small() {
        for (text, ms) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1m1ms", 60_001),
            ("0s", 0),
            ("99999999999999999999h", u64::MAX),
        ] {
            assert_eq!(parse(text), Some(ms), "{text}");
        }
        for text in ["", "5", "m", "1.5s", "-1s", "1s1m", "1s1s", "1 s", "1d", "1us", "5M", "٣s"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn printed_duration_reads_back(ms in any::<u64>()) {
            prop_assert_eq!(parse(&print(ms)), Some(ms));
        }
    }
}
