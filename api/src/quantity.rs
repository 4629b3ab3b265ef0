//! Quantities of resources: `100m`, `1.5Gi`, `2e3`, exact and in upstream's canonical form.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// Nano is the finest unit; finer values are rounded away from zero (apimachinery `resource.Quantity`).
const NANO: i128 = 1_000_000_000;

/// No amount is larger than this many whole units; larger ones are cut to it (`maxAllowed` upstream).
const MAX: i128 = i64::MAX as i128 * NANO;

/// What a text that is not a quantity is refused with.
pub const FORMAT_WRONG: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// The family of suffixes a quantity is written with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `k`, `M`, `G`; `m`, `u`, `n`
    DecimalSi,
    /// `Ki`, `Mi`, `Gi`
    BinarySi,
    /// `e3`, `e6`
    DecimalExponent,
}

/// An exact amount. Two quantities are equal when their amounts are, whatever they are written like.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    /// In billionths.
    nanos: i128,
    format: Format,
}

/// The text is not a quantity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// It does not have the form of one.
    #[error("{FORMAT_WRONG}")]
    Format,
    /// It has, but there is no such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// Whether a text is a quantity in canonical form, as far as that can be seen at a glance: most are so few of a unit that no
/// larger one could count them.
pub(crate) fn is_plain(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = text.split_at(digits);
    let is_few = (1..=3).contains(&digits) && !number.starts_with('0');
    is_few && matches!(suffix, "" | "m" | "k" | "M" | "G" | "T" | "Ki" | "Mi" | "Gi" | "Ti")
}

/// Letters and a number may follow the amount; which letters is another question.
fn suffix_error(suffix: &str) -> ParseError {
    let rest = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    if rest.bytes().all(|b| b.is_ascii_digit()) { ParseError::Suffix } else { ParseError::Format }
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let negative = text.starts_with('-');
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ParseError::Format);
        }
        let (scale, format) = Scale::of_suffix(suffix)?;
        let nanos = scale.nanos(whole, fraction);
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// A number of whole units.
    pub fn from_units(units: i64) -> Self {
        Self { nanos: i128::from(units) * NANO, format: Format::DecimalSi }
    }
    /// A number of thousandths, as CPU is counted.
    pub fn from_millis(millis: i64) -> Self {
        Self { nanos: (i128::from(millis) * (NANO / 1000)).clamp(-MAX, MAX), format: Format::DecimalSi }
    }
    /// A number of bytes, written with binary suffixes.
    pub fn from_bytes(bytes: u64) -> Self {
        Self { nanos: (i128::from(bytes) * NANO).min(MAX), format: Format::BinarySi }
    }
    /// Whole units, rounded up (away from zero), as upstream's `Value`.
    pub fn units(self) -> i64 {
        Self::saturate(div_away(self.nanos, NANO))
    }
    /// Thousandths, rounded up (away from zero), as upstream's `MilliValue`.
    pub fn millis(self) -> i64 {
        Self::saturate(div_away(self.nanos, NANO / 1000))
    }
    /// The same in whole thousandths, rounded up (away from zero), as upstream's `RoundUp(Milli)`.
    pub fn round_up_to_millis(self) -> Self {
        const MILLI: i128 = NANO / 1000;
        Self { nanos: div_away(self.nanos, MILLI) * MILLI, ..self }
    }
    /// As a floating point number, for ratios and graphs only.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }
    /// Whether it is nothing.
    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }
    /// Whether it is less than nothing.
    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }
    /// Whether it is a whole number of units.
    pub fn is_integer(self) -> bool {
        self.nanos % NANO == 0
    }
    /// How it is written.
    pub fn format(self) -> Format {
        self.format
    }
    /// The same amount, written otherwise.
    pub fn with_format(self, format: Format) -> Self {
        Self { format, ..self }
    }

    /// The product with a whole number.
    pub fn times(self, factor: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(factor)).clamp(-MAX, MAX), ..self }
    }

    fn saturate(value: i128) -> i64 {
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }
}

