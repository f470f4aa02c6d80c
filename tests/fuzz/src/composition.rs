//! Compositions: any text is read or refused in words; what was read passes its own check again, and every reference
//! in it prints as it parses.
#![no_main]

use cjm_wire::composition::{Composition, TextPart, parse_text};
use cjm_wire::describe::Described;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for part in parse_text(text).into_iter().flatten() {
        if let TextPart::Reference(reference) = part {
            assert_eq!(parse_text(&reference.to_string()), Ok(vec![TextPart::Reference(reference)]));
        }
    }
    match Composition::parse(text) {
        Ok(composition) => {
            let written = serde_json::to_string(&composition).expect("writes");
            let read = serde_json::from_str::<Composition>(&written).expect("its own text");
            assert_eq!(read, composition, "{written}");
            assert_eq!(read.check(), Ok(()));
        }
        Err(error) => {
            assert!(
                !error.to_string().is_empty() && !error.code().is_empty() && !error.next_step().is_empty()
            );
        }
    }
});
