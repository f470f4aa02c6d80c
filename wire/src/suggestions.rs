//! Names like a mistyped one, for errors that help.

/// Names offered for an unknown one.
const SUGGESTIONS_MAX: usize = 3;

/// Least length of a name that is looked for inside others.
const PART_BYTES_MIN: usize = 3;

/// Names that share a beginning or most letters with `name`, or have it as a part.
#[must_use]
pub fn suggestions<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let lower = name.to_lowercase();
    let is_part = |candidate: &str| lower.len() >= PART_BYTES_MIN && candidate.contains(&lower);
    let mut scored: Vec<(usize, &str)> = known
        .map(|candidate| (candidate.to_lowercase(), candidate))
        .map(|(of_it, candidate)| (distance(&lower, &of_it), is_part(&of_it), candidate))
        .filter(|(d, is_part, c)| *is_part || *d <= 1 + c.len().max(name.len()) / 3)
        .map(|(d, _, candidate)| (d, candidate))
        .collect();
    scored.sort();
    scored.into_iter().take(SUGGESTIONS_MAX).map(|(_, candidate)| candidate.to_owned()).collect()
}

/// The names as an error appends them; nothing when there are none.
#[must_use]
pub fn in_words(suggestions: &[String]) -> String {
    match suggestions {
        [] => String::new(),
        [one] => format!(" (did you mean \"{one}\"?)"),
        several => format!(" (did you mean one of \"{}\"?)", several.join("\", \"")),
    }
}

/// Edits that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_offered() {
        let known = ["ffmpeg-convert", "speech-detector", "speech-recognizer"];
        assert_eq!(suggestions("ffmpeg-covert", known.into_iter()), ["ffmpeg-convert"]);
        assert_eq!(suggestions("speech-detect", known.into_iter()), ["speech-detector"]);
        assert_eq!(suggestions("LAB", ["ffmpeg", "lab"].into_iter()), ["lab"], "another case is near");
        assert!(suggestions("zzz", known.into_iter()).is_empty());
        assert_eq!(suggestions("died", ["job_done", "worker_died"].into_iter()), ["worker_died"], "a part");
        assert_eq!(suggestions("warn", ["INFO", "WARNING"].into_iter()), ["WARNING"]);
    }
}
