//! Reads a list in a YAML document so that an element of another kind costs itself alone. A reader that streams cannot go
//! on behind a value that it refused; so the document is read again, and that element passed by.

use crate::yaml;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

/// Most elements of one list that are passed by: each costs another reading.
const PASSED_BY_MAX: usize = 100;

/// The elements below `key`, each as `T` or as the reader's words of why it is none; nothing where the key has no list.
///
/// # Errors
/// The reader's words of what is wrong with the document and not with one element of the list, or with too many.
pub(crate) fn read_each<T: DeserializeOwned>(
    text: &str,
    key: &'static str,
) -> Result<Option<Vec<Result<T, String>>>, String> {
    let mut refused = BTreeMap::new();
    loop {
        let reached = Cell::new(None);
        let document = Document { key, refused: &refused, reached: &reached, of: PhantomData };
        let error = match yaml::from_str_as(text, document) {
            Ok(elements) => return Ok(elements),
            Err(error) => error,
        };
        match reached.get() {
            Some(index) if refused.len() < PASSED_BY_MAX && !refused.contains_key(&index) => {
                refused.insert(index, error);
            }
            _ => return Err(error),
        }
    }
}

/// Takes the document apart: the mapping, and in it the list.
#[derive(Clone, Copy)]
struct Document<'a, T> {
    key: &'static str,
    /// Elements that are passed by, with the words of why.
    refused: &'a BTreeMap<usize, String>,
    /// The element that is being read.
    reached: &'a Cell<Option<usize>>,
    of: PhantomData<T>,
}

type Elements<T> = Option<Vec<Result<T, String>>>;

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for Document<'_, T> {
    type Value = Elements<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for Document<'_, T> {
    type Value = Elements<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a mapping with the key `{}`", self.key)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let Self { refused, reached, of, .. } = self;
        let mut elements = None;
        while let Some(key) = entries.next_key::<String>()? {
            if key == self.key {
                elements = Some(entries.next_value_seed(List { refused, reached, of })?);
            } else {
                let _: IgnoredAny = entries.next_value()?;
            }
        }
        Ok(elements)
    }
}

struct List<'a, T> {
    refused: &'a BTreeMap<usize, String>,
    reached: &'a Cell<Option<usize>>,
    of: PhantomData<T>,
}

impl<'de, T: DeserializeOwned> DeserializeSeed<'de> for List<'_, T> {
    type Value = Vec<Result<T, String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: DeserializeOwned> Visitor<'de> for List<'_, T> {
    type Value = Vec<Result<T, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        loop {
            let index = elements.len();
            let element = match self.refused.get(&index) {
                Some(why) => items.next_element::<IgnoredAny>()?.map(|_| Err(why.clone())),
                None => {
                    self.reached.set(Some(index));
                    let element = items.next_element()?.map(Ok);
                    self.reached.set(None);
                    element
                }
            };
            match element {
                Some(element) => elements.push(element),
                None => return Ok(elements),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Elements<Vec<u8>>, String> {
        read_each(text, "list")
    }

    #[test]
    fn an_element_of_another_kind_costs_itself_alone() {
        let elements =
            read("a: {b: 1}\nlist:\n- [1]\n- word\n- [2, x]\n- [3]\nz: 1\n").expect("a list").expect("it");
        let read: Vec<_> = elements.iter().map(|element| element.as_ref().ok().cloned()).collect();
        assert_eq!(read, [Some(vec![1]), None, None, Some(vec![3])]);
        let why = |index: usize| elements[index].as_ref().expect_err("refused");
        assert!(why(1).starts_with("line 4 ") && why(2).starts_with("line 5 "), "{elements:?}");
    }

    #[test]
    fn a_document_that_is_none_is_refused_and_so_is_one_with_too_many_such_elements() {
        for text in ["list: [[1], [2\n", "list: 3\n", "list:\n- [1]\n- word\nlist: []\n", "- 1\n"] {
            read(text).expect_err(text);
        }
        assert_eq!(read("other: 1\n"), Ok(None));
        let words = |count: usize| format!("list: [{}]\n", "word, ".repeat(count));
        assert!(read(&words(PASSED_BY_MAX)).is_ok());
        read(&words(PASSED_BY_MAX + 1)).expect_err("too many");
    }
}
