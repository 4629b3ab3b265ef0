//! What the answers of plugins rest on. While all of it is as it was, they would answer an equal object the same.

use crate::store::Revision;
use crate::verbs::Call;
use coracle_api::Status;

/// What a plugin's answer to a new object rests on.
#[derive(Clone, Copy, Debug)]
pub enum Rests<'a> {
    /// On nothing but the object and the path it came by.
    Object,
    /// On an object of the cluster as well, there or not.
    One { group: &'static str, plural: &'static str, key: &'a str },
    /// On all objects of a resource of the cluster.
    All { group: &'static str, plural: &'static str },
    /// On what can be another at any time: who asks, a counter, somebody else's answer.
    Moment,
}

/// Something that was so.
#[derive(Debug, PartialEq, Eq)]
enum Fact {
    /// The revision of an object; None when there was none.
    One { group: &'static str, plural: &'static str, key: String, revision: Option<Revision> },
    /// How many objects there were, and the newest's revision. A change raises that, and if the newest goes, there are fewer.
    All { group: &'static str, plural: &'static str, count: usize, newest: Revision },
}

/// All that the answers to one object rest on.
#[derive(Debug, Default)]
pub struct Grounds {
    facts: Vec<Fact>,
    momentary: bool,
}

impl Grounds {
    /// Takes down what a plugin is about to look at. Before it looks: what changes meanwhile only makes the note too old.
    pub(super) fn note(&mut self, call: &Call, rests: Rests<'_>) -> Result<(), Status> {
        match rests {
            Rests::Object => {}
            Rests::One { group, plural, key } => {
                let revision = revision_of(call, group, plural, key)?;
                self.facts.push(Fact::One { group, plural, key: key.to_owned(), revision });
            }
            Rests::All { group, plural } => {
                let (count, newest) = all_of(call, group, plural)?;
                self.facts.push(Fact::All { group, plural, count, newest });
            }
            Rests::Moment => self.momentary = true,
        }
        Ok(())
    }

    /// Whether the same answers can be given again at all.
    pub fn last(&self) -> bool {
        !self.momentary
    }

    /// Whether everything is as it was.
    pub fn hold(&self, call: &Call) -> bool {
        self.last()
            && self.facts.iter().all(|fact| match fact {
                Fact::One { group, plural, key, revision } => {
                    revision_of(call, group, plural, key).is_ok_and(|now| now == *revision)
                }
                Fact::All { group, plural, count, newest } => {
                    all_of(call, group, plural).is_ok_and(|now| now == (*count, *newest))
                }
            })
    }
}

fn revision_of(call: &Call, group: &str, plural: &str, key: &str) -> Result<Option<Revision>, Status> {
    Ok(call.server.cache_of(group, plural)?.snapshot().get(key).map(|object| object.revision))
}

fn all_of(call: &Call, group: &str, plural: &str) -> Result<(usize, Revision), Status> {
    let snapshot = call.server.cache_of(group, plural)?.snapshot();
    let newest = snapshot.objects.values().map(|object| object.revision).max().unwrap_or(0);
    Ok((snapshot.objects.len(), newest))
}
