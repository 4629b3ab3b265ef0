//! The launcher's log: a line per warning or error, where `--log` points, as runc writes it.

use std::{
    fs::OpenOptions,
    io::Write,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::json::{Json, object};

/// Where lines go and in which form.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// `--log`; warnings are dropped without it, since standard error is the container's.
    pub path: Option<PathBuf>,
    /// `--log-format json`
    pub json: bool,
    /// `--debug` is accepted for compatibility; there is nothing below a warning.
    pub debug: bool,
}

impl Log {
    pub fn warn(&self, message: &str) {
        self.line("warning", message);
    }

    /// Errors are also the caller's to see on standard error.
    pub fn error(&self, message: &str) {
        self.line("error", message);
    }

    /// An error where there is no log: as logrus writes it to what is no terminal.
    pub fn text(level: &str, message: &str) -> String {
        format!("time=\"{}\" level={level} msg={}", now(), Json::from(message))
    }

    fn line(&self, level: &str, message: &str) {
        let Some(path) = &self.path else { return };
        let line = if self.json {
            object([("level", level.into()), ("msg", message.into()), ("time", now().into())]).to_string()
        } else {
            Log::text(level, message)
        };
        // A log that cannot be written must not stop a container.
        if let Ok(mut file) = OpenOptions::new().append(true).create(true).open(path) {
            let _ = writeln!(file, "{line}");
        }
    }
}

fn now() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64))
}

/// Seconds since 1970 as RFC 3339 in UTC.
pub fn rfc3339(seconds: i64) -> String {
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Days since 1970 as year, month, day (the proleptic Gregorian calendar counted in eras of 400 years from March).
pub fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in
            [(0, "1970-01-01T00:00:00Z"), (951_827_696, "2000-02-29T12:34:56Z"), (-1, "1969-12-31T23:59:59Z")]
        {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
