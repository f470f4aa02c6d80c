//! Versions of Python packages, and what a requirement says of them (PEP 440): whether the one that is installed is among
//! those that it asks for. Pure text and numbers.

use std::cmp::Ordering;

/// A version, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    epoch: u64,
    /// The numbers as written.
    release: Vec<u64>,
    /// `a`, `b` or `rc`, and its number.
    pre: Option<(char, u64)>,
    post: Option<u64>,
    dev: Option<u64>,
    /// What follows a `+`: numbers come after words.
    local: Vec<Result<u64, String>>,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix('v').unwrap_or(&text);
        let (public, local) =
            text.split_once('+').map_or((text, None), |(public, local)| (public, Some(local)));
        let (epoch, mut rest) = match public.split_once('!') {
            Some((epoch, rest)) => (epoch.parse().ok()?, rest),
            None => (0, public),
        };
        let mut version = Self {
            epoch,
            release: vec![number(&mut rest)?],
            pre: None,
            post: None,
            dev: None,
            local: local.map(segments).unwrap_or_default(),
        };
        while let Some(mut after) = rest.strip_prefix('.') {
            let Some(next) = number(&mut after) else { break };
            version.release.push(next);
            rest = after;
        }
        while !rest.is_empty() {
            rest = version.suffix(rest)?;
        }
        Some(version)
    }

    /// Takes one suffix (`rc1`, `.post2`, `-1`, `.dev3`), and returns what follows it.
    fn suffix<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let bare = text.trim_start_matches(['.', '-', '_']);
        let word_end = bare.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(bare.len());
        let (word, after) = bare.split_at(word_end);
        let mut rest = after.trim_start_matches(['.', '-', '_']);
        let count = number(&mut rest);
        // A separator that no number follows begins the next one.
        let rest = if count.is_some() { rest } else { after };
        let count = count.unwrap_or(0);
        match word {
            "a" | "alpha" => self.pre = Some(('a', count)),
            "b" | "beta" => self.pre = Some(('b', count)),
            "c" | "rc" | "pre" | "preview" => self.pre = Some(('r', count)),
            "post" | "rev" | "r" => self.post = Some(count),
            "dev" => self.dev = Some(count),
            "" if text.starts_with('-') && rest.len() < after.len() => self.post = Some(count),
            _ => return None,
        }
        Some(rest)
    }

    /// Compares without what follows a `+`.
    fn compare_public(&self, other: &Self) -> Ordering {
        // A version that is only in development comes before those that are tried, and these before the whole one.
        let pre = |version: &Self| match (version.pre, version.post, version.dev) {
            (Some((kind, count)), _, _) => (kind, count),
            (None, None, Some(_)) => ('0', 0),
            (None, _, _) => ('z', 0),
        };
        let key = |version: &Self| (pre(version), version.post, version.dev.unwrap_or(u64::MAX));
        let release = |version: &Self| {
            let end = version.release.iter().rposition(|one| *one != 0).map_or(0, |last| last + 1);
            version.release[..end].to_vec()
        };
        let numbers = self.epoch.cmp(&other.epoch).then_with(|| release(self).cmp(&release(other)));
        numbers.then_with(|| key(self).cmp(&key(other)))
    }

    fn begins_with(&self, epoch: u64, release: &[u64]) -> bool {
        let mut own = self.release.iter().copied().chain(std::iter::repeat(0));
        self.epoch == epoch && release.iter().all(|one| own.next() == Some(*one))
    }
}

fn number(text: &mut &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    digits.parse().ok()
}

fn segments(local: &str) -> Vec<Result<u64, String>> {
    local.split(['.', '-', '_']).map(|part| part.parse().map_err(|_| part.to_owned())).collect()
}

/// Whether a version is among those that a specifier (`>=1,<2`, `==1.*`) names; none where one of the two cannot be read.
pub(crate) fn accepts(specifier: &str, installed: &str) -> Option<bool> {
    let clauses = specifier.split(',').map(str::trim).filter(|clause| !clause.is_empty());
    clauses.map(|clause| accepts_clause(clause, installed)).try_fold(true, |all, one| Some(all & one?))
}

