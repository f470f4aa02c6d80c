//! What is struck out of what tools say, and what is not: as it is, escaped by any writer, and cut anywhere.

use super::*;
use serde_json::json;

fn redaction() -> Redaction {
    let secrets = json!({"TOKEN": "tok-\"1234\"-ä", "KEY": "first line\nsecond line", "PIN": "1234", "NUMBER": "12345678"});
    Redaction::of(secrets.as_object().expect("an object"))
}

#[test]
fn values_are_struck_out_however_they_are_written() {
    let redaction = redaction();
    for (said, shown) in [
        (r#"url?t=tok-"1234"-ä&x"#, "url?t=[secret]&x"),
        (r#"{"t": "tok-\"1234\"-ä"}"#, r#"{"t": "[secret]"}"#),
        (r#"{"t": "tok-\"1234\"-\u00e4"}"#, r#"{"t": "[secret]"}"#),
        ("first line\nsecond line", "[secret]"),
        ("only the second line of it", "only the [secret] of it"),
        ("the PIN is 1234", "the PIN is 1234"),
        ("nothing", "nothing"),
        ("100 % of it, 50%, %zz %4 %", "100 % of it, 50%, %zz %4 %"),
    ] {
        assert_eq!(redaction.text(said), shown);
        assert_eq!(redaction.words(&Said::new(said)), shown);
    }
    let broken = Said::new([b"\xff ".as_slice(), b"second line"].concat());
    assert_eq!(
        redaction.words(&broken),
        "\u{fffd} [secret]",
        "what is no text holds its values all the same"
    );
    assert!(!format!("{redaction:?}").contains("tok-"));
}

#[test]
fn values_are_struck_out_with_the_escapes_of_any_writer() {
    let secrets = json!({"A": "Abc/dEf+ghi==12", "B": "pässwört-😀-lang", "C": "it's-a-\"q\"-Hunter3",
                         "D": "pass\\word-Hunter2", "E": "tab\there-Hunter4",
                         "F": "correct horse battery ghi", "G": "p%40ss%2Fword-Hunter5",
                         "H": "100%abcdefghi", "I": "a%2Fghi-sale-of-50%",
                         "J": "new/x-Hunter6", "K": "back\u{8}space-Hunter7",
                         "L": "\\x41b\\\\new/x-Hunter9", "M": "\\ud83d\u{f123}-Hunter8"});
    let redaction = Redaction::of(secrets.as_object().expect("an object"));
    for said in [
        r#"{"t": "Abc\/dEf+ghi==12"}"#,
        r#"{"t": "Abc/dEf\u002Bghi==12"}"#,
        r#"{"t":"p\u00E4ssw\u00F6rt-\uD83D\uDE00-lang"}"#,
        r"'p\xe4ssw\xf6rt-\U0001f600-lang'",
        r#"KeyError: 'it\'s-a-"q"-Hunter3'"#,
        r#"KeyError(\'it\\\\\'s-a-\"q\"-Hunter3\')"#,
        r"'pass\\word-Hunter2'",
        r"ValueError('pass\\\\word-Hunter2')",
        r"{'v': 'tab\there-Hunter4'}",
        "401 for https://x/?key=Abc%2FdEf%2bghi%3D%3D12&more",
        "401 for https://x/?key=p%C3%A4ssw%C3%B6rt-%F0%9F%98%80-lang",
        "401 for https://x/?key=p%25C3%25A4ssw%25C3%25B6rt-%25F0%259F%2598%2580-lang",
        // A blank is written in two ways, and a secret may be, or hold, an address itself.
        "401 for https://x/?key=correct+horse+battery+ghi",
        "401 for https://x/?key=correct%20horse%20battery%20ghi",
        "401 for https://x/?key=p%2540ss%252Fword-Hunter5",
        "401 for https://x/?key=p%252540ss%25252Fword-Hunter5",
        r#"401 for \"https:\/\/x\/?key=p%2540ss%252Fword-Hunter5\""#,
        // What is in an address may have escapes of its own.
        "401 for https://x/?json=%22p%5Cu00e4ssw%5Cu00f6rt-%5Cud83d%5Cude00-lang%22",
        "401 for https://x/?json=%22p%C3%A4ssw%5Cu00f6rt-%F0%9F%98%80-lang%22",
        "401 for https://x/?bytes=b%27p%5Cxc3%5Cxa4ssw%5Cxc3%5Cxb6rt-%5Cxf0%5Cx9f%5Cx98%5Cx80-lang",
        "401 for https://x/?key=tab%5Cthere-Hunter4",
        "401 for https://x/?json=tab%255C%255Cthere-Hunter4",
        r"401 for https://x/?dir=C:%5C%5Cnew%5C%2Fx-Hunter6",
        r"401 for https://x/?dir=%5Cu005cx41b%5C%5Cnew%2Fx-Hunter9",
        r"401 for C:\\new\/x-Hunter6",
        r"{'v': 'back\\bspace-Hunter7'}",
        r"401 for https://x/?json=%5C%5Cud83d%5Cuf123-Hunter8",
        r"401 for p@ss\/word-Hunter5",
        "k=100%25abcdefghi",
        "k=a%252Fghi-sale-of-50%2541&more",
        "k=%31%30%30%25%61%62%63%64%65%66%67%68%69",
    ] {
        let shown = redaction.text(said);
        assert!(shown.contains(MARK), "{said} is shown as {shown}");
        assert!(!shown.contains("Hunter") && !shown.contains("ghi") && !shown.contains("ssw"), "{shown}");
    }
    assert_eq!(redaction.text(r"C:\new\table is innocent\"), r"C:\new\table is innocent\");
}

#[test]
fn of_values_that_overlap_each_other_or_a_cut_nothing_is_left() {
    let struck = |secrets: serde_json::Value, text: &str| {
        Redaction::of(secrets.as_object().expect("an object")).text(text).into_owned()
    };
    let overlap = || json!({"A": "abcdefgh", "B": "efghijkl"});
    assert_eq!(struck(overlap(), "abcdefghijkl"), "[secret]");
    assert_eq!(struck(overlap(), r"abcdef\ghijkl"), "[secret]");
    assert_eq!(struck(overlap(), "abcdefghefghijkl"), "[secret][secret]");
    let cut = cut::mark(5);
    let both_ends = json!({"A": "secret-wxyz12", "B": "12abcd-secret"});
    assert_eq!(struck(both_ends, &format!("{cut}wxyz12abcd{cut}")), cut::mark(15) + &cut);
    for (secrets, whole) in [
        (json!({"A": "hunter12hunter12"}), "hunter12hunter12"),
        (json!({"A": "admin-pw-2024", "B": "2024-other-secret"}), "admin-pw-2024"),
        // Its escape is so far from the cut that it cannot be one which was cut itself.
        (
            json!({"A": "s3cret/2024-and-a-long-end-of-it-0000", "B": "it-0000-other"}),
            r"s3cret\/2024-and-a-long-end-of-it-0000-oth",
        ),
    ] {
        let shown = struck(secrets, &format!("it is {whole}{cut} here"));
        assert_eq!(shown, format!("it is {} here", cut::mark(5 + whole.len())));
    }
    let signs = format!("abcd{}abcd", "\\".repeat(300));
    for written in [signs.clone(), signs.replace('\\', "%5C")] {
        let shown = struck(json!({"A": signs}), &format!("it is {written}{cut} here"));
        let gone = format!("it is {} here", cut::mark(5 + written.len()));
        assert_eq!(shown, gone, "it has few letters and many bytes");
    }
    let behind = json!({"A": "hunter12hunter12", "C": "-----KEY-----"});
    assert_eq!(
        struck(behind.clone(), &format!("it is {cut}hunter12hunter12 here")),
        format!("it is {} here", cut::mark(21))
    );
    assert_eq!(
        struck(behind, &format!("it is {cut}-----KEY----- here")),
        format!("it is {} here", cut::mark(18))
    );
}

#[test]
fn what_begins_a_value_at_the_end_of_a_line_is_struck_out() {
    let secrets = json!({"A": "Kq7vXz9Lm2Pt5Rw8Yb3N", "B": "ä\"quoted\"-secret",
                         "C": "AAAAbbbbCCCC\rDDDDeeeeFFFF", "D": "abcd!!!!efgh1234",
                         "E": "Abc/dEf+ghi==12", "F": "it-has-a-“quote”-in-it"});
    let redaction = Redaction::of(secrets.as_object().expect("an object"));
    for (said, shown) in [
        ("ended with exit code 3: e Kq7vXz9Lm2Pt5R", "ended with exit code 3: e [secret]"),
        ("e Kq7vXz9Lm2Pt5R\nand more", "e [secret]\nand more"),
        (r#"it printed "{\"a\": Kq7vXz9Lm2Pt""#, r#"it printed "{\"a\": [secret]""#),
        (r#"it printed "ä\"quoted\"-se""#, r#"it printed "[secret]""#),
        ("e Kq7vXz9", "e Kq7vXz9"),
        ("e Kq7vXz9L", "e [secret]"),
        // Behind it stands what somebody quotes, colours or cuts a line with; and a value has signs of its own.
        ("e Kq7vXz9Lm2Pt5R…", "e [secret]…"),
        ("„e Kq7vXz9Lm2Pt5R“", "„e [secret]“"),
        (r#"it printed "Kq7vXz9Lm2Pt5R\u2026""#, r#"it printed "[secret]\u2026""#),
        ("\u{1b}[31mKq7vXz9Lm2Pt5R\u{1b}[0m", "\u{1b}[31m[secret]\u{1b}[0m"),
        (r#"it printed "Kq7vXz9Lm2Pt5R\x1b[0m""#, r#"it printed "[secret]\x1b[0m""#),
        (r#"it printed "Kq7vXz9Lm2Pt5R… ""#, r#"it printed "[secret]… ""#),
        (r#"it printed "Kq7vXz9Lm2Pt5R ""#, r#"it printed "[secret] ""#),
        ("it printed \"abcd!!!!\"", "it printed \"[secret]\""),
        ("it printed \"abcd!!!\"", "it printed \"abcd!!!\""),
        ("„it-has-a-„", "„[secret]„"),
        ("„it-has-a-“", "„[secret]"),
        ("401 for https://x/?key=Abc%2FdEf%2Bgh", "401 for https://x/?key=[secret]"),
        (r#"it printed "Abc\/dEf\u00""#, r#"it printed "[secret]\u00""#),
        ("e Kq7vXz9Lm2Pt5R and more", "e Kq7vXz9Lm2Pt5R and more"),
        ("e Kq7vXz9Lm2Pt5Rw8Yb3N", "e [secret]"),
        ("DDDDeeeeFFFF it is", "[secret] it is"),
    ] {
        assert_eq!(redaction.text(said), shown);
    }
}

#[test]
fn a_value_that_is_shown_as_bytes_is_struck_out() {
    let redaction =
        Redaction::of(json!({"TOKEN": "pässwörd-7", "B": r"pä\ssword-8"}).as_object().expect("an object"));
    for (said, shown) in [
        (r"b'p\xc3\xa4ssw\xc3\xb6rd-7' it was", "b'[secret]' it was"),
        (r"b'p\xc3\xa4\\ssword-8' it was", "b'[secret]' it was"),
        (r#"{"is": "b'p\\xc3\\xa4ssw\\xc3\\xb6rd-7'"}"#, r#"{"is": "b'[secret]'"}"#),
        ("it is pässwörd-7", "it is [secret]"),
    ] {
        assert_eq!(redaction.text(said), shown);
    }
}

#[test]
fn of_json_every_text_is_struck_whatever_its_writer_escaped() {
    let redaction = redaction();
    let said = r#"{"\u0066irst line": ["t\u006fk-\"1234\"-\u00e4", 12345678, 123456789, true]}"#;
    let shown = json!({"[secret]": ["[secret]", "[secret]", "[secret]9", true]});
    assert_eq!(redaction.read::<Value>(&Said::new(said)).expect("reads"), shown);
    assert_eq!(redaction.answer(&Said::new(said)), shown.to_string());
    assert_eq!(redaction.answer(&Said::new("no JSON: 12345678")), "no JSON: [secret]");
    assert!(
        redaction
            .read::<u64>(&Said::new("\"second line\""))
            .is_err_and(|error| { !error.to_string().contains("second line") })
    );
    let none = Redaction::default();
    assert_eq!(none.answer(&Said::new("{\"a\": 1.50}")), "{\"a\": 1.50}", "nothing to strike: as it came");
}

#[test]
fn a_value_that_is_told_as_a_number_is_struck_out_of_it_whatever_its_length() {
    let secrets = json!({"LONG": "123456789012345678901234567890", "SHORT": "12345678"});
    let redaction = Redaction::of(secrets.as_object().expect("an object"));
    for (said, shown) in [
        ("123456789012345678901234567890", "\"[secret]\""),
        ("[-123456789012345678901234567890]", "[\"-[secret]\"]"),
        ("{\"a\": 1234567890123456789012345678905}", "{\"a\":\"[secret]5\"}"),
        ("[-12345678, 12345678.5, 1234567, 0.25]", "[\"-[secret]\",\"[secret].5\",1234567,0.25]"),
    ] {
        assert_eq!(redaction.answer(&Said::new(said)), shown);
    }
}

#[test]
fn of_a_value_that_was_cut_both_parts_are_found() {
    let redaction = redaction();
    assert_eq!(redaction.cut(b"it is second l", b"nd line, I say"), (8, 7));
    assert_eq!(redaction.cut(b"it is sec", b"e, I say"), (0, 0), "a few letters are any word's");
    assert_eq!(redaction.cut(b"", b""), (0, 0));
}

#[test]
fn a_whole_value_that_ends_at_a_cut_as_it_begins_goes_whole() {
    let of = |secret: &str| Redaction::of(json!({"A": secret}).as_object().expect("an object"));
    // Where the look at what stands before begins, letters are cut in two.
    let redaction = of("ä1-cdxyä1-cd");
    let whole = r"\xe41-cdxy\xe41-cd";
    for more in ["", "x", "xx"] {
        let head = format!("{}{more}{whole}", "—".repeat(redaction.window()));
        assert_eq!(redaction.cut(head.as_bytes(), b"").0, whole.len(), "{more}");
    }
}

#[test]
fn a_chunk_is_a_result_and_nothing_else_is() {
    let chunk = Said::new("{\"t\": \"second line\"}").chunk();
    assert_eq!(chunk.map_err(drop).expect("a chunk").get(), "{\"t\": \"second line\"}");
    let failed = r#"{"_job_error": {"category": "fatal", "message": "m", "retriable": false, "original_exc_repr": "E()"}}"#;
    for line in [failed, "second line", "\u{0}"] {
        assert!(Said::new(line).chunk().is_err(), "{line}");
    }
}

#[test]
fn no_half_of_a_secret_is_left_where_the_middle_of_a_record_was_taken_out() {
    let secrets = serde_json::json!({"TOKEN": "tok-12345678-é", "PASSWORD": "pässwört-99"});
    let redaction = Redaction::of(secrets.as_object().expect("an object"));
    for (said, shown) in [
        ("it is tok-12[5 bytes dropped here]678-é.", "it is [17 bytes dropped here]."),
        ("[5 bytes dropped here]", "[5 bytes dropped here]"),
        ("5 bytes dropped here] tok-12345678-é", "5 bytes dropped here] [secret]"),
        ("[é bytes dropped here]", "[é bytes dropped here]"),
        // Each of the marks, and what a tool may have written to hide one.
        (
            "5 bytes dropped here] it is tok-12[5 bytes dropped here].",
            "5 bytes dropped here] it is [11 bytes dropped here].",
        ),
        (
            "[é bytes dropped here]tok-12[5 bytes dropped here]",
            "[é bytes dropped here][11 bytes dropped here]",
        ),
        (
            "tok-[1 bytes dropped here]1234[2 bytes dropped here]78-é",
            "[9 bytes dropped here][7 bytes dropped here]",
        ),
        (
            "tok-1[1 bytes dropped here] tok-1[2 bytes dropped here]",
            "[6 bytes dropped here] [7 bytes dropped here]",
        ),
        // The first letter behind a cut may be what ended an escape.
        ("tok-12345678-é[1 bytes dropped here]tok-12345678-é", "[secret][16 bytes dropped here]"),
        // However it was quoted, and where the cut fell into an escape.
        (r"tok-12345678-\\u00[1 bytes dropped here]", "[19 bytes dropped here]"),
        (r"[1 bytes dropped here]5678-\\u00e9.", "[13 bytes dropped here]."),
        (r"[1 bytes dropped here]e4ssw\u00f6rt-99.", "[17 bytes dropped here]."),
    ] {
        let said = Said::new(serde_json::to_vec(said).expect("writes"));
        assert_eq!(redaction.read::<String>(&said).expect("a text"), shown);
    }
}

/// Random secrets, each as one random writer of another's text has it, and cut in one place.
const SECRETS_TRIED: usize = 4_000;

/// What quotes a text.
type Writer = fn(&str) -> String;

/// Those that are known, each of which may write what another has written.
const WRITERS: [Writer; 6] = [json, json_ascii, python, python_bytes, address, address_plus];

fn json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

fn json_ascii(text: &str) -> String {
    ascii_only(&json(text))
}

/// Python's `repr`: it shows what can be printed.
fn python(text: &str) -> String {
    let quoted = |letter: char| match letter {
        '\\' | '\'' => format!("\\{letter}"),
        '\n' => r"\n".to_owned(),
        '\r' => r"\r".to_owned(),
        '\t' => r"\t".to_owned(),
        ' '..='~' | '¡'..='ÿ' | 'а'..='я' | '“' => letter.to_string(),
        ..'\u{100}' => format!("\\x{:02x}", letter as u32),
        ..'\u{10000}' => format!("\\u{:04x}", letter as u32),
        _ => format!("\\U{:08x}", letter as u32),
    };
    text.chars().map(quoted).collect()
}

/// The same of bytes: it shows each that is no letter of ASCII by its number.
fn python_bytes(text: &str) -> String {
    let bytes: String = python(&text.bytes().map(char::from).collect::<String>());
    bytes
        .chars()
        .map(|byte| if byte.is_ascii() { byte.into() } else { format!("\\x{:02x}", byte as u32) })
        .collect()
}

fn address(text: &str) -> String {
    let quoted = |byte: u8| match byte {
        b'_' | b'.' | b'-' | b'~' | b'/' => char::from(byte).into(),
        _ if byte.is_ascii_alphanumeric() => char::from(byte).into(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(quoted).collect()
}

fn address_plus(text: &str) -> String {
    address(text).replace('/', "%2f").replace("%20", "+")
}

/// How writers show a text: as it is, as JSON, as Python, as an address, and each of them in another.
fn written(secret: &str) -> Vec<String> {
    let mut nested: Vec<Vec<Writer>> = WRITERS.iter().map(|writer| vec![*writer]).collect();
    nested.extend([
        vec![],
        vec![json_ascii, json],
        vec![json_ascii, address],
        vec![python, address_plus],
        vec![python_bytes, address],
        vec![python_bytes, json],
        vec![address, address],
        vec![json, json_ascii, json],
        vec![json_ascii, json, address],
        vec![json_ascii, address, json],
        vec![address, address_plus, address],
    ]);
    let text = |writers: &Vec<Writer>| writers.iter().fold(secret.to_owned(), |text, writer| writer(&text));
    nested.iter().map(text).collect()
}

/// What is longer than four bytes of the value and is still there, in any spelling.
fn left_of(secret: &str, shown: &str) -> Option<String> {
    let letters = |text: &str| {
        let characters = |letters: Vec<Letter>| letters.iter().map(|letter| letter.character).collect();
        readings(text).map(characters).collect::<Vec<Vec<char>>>()
    };
    let (shown, secret) = (letters(shown), letters(secret));
    let bytes = |run: &[char]| run.iter().map(|letter| letter.len_utf8()).sum::<usize>();
    let run =
        |letters: &'_ [char]| (1..=letters.len()).find(|length| bytes(&letters[..*length]) > PART_BYTES_MIN);
    let begins = secret.iter().flat_map(|letters| (0..letters.len()).map(move |at| &letters[at..]));
    let mut runs = begins.filter_map(|letters| Some(&letters[..run(letters)?]));
    let is_shown =
        |run: &&[char]| shown.iter().any(|shown| shown.windows(run.len()).any(|there| there == *run));
    runs.find(is_shown).map(|run| run.iter().collect())
}

#[test]
fn places_go_whole_in_whatever_order_they_are_found_and_however_they_overlap() {
    let without = |places: &[Range<usize>]| without_places("abcdefghij", places.to_vec());
    assert_eq!(without(&[]), None);
    assert_eq!(without(&[5..8, 0..3]).as_deref(), Some("[secret]de[secret]ij"));
    assert_eq!(
        without(&[0..4, 2..6]).as_deref(),
        Some("[secret]ghij"),
        "the end of the second one goes, too"
    );
    assert_eq!(without(&[0..6, 2..4]).as_deref(), Some("[secret]ghij"));
}

/// What can be a number alone stays one.
#[test]
fn no_report_and_no_failure_is_lost_for_a_secret_in_a_number() {
    let redaction = Redaction::of(json!({"K": "33333333"}).as_object().expect("an object"));
    let said = |text: &str| Said::new(text.as_bytes().to_vec());
    let report = r#"{"job_id": null, "progress": 0.3333333333333333, "message": "33333333 m"}"#;
    let report: cjm_wire::link::ProgressReport = redaction.read(&said(report)).expect("a report");
    assert_eq!((report.progress, report.message.as_str()), (0.0, "[secret] m"));
    let failure = r#"{"_job_error": {"category": "transient", "message": "m", "retriable": true,
                      "retry_after_seconds": 0.3333333333333333}}"#;
    let failure = redaction.failure(&said(failure)).expect("a failure").job_error;
    assert_eq!((failure.message.as_str(), failure.retry_after_seconds), ("m", None));
    let account = r#"{"event_type": "cache_hit", "payload": {"n": 133333333}}"#;
    let account: cjm_wire::http::Account = redaction.read(&said(account)).expect("an account");
    assert_eq!(account.payload["n"], "1[secret]", "where it may be anything it is told what it was");
}

#[test]
fn wherever_a_text_was_cut_nothing_of_a_value_is_left_beside_the_cut_or_before_or_behind_it() {
    let secrets = [
        "tok-\"1234\"-kxyz",
        "pässwört-😀-lang",
        "пароль",
        "ключ",
        "a\\b/c\td-Hunter2",
        "p%40s s%2Fw-+Hunter2",
        "ÄÖÜäöüßéèêëàáâãåæçñ",
        "kx\\tR9\\nQz81pw",
        "\\u00e4-\\x41-\\\\b\u{a0}ö-Qz81pw",
        "it's-kxyÃ\u{a0}ä-Qz81pw",
    ];
    for secret in secrets {
        let redaction = Redaction::of(json!({"S": secret}).as_object().expect("an object"));
        let long = "—".repeat(redaction.window());
        for written in written(secret) {
            for at in (0..=written.len()).filter(|at| written.is_char_boundary(*at)) {
                let (head, rest) = written.split_at(at);
                let cut = cut::mark(7);
                for said in [
                    format!("it is {head}{cut}"),
                    format!("{cut}{rest} it is"),
                    format!("it is {head}{cut}{rest} it is"),
                    format!("it {written} is {head}{cut}{rest} is {written} it"),
                ] {
                    let shown = redaction.text(&said);
                    assert_eq!(left_of(secret, &shown), None, "{said} is shown as {shown}");
                    assert!(
                        !said.starts_with("it") || shown.starts_with("it "),
                        "{said} is shown as {shown}"
                    );
                    assert!(!said.ends_with("it") || shown.ends_with(" it"), "{said} is shown as {shown}");
                }
                // Before and behind stands more than is looked at, so that letters are cut in two there as well.
                let (head, rest) = (format!("{long}it is {head}"), format!("{rest} it is{long}"));
                let (before, behind) = redaction.cut(head.as_bytes(), rest.as_bytes());
                assert!(before <= head.len() - 6, "{head} loses {before}");
                // No end of a line is beside the cut, where the beginning of a value would be known by that.
                let shown = [format!("{} and", &head[..head.len() - before]), rest[behind..].to_owned()];
                for shown in shown {
                    let shown = redaction.text(&shown);
                    assert_eq!(left_of(secret, &shown), None, "{head}|{rest} is cut to {shown}");
                }
            }
        }
    }
}

#[test]
fn a_value_of_any_letters_is_struck_out_by_whichever_writers_it_went_through() {
    const LETTERS: &str = "\\\\\\%%%+ nrtbfxuU05C4aed8\"'/\u{a0}äö£Ãé😀п\u{1}\u{7f}\u{3000}&~“";
    let letters: Vec<char> = LETTERS.chars().collect();
    // Always the same numbers, of Knuth's generator.
    let mut state = 1_u64;
    let mut below = |end: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % end
    };
    let mut tried = 0;
    while tried < SECRETS_TRIED {
        let secret: String = (0..10 + below(12)).map(|_| letters[below(letters.len())]).collect();
        let secret = secret.trim();
        let writers: Vec<Writer> = (0..below(4)).map(|_| WRITERS[below(WRITERS.len())]).collect();
        let before = ["", "k=", "\"", "\\", "C:\\", "-"][below(6)];
        let behind = ["", "\"", " ok", "&x=1", "'", "next", "\n"][below(7)];
        // Some are too short without their backslashes, also with one in front.
        if spellings(secret).any(|letters| letters.len() < SECRET_BYTES_MIN) {
            continue;
        }
        tried += 1;
        let written = format!("{before}{secret}{behind}");
        let written = writers.iter().fold(written, |text, writer| writer(&text));
        let redaction = Redaction::of(json!({"S": secret}).as_object().expect("an object"));
        assert!(redaction.text(&written).contains(MARK), "{secret:?} in {written:?}");
        let (head, rest) = written.split_at(written.floor_char_boundary(below(written.len() + 1)));
        let cut = cut::mark(7);
        for said in [
            written.clone(),
            format!("it is {head}{cut}"),
            format!("{cut}{rest} it is"),
            format!("it is {head}{cut}{rest} it is"),
        ] {
            let shown = redaction.text(&said);
            assert_eq!(left_of(secret, &shown), None, "{secret:?} in {said:?} is {shown:?}");
        }
    }
}

#[test]
fn a_long_secret_is_looked_for_no_longer_than_a_short_one_whatever_a_tool_says() {
    const LETTERS: usize = 60_000;
    let (a_long, half) = ("a".repeat(LETTERS), "a".repeat(LETTERS / 2));
    let mixed: String = (0..LETTERS as u32).map(|at| char::from(b'a' + (at * at / 7 % 26) as u8)).collect();
    let mark = cut::mark(1);
    for (secret, said) in [
        // Marks without number, with what may be parts of the secret between them.
        (mixed.clone(), format!("xyzxyz{mark}").repeat(100_000)),
        (format!("{mixed}0123"), format!("0123{mark}").repeat(100_000)),
        // Letters that are nearly the secret wherever one begins to compare, as they are and with escapes.
        (format!("{half}b{half}"), format!("{a_long}{mark}{a_long}")),
        (format!("{half}b{half}"), format!("{a_long}\\n{a_long}{mark}{a_long}\\n{a_long}")),
    ] {
        let redaction = |secret: &str| {
            let secrets = json!({"TOKEN": secret});
            Redaction::of(secrets.as_object().expect("an object"))
        };
        let took = |redaction: &Redaction| {
            let begun = std::time::Instant::now();
            let _ = redaction.text(&said);
            begun.elapsed()
        };
        let (long, short) = (redaction(&secret), redaction(&secret[secret.len() - 60..]));
        let (long, short) = (took(&long), took(&short));
        assert!(long < short * 5 + std::time::Duration::from_secs(2), "{long:?} and not {short:?}");
    }
}

#[test]
fn of_the_methods_that_a_tool_lists_so_many_are_taken_and_so_much_of_each() {
    let long = "m".repeat(10 * METHOD_BYTES_MAX);
    let mut methods = vec!["page_12345678".to_owned()];
    methods.extend((1..=METHODS_MAX).map(|number| format!("{number:03}{long}")));
    let said = json!({"detail": "no such method", "methods": methods}).to_string();
    let told = redaction().detail(&Said::new(said)).expect("a detail").methods;
    assert_eq!((told.len(), told[0].as_str()), (METHODS_MAX, "page_[secret]"));
    for (name, whole) in told.iter().zip(&methods).skip(1) {
        let dropped = cut::mark(whole.len() - METHOD_BYTES_MAX);
        assert_eq!(name.len(), METHOD_BYTES_MAX + dropped.len(), "{name}");
        assert!(name.starts_with(&whole[..4]) && name.contains(&dropped), "{name}");
    }
}
