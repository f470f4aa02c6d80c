//! Versions of Python packages, and what a requirement says of them (PEP 440): whether the one that is installed is among
//! those that it asks for. Pure text and numbers.
//!
//! `pep440_rs` was no alternative: 0.7.3 refuses 2.0b1 for `<2.0rc1` and takes 1 for `==1.1.*`. `packaging`, which pip goes by,
//! says the same as this file of 66 spellings of versions, each against each with every sign, wherever both can read them.

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
            local: local.map_or(Some(Vec::new()), segments)?,
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
        let kind = match word {
            "a" | "alpha" => 'a',
            "b" | "beta" => 'b',
            "c" | "rc" | "pre" | "preview" => 'r',
            "post" | "rev" | "r" => 'p',
            "" if text.starts_with('-') && rest.len() < after.len() => 'p',
            "dev" => 'd',
            _ => return None,
        };
        // Each once, and in this order.
        let is_early_enough = self.dev.is_none() && (kind == 'd' || self.post.is_none());
        match kind {
            'd' if is_early_enough => self.dev = Some(count),
            'p' if is_early_enough => self.post = Some(count),
            _ if is_early_enough && self.pre.is_none() => self.pre = Some((kind, count)),
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

    fn is_release_alone(&self) -> bool {
        self.pre.is_none() && self.post.is_none() && self.dev.is_none() && self.local.is_empty()
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

fn segments(local: &str) -> Option<Vec<Result<u64, String>>> {
    let is_one = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let parts = local.split(['.', '-', '_']);
    parts.map(|part| is_one(part).then(|| part.parse().map_err(|_| part.to_owned()))).collect()
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
        let prefix = Version::parse(prefix).filter(Version::is_release_alone)?;
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
    match sign {
        "==" => Some(is_equal),
        "!=" => Some(!is_equal),
        ">=" => Some(order.is_ge()),
        "<=" => Some(order.is_le()),
        // Neither speaks of what is only another edition of the version that it names.
        ">" => {
            let corrected = Version { post: None, dev: None, ..have.clone() };
            let is_its_post = have.post.is_some() && corrected.compare_public(&wanted).is_eq();
            Some(order.is_gt() && !is_its_post)
        }
        "<" => {
            let is_early = |version: &Version| version.pre.is_some() || version.dev.is_some();
            let final_one =
                Version { pre: None, dev: None, post: wanted.post.and(have.post), ..have.clone() };
            let is_its_pre = is_early(&have) && final_one.compare_public(&wanted).is_eq();
            Some(order.is_lt() && (is_early(&wanted) || !is_its_pre))
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
            assert_eq!(Version::parse(text), None, "{text}");
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
            (">1.0", &["1.0.1.post1", "1.1.dev1"], &["1.0.post1.dev2", "1.0+cu118", "1.0rc1"]),
            (">1.0.post1", &["1.0.post2", "1.0.1"], &["1.0.post1", "1.0.post1.dev1", "1.0"]),
            (">1.0rc1", &["1.0rc2", "1.0", "1.0.post1"], &["1.0rc1.post1", "1.0b1"]),
            ("<2.0rc1", &["2.0b1", "2.0.dev1", "1.9"], &["2.0rc1", "2.0"]),
            ("<2.0", &["1.9.post1", "1.9rc1"], &["2.0b1", "2.0.dev1", "2.0rc1.post1", "2.0"]),
            ("<2.0.post1", &["2.0", "2.0rc1"], &["2.0.post1.dev1", "2.0.post1"]),
            ("<2.0.dev3", &["2.0.dev1"], &["2.0.dev3", "2.0b1"]),
            ("===1.0+CU118", &["1.0+cu118"], &["1.0", "1.0.0+cu118"]),
            ("===of-old", &["of-old"], &["1.0"]),
            ("==1.0+cu.118", &["1.0+cu-118", "1.0+CU_118"], &["1.0+cu118", "1.0+cu.118.1"]),
            ("!=1.0", &["1.1"], &["1.0+cu118"]),
            ("==1.1.*", &["1.1", "1.1rc1", "1.1.0+x"], &["1", "1.0", "1.10"]),
            ("!=1.1.*", &["1", "1.2"], &["1.1.5"]),
            ("~=1.1.0", &["1.1.9"], &["1", "1.2", "2"]),
            ("==1.0.post1", &["1.0-1", "1.0post1", "1.0.rev1", "1.0r1", "1.0-r.1", "1.0_post_1"], &["1.0r"]),
            ("==1.0rc1", &["1.0c1", "1.0pre1", "1.0-preview_1", "1.0RC.1"], &["1.0b1", "1.0c"]),
            ("==1.0a0", &["1.0a", "1.0.alpha", "1.0-ALPHA0"], &["1.0a1", "1.0.dev0"]),
            ("==1.0b2.post3.dev4", &["1.0-beta-2-post-3-dev-4", "1.0beta2-3.dev4"], &["1.0b2.post3"]),
        ] {
            for version in yes {
                assert_eq!(accepts(specifier, version), Some(true), "{specifier} {version}");
            }
            for version in no {
                assert_eq!(accepts(specifier, version), Some(false), "{specifier} {version}");
            }
        }
        for unread in
            ["==", "=1", "==one", "~=2", ">=1.*", "1.0", "==1.0rc1.*", "==1.0+x.*", "==1.0 --hash=sha256:00"]
        {
            assert_eq!(accepts(unread, "1.0"), None, "{unread}");
        }
        for unread in [
            "of old",
            "1.0a1b1",
            "1.0.dev1a1",
            "1.0.post1a1",
            "1.0.post1.post2",
            "1.0+",
            "1.0+a..b",
            "1.0+a+b",
        ] {
            assert_eq!(accepts("==1.0", unread), None, "{unread}");
        }
    }
}
