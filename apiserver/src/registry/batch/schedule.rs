//! Schedules: five fields, or a name (robfig/cron `ParseStandard`).

use super::{duration, time_zone};

const NAMED: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// What a field can hold: the least, the most, and names in the place of numbers.
type Bounds = (u64, u64, &'static [&'static str]);

/// Minutes, hours, days of the month, months, days of the week.
const FIELDS: [Bounds; 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];

/// Whether a schedule can be read.
pub fn check(schedule: &str) -> Result<(), String> {
    let schedule = without_zone(schedule)?;
    if schedule.starts_with('@') {
        return match schedule.strip_prefix("@every ") {
            Some(every) => {
                duration::parse(every).map(drop).map_err(|why| format!("failed to parse duration {schedule}: {why}"))
            }
            None if NAMED.contains(&schedule) => Ok(()),
            None => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, bounds) in fields.into_iter().zip(FIELDS) {
        for part in field.split(',').filter(|part| !part.is_empty()) {
            range(part, bounds)?;
        }
    }
    Ok(())
}

/// The schedule behind a time zone.
fn without_zone(schedule: &str) -> Result<&str, String> {
    let Some(zoned) = ["TZ=", "CRON_TZ="].iter().find_map(|prefix| schedule.strip_prefix(prefix)) else {
        return Ok(schedule);
    };
    let Some((zone, rest)) = zoned.split_once(' ') else {
        // Upstream's parser looks behind the end here, and its caller tells how that ended.
        return Err("invalid schedule format: runtime error: slice bounds out of range [:-1]".to_owned());
    };
    time_zone::load(zone).map_err(|why| format!("provided bad location {zone}: {why}"))?;
    Ok(rest.trim())
}

/// `*`, `n`, `n-m`, each with or without a step.
fn range(part: &str, (least, most, names): Bounds) -> Result<(), String> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    let (first, last) = range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
    let (start, mut end) = if matches!(first, "*" | "?") {
        (least, most)
    } else {
        let start = named(first, least, names)?;
        match last {
            Some(last) if last.contains('-') => return Err(format!("too many hyphens: {part}")),
            Some(last) => (start, named(last, least, names)?),
            None => (start, start),
        }
    };
    let step = match step {
        Some(step) if step.contains('/') => return Err(format!("too many slashes: {part}")),
        Some(step) => {
            let step = number(step)?;
            if last.is_none() {
                // From there to the end.
                end = most;
            }
            step
        }
        None => 1,
    };
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {part}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {part}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

fn named(text: &str, least: u64, names: &[&str]) -> Result<u64, String> {
    let nth = names.iter().position(|name| name.eq_ignore_ascii_case(text));
    match nth.and_then(|nth| u64::try_from(nth).ok()) {
        Some(nth) => Ok(nth + least),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u64, String> {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match text.parse::<i64>() {
        Ok(number) => u64::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}")),
        Err(error) => {
            let why = match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: {why}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for valid in [
            "* * * * *",
            "*/5 0-6 1,15 jan-dec MON",
            "@hourly",
            "@every 1h30m",
            "0 0 ? * 0",
            "*-5 * * * *",
            "1,,2 , * * *",
            "10/5 * * * *",
            "TZ=UTC 0 0 * * *",
            "CRON_TZ=UTC  @daily",
            "+5 * * * *",
        ] {
            assert_eq!(check(valid), Ok(()), "{valid}");
        }
        for (invalid, why) in [
            ("", "expected exactly 5 fields, found 0: []"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("60/5 * * * *", "beginning of range (60) beyond end of range (59): 60/5"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("-5 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            (
                "99999999999999999999 * * * *",
                "failed to parse int from 99999999999999999999: strconv.Atoi: parsing \"99999999999999999999\": value out of range",
            ),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("70/0 * * * *", "beginning of range (70) beyond end of range (59): 70/0"),
            ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
            ("* * * */jan *", "failed to parse int from jan: strconv.Atoi: parsing \"jan\": invalid syntax"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("@sometimes", "unrecognized descriptor: @sometimes"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("@every 3d", "failed to parse duration @every 3d: time: unknown unit \"d\" in duration \"3d\""),
            ("TZ=Mars/Base * * * * *", "provided bad location Mars/Base: unknown time zone Mars/Base"),
            ("TZ=UTC", "invalid schedule format: runtime error: slice bounds out of range [:-1]"),
            ("TZ=UTC ", "expected exactly 5 fields, found 0: []"),
        ] {
            assert_eq!(check(invalid), Err(why.to_owned()), "{invalid}");
        }
    }
}
