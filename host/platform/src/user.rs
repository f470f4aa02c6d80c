//! Who really runs this process, as the system's user database says and not as the environment claims.

#![expect(unsafe_code, reason = "the user database, with all its sources, is read by the C library alone")]

use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Room for one entry at first, and at most: the C library says when it needs more.
const ENTRY_BYTES: usize = 1024;
const ENTRY_BYTES_MAX: usize = 1024 * 1024;

/// The name of the user this process really runs as, or `uid:N` where the database has no name for the number N.
/// The variables USER and LOGNAME play no role. May wait for a directory server where the system uses one.
pub fn real_user_name() -> String {
    let uid = rustix::process::getuid().as_raw();
    name_of(uid).unwrap_or_else(|| format!("uid:{uid}"))
}

/// The home directory of the user this process really runs as, where the database has one. The variable HOME plays no role.
pub fn real_user_home() -> Option<PathBuf> {
    let home = field_of(rustix::process::getuid().as_raw(), |entry| entry.pw_dir)?;
    Some(PathBuf::from(home)).filter(|home| home.is_absolute())
}

fn name_of(uid: u32) -> Option<String> {
    field_of(uid, |entry| entry.pw_name).map(|name| name.to_string_lossy().into_owned())
}

/// One text of a user's entry; none where there is no entry, or the text is empty.
fn field_of(uid: u32, field: fn(&libc::passwd) -> *mut libc::c_char) -> Option<OsString> {
    let mut buffer: Vec<libc::c_char> = vec![0; ENTRY_BYTES];
    loop {
        // SAFETY: passwd is plain data, numbers and pointers, for which all zeroes is a valid value.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        // SAFETY: all pointers are to live locals, and the length is that of the buffer.
        let errno = unsafe {
            libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found)
        };
        match errno {
            libc::EINTR => {}
            libc::ERANGE if buffer.len() < ENTRY_BYTES_MAX => buffer.resize(buffer.len() * 2, 0),
            0 if !found.is_null() && !field(&entry).is_null() => {
                // SAFETY: the C library has set each text of the entry to a string with its end inside the buffer, which
                // lives.
                let text = unsafe { CStr::from_ptr(field(&entry)) }.to_bytes();
                return Some(OsStr::from_bytes(text).to_owned()).filter(|text| !text.is_empty());
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_names_the_user_and_the_environment_does_not() {
        assert_eq!(name_of(0).as_deref(), Some("root"));
        assert_eq!(name_of(4_000_000_001), None);
        let own = std::process::Command::new("id").arg("-u").output().unwrap();
        let uid: u32 = String::from_utf8(own.stdout).unwrap().trim().parse().unwrap();
        let expected = std::fs::read_to_string("/etc/passwd").unwrap().lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        let home = std::fs::read_to_string("/etc/passwd").unwrap().lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.get(2)?.parse() == Ok(uid)).then(|| PathBuf::from(fields[5]))
        });
        if let Some(home) = home.filter(|home| home.is_absolute()) {
            assert_eq!(real_user_home(), Some(home));
        }
        // Unknown to the file means unknown, or known to a directory server.
        if let Some(expected) = expected {
            assert_eq!(real_user_name(), expected);
        } else {
            assert!(!real_user_name().is_empty());
        }
    }
}
