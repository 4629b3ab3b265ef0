//! What a way of writing can own.

use super::Set;

/// Which paths a write can own; what it cannot set is nobody's by it (structured-merge-diff `fieldpath.Filter`).
pub enum Filter<'a> {
    /// All but these, and what is below them.
    AllBut(Set<'a>),
    /// These alone, with what leads to them and what is below them; `*` is any one step.
    Only(&'static [&'static [&'static str]]),
}

impl Filter<'_> {
    /// All paths.
    pub fn all() -> Self {
        Self::AllBut(Set::default())
    }

    /// What of a set can be owned.
    pub(super) fn of<'s>(&self, set: Set<'s>) -> Set<'s> {
        match self {
            Self::AllBut(ignored) if ignored.is_empty() => set,
            Self::AllBut(ignored) => set.without(ignored),
            Self::Only(ways) => set.only(ways),
        }
    }
}
