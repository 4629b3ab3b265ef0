//! The names that fields of built-in kinds have, to be found by their text.

use std::sync::LazyLock;

use super::{builtin, prefix};
use crate::gvk::Symbol;

/// A name to be kept: where some built-in kind has such a field it is the program's own text, which costs nothing.
pub fn symbol(name: &str) -> Symbol {
    NAMES.find(name).map_or_else(|| Symbol::shared(name), Symbol::new)
}

static NAMES: LazyLock<Names> =
    LazyLock::new(|| Names::of(builtin().fields.iter().filter_map(|row| row.name.program())));

/// Open addressing, a quarter full. What is in it is the program's, so nobody can make its rows long.
struct Names {
    places: Vec<Option<&'static str>>,
    /// How far a hash is shifted to be a place.
    shift: u32,
}

impl Names {
    fn of(names: impl Iterator<Item = &'static str>) -> Self {
        let names: std::collections::BTreeSet<_> = names.collect();
        let size = (names.len().max(1) * 4).next_power_of_two();
        let mut made = Self { places: vec![None; size], shift: 64 - size.trailing_zeros() };
        for name in names {
            let free = made.row(name).find(|at| made.places[*at].is_none());
            free.into_iter().for_each(|at| made.places[at] = Some(name));
        }
        made
    }

    fn find(&self, name: &str) -> Option<&'static str> {
        self.row(name).map_while(|at| self.places[at]).find(|known| known.len() == name.len() && *known == name)
    }

    /// The places at which a name may stand, the likeliest first.
    fn row(&self, name: &str) -> impl Iterator<Item = usize> + use<> {
        let bytes = name.as_bytes();
        let last = bytes.last_chunk().map_or(0, |eight| u64::from_le_bytes(*eight));
        // Names differ at their ends, at their beginnings, or in length.
        let mixed = prefix(name).rotate_left(29) ^ last ^ (name.len() as u64) << 56;
        let first = mixed.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift;
        let mask = self.places.len() - 1;
        (0..self.places.len()).map(move |step| (first as usize + step) & mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_fields_are_the_programs_own() {
        for row in &builtin().fields {
            assert!(symbol(&row.name).program() == Some(row.name.as_str()));
        }
        for other in ["", "app", "specs", "metadat", "containers ", "nodePort\0"] {
            assert_eq!(symbol(other), other);
            assert!(other.is_empty() || symbol(other).program().is_none(), "{other}");
        }
    }
}