fn accepts_clause(clause: &str, installed: &str) -> Option<bool> {
    let sign_end = clause.find(|c: char| !"=!<>~".contains(c))?;
    let (sign, wanted) = clause.split_at(sign_end);
    let wanted = wanted.trim();
    if sign == "===" {
        return Some(wanted.eq_ignore_ascii_case(installed));
    }
    let have = Version::parse(installed)?;
    if let Some(prefix) = wanted.strip_suffix(".*") {
        let prefix = Version::parse(prefix)?;
        let begins = have.begins_with(prefix.epoch, &prefix.release);
        return match sign {
            "==" => Some(begins),
            "!=" => Some(!begins),
            _ => None,
        };
    }
    let wanted = Version::parse(wanted)?;
    let order = have.compare_public(&wanted);
    let is_equal = order.is_eq() && (wanted.local.is_empty() || wanted.local == have.local);
    let is_of_same_release =
        have.begins_with(wanted.epoch, &wanted.release) && wanted.begins_with(have.epoch, &have.release);
    match sign {
        "==" => Some(is_equal),
        "!=" => Some(!is_equal),
        ">=" => Some(order.is_ge()),
        "<=" => Some(order.is_le()),
        // Neither speaks of what is only another edition of the version that it names.
        ">" => Some(order.is_gt() && (wanted.post.is_some() || !is_of_same_release || have.post.is_none())),
        "<" => {
            let is_early = |version: &Version| version.pre.is_some() || version.dev.is_some();
            Some(order.is_lt() && (is_early(&wanted) || !is_of_same_release || !is_early(&have)))
        }
        "~=" => {
            let fixed = wanted.release.len().checked_sub(1).filter(|fixed| *fixed > 0)?;
            Some(order.is_ge() && have.begins_with(wanted.epoch, &wanted.release[..fixed]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_their_order() {
        let ordered = [
            "1.0.dev1",
            "1.0a1",
            "1.0b2",
            "1.0rc1",
            "1.0",
            "1.0.post1.dev2",
            "1.0.post1",
            "1.0-2",
            "1.0.1",
            "1.1.dev3",
            "1.1",
            "1!0.5",
        ];
        let versions: Vec<Version> =
            ordered.iter().map(|text| Version::parse(text).unwrap_or_else(|| panic!("{text}"))).collect();
        for (place, version) in versions.iter().enumerate() {
            for (other_place, other) in versions.iter().enumerate() {
                let told = (ordered[place], ordered[other_place]);
                assert_eq!(version.compare_public(other), place.cmp(&other_place), "{told:?}");
            }
        }
        for text in ["", "x", "1.x", "1.0+", "1.0 --hash=sha256:0", "1.0!2", "1..2", "one", "1.0-"] {
            let parsed = Version::parse(text);
            assert!(parsed.is_none() || text == "1.0+", "{text}: {parsed:?}");
        }
    }

    #[test]
    fn a_specifier_names_what_it_says() {
        for (specifier, yes, no) in [
            ("==1", &["1", "1.0.0", "v1.0", "1.0+cu118"][..], &["1.0.post1", "1!1.0", "1.0rc1", "1.1"][..]),
            ("== 1.0+cu118", &["1.0+cu118"], &["1.0", "1.0+cu121"]),
            ("==1.*", &["1.0", "1.9.post2", "1"], &["2.0", "1!1.0"]),
            ("!=1.0", &["1.1"], &["1.0.0"]),
            (">=1,<2", &["1.0", "1.9"], &["2.0", "0.9", "1.0rc1", "2.0rc1", "2.0.dev1"]),
            ("~=2.0", &["2.0", "2.7"], &["1.0.0", "3.0"]),
            ("~=2.0.1", &["2.0.5"], &["2.1", "2.0"]),
            (">1.0", &["1.0.1"], &["1.0", "1.0.post1"]),
            ("<=1.0", &["1.0", "0.9"], &["1.0.post1"]),
            ("===1.0", &["1.0"], &["1.0.0"]),
            ("", &["1.0"], &[]),
        ] {
            for version in yes {
                assert_eq!(accepts(specifier, version), Some(true), "{specifier} {version}");
            }
            for version in no {
                assert_eq!(accepts(specifier, version), Some(false), "{specifier} {version}");
            }
        }
        for unread in ["==", "=1", "==one", "~=2", ">=1.*", "1.0", "==1.0 --hash=sha256:00"] {
            assert_eq!(accepts(unread, "1.0"), None, "{unread}");
        }
        assert_eq!(accepts("==1.0", "of old"), None);
    }
}
