//! The command line of the ancestor's worker, as its host writes it.

use cjm_platform::process::Pid;
use std::ffi::OsString;

/// The module that the ancestor's host starts.
const WORKER_MODULE: &str = "cjm_substrate.core.worker";

/// A command line that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arguments {
    /// Python module, or whatever the manifest has there.
    pub(super) module: String,
    /// Class in it.
    pub(super) class: String,
    /// Adapters to bind, `module:Class`.
    pub(super) adapters: Vec<String>,
    pub(super) endpoint: Endpoint,
    /// The process whose end is ours.
    pub(super) ppid: Option<Pid>,
}

/// Where to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// A listening socket that was inherited.
    Descriptor(i32),
    /// A port of 127.0.0.1.
    Port(u16),
}

impl Arguments {
    /// Where the ancestor's part begins; a capability in Rust may have arguments of its own before it.
    pub(super) fn position(arguments: &[OsString]) -> Option<usize> {
        arguments.windows(2).position(|pair| pair[0] == "-m" && pair[1] == WORKER_MODULE)
    }

    /// Reads them; the error is for people.
    pub(super) fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let start = Self::position(arguments).ok_or(format!("`-m {WORKER_MODULE}` is missing"))?;
        let mut words = arguments[start + 2..]
            .iter()
            .map(|word| word.to_str().ok_or_else(|| format!("the argument {} is not UTF-8", word.display())));
        let (mut module, mut class, mut adapters) = (None, None, Vec::new());
        let (mut descriptor, mut port, mut ppid) = (None, None, None);
        while let Some(word) = words.next() {
            let word = word?;
            let (name, attached) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word, None),
            };
            let mut value = || match attached {
                Some(value) => Ok(value),
                None => words.next().unwrap_or_else(|| Err(format!("{name} needs a value"))),
            };
            match name {
                "--module" => module = Some(value()?.to_owned()),
                "--class" => class = Some(value()?.to_owned()),
                "--adapters" => adapters = list(value()?),
                "--fd" => descriptor = Some(number::<i32>(name, value()?)?),
                "--port" => port = Some(number::<u16>(name, value()?)?),
                "--ppid" => ppid = Some(pid(value()?)?),
                _ => return Err(format!("there is no argument {name}")),
            }
        }
        let endpoint = match (descriptor, port) {
            (Some(descriptor), _) => Endpoint::Descriptor(descriptor),
            (None, Some(port)) => Endpoint::Port(port),
            (None, None) => return Err("--fd or --port is needed".to_owned()),
        };
        Ok(Self {
            module: module.ok_or("--module is needed")?,
            class: class.ok_or("--class is needed")?,
            adapters,
            endpoint,
            ppid,
        })
    }

    /// `MODULE:CLASS`.
    pub(super) fn tool(&self) -> String {
        format!("{}:{}", self.module, self.class)
    }
}

fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
}

fn number<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{name} takes a number, and not `{text}`"))
}

fn pid(text: &str) -> Result<Pid, String> {
    let raw = number("--ppid", text)?;
    if raw <= 0 { None } else { Pid::from_raw(raw) }.ok_or_else(|| format!("there is no process {raw}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_ancestors_line_is_read_also_after_arguments_of_ones_own() {
        let line =
            "-m cjm_substrate.core.worker --module a.b --class C --fd 7 --ppid 41 --adapters x:Y,z.w:V";
        let read = parse(line).unwrap();
        assert_eq!((read.module.as_str(), read.class.as_str()), ("a.b", "C"));
        assert_eq!(read.adapters, ["x:Y", "z.w:V"]);
        assert_eq!((read.endpoint, read.ppid), (Endpoint::Descriptor(7), Pid::from_raw(41)));
        assert_eq!(parse(&format!("own --words {line}")).unwrap(), read);
        let port = parse("-m cjm_substrate.core.worker --module= --class= --port=8080").unwrap();
        assert_eq!((port.endpoint, port.tool().as_str()), (Endpoint::Port(8080), ":"));
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        for (line, word) in [
            ("--module a --class C --fd 3", "-m cjm_substrate.core.worker"),
            ("-m cjm_substrate.core.worker --class C --fd 3", "--module"),
            ("-m cjm_substrate.core.worker --module a --fd 3", "--class"),
            ("-m cjm_substrate.core.worker --module a --class C", "--fd or --port"),
            ("-m cjm_substrate.core.worker --module a --class C --fd x", "`x`"),
            ("-m cjm_substrate.core.worker --module a --class C --fd 3 --ppid 0", "process 0"),
            ("-m cjm_substrate.core.worker --module a --class C --fd", "--fd needs"),
            ("-m cjm_substrate.core.worker --module a --class C --fd 3 --odd 1", "--odd"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(word), "{line}: {error}");
        }
    }
}
