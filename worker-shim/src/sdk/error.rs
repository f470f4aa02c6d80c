//! How a capability in Rust says that a call failed, and how that becomes the wire's error object.

use cjm_wire::channel::CallFailure;
use cjm_wire::error::{ErrorCategory, JobError, ResourceShortfall, is_amount};

/// A failed call. Made by the constructor of its category; the category decides who is asked to do something
/// about it.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", details.message)]
pub struct ToolError {
    // Boxed, because it stands in every result of every tool.
    details: Box<Details>,
}

#[derive(Debug, Clone, PartialEq)]
struct Details {
    kind: Kind,
    message: String,
    fields_invalid: Vec<String>,
    shortfall: Option<ResourceShortfall>,
    retry_after_seconds: Option<f64>,
    traceback: Option<String>,
}

/// What a failed call is on the surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Category(ErrorCategory),
    /// The call was refused before the tool's own code ran.
    Unfit,
    /// Trouble of this machine's before the tool's own code ran.
    NotBegun(ErrorCategory),
    /// A program was killed, and not for lack of memory as far as the kernel says.
    Killed,
    /// A program ran longer than its manifest lets it.
    TooSlow,
    /// A program ended with an exit code that is none of success: it alone says whose fault that is.
    ExitCode,
    Cancelled,
    NotSupported,
}

impl ToolError {
    /// The caller's: the same call fails again.
    pub fn user_input(message: impl Into<String>) -> Self {
        Self::new(Kind::Category(ErrorCategory::UserInput), message)
    }

    /// Time's: the same call may succeed later.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(Kind::Category(ErrorCategory::Transient), message)
    }

    /// The host's: it should free memory, VRAM or disk and try again.
    pub fn resource(message: impl Into<String>) -> Self {
        Self::new(Kind::Category(ErrorCategory::Resource), message)
    }

    /// The tool's own fault.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(Kind::Category(ErrorCategory::Fatal), message)
    }

    /// Somebody asked to stop, and the call did.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "cancelled by operator")
    }

    /// The capability does not have this hook.
    pub fn not_supported(what: impl Into<String>) -> Self {
        Self::new(Kind::NotSupported, what)
    }

    /// Names the arguments that were wrong.
    #[must_use]
    pub fn fields(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.details.fields_invalid = names.into_iter().map(Into::into).collect();
        self
    }

    /// Says what ran short.
    #[must_use]
    pub fn shortfall(mut self, shortfall: ResourceShortfall) -> Self {
        self.details.shortfall = Some(shortfall);
        self
    }

    /// Says how long to wait before another attempt, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: f64) -> Self {
        self.details.retry_after_seconds = Some(seconds).filter(|seconds| is_amount(*seconds));
        self
    }

    /// Adds lines that help the tool's author: a location, the end of standard error.
    #[must_use]
    pub fn traceback(mut self, text: impl Into<String>) -> Self {
        self.details.traceback = Some(text.into());
        self
    }

    /// Says in front what was being done.
    #[must_use]
    pub fn context(mut self, what: &str) -> Self {
        self.details.message = format!("{what}: {}", self.details.message);
        self
    }

    /// The call is refused (its action, its arguments, what cannot be passed on) before the tool's own code ran.
    pub(crate) fn unfit(message: impl Into<String>) -> Self {
        Self::new(Kind::Unfit, message)
    }

    /// A program ended with an exit code that is none of success.
    pub(crate) fn exit_code(message: impl Into<String>) -> Self {
        Self::new(Kind::ExitCode, message)
    }

    /// A program was killed by somebody, or by itself.
    pub(crate) fn killed(message: impl Into<String>) -> Self {
        Self::new(Kind::Killed, message)
    }

    /// A program ran longer than its manifest lets it: the next time it would, too.
    pub(crate) fn too_slow(message: impl Into<String>) -> Self {
        Self::new(Kind::TooSlow, message)
    }

    /// The same failure, of a call of which the tool's own code has not run: what would be its caller's is a refusal, and
    /// the rest is this machine's.
    pub(crate) fn not_begun(mut self) -> Self {
        self.details.kind = match self.details.kind {
            Kind::Category(ErrorCategory::UserInput) => Kind::Unfit,
            Kind::Category(category) => Kind::NotBegun(category),
            Kind::ExitCode | Kind::Killed | Kind::TooSlow => Kind::NotBegun(ErrorCategory::Fatal),
            told @ (Kind::Unfit | Kind::NotBegun(_) | Kind::Cancelled | Kind::NotSupported) => told,
        };
        self
    }

    pub(crate) fn kind(&self) -> Kind {
        self.details.kind
    }

    /// The wire's object, as a 500 body or a stream's last line carries it.
    pub(crate) fn job_error(&self, capability: &str) -> JobError {
        let (category, name) = match self.details.kind {
            // In a stream a cancellation is told by this name alone; hosts look for it.
            Kind::Cancelled => (ErrorCategory::Transient, "CapabilityCancelledError"),
            Kind::NotSupported => (ErrorCategory::Fatal, "NotSupported"),
            // As the Python SDK calls it: the mark by which hosts know that the tool has not run. No category that a
            // tool may choose has this name.
            Kind::Unfit => (ErrorCategory::UserInput, "Unfit"),
            // Hosts know by this mark that the fault need not be the program's.
            Kind::ExitCode => (ErrorCategory::Fatal, "ProgramExit"),
            // The same mark for what is nobody's who called or wrote the tool.
            Kind::NotBegun(category) => (category, "NotBegun"),
            Kind::Killed => (ErrorCategory::Transient, "ProgramKilled"),
            Kind::TooSlow => (ErrorCategory::Transient, "ProgramTooSlow"),
            Kind::Category(category) => (category, variant(category)),
        };
        let mut error = JobError::new(category, self.details.message.clone());
        if self.details.kind == Kind::Cancelled {
            error.retriable = false;
            error.message = format!("Capability '{capability}' cancelled by operator");
        }
        if self.details.kind == Kind::TooSlow {
            error.retriable = false;
        }
        // Before it is quoted, which takes as long as it is.
        error = error.shortened();
        error.original_exc_repr = format!("{name}({:?})", error.message);
        error.traceback = self.details.traceback.clone();
        error.retry_after_seconds = self.details.retry_after_seconds;
        error.fields_invalid =
            (!self.details.fields_invalid.is_empty()).then(|| self.details.fields_invalid.clone());
        error.resource_shortfall = self.details.shortfall;
        error.capability_name = Some(capability.to_owned());
        error.shortened()
    }

    /// The HTTP answer of a unary call.
    pub(crate) fn failure(&self, capability: &str) -> CallFailure {
        match self.details.kind {
            Kind::Cancelled => CallFailure::cancelled(capability),
            Kind::NotSupported
            | Kind::Unfit
            | Kind::NotBegun(_)
            | Kind::Killed
            | Kind::TooSlow
            | Kind::ExitCode
            | Kind::Category(_) => CallFailure::job_error(&self.job_error(capability)),
        }
    }

    fn new(kind: Kind, message: impl Into<String>) -> Self {
        let details = Details {
            kind,
            message: message.into(),
            fields_invalid: Vec::new(),
            shortfall: None,
            retry_after_seconds: None,
            traceback: None,
        };
        Self { details: Box::new(details) }
    }
}

