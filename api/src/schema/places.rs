//! Where the fields of all types stand: a hash table, because every field of every object is looked for several times.

use super::{FieldRow, TypeRow};

/// Positions of fields by type and name, probed in a row from where a name's number says.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// A position and one, or 0 where there is none; as many as a power of two, and at most half of them taken.
    slots: Box<[u32]>,
    /// How far a number is shifted so that it is one of a slot.
    shift: u32,
}

impl Places {
    pub fn of(types: &[TypeRow], fields: &[FieldRow]) -> Self {
        let count = (2 * fields.len()).next_power_of_two().max(2);
        let mut places = Self { slots: vec![0; count].into(), shift: 64 - count.trailing_zeros() };
        for ty in types {
            for nth in ty.first_field..ty.first_field + ty.field_count {
                let row = &fields[nth as usize];
                let mut slot = places.first(ty.first_field, row.prefix, row.name.len());
                while places.slots[slot] != 0 {
                    slot = places.next(slot);
                }
                places.slots[slot] = nth + 1;
            }
        }
        places
    }

    /// Whether there is nothing to find: the schema is still being made.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The position of a type's field.
    pub fn find(&self, ty: &TypeRow, fields: &[FieldRow], prefix: u64, name: &str) -> Option<u32> {
        let mut slot = self.first(ty.first_field, prefix, name.len());
        // Ends: half of the slots are empty.
        loop {
            let nth = self.slots[slot].checked_sub(1)?;
            let row = &fields[nth as usize];
            let is_of_type = nth.wrapping_sub(ty.first_field) < ty.field_count;
            if is_of_type && row.prefix == prefix && is_rest(&row.name, name) {
                return Some(nth);
            }
            slot = self.next(slot);
        }
    }

    /// The slot where the search for a field begins.
    fn first(&self, first_field: u32, prefix: u64, length: usize) -> usize {
        // Odd numbers without a pattern: 2⁶⁴ by the golden ratio, and one of SplitMix64.
        let number = (prefix ^ length as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(first_field);
        let mixed = (number ^ number >> 32).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> self.shift) as usize
    }

    fn next(&self, slot: usize) -> usize {
        (slot + 1) & (self.slots.len() - 1)
    }
}

/// Whether two names are the same whose first eight bytes are.
fn is_rest(known: &str, name: &str) -> bool {
    known.len() == name.len() && (name.len() <= 8 || std::ptr::eq(known, name) || known == name)
}

#[cfg(test)]
mod tests {
    use crate::schema;

    #[test]
    fn every_field_is_found_in_its_own_type_alone() {
        let schema = schema::builtin();
        let other = schema::of(&crate::gvk::Gvk::of("", "v1", "Pod")).unwrap();
        for (_, kind) in schema.kinds() {
            for field in kind.fields() {
                let found = kind.field(field.name()).unwrap();
                assert_eq!((found.name(), found.nth(kind)), (field.name(), field.nth(kind)));
                assert!(kind.field(&format!("{}x", field.name())).is_none());
                let there = other.fields().any(|known| known.name() == field.name());
                assert_eq!(other.field(field.name()).is_some(), there);
            }
            for absent in ["", "\0", "metadata\0", "Spec", "specification"] {
                assert!(kind.field(absent).is_none(), "{absent:?} of {}", kind.name());
            }
        }
    }
}
