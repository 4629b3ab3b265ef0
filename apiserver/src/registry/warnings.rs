//! What a client is told beside the answer (apiserver `pkg/endpoints/filters/warning.go`): each thing once, and not much of it.

use super::fields::{field, quantity};
use coracle_api::json::Value;
use coracle_api::status::FieldPath;
use coracle_api::validation;
use std::fmt;

/// The most characters of all warnings; when there are more, each is cut.
const MOST: usize = 4 * 1024;
/// The most characters of one, then.
const MOST_EACH: usize = 256;
/// How much is looked at, in bytes. Some rules compare all with all, and may say the same of many.
const MOST_GIVEN: usize = 1 << 20;

/// Warnings in their order.
#[derive(Debug, Default)]
pub struct Warnings {
    texts: Vec<String>,
    /// Characters of them all.
    whole: usize,
    /// Characters of them all when each is cut.
    cut: usize,
    given: usize,
}

impl Warnings {
    /// Adds one. Those with control characters cannot be sent.
    pub fn add(&mut self, text: String) {
        if self.is_full() {
            return;
        }
        self.given += text.len();
        if text.is_empty() || text.contains(char::is_control) || self.texts.contains(&text) {
            return;
        }
        let length = text.chars().count();
        self.whole += length;
        self.cut += length.min(MOST_EACH);
        self.texts.push(text);
    }

    /// Adds what there is to say of a field.
    pub fn at(&mut self, path: &FieldPath, why: impl fmt::Display) {
        if !self.is_full() {
            self.add(format!("{}: {why}", path.as_str()));
        }
    }

    /// Nothing that comes now will be shown.
    pub fn is_full(&self) -> bool {
        self.whole > MOST && self.cut >= MOST || self.given >= MOST_GIVEN
    }

    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// They as they were given.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// They as they are shown.
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        let most = if self.whole > MOST { MOST_EACH } else { usize::MAX };
        let cut = move |text: &str| text.char_indices().nth(most).map_or(text.len(), |(end, _)| end);
        self.texts.iter().map(move |text| &text[..cut(text)])
    }

    /// An address in a form that will not do for ever.
    pub fn ip(&mut self, path: impl FnOnce() -> FieldPath, text: &str) {
        if let Some(why) = validation::unusual_ip(text) {
            self.at(&path(), why);
        }
    }

    /// A range of addresses in such a form.
    pub fn cidr(&mut self, path: impl FnOnce() -> FieldPath, text: &str) {
        let told = validation::unusual_cidr(text);
        if !told.is_empty() {
            let path = path();
            told.into_iter().for_each(|why| self.at(&path, why));
        }
    }

    /// An amount of bytes that is no whole number, in a list of amounts.
    pub fn fraction(&mut self, amounts: Option<&Value>, name: &str, path: impl FnOnce() -> FieldPath) {
        let amount = amounts.and_then(|amounts| field(amounts, name)).and_then(quantity);
        // What is less than a thousandth does not count.
        if let Some(amount) = amount.filter(|amount| !amount.is_integer() && amount.millis() % 1000 != 0) {
            let shown = amount.to_string();
            let why = format_args!("fractional byte value {shown:?} is invalid, must be an integer");
            self.at(&path().key(name), why);
        }
    }
}

impl From<Warnings> for Vec<String> {
    fn from(warnings: Warnings) -> Self {
        warnings.texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_api::json::json;

    fn of(texts: impl IntoIterator<Item = String>) -> Warnings {
        let mut warnings = Warnings::default();
        texts.into_iter().for_each(|text| warnings.add(text));
        warnings
    }

    #[test]
    fn each_is_told_once_and_whole() {
        let long = "x".repeat(MOST - 2);
        let warnings = of(["b", &long, "", "b", "c\n", "é"].map(str::to_owned));
        assert_eq!(warnings.shown().collect::<Vec<_>>(), ["b", &*long, "é"]);
        assert!(!warnings.is_full() && !warnings.is_empty() && of([]).is_empty());
    }

    #[test]
    fn many_are_cut() {
        let warnings = of(["b".to_owned(), "é".repeat(MOST), "c".to_owned()]);
        let expected = ["b".to_owned(), "é".repeat(MOST_EACH), "c".to_owned()];
        assert_eq!(warnings.shown().collect::<Vec<_>>(), expected);
        let warnings = of((0..100_000).map(|nth| format!("{nth:0300}")));
        let told = Vec::from_iter(warnings.shown());
        assert_eq!((told.len(), told[15].len()), (MOST / MOST_EACH, MOST_EACH));
        // One more than fit is what has them cut.
        let warnings = of((0..100_000).map(|nth| format!("{nth:0128}")));
        assert_eq!(warnings.shown().count(), 33);
        assert!(warnings.is_full());
        assert!(of((0..MOST_GIVEN).map(|_| "a".to_owned())).is_full(), "the same for ever");
    }

    #[test]
    fn amounts_of_bytes_are_whole() {
        let told = |amount: Value| {
            let mut warnings = Warnings::default();
            warnings.fraction(Some(&json!({"memory": amount})), "memory", || FieldPath::new("limits"));
            Vec::from(warnings)
        };
        let why =
            |shown: &str| [format!("limits[memory]: fractional byte value {shown:?} is invalid, must be an integer")];
        assert_eq!(told(json!("0.1")), why("100m"));
        assert_eq!(told(json!("1500m")), why("1500m"));
        for whole in [json!("1Gi"), json!(5), json!("8Ei"), json!("1000m"), json!("x"), json!(null)] {
            assert!(told(whole.clone()).is_empty(), "{whole}");
        }
    }
}