fn variant(category: ErrorCategory) -> &'static str {
    match category {
        ErrorCategory::UserInput => "ToolError::UserInput",
        ErrorCategory::Transient => "ToolError::Transient",
        ErrorCategory::Resource => "ToolError::Resource",
        ErrorCategory::Fatal => "ToolError::Fatal",
    }
}

impl From<std::io::Error> for ToolError {
    /// As the ancestor classifies the like: what the caller named and cannot be had is the caller's.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let message = error.to_string();
        match error.kind() {
            K::NotFound | K::PermissionDenied | K::NotADirectory | K::IsADirectory => {
                Self::user_input(message)
            }
            K::OutOfMemory | K::StorageFull | K::QuotaExceeded => Self::resource(message),
            _ => Self::transient(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_constructor_becomes_its_answer() {
        for (error, status, category) in [
            (ToolError::user_input("m"), 500, "user_input"),
            (ToolError::transient("m"), 500, "transient"),
            (ToolError::resource("m"), 500, "resource"),
            (ToolError::fatal("m"), 500, "fatal"),
        ] {
            let failure = error.failure("lab");
            let body = failure.body.expect("has a body").to_string();
            assert_eq!(failure.status, status);
            assert!(body.contains(&format!(r#""category":"{category}""#)), "{body}");
            assert!(body.contains(r#""capability_name":"lab""#), "{body}");
        }
        let cancelled = ToolError::cancelled();
        assert_eq!(cancelled.failure("lab").status, 409);
        let in_stream = cancelled.job_error("lab");
        assert!(in_stream.original_exc_repr.starts_with("CapabilityCancelledError"));
        assert_eq!((in_stream.category, in_stream.retriable), (ErrorCategory::Transient, false));
    }

    #[test]
    fn what_the_caller_named_and_is_not_there_is_the_callers() {
        let missing = std::fs::read("/nonexistent/file").expect_err("is missing");
        assert_eq!(ToolError::from(missing).kind(), Kind::Category(ErrorCategory::UserInput));
    }
}
