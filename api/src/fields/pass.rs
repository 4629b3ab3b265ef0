//! Passing over what a write leaves alone.
//!
//! A write changes labels, or the status, and most of what is owned lies elsewhere. That is not made sets of, but looked at
//! where it stands in the text: if it is written as it would be and needs no reconciling, it stays as it is.

use super::held::{Held, Part};
use super::place::Owned;
use super::read::{DEEPEST, Reader};
use super::reconcile::{Step, Way};
use super::set::{Element, Set};

impl<'a> Reader<'a> {
    /// What one owner has, read only at those fields of the root that are touched. None when any of it would be written
    /// otherwise than it was read, or what is not touched is to be [reconciled](super::reconcile).
    pub fn held_where(&mut self, touched: impl Fn(&Element<'_>) -> bool, way: &Way<'_, 'a, '_>) -> Option<Held<'a>> {
        let start = self.at();
        self.canonical = true;
        let (mut set, mut apart, mut last) = (Set::default(), Vec::with_capacity(4), "");
        let mut opening = b'{';
        while !self.take(b'}') {
            let is_next = self.take(opening);
            let from = self.at();
            let name = self.given("\"f:").filter(|name| is_next && *name > last)?;
            let element = Element::field(name);
            if !self.take(b':') {
                return None;
            }
            if touched(&element) {
                let (below, member) = self.set(1)?;
                set.push(element, member, below);
            } else {
                self.pass_one(1, Some(way), Step::Read(&element))?;
                apart.push(Part { name, text: self.since(from) });
            }
            (last, opening) = (name, b',');
        }
        (self.canonical && !last.is_empty()).then(|| Held::read_beside(apart, set, self.since(start)))
    }

    /// Passes over what is owned at the end of a way, where that is more than the way itself. Where there is no way, nothing is
    /// reconciled.
    fn pass(&mut self, depth: usize, way: Option<&Way<'_, 'a, '_>>) -> Option<()> {
        let owned = way.map_or(Owned::Scalar, |way| way.place.owned());
        if depth + 1 >= DEEPEST || owned == Owned::Whole || !self.take(b'{') {
            return None;
        }
        let way = way.filter(|_| owned == Owned::Apart);
        self.skip("\".\":{},");
        let mut last = None;
        loop {
            let name = self.field().map(Name::Field).or_else(|| self.item().map(Name::Item))?;
            if last.is_some_and(|last| !name.is_behind(last)) {
                return None;
            }
            match name {
                Name::Field(name) => self.pass_one(depth + 1, way, Step::Read(&Element::field(name)))?,
                Name::Item(name) => self.pass_one(depth + 1, way, Step::Written(name))?,
            }
            if self.take(b'}') {
                return Some(());
            }
            if !self.take(b',') {
                return None;
            }
            last = Some(name);
        }
    }

    /// Passes over what is owned one step further, and below that.
    fn pass_one(&mut self, depth: usize, way: Option<&Way<'_, 'a, '_>>, step: Step<'_, 'a>) -> Option<()> {
        if !self.ends() {
            return self.pass(depth, way.and_then(|way| way.to(step)).as_ref());
        }
        let changes = || way?.to(step)?.whole();
        let may_change = way.is_some_and(|way| way.leads_apart(step));
        (!may_change || changes().is_none()).then_some(())
    }
}

/// A name in an owner's account.
#[derive(Clone, Copy)]
enum Name<'a> {
    Field(&'a str),
    /// As it is written.
    Item(&'a str),
}

impl Name<'_> {
    fn is_behind(self, last: Self) -> bool {
        match (last, self) {
            (Self::Field(last), Self::Field(name)) => last < name,
            (Self::Field(_), Self::Item(_)) => true,
            (Self::Item(_), Self::Field(_)) => false,
            (Self::Item(last), Self::Item(name)) => {
                // Nothing but quotes is escaped in them.
                let byte = |byte| if byte == b'\\' { b'"' } else { byte };
                let differ = last.bytes().zip(name.bytes()).find(|(a, b)| a != b);
                differ.map_or(last.len() < name.len(), |(a, b)| byte(a) < byte(b))
            }
        }
    }
}
