//! Durations as people read them.

use crate::json::Value;
use jiff::Timestamp;

use crate::{clock, meta};

/// Seconds in upstream's short form, about three significant digits: `5s`, `2m30s`, `5h`, `3d4h` (apimachinery
/// `duration.HumanDuration`).
pub fn human_duration(seconds: i64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |a: i64, unit: char, b: i64, rest: char| {
        if b == 0 { format!("{a}{unit}") } else { format!("{a}{unit}{b}{rest}") }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => pair(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => pair(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if hours < 192 => pair(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ if days < 2920 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// The time since a moment given as RFC 3339, `<unknown>` when there is none.
pub(super) fn since(time: &str, now: Timestamp) -> String {
    match clock::parse_rfc3339(time) {
        Some(time) => human_duration(whole_seconds(time, now)),
        None => "<unknown>".into(),
    }
}

/// Whole seconds from one moment to another, towards zero.
pub(super) fn whole_seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs()
}

/// The time since an object was created.
pub fn age(object: &Value, now: Timestamp) -> String {
    since(meta::creation_timestamp(object), now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_upstreams() {
        let rows = [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (121, "2m1s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (176_400, "2d1h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ];
        for (seconds, text) in rows {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
