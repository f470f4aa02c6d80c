//! How a failed call is described on the wire: the ancestor's `JobError` object (a 500 body, a stream's last
//! line, a terminal row's snapshot) and the classification of bare exceptions into its categories.
//!
//! The field set is closed: the ancestor drops an error object with a key it does not know. What the host knows
//! beyond it (verdict, stderr tail) travels in [`Failure`], beside it.

use crate::{Timestamp, cut::without_middle, describe::ErrorReport};
use serde::{Deserialize, Serialize};

/// Who can do something about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCategory {
    /// The caller: the same call fails again.
    UserInput,
    /// Time: the same call may succeed later.
    Transient,
    /// The host: free memory, VRAM or disk first.
    Resource,
    /// Nobody but the tool's author.
    Fatal,
}

impl ErrorCategory {
    /// The ancestor's default: everything is retriable but `fatal`.
    #[must_use]
    pub fn retriable_by_default(self) -> bool {
        self != Self::Fatal
    }

    /// The wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UserInput => "user_input",
            Self::Transient => "transient",
            Self::Resource => "resource",
            Self::Fatal => "fatal",
        }
    }
}

/// A resource that ran short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resource {
    /// GPU memory, MB.
    #[serde(rename = "gpu_vram_mb")]
    GpuVram,
    /// Main memory, MB.
    #[serde(rename = "system_ram_mb")]
    SystemRam,
    /// Disk space, MB.
    #[serde(rename = "disk_mb")]
    Disk,
}

impl Resource {
    /// In words.
    #[must_use]
    pub fn for_people(self) -> &'static str {
        match self {
            Self::GpuVram => "GPU memory",
            Self::SystemRam => "main memory",
            Self::Disk => "disk space",
        }
    }
}

/// Said of a disk that takes no further file, and found again where only the words of an error are left.
pub const NO_INODE: &str = "no inode is free for another file";

/// That a disk takes no further file though so many bytes of it are free.
#[must_use]
pub fn no_inode(bytes: u64) -> String {
    format!("{NO_INODE} on its disk, of which {bytes} bytes are free")
}

/// What was needed and what there was, in MB.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ResourceShortfall {
    /// Which resource.
    pub resource: Resource,
    /// MB needed, when known.
    #[serde(default, deserialize_with = "amount")]
    pub needed: Option<f64>,
    /// MB available, when known.
    #[serde(default, deserialize_with = "amount")]
    pub available: Option<f64>,
}

/// A number that a tool tells of seconds or MB: a negative one, or one that is none, says nothing.
fn amount<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    Ok(Option::deserialize(deserializer)?.filter(|told| is_amount(*told)))
}

/// Whether it may be one of seconds or MB.
#[must_use]
pub fn is_amount(told: f64) -> bool {
    told.is_finite() && !told.is_sign_negative()
}

/// The ancestor's failure object, key for key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobError {
    /// Who can do something about it.
    pub category: ErrorCategory,
    /// For people.
    pub message: String,
    /// Whether the same call may be tried again.
    pub retriable: bool,
    /// `repr()` of the exception, or the error's Rust form.
    #[serde(default)]
    pub original_exc_repr: String,
    /// Traceback, where there is one.
    #[serde(default)]
    pub traceback: Option<String>,
    /// Seconds the tool asks to wait before a retry.
    #[serde(default, deserialize_with = "amount")]
    pub retry_after_seconds: Option<f64>,
    /// Names of the arguments that were wrong.
    #[serde(default)]
    pub fields_invalid: Option<Vec<String>>,
    /// For `resource` errors.
    #[serde(default)]
    pub resource_shortfall: Option<ResourceShortfall>,
    /// The tool.
    #[serde(default)]
    pub capability_name: Option<String>,
    /// Its instance; the host fills it in.
    #[serde(default)]
    pub capability_instance_id: Option<String>,
    /// When.
    #[serde(default)]
    pub occurred_at: Option<Timestamp>,
}

