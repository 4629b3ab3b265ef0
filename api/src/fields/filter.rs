//! What a way of writing can own.

use super::Set;

/// Which paths a write can own; what it cannot set is nobody's by it (structured-merge-diff `fieldpath.Filter`).
pub enum Filter<'a> {
    /// All paths.
    All,
    /// All but these, and what is below them.
    AllBut(&'a Set<'a>),
    /// These alone, with what leads to them and what is below them; `*` is any one step.
    Only(&'static [&'static [&'static str]]),
}

impl Filter<'_> {
    /// What of a set can be owned.
    pub(super) fn of<'s>(&self, set: Set<'s>) -> Set<'s> {
        match self {
            Self::All => set,
            Self::AllBut(ignored) => set.without(ignored),
            Self::Only(ways) => set.only(ways),
        }
    }
}
