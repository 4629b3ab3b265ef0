//! Durations as Go reads them (`time.ParseDuration`), with its words for what it cannot read.

const SECOND: u64 = 1_000_000_000;
const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
];

/// A duration in nanoseconds.
///
/// # Errors
/// Why it is none.
pub fn parse(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, after) = rest.split_at(end);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len())),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let (unit, after) = after.split_at(after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len()));
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let Some((_, size)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("time: unknown unit {unit:?} in duration {text:?}"));
        };
        let part = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
        // Of the fraction what is smaller than a nanosecond counts for nothing.
        let beside = format!("0.{fraction}0").parse::<f64>().unwrap_or(0.0) * *size as f64;
        let sum = part.and_then(|part| part.checked_mul(*size)).and_then(|part| part.checked_add(beside as u64));
        match sum.and_then(|part| total.checked_add(part)).filter(|total| *total <= 1 << 63) {
            Some(sum) => total = sum,
            None => return Err(invalid()),
        }
        rest = after;
    }
    if negative {
        return Ok(0_i64.saturating_sub_unsigned(total));
    }
    i64::try_from(total).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn durations_are_numbers_with_units() {
        for text in
            ["0", "-0", "1h30m", "1.5s", ".5s", "1.s", "+2us", "3µs", "9223372036854775807ns", "-9223372036854775808ns"]
        {
            assert!(parse(text).is_ok(), "{text}");
        }
        for (text, why) in [
            ("", "invalid duration \"\""),
            ("-", "invalid duration \"-\""),
            ("x", "invalid duration \"x\""),
            (".s", "invalid duration \".s\""),
            ("--1s", "invalid duration \"--1s\""),
            ("5", "missing unit in duration \"5\""),
            ("1h5", "missing unit in duration \"1h5\""),
            ("3d", "unknown unit \"d\" in duration \"3d\""),
            ("1h 5m", "unknown unit \"h \" in duration \"1h 5m\""),
            ("9223372036854775808ns", "invalid duration \"9223372036854775808ns\""),
            ("99999999999999999999h", "invalid duration \"99999999999999999999h\""),
        ] {
            assert_eq!(parse(text), Err(format!("time: {why}")), "{text}");
        }
    }
}