/// Bytes of a failure's message, and of its `repr`, that are kept.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of its traceback that are kept.
pub const TRACEBACK_BYTES_MAX: usize = 64 * 1024;
/// Names of arguments that are kept, and bytes of each, as of any other name.
const FIELDS_MAX: usize = 100;
const NAME_BYTES_MAX: usize = 200;
/// What is shorter has not been cut.
const REPR_CUT_BYTES: usize = 1_000;

/// Keeps the first names of arguments, and says how many more there are: also of those that whoever told them has counted.
pub fn keep_fields(fields: &mut Vec<String>, kept: usize) {
    let counted = fields.last().and_then(|last| fields_left_out(last));
    let left_out = fields.len().saturating_sub(kept);
    if left_out > 0 {
        let left_out = counted.map_or(left_out, |counted| counted.saturating_add(left_out - 1));
        fields.truncate(kept);
        fields.push(format!("… {left_out} more"));
    }
}

/// How many names an entry stands for that [`keep_fields`] or an SDK has written.
#[must_use]
pub fn fields_left_out(entry: &str) -> Option<usize> {
    entry.strip_prefix("… ")?.strip_suffix(" more")?.parse().ok()
}

impl JobError {
    /// An error of `category` with its default retriability, occurring now.
    #[must_use]
    pub fn new(category: ErrorCategory, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            category,
            retriable: category.retriable_by_default(),
            original_exc_repr: message.clone(),
            message,
            traceback: None,
            retry_after_seconds: None,
            fields_invalid: None,
            resource_shortfall: None,
            capability_name: None,
            capability_instance_id: None,
            occurred_at: Some(Timestamp::now()),
        }
    }

    /// The same with the middle of each long text taken out: a failure has a maximum, whichever kind of tool says it.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        shorten(&mut self.message, MESSAGE_BYTES_MAX);
        shorten(&mut self.original_exc_repr, MESSAGE_BYTES_MAX);
        if let Some(traceback) = &mut self.traceback {
            shorten(traceback, TRACEBACK_BYTES_MAX);
        }
        for name in self.capability_name.iter_mut().chain(&mut self.capability_instance_id) {
            shorten(name, NAME_BYTES_MAX);
        }
        if let Some(fields) = &mut self.fields_invalid {
            // One more is what says how many are missing.
            if fields.len() > FIELDS_MAX + 1 {
                keep_fields(fields, FIELDS_MAX);
            }
            fields.iter_mut().for_each(|field| shorten(field, NAME_BYTES_MAX));
        }
        self
    }

    /// The class of the exception, from its `repr()`: `KeyError` of `KeyError('x')`. `None` where the text is no such
    /// form. What cannot be printed of its name stands there as Python escapes it.
    #[must_use]
    pub fn exception_class(&self) -> Option<&str> {
        let repr = self.original_exc_repr.trim();
        // A long one has lost its end on its way.
        let whole = repr.strip_suffix(')').or_else(|| (repr.len() >= REPR_CUT_BYTES).then_some(repr));
        let (class, _) = whole?.split_once('(')?;
        let mut chars = class.chars();
        let begins = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
        (begins && chars.all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | ':' | '\\'))).then_some(class)
    }
}

fn shorten(text: &mut String, bytes_max: usize) {
    if let std::borrow::Cow::Owned(shorter) = without_middle(text, bytes_max) {
        *text = shorter;
    }
}

/// The body of a 500 answer and the last line of a failed stream.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobErrorBody {
    /// The failure.
    #[serde(rename = "_job_error")]
    pub job_error: JobError,
}

/// A terminal failure as the host records and shows it: the wire's object, and what only the host knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// The ancestor's object, which the snapshot of the terminal row carries.
    pub error: JobError,
    /// Code, causes, next step, stderr tail.
    pub report: ErrorReport,
}

