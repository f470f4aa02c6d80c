//! Finds secrets in a text, and parts of them at its ends, with one look at each letter: however many secrets there are,
//! however long they are, and whatever a tool repeats to have much compared. (The automaton of Aho and Corasick.)

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

/// The node of no letters.
const ROOT: usize = 0;

/// How secrets begin, as a tree: each node stands for the letters on the way to it.
#[derive(Default)]
struct Tree<T> {
    nodes: Vec<Node<T>>,
    /// Letters of the longest secret.
    longest: usize,
}

/// A secret may have a hundred thousand letters, so a node is small: numbers of 32 bits, and no list of its own.
struct Node<T> {
    letter: T,
    /// The root is nobody's child, and stands for none.
    first_child: u32,
    next_sibling: u32,
    depth: u32,
    /// The longest end of these letters that another way stands for.
    shorter: u32,
    /// Letters of the longest secret that is an end of these.
    whole: u32,
}

impl<T: Copy + Default + Eq> Tree<T> {
    fn of(secrets: impl Iterator<Item = Vec<T>>) -> Self {
        let mut tree = Self { nodes: Vec::new(), longest: 0 };
        tree.push(T::default(), 0);
        for secret in secrets {
            tree.longest = tree.longest.max(secret.len());
            let end = secret.iter().fold(ROOT, |at, letter| tree.grow(at, *letter));
            tree.nodes[end].whole = tree.nodes[end].depth;
        }
        tree.link();
        tree
    }

    fn push(&mut self, letter: T, depth: u32) -> usize {
        self.nodes.push(Node { letter, first_child: 0, next_sibling: 0, depth, shorter: 0, whole: 0 });
        self.nodes.len() - 1
    }

    fn grow(&mut self, at: usize, letter: T) -> usize {
        if let Some(child) = self.child(at, letter) {
            return child;
        }
        let child = self.push(letter, self.nodes[at].depth + 1);
        self.nodes[child].next_sibling = self.nodes[at].first_child;
        self.nodes[at].first_child = index(child);
        child
    }

    /// Nearer ones first: what is shorter than a node is linked before it.
    fn link(&mut self) {
        let mut todo = VecDeque::from([ROOT]);
        while let Some(at) = todo.pop_front() {
            let mut child = self.nodes[at].first_child as usize;
            while child != ROOT {
                let shorter = if at == ROOT {
                    ROOT
                } else {
                    self.step(self.nodes[at].shorter as usize, self.nodes[child].letter)
                };
                self.nodes[child].shorter = index(shorter);
                self.nodes[child].whole = self.nodes[child].whole.max(self.nodes[shorter].whole);
                todo.push_back(child);
                child = self.nodes[child].next_sibling as usize;
            }
        }
    }

    fn child(&self, at: usize, letter: T) -> Option<usize> {
        let mut child = self.nodes[at].first_child as usize;
        while child != ROOT {
            if self.nodes[child].letter == letter {
                return Some(child);
            }
            child = self.nodes[child].next_sibling as usize;
        }
        None
    }

    /// Where one is after another letter.
    fn step(&self, mut at: usize, letter: T) -> usize {
        loop {
            match self.child(at, letter) {
                Some(child) => return child,
                None if at == ROOT => return ROOT,
                None => at = self.nodes[at].shorter as usize,
            }
        }
    }

    /// How many letters of the end of these begin a secret, and are not all of it.
    fn at_end(&self, letters: impl Iterator<Item = T>) -> usize {
        if self.longest == 0 {
            return 0;
        }
        self.begun(letters.fold(ROOT, |at, letter| self.step(at, letter)))
    }

    /// How many letters of those on the way to a node begin a secret, and are not all of it.
    fn begun(&self, mut at: usize) -> usize {
        while at != ROOT && self.nodes[at].first_child == 0 {
            at = self.nodes[at].shorter as usize;
        }
        self.nodes[at].depth as usize
    }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).expect("secrets are in memory, and shorter than four gigabytes")
}

/// The secrets, from both of their ends.
#[derive(Default)]
pub(crate) struct Parts<T> {
    beginnings: Tree<T>,
    ends: Tree<T>,
}

impl<T: Copy + Default + Eq> Parts<T> {
    pub(crate) fn of(secrets: &[impl AsRef<[T]>]) -> Self {
        let letters = |secret: &dyn AsRef<[T]>| secret.as_ref().to_vec();
        let reversed = |secret: &dyn AsRef<[T]>| secret.as_ref().iter().rev().copied().collect();
        Self {
            beginnings: Tree::of(secrets.iter().map(|secret| letters(secret))),
            ends: Tree::of(secrets.iter().map(|secret| reversed(secret))),
        }
    }

    /// Letters of the longest secret.
    pub(crate) fn longest(&self) -> usize {
        self.beginnings.longest
    }

    /// How many letters of the end of the text begin a secret, without one that is whole.
    pub(crate) fn at_end<L>(&self, text: &[L], letter: impl Fn(&L) -> T) -> usize {
        let text = &text[text.len().saturating_sub(self.longest())..];
        self.beginnings.at_end(text.iter().map(letter))
    }