fn div_away(value: i128, by: i128) -> i128 {
    value / by + if value % by == 0 { 0 } else { value.signum() }
}

/// What a suffix multiplies by.
enum Scale {
    Binary(u32),
    Decimal(i32),
}

impl Scale {
    fn of_suffix(suffix: &str) -> Result<(Self, Format), ParseError> {
        let scale = match suffix {
            "n" => Scale::Decimal(-9),
            "u" => Scale::Decimal(-6),
            "m" => Scale::Decimal(-3),
            "" => Scale::Decimal(0),
            "k" => Scale::Decimal(3),
            "M" => Scale::Decimal(6),
            "G" => Scale::Decimal(9),
            "T" => Scale::Decimal(12),
            "P" => Scale::Decimal(15),
            "E" => Scale::Decimal(18),
            "Ki" => Scale::Binary(10),
            "Mi" => Scale::Binary(20),
            "Gi" => Scale::Binary(30),
            "Ti" => Scale::Binary(40),
            "Pi" => Scale::Binary(50),
            "Ei" => Scale::Binary(60),
            exponent => {
                let digits = exponent.strip_prefix(['e', 'E']).and_then(|digits| digits.parse().ok());
                return Ok((Scale::Decimal(digits.ok_or_else(|| suffix_error(suffix))?), Format::DecimalExponent));
            }
        };
        let format = if matches!(scale, Scale::Binary(_)) { Format::BinarySi } else { Format::DecimalSi };
        Ok((scale, format))
    }

    /// The amount of `whole.fraction` in billionths, rounded up, at most [`MAX`].
    ///
    /// Only the leading digits that fit are multiplied out (19 before a binary suffix, 30 otherwise: more than any
    /// amount up to [`MAX`] needs without one); what follows them decides about rounding up.
    fn nanos(&self, whole: &str, fraction: &str) -> i128 {
        let (exponent, shift, room) = match *self {
            Scale::Binary(shift) => (9, shift, 19),
            Scale::Decimal(exponent) => (i64::from(exponent) + 9, 0, 30),
        };
        let mut value: i128 = 0;
        let mut taken = 0;
        let mut rest = false;
        // The power of ten that the last digit taken stands for.
        let mut place = exponent + whole.len() as i64;
        for digit in whole.bytes().chain(fraction.bytes()).map(|b| i128::from(b - b'0')) {
            if taken < room {
                value = value * 10 + digit;
                place -= 1;
                taken += u32::from(value != 0);
            } else {
                rest |= digit != 0;
            }
        }
        if value == 0 {
            return 0;
        }
        let shifted = value << shift;
        let power = u32::try_from(place.unsigned_abs()).ok().and_then(|p| 10_i128.checked_pow(p));
        let scaled = match (power, place >= 0) {
            (Some(power), true) => shifted.saturating_mul(power),
            (None, true) => MAX,
            (Some(power), false) => div_away(shifted, power),
            (None, false) => 1,
        };
        let exact = place < 0 && power.is_some_and(|p| shifted % p != 0);
        scaled.saturating_add(i128::from(rest && !exact)).min(MAX)
    }
}

