//! Names of time zones (batch `validateTimeZone`).

use coracle_api::Cause;
use coracle_api::status::FieldPath;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Longest part of a name between slashes.
const PART_MAX: usize = 14;

/// A time zone that is given.
pub fn validate(zone: &str, path: &FieldPath, causes: &mut Vec<Cause>) {
    if zone.is_empty() {
        causes.push(Cause::invalid(path, zone, "timeZone must be nil or non-empty string"));
        return;
    }
    if !zone.split('/').all(is_part) {
        causes.push(Cause::invalid(path, zone, unknown(zone)));
        return;
    }
    if zone.eq_ignore_ascii_case("Local") {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        causes.push(Cause::invalid(path, zone, why));
    }
    if let Err(why) = load(zone) {
        causes.push(Cause::invalid(path, zone, why));
    }
}

/// Whether there is such a zone, in the words of Go's `time.LoadLocation`.
pub fn load(zone: &str) -> Result<(), String> {
    if matches!(zone, "" | "UTC" | "Local") {
        return Ok(());
    }
    if zone.contains("..") || zone.starts_with(['/', '\\']) {
        return Err("time: invalid location name".to_owned());
    }
    // Names are those of files, small and capital letters as they are. The unknown zone has none.
    let is_it = |found: TimeZone| found.iana_name() == Some(zone) && zone != "Etc/Unknown";
    // The host's zones are the newer ones, but there may be none, or none of those that have a new name.
    let known = [jiff::tz::db(), &TimeZoneDatabase::bundled()].iter().any(|zones| zones.get(zone).is_ok_and(is_it));
    if known { Ok(()) } else { Err(unknown(zone)) }
}

fn unknown(zone: &str) -> String {
    format!("unknown time zone {zone}")
}

fn is_part(part: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+".contains(&byte);
    !matches!(part, "" | "." | "..") && part.len() <= PART_MAX && !part.starts_with('-') && part.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(zone: &str) -> Vec<String> {
        let mut causes = Vec::new();
        validate(zone, &FieldPath::new("z"), &mut causes);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn zones_are_called_as_they_are() {
        for zone in ["UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+5", "US/Pacific"] {
            assert!(told(zone).is_empty(), "{zone}");
        }
        for zone in [
            "europe/berlin",
            "utc",
            "Mars/Base",
            "Europe",
            "Etc/Unknown",
            "/UTC",
            "Europe/",
            "../UTC",
            "./UTC",
            "-a/b",
            "A B",
            "Aaaaaaaaaaaaaaa",
            "Etc/Zürich",
        ] {
            assert_eq!(told(zone), [format!("z: Invalid value: {zone:?}: unknown time zone {zone}")]);
        }
        assert_eq!(told(""), ["z: Invalid value: \"\": timeZone must be nil or non-empty string"]);
    }

    #[test]
    fn where_the_server_stands_is_no_zone() {
        let why = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        assert_eq!(told("Local"), [format!("z: Invalid value: \"Local\": {why}")]);
        assert_eq!(
            told("local"),
            [
                format!("z: Invalid value: \"local\": {why}"),
                "z: Invalid value: \"local\": unknown time zone local".to_owned()
            ]
        );
    }

    #[test]
    fn places_outside_are_not_looked_for() {
        for zone in ["a/../b", "/etc/passwd", "\\a"] {
            assert_eq!(load(zone), Err("time: invalid location name".to_owned()));
        }
        assert_eq!(load(""), Ok(()));
    }
}