    /// What begins a secret and ends behind so many letters of the text, or later.
    pub(crate) fn begun<L>(
        &self,
        text: &[L],
        first_end: usize,
        letter: impl Fn(&L) -> T,
    ) -> impl Iterator<Item = Range<usize>> {
        let tree = &self.beginnings;
        let is_there = if tree.longest == 0 { 0 } else { text.len() };
        let seen = (first_end.saturating_sub(tree.longest)..is_there).scan(ROOT, move |at, place| {
            *at = tree.step(*at, letter(&text[place]));
            Some((place + 1, *at))
        });
        let ends = seen.filter(move |(end, _)| *end >= first_end);
        ends.map(|(end, at)| end - tree.begun(at)..end).filter(|place| !place.is_empty())
    }

    /// How many letters of the beginning of the text end a secret, likewise.
    pub(crate) fn at_beginning<L>(&self, text: &[L], letter: impl Fn(&L) -> T) -> usize {
        let text = &text[..text.len().min(self.longest())];
        self.ends.at_end(text.iter().rev().map(letter))
    }

    /// Where secrets stand in the text, in order; where two overlap, both as one.
    pub(crate) fn places<L>(&self, text: &[L], letter: impl Fn(&L) -> T) -> Vec<Range<usize>> {
        let mut places: Vec<Range<usize>> = Vec::new();
        let mut at = ROOT;
        if self.longest() == 0 {
            return places;
        }
        for (end, next) in text.iter().enumerate() {
            at = self.beginnings.step(at, letter(next));
            let whole = self.beginnings.nodes[at].whole as usize;
            if whole == 0 {
                continue;
            }
            let mut begin = end + 1 - whole;
            while let Some(last) = places.pop_if(|last| last.end > begin) {
                begin = begin.min(last.start);
            }
            places.push(begin..end + 1);
        }
        places
    }
}

/// Every few letters that stand in a row in a secret.
#[derive(Default)]
pub(crate) struct Rows<const LETTERS: usize>(HashSet<[u8; LETTERS]>);

impl<const LETTERS: usize> Rows<LETTERS> {
    pub(crate) fn of(secrets: &[String]) -> Self {
        let rows = secrets.iter().flat_map(|secret| secret.as_bytes().array_windows::<LETTERS>());
        Self(rows.copied().collect())
    }

    /// Whether a text is of nothing else: true of each part of a secret that is so long at least.
    pub(crate) fn hold(&self, text: &str) -> bool {
        text.len() >= LETTERS && text.as_bytes().array_windows::<LETTERS>().all(|row| self.0.contains(row))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_places_are_those_that_a_comparison_of_everything_finds() {
        let secrets = ["abab", "babc", "ab", "cabab", "aaaa", "c"];
        let parts = Parts::<u8>::of(&secrets);
        let rows = Rows::<3>::of(&secrets.map(str::to_owned));
        let mut texts = vec![String::new()];
        for length in 0..7 {
            let longer = texts.iter().filter(|text| text.len() == length);
            let longer: Vec<_> =
                longer.flat_map(|text| ["a", "b", "c"].map(|next| format!("{text}{next}"))).collect();
            texts.extend(longer);
        }
        for text in texts {
            let bytes = text.as_bytes();
            let longest = |holds: &dyn Fn(&str, usize) -> bool| {
                let lengths = |secret: &&str| (1..secret.len()).rev().find(|length| holds(secret, *length));
                secrets.iter().filter_map(lengths).max().unwrap_or(0)
            };
            let ends = longest(&|secret, length| text.ends_with(&secret[..length]));
            assert_eq!(parts.at_end(bytes, |byte| *byte), ends, "{text}");
            let first_end = text.len() / 2;
            let begun: Vec<_> = parts.begun(bytes, first_end, |byte| *byte).collect();
            let all =
                (first_end..=text.len()).map(|end| end - parts.at_end(&bytes[..end], |byte| *byte)..end);
            assert_eq!(begun, all.filter(|place| !place.is_empty()).collect::<Vec<_>>(), "{text}");
            let begins = longest(&|secret, length| text.starts_with(&secret[secret.len() - length..]));
            assert_eq!(parts.at_beginning(bytes, |byte| *byte), begins, "{text}");
            let mut is_struck = vec![false; text.len()];
            for (secret, at) in secrets.iter().flat_map(|secret| (0..text.len()).map(move |at| (secret, at)))
            {
                if text[at..].starts_with(secret) {
                    is_struck[at..at + secret.len()].fill(true);
                }
            }
            let places = parts.places(bytes, |byte| *byte);
            let found: Vec<bool> =
                (0..text.len()).map(|at| places.iter().any(|place| place.contains(&at))).collect();
            assert_eq!(found, is_struck, "{text}");
            assert!(places.is_sorted_by(|one, next| one.end <= next.start), "{text}");
            let is_part = secrets.iter().any(|secret| text.len() >= 3 && secret.contains(&text));
            assert!(rows.hold(&text) || !is_part, "{text}");
        }
        assert!(!rows.hold("bcb") && !rows.hold("ab"));
    }
}
