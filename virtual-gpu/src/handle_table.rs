//! Tables of handles, one for each kind of thing that a library hands out. A table makes itself known when it is first used, so that a report can say
//! what was not destroyed without knowing any library.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, Once};

use crate::device::{Handles, lock};

/// The handles of one kind of thing.
pub(crate) struct HandleTable<T: 'static> {
    library: &'static str,
    handles: Mutex<Handles<T>>,
    is_known: Once,
}

/// Something that counts what is left of a library.
trait Counts: Sync {
    fn library(&self) -> &'static str;
    fn count(&self) -> usize;
}

static KNOWN: Mutex<Vec<&'static dyn Counts>> = Mutex::new(Vec::new());

impl<T: Send> HandleTable<T> {
    /// An empty table of that library.
    pub(crate) const fn of(library: &'static str) -> Self {
        Self { library, handles: Mutex::new(Handles::new()), is_known: Once::new() }
    }

    /// The handles. No report may be written while they are held.
    pub(crate) fn lock(&'static self) -> MutexGuard<'static, Handles<T>> {
        self.is_known.call_once(|| lock(&KNOWN).push(self));
        lock(&self.handles)
    }
}

impl<T: Send> Counts for HandleTable<T> {
    fn library(&self) -> &'static str {
        self.library
    }

    fn count(&self) -> usize {
        lock(&self.handles).count()
    }
}

/// Handles that were not destroyed, by library.
pub(crate) fn handles_left() -> BTreeMap<String, usize> {
    let known = lock(&KNOWN).clone();
    let mut left = BTreeMap::new();
    for (library, count) in known.into_iter().map(|table| (table.library(), table.count())).filter(|&(_, count)| count > 0) {
        *left.entry(library.to_owned()).or_default() += count;
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_a_library_count_together_and_only_while_something_is_left() {
        static FIRST: HandleTable<u64> = HandleTable::of("first");
        static ALSO_FIRST: HandleTable<()> = HandleTable::of("first");
        static SECOND: HandleTable<()> = HandleTable::of("second");
        static UNUSED: HandleTable<()> = HandleTable::of("unused");
        let gone = SECOND.lock().insert(());
        FIRST.lock().insert(1);
        ALSO_FIRST.lock().insert(());
        SECOND.lock().remove(gone).expect("it is there");
        let left = handles_left();
        assert_eq!((left.get("first"), left.get("second"), left.get(UNUSED.library())), (Some(&2), None, None));
    }
}
