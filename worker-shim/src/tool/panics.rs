//! A panic in a capability's code becomes a failed call that says where it happened.

use crate::sdk::ToolError;
use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Where this thread panicked last.
    static LOCATION: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the place of every panic; the message still goes to standard error as before.
pub(crate) fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string);
        LOCATION.with_borrow_mut(|place| *place = location);
        before(info);
    }));
}

/// Runs `work`; a panic becomes a fatal error.
pub(crate) fn guard<R>(work: impl FnOnce() -> Result<R, ToolError>) -> Result<R, ToolError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let location = LOCATION.take().unwrap_or_else(|| "an unknown place".to_owned());
        Err(ToolError::fatal(format!("the tool panicked: {}", message(&*payload)))
            .traceback(format!("panicked at {location}")))
    })
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}
