//! Counted terms: for every "pods of these namespaces with these labels" that a pod's rules name, each node keeps how
//! many it has, so that no cycle ever goes through the pods of the cluster.

use std::collections::HashMap;

use coracle_api::selector::LabelSelector;

use crate::{pod_info::PodInfo, selectors};

/// A counted term. Valid until the table is full and begins anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TermId(u16);

impl TermId {
    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Which pods a rule speaks of.
#[derive(Clone, Debug)]
pub struct Term {
    /// Identifies equal terms: namespaces and selector in a canonical text.
    pub text: String,
    /// None for all namespaces.
    pub namespaces: Option<Vec<String>>,
    pub selector: LabelSelector,
}

impl Term {
    /// The term of a selector in namespaces (None for all).
    pub fn new(namespaces: Option<Vec<String>>, selector: LabelSelector) -> Self {
        Self { text: format!("{namespaces:?} {selector:?}"), namespaces, selector }
    }

    /// Whether the term speaks of this pod.
    pub fn selects(&self, pod: &PodInfo) -> bool {
        self.namespaces.as_ref().is_none_or(|all| all.iter().any(|namespace| namespace == pod.namespace()))
            && pod.pod.metadata.deletion_timestamp.is_none()
            && selectors::selects(&self.selector, pod.pod.metadata.labels.as_ref())
    }
}

/// Most terms counted at a time; each costs four bytes a node and one match a pod that comes or goes.
const LIMIT: usize = 1024;

/// The terms that are counted.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    ids: HashMap<String, TermId>,
    terms: Vec<Term>,
}

impl Terms {
    /// The term's id, where it is counted already.
    pub fn find(&self, term: &Term) -> Option<TermId> {
        self.ids.get(&term.text).copied()
    }

    /// Adds a term; None when the table is full.
    pub fn add(&mut self, term: Term) -> Option<TermId> {
        if self.terms.len() >= LIMIT {
            return None;
        }
        let id = TermId(u16::try_from(self.terms.len()).ok()?);
        self.ids.insert(term.text.clone(), id);
        self.terms.push(term);
        Some(id)
    }

    /// Forgets all terms.
    pub fn clear(&mut self) {
        self.ids.clear();
        self.terms.clear();
    }

    /// The ids of the terms that speak of this pod.
    pub fn of<'a>(&'a self, pod: &'a PodInfo) -> impl Iterator<Item = TermId> + 'a {
        let numbered = (0u16..).zip(&self.terms);
        numbered.filter(|(_, term)| term.selects(pod)).map(|(number, _)| TermId(number))
    }
}
