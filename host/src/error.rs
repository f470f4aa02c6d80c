//! What can go wrong with a pipeline, for programs and for people.

use cjm_engine::{CallError, HostError, SettingsError};
use cjm_wire::composition::CompositionError;
use cjm_wire::describe::{Described, ErrorDetails, ErrorReport, exit};
use cjm_wire::error::Failure;

/// Any failure of a pipeline. [`Described`] gives code, next step and exit code. `Debug` prints what happened, why, the
/// end of the tool's traceback, its last lines and the next step, since that is what a `main` that returns it shows.
#[derive(thiserror::Error)]
pub enum PipelineError {
    /// The host could not start, load or accept something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The settings of the present folder cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A direct call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A job ended `failed` or `cancelled`; the report says why.
    #[error("{}", failure.report.message)]
    Job {
        /// The tool's error in the taxonomy, and the host's report.
        failure: Box<Failure>,
    },
    /// No binding has this name.
    #[error("the pipeline has no binding \"{name}\"{}", reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoBinding {
        /// The name.
        name: String,
        /// Why it did not load, when it was asked for.
        reason: Option<String>,
    },
    /// A record is not a specification.
    #[error("a capability's specification cannot be used: {message}")]
    Spec {
        /// What is wrong.
        message: String,
    },
    /// Arguments do not serialise to a JSON object.
    #[error("the arguments cannot be sent: {message}")]
    Arguments {
        /// What is wrong.
        message: String,
    },
    /// A result is not of the type that was asked for.
    #[error("the result is not of the expected type: {message}")]
    Result {
        /// What is wrong.
        message: String,
    },
}

impl std::fmt::Debug for PipelineError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let report = self.report();
        write!(f, "{} [{}]", report.message, report.code)?;
        for cause in &report.causes {
            write!(f, "\n  because: {cause}")?;
        }
        for (label, words) in report.also_told() {
            write!(f, "\n  {label} {words}")?;
        }
        for line in report.traceback_end() {
            write!(f, "\n  > {line}")?;
        }
        for line in &report.stderr_tail {
            write!(f, "\n  | {line}")?;
        }
        write!(f, "\n  next: {}", report.next_step)
    }
}

impl From<CompositionError> for PipelineError {
    fn from(error: CompositionError) -> Self {
        Self::Host(error.into())
    }
}

impl PipelineError {
    /// All that is known of it, as `cjm-ctl --json` prints it: code, causes, next step, and of a tool's failure whose it is
    /// (`details.category`), whether trying again helps (`details.retriable`), exception and traceback.
    #[must_use]
    pub fn report(&self) -> ErrorReport {
        match self {
            Self::Job { failure } => failure.report.clone(),
            other => ErrorReport::of(other),
        }
    }
}

impl Described for PipelineError {
    fn code(&self) -> &'static str {
        match self {
            Self::Host(error) => error.code(),
            Self::Settings(error) => error.code(),
            Self::Call(error) => error.code(),
            Self::Job { .. } => "job.failed",
            Self::NoBinding { .. } => "pipeline.no_binding",
            Self::Spec { .. } => "pipeline.spec",
            Self::Arguments { .. } => "pipeline.arguments",
            Self::Result { .. } => "pipeline.result",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::Host(error) => error.next_step(),
            Self::Settings(error) => error.next_step(),
            Self::Call(error) => error.next_step(),
            Self::Job { failure } => failure.report.next_step.clone(),
            Self::NoBinding { .. } => {
                "name it in `create_pipeline`, and correct what kept it from loading".to_owned()
            }
            Self::Spec { .. } => {
                "give a name, a name and a configuration, or an object with `name`".to_owned()
            }
            Self::Arguments { .. } => "pass a struct or a map with string keys".to_owned(),
            Self::Result { .. } => "ask for `serde_json::Value` to see what the tool returns".to_owned(),
        }
    }

    fn exit_code(&self) -> u8 {
        match self {
            Self::Host(error) => error.exit_code(),
            Self::Call(error) => error.exit_code(),
            Self::Job { failure } => failure.report.exit_code,
            _ => exit::DOMAIN,
        }
    }

    fn stderr_tail(&self) -> Vec<String> {
        match self {
            Self::Host(error) => error.stderr_tail(),
            Self::Call(error) => error.stderr_tail(),
            Self::Job { failure } => failure.report.stderr_tail.clone(),
            _ => Vec::new(),
        }
    }

    fn details(&self) -> ErrorDetails {
        match self {
            Self::Host(error) => error.details(),
            Self::Call(error) => error.details(),
            Self::Job { failure } => (*failure.report.details).clone(),
            _ => ErrorDetails::default(),
        }
    }
}
