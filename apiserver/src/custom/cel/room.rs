//! Room for what is deep: a stack of its own, one for all expressions of a request.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Room for whatever the parser takes.
const ROOM: usize = 64 << 20;

/// What a thread is for the expressions that it is asked about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stack {
    /// The stack of whoever asks: what is deep gets one of its own.
    Small,
    /// The same, in a try at work that goes on elsewhere as soon as something is deep.
    Tried,
    /// Something was deep: what is found here is thrown away.
    Left,
    /// Everything has room.
    Large,
}

thread_local! {
    static STACK: Cell<Stack> = const { Cell::new(Stack::Small) };
    static SPENT: Cell<[usize; 2]> = const { Cell::new([0; 2]) };
}

/// Sets what the thread is; a panic does not leave it so.
struct Entered;

impl Entered {
    fn new(stack: Stack) -> Self {
        STACK.set(stack);
        SPENT.set([0; 2]);
        Self
    }
}

/// What is done no more than so often for one request. Behind it, what is wrong is told of in short.
#[derive(Clone, Copy)]
pub enum Spent {
    /// Bytes that the library's parser is asked about.
    Asked,
    /// Bytes of what is shown.
    Shown,
}

impl Spent {
    pub fn most(self) -> usize {
        match self {
            Self::Asked => 200_000,
            Self::Shown => 4 << 20,
        }
    }

    /// Whether so much more may be spent, which it is. Alone, an expression may spend what it does.
    pub fn may(self, bytes: usize) -> bool {
        let mut spent = SPENT.get();
        let own = &mut spent[self as usize];
        *own = own.saturating_add(bytes);
        let may = *own <= self.most();
        SPENT.set(spent);
        may || STACK.get() == Stack::Small
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        STACK.set(Stack::Small);
    }
}

/// Work on many expressions, which is given an empty list for what it finds. It is begun here, and begun again on one larger stack, at most,
/// when the first of them is met that is deep or broken.
pub fn roomy<T: Send>(found: &mut Vec<T>, work: impl Fn(&mut Vec<T>) + Sync) {
    let gathered = || {
        let mut found = Vec::new();
        work(&mut found);
        found
    };
    if STACK.get() != Stack::Small {
        found.extend(gathered());
        return;
    }
    let here = {
        let _entered = Entered::new(Stack::Tried);
        let here = gathered();
        (STACK.get() == Stack::Tried).then_some(here)
    };
    // Without a thread each expression says itself that there is no room for it.
    found.extend(here.unwrap_or_else(|| on_large(gathered).unwrap_or_else(|_| gathered())));
}

/// Does something here, or where there is room for what is not shallow.
pub fn with_room<T: Send>(shallow: bool, work: impl FnOnce() -> T + Send) -> Result<T, String> {
    match STACK.get() {
        Stack::Left => Err(ELSEWHERE.to_owned()),
        _ if shallow => Ok(work()),
        Stack::Tried => {
            STACK.set(Stack::Left);
            Err(ELSEWHERE.to_owned())
        }
        Stack::Large => catch_unwind(AssertUnwindSafe(work)).map_err(|_| FAILED.to_owned()),
        Stack::Small => on_large(|| catch_unwind(AssertUnwindSafe(work)).map_err(|_| FAILED.to_owned()))?,
    }
}

const FAILED: &str = "running a deep expression failed";
/// Nobody is told.
const ELSEWHERE: &str = "a deep expression is looked at elsewhere";

fn on_large<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    let work = || {
        let _entered = Entered::new(Stack::Large);
        work()
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(ROOM).spawn_scoped(scope, work);
        let thread = thread.map_err(|error| format!("starting a thread for a deep expression: {error}"))?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread::{self, ThreadId};

    fn place(shallow: bool) -> Option<ThreadId> {
        with_room(shallow, || thread::current().id()).ok()
    }

    #[test]
    fn what_is_deep_shares_one_larger_stack() {
        let (mut found, tries) = (vec![None], AtomicUsize::new(0));
        roomy(&mut found, |found| {
            tries.fetch_add(1, Ordering::Relaxed);
            found.push(place(true));
            roomy(found, |found| found.extend((0..3).map(|_| place(false))));
            found.push(with_room(false, || place(false)).unwrap_or_default());
        });
        assert_eq!(tries.load(Ordering::Relaxed), 2);
        assert!(found[0].is_none() && found.len() == 6);
        assert!(found[1..].iter().all(|place| *place == found[1] && place.is_some()), "{found:?}");
        assert_ne!(found[1], Some(thread::current().id()));
        // Outside of it each has its own again, but for what is in it.
        assert_ne!(place(false), place(false));
        assert!(with_room(false, || place(false) == Some(thread::current().id())).unwrap());
    }

    #[test]
    fn what_is_shallow_stays_where_it_is() {
        let tries = AtomicUsize::new(0);
        let mut found = Vec::new();
        roomy(&mut found, |found| {
            tries.fetch_add(1, Ordering::Relaxed);
            found.push(place(true));
        });
        assert_eq!((tries.load(Ordering::Relaxed), found), (1, vec![Some(thread::current().id())]));
    }

    #[test]
    fn a_panic_is_told_of_the_expression_alone() {
        let mut found = Vec::new();
        roomy(&mut found, |found| {
            found.push(with_room(false, || panic!("an expression")));
            found.push(with_room(false, || 1));
        });
        assert_eq!(found, [Err(FAILED.to_owned()), Ok(1)]);
        assert_eq!(with_room(false, || panic!("an expression")), Err::<(), _>(FAILED.to_owned()));
        // One of the work itself goes on, and leaves the thread as it was.
        let panics = || roomy(&mut Vec::<u8>::new(), |_| panic!("the work"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert_ne!(place(false), Some(thread::current().id()));
    }
}
