//! Panics in whichever task of a run. tokio keeps the panic of a task to itself until somebody joins the task, which for
//! most nobody does, and turmoil gives it away only in builds with `tokio_unstable`.
//!
//! A run is one thread, so a hook that knows the thread knows the run. It hears of panics that the server catches as
//! well. Those are a server's bugs too, but where a disk damages what it holds: then libraries may find it senseless.

use std::cell::RefCell;
use std::panic::{PanicHookInfo, set_hook, take_hook};
use std::path::Path;
use std::sync::Once;

thread_local! {
    static HEARD: RefCell<Option<Panics>> = const { RefCell::new(None) };
}

/// What this thread's run has heard of panics.
#[derive(Debug, Default)]
struct Panics {
    /// Whether libraries may panic.
    spares_libraries: bool,
    first: Option<String>,
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(super) struct Listening(());

impl Listening {
    /// Begins to listen on this thread; `spares_libraries` where code that is not ours may panic.
    pub(super) fn begin(spares_libraries: bool) -> Self {
        static HOOKED: Once = Once::new();
        HOOKED.call_once(|| {
            let usual = take_hook();
            set_hook(Box::new(move |info| {
                hear(info);
                usual(info);
            }));
        });
        HEARD.set(Some(Panics { spares_libraries, first: None }));
        Self(())
    }

    /// The first panic, and where it was.
    #[expect(clippy::unused_self, reason = "nobody asks who does not listen")]
    pub(super) fn heard(&self) -> Option<String> {
        HEARD.with_borrow(|heard| heard.as_ref()?.first.clone())
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}

/// Must not panic itself.
fn hear(info: &PanicHookInfo<'_>) {
    // Cargo names the files of this repository by relative paths.
    let is_ours = info.location().is_none_or(|location| Path::new(location.file()).is_relative());
    // A thread that ends has nothing left to tell.
    let _ = HEARD.try_with(|heard| {
        if let Ok(mut heard) = heard.try_borrow_mut()
            && let Some(panics) = heard.as_mut()
            && (is_ours || !panics.spares_libraries)
        {
            let said = info.payload_as_str().unwrap_or("a panic without words");
            let place = info.location().map(|location| format!(", at {location}")).unwrap_or_default();
            panics.first.get_or_insert_with(|| format!("{said}{place}"));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a task that nobody joins.
    fn panic_in_task(panic: fn()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            tokio::spawn(async move { panic() });
            tokio::task::yield_now().await;
        });
    }

    #[test]
    fn a_panic_is_heard_in_a_task_that_nobody_joins() {
        let listening = Listening::begin(false);
        assert_eq!(listening.heard(), None);
        panic_in_task(|| panic!("a task is lost"));
        panic_in_task(|| panic!("another"));
        let heard = listening.heard().unwrap();
        assert!(heard.starts_with("a task is lost, at ") && heard.contains("panics.rs"), "{heard}");
        drop(listening);
        assert_eq!(Listening::begin(false).heard(), None, "another run");
    }

    #[test]
    fn a_panic_is_its_threads() {
        let listening = Listening::begin(false);
        assert!(std::thread::spawn(|| panic!("elsewhere")).join().is_err());
        assert_eq!(listening.heard(), None);
    }

    #[test]
    fn where_a_disk_does_damage_libraries_may_panic() {
        let in_library = || drop(bytes::Bytes::from_static(b"short").slice(..9));
        for (spares, heard) in [(true, false), (false, true)] {
            let listening = Listening::begin(spares);
            panic_in_task(in_library);
            assert_eq!(listening.heard().is_some(), heard, "{:?}", listening.heard());
            panic_in_task(|| panic!("ours"));
            assert!(listening.heard().is_some());
        }
    }
}
