//! `~` at the beginning of a path, where no shell has read it: in `cjm.yaml`, a variable, a quoted argument. Taken as it
//! stands it would be a folder of that name, and a later `rm -rf ~` would take the user's home instead.

use cjm_platform::user::real_user_home;
use cjm_wire::describe::Described;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// Variable that names the user's home directory.
pub const HOME: &str = "HOME";

/// Why a path that begins with `~` leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// Nothing says where the home directory is.
    #[error("it begins with \"~\", and HOME is not set")]
    NoHome,
    /// HOME would mean another directory in every folder.
    #[error("it begins with \"~\", and HOME is no absolute path")]
    Relative,
    /// `~user`.
    #[error("only \"~\" and \"~/\" are known, not the home of another user")]
    AnotherUsers,
}

impl Described for HomeError {
    fn code(&self) -> &'static str {
        match self {
            Self::NoHome => "settings.home_not_set",
            Self::Relative => "settings.home_relative",
            Self::AnotherUsers => "settings.home_of_another",
        }
    }

    fn next_step(&self) -> String {
        match self {
            Self::NoHome | Self::Relative => {
                "set HOME to your home directory, or write the whole path".to_owned()
            }
            Self::AnotherUsers => {
                "write the whole path, or ./ before it for a folder of that name".to_owned()
            }
        }
    }
}

/// A variable of this process; HOME, where it is not set or empty, as the user database has it.
#[must_use]
pub fn variable(name: &str) -> Option<OsString> {
    let set = std::env::var_os(name).filter(|value| !value.is_empty());
    set.or_else(|| (name == HOME).then(real_user_home)?.map(PathBuf::into_os_string))
}

/// The path with the home directory in place of a leading `~`; any other is as it was.
///
/// # Errors
/// Without a home directory, and for `~user`.
pub fn expand_home(path: &Path, home: Option<&Path>) -> Result<PathBuf, HomeError> {
    let mut parts = path.components();
    match parts.next() {
        Some(Component::Normal(first)) if first == "~" => {
            let home = home.filter(|home| !home.as_os_str().is_empty()).ok_or(HomeError::NoHome)?;
            if !home.is_absolute() {
                return Err(HomeError::Relative);
            }
            Ok(home.join(parts.as_path()))
        }
        Some(Component::Normal(first)) if first.as_encoded_bytes().starts_with(b"~") => {
            Err(HomeError::AnotherUsers)
        }
        _ => Ok(path.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_leading_tilde_is_the_home() {
        let home = Some(Path::new("/home/u"));
        let expanded = |path: &str, home| expand_home(Path::new(path), home);
        assert_eq!(expanded("~/d/e", home), Ok("/home/u/d/e".into()));
        assert_eq!(expanded("~", home).map(|path| path.components().collect()), Ok(PathBuf::from("/home/u")));
        for same in ["d/~", "./~", "/~/d", "d", ""] {
            assert_eq!(expanded(same, None), Ok(same.into()));
        }
        assert_eq!(expanded("~/d", None), Err(HomeError::NoHome));
        assert_eq!(expanded("~/d", Some(Path::new(""))), Err(HomeError::NoHome));
        assert_eq!(expanded("~/d", Some(Path::new("h"))), Err(HomeError::Relative));
        assert_eq!(expanded("~root/d", home), Err(HomeError::AnotherUsers));
    }
}