/// Bare exceptions, by the class names of a method resolution order, most derived first. `OSError` and its
/// aliases stand last, for their subclasses that no line names.
const BARE_EXCEPTIONS: [(&str, ErrorCategory); 16] = [
    ("FileNotFoundError", ErrorCategory::UserInput),
    ("NotADirectoryError", ErrorCategory::UserInput),
    ("IsADirectoryError", ErrorCategory::UserInput),
    ("PermissionError", ErrorCategory::UserInput),
    ("KeyError", ErrorCategory::UserInput),
    ("ValueError", ErrorCategory::UserInput),
    ("TypeError", ErrorCategory::UserInput),
    ("TimeoutError", ErrorCategory::Transient),
    ("ConnectionError", ErrorCategory::Transient),
    ("InterruptedError", ErrorCategory::Transient),
    ("BlockingIOError", ErrorCategory::Transient),
    ("MemoryError", ErrorCategory::Resource),
    ("OSError", ErrorCategory::Transient),
    ("IOError", ErrorCategory::Transient),
    ("EnvironmentError", ErrorCategory::Transient),
    ("Exception", ErrorCategory::Fatal),
];

/// Category of an exception that is not one of ours, from the names of its classes, most derived first.
#[must_use]
pub fn classify_bare_exception<'a>(class_names: impl IntoIterator<Item = &'a str>) -> ErrorCategory {
    class_names
        .into_iter()
        .find_map(|name| {
            BARE_EXCEPTIONS.iter().find(|(known, _)| *known == name).map(|(_, category)| *category)
        })
        .unwrap_or(ErrorCategory::Fatal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_a_maximum_and_says_what_is_missing() {
        let long = format!("begin{}end", "x".repeat(1_000_000));
        let said = JobError {
            original_exc_repr: long.clone(),
            traceback: Some(long.clone()),
            fields_invalid: Some(vec![long.clone(); 1_000]),
            capability_name: Some(long.clone()),
            capability_instance_id: Some(long.clone()),
            ..JobError::new(ErrorCategory::Fatal, long)
        };
        let short = said.shortened();
        let fields = short.fields_invalid.clone().expect("fields");
        assert_eq!((fields.len(), fields[100].as_str()), (101, "… 900 more"));
        for (names, kept) in [(101, 101), (102, 101)] {
            let fields_invalid = Some(vec!["a".to_owned(); names]);
            let short = JobError { fields_invalid, ..JobError::new(ErrorCategory::Fatal, "m") }.shortened();
            let fields = short.fields_invalid.expect("fields");
            let last = if names == 101 { "a" } else { "… 2 more" };
            assert_eq!((fields.len(), fields[100].as_str()), (kept, last));
        }
        let mut most = vec!["a".to_owned(), format!("… {} more", usize::MAX)];
        keep_fields(&mut most, 0);
        assert_eq!(most, [format!("… {} more", usize::MAX)]);
        let mut again = fields.clone();
        for (kept, words) in
            [(101, "… 900 more"), (100, "… 900 more"), (40, "… 960 more"), (0, "… 1000 more")]
        {
            keep_fields(&mut again, kept);
            assert_eq!((again.len(), again.last().map(String::as_str)), (100.min(kept) + 1, Some(words)));
        }
        let names = short.capability_name.iter().chain(&short.capability_instance_id).chain(&fields[..100]);
        let texts = [
            (&short.message, MESSAGE_BYTES_MAX),
            (&short.original_exc_repr, MESSAGE_BYTES_MAX),
            (short.traceback.as_ref().expect("a traceback"), TRACEBACK_BYTES_MAX),
        ];
        for (text, bytes_max) in texts.into_iter().chain(names.map(|name| (name, NAME_BYTES_MAX))) {
            assert!(text.len() <= bytes_max + crate::cut::MARK_BYTES_MAX, "{}", text.len());
            assert!(
                text.starts_with("beginx") && text.ends_with("xend") && text.contains(" bytes dropped here]")
            );
        }
        assert_eq!(short.clone().shortened(), short, "a second time changes nothing");
    }

    #[test]
    fn the_captured_object_reads_and_writes_back_key_for_key() {
        let text = r#"{"_job_error":{"category":"resource","message":"r","retriable":true,"original_exc_repr":"CapabilityResourceError('r')","traceback":"Traceback…","retry_after_seconds":null,"fields_invalid":null,"resource_shortfall":{"resource":"gpu_vram_mb","needed":9000.0,"available":100.5},"capability_name":"lab-capability","capability_instance_id":null,"occurred_at":"2026-11-20T20:23:30.845970+00:00"}}"#;
        let body: JobErrorBody = serde_json::from_str(text).expect("captured body");
        assert_eq!(serde_json::to_string(&body).expect("writes"), text);
        let integer_needed = text.replace("9000.0", "9000");
        assert_eq!(serde_json::from_str::<JobErrorBody>(&integer_needed).expect("integers too"), body);
    }

    #[test]
    fn a_number_of_a_failure_that_is_no_amount_is_none() {
        for (told, read) in [
            ("-1", None),
            ("-0.0", None),
            ("-1e300", None),
            ("null", None),
            ("0", Some(0.0)),
            ("2.5", Some(2.5)),
        ] {
            let text = format!(
                r#"{{"_job_error":{{"category":"resource","message":"r","retriable":true,"retry_after_seconds":{told},"resource_shortfall":{{"resource":"disk_mb","needed":{told},"available":{told}}}}}}}"#
            );
            let error = serde_json::from_str::<JobErrorBody>(&text).expect(told).job_error;
            let shortfall = ResourceShortfall { resource: Resource::Disk, needed: read, available: read };
            assert_eq!(
                (error.retry_after_seconds, error.resource_shortfall),
                (read, Some(shortfall)),
                "{told}"
            );
        }
        let short = serde_json::from_str::<ResourceShortfall>(r#"{"resource":"disk_mb"}"#).expect("reads");
        assert_eq!((short.needed, short.available), (None, None), "what is not told is none");
        assert!(!is_amount(f64::INFINITY) && !is_amount(f64::NAN));
    }

    #[test]
    fn the_class_of_an_exception_is_read_from_its_repr() {
        for (repr, class) in [
            ("KeyError('x')", Some("KeyError")),
            ("AssertionError()", Some("AssertionError")),
            ("pkg.errors.Odd_1(\"a (b)\")", Some("pkg.errors.Odd_1")),
            ("ToolError::Fatal(\"x\")", Some("ToolError::Fatal")),
            ("KeyError(<its repr() fails>)", Some("KeyError")),
            ("Odd\\nName('x')", Some("Odd\\nName")),
            ("the disk is full (again)", None),
            ("KeyError", None),
            ("(x)", None),
            ("1st(x)", None),
            ("", None),
        ] {
            let error =
                JobError { original_exc_repr: repr.into(), ..JobError::new(ErrorCategory::Fatal, "m") };
            assert_eq!(error.exception_class(), class, "{repr}");
        }
        let mut cut = JobError::new(ErrorCategory::Fatal, "m");
        cut.original_exc_repr = format!("ValueError('{}", "x".repeat(REPR_CUT_BYTES));
        assert_eq!(cut.exception_class(), Some("ValueError"), "a long one has lost its end");
    }

    #[test]
    fn bare_exceptions_fall_into_the_ancestors_categories() {
        for (order, category) in [
            (vec!["FileNotFoundError", "OSError", "Exception"], ErrorCategory::UserInput),
            (vec!["UnicodeDecodeError", "UnicodeError", "ValueError", "Exception"], ErrorCategory::UserInput),
            (vec!["ConnectionResetError", "ConnectionError", "OSError"], ErrorCategory::Transient),
            (vec!["ChildProcessError", "OSError", "Exception"], ErrorCategory::Transient),
            (vec!["MemoryError", "Exception"], ErrorCategory::Resource),
            (vec!["RuntimeError", "Exception"], ErrorCategory::Fatal),
            (vec![], ErrorCategory::Fatal),
        ] {
            assert_eq!(classify_bare_exception(order.iter().copied()), category, "{order:?}");
        }
        assert!(!ErrorCategory::Fatal.retriable_by_default());
    }
}