impl FromStr for Quantity {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}
impl Add for Quantity {
    type Output = Self;
    /// The sum, at most the largest amount. A sum takes the format of the other side when this side is nothing.
    fn add(self, other: Self) -> Self {
        let format = if self.is_zero() { other.format } else { self.format };
        Self { nanos: (self.nanos + other.nanos).clamp(-MAX, MAX), format }
    }
}
impl Sub for Quantity {
    type Output = Self;
    /// The difference.
    fn sub(self, other: Self) -> Self {
        self + Self { nanos: -other.nanos, ..other }
    }
}
impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Self::add)
    }
}

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, the largest suffix that allows that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Small amounts and fractions are written with decimal suffixes whatever their family, as upstream does.
        let binary = self.format == Format::BinarySi && self.nanos.abs() >= 1024 * NANO;
        if binary {
            let mut units = div_away(self.nanos, NANO);
            let mut power = 0;
            while units % 1024 == 0 && power < 6 {
                units /= 1024;
                power += 1;
            }
            return write!(f, "{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][power]);
        }
        let mut mantissa = self.nanos;
        let mut power = 0;
        while mantissa % 1000 == 0 && power < 9 {
            mantissa /= 1000;
            power += 1;
        }
        match self.format {
            Format::DecimalExponent if power == 3 => write!(f, "{mantissa}"),
            Format::DecimalExponent => write!(f, "{mantissa}e{}", (power as i32 - 3) * 3),
            _ => write!(f, "{mantissa}{}", ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"][power]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let rows = [
            ("0", "0"),
            ("0.5", "500m"),
            ("1000m", "1"),
            ("1.5Gi", "1536Mi"),
            ("1500m", "1500m"),
            ("100000", "100k"),
            ("1024Ki", "1Mi"),
            ("512", "512"),
            ("1024", "1024"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E6", "1e6"),
            ("1e-3", "1e-3"),
            ("1E", "1E"),
            ("2Ei", "2Ei"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            (".5", "500m"),
            ("5.", "5"),
            ("1.000000000000001", "1000000001n"),
            ("100E", "9223372036854775807"),
            ("99999999999999999999", "9223372036854775807"),
            ("1e400", "9223372036854775807e0"),
            ("0e400", "0"),
            ("1e-400", "1e-9"),
            ("0.1Ki", "102400m"),
            ("0.0000000001Gi", "107374183n"),
            ("000123", "123"),
            ("0.00000000000000000000000001", "1n"),
            ("123456789.123456789", "123456789123456789n"),
        ];
        for (text, canonical) in rows {
            let parsed = Quantity::parse(text).unwrap_or_else(|_| panic!("{text}"));
            let canonical = canonical.strip_suffix("e0").unwrap_or(canonical);
            assert_eq!(parsed.to_string(), canonical, "{text}");
            assert_eq!(Quantity::parse(canonical).unwrap(), parsed, "{text}");
        }
        // With a binary suffix the written form has whole units only, rounded up.
        assert_eq!(Quantity::parse("1.1Mi").unwrap().to_string(), "1153434");
    }

    #[test]
    fn what_is_plainly_canonical_is_so() {
        let suffixes = ["", "n", "m", "k", "M", "T", "E", "Ki", "Gi", "Ti", "Ei", "e3", "E", "Mi ", "i", "x"];
        let numbers = (0..1100).map(|number| number.to_string());
        for number in numbers.chain(["", "+1", "-1", "1.5", "00", "01", "٣"].map(str::to_owned)) {
            for text in suffixes.map(|suffix| format!("{number}{suffix}")) {
                let canonical = Quantity::parse(&text).is_ok_and(|parsed| parsed.to_string() == text);
                assert!(canonical || !is_plain(&text), "{text:?}");
            }
        }
        assert!(["100m", "2", "512Mi", "999Ti"].iter().all(|text| is_plain(text)));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "x", "1x", "1.2.3", "--1", "1ki", "1 Gi", "1e", "1e1.5", "Gi", ".", "1KB", "１"] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn errors_are_upstreams() {
        assert_eq!(Quantity::parse("1ki").unwrap_err().to_string(), "unable to parse quantity's suffix");
        assert_eq!(Quantity::parse("lots").unwrap_err().to_string(), FORMAT_WRONG);
    }

    #[test]
    fn arithmetic_is_exact() {
        let q = |text: &str| Quantity::parse(text).unwrap();
        assert_eq!(q("100m") + q("200m"), q("0.3"));
        assert_eq!((q("1Gi") - q("1Mi")).to_string(), "1023Mi");
        assert_eq!((q("100m").units(), q("1.0001").millis(), q("-100m").units()), (1, 1001, -1));
        assert_eq!(q("250m").times(4).to_string(), "1");
        assert_eq!(["1Gi", "512Mi"].into_iter().map(q).sum::<Quantity>().to_string(), "1536Mi");
        assert!(q("1Ki") > q("1k") && q("1000m") == q("1"));
        assert_eq!((q("9E") + q("9E")).units(), i64::MAX);
    }
}
