//! docs/ERRORS.md is the index of all error codes, made from the source: from what each error type answers as its code,
//! next step and exit code, and from the errors that are made in place. `CJM_REWRITE_ERRORS=1` writes it anew.

use crate::all_files;
use cjm_tests::repo;
use cjm_wire::describe::exit;
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

const PAGE: &str = "docs/ERRORS.md";
const REWRITE: &str = "CJM_REWRITE_ERRORS";

/// What the page says above the table.
const HEAD: &str = "# Errors

Every error of cjm-substrate has a code that does not change, says what happened and why, and what to do next. With
`--json` it is an object under `error`: `code`, `message`, `causes`, `next_step`, `stderr_tail`, `exit_code`, and where
they are known `category` (`user_input`, `transient`, `resource`, `fatal`), `retriable`, `retry_after_seconds`,
`fields_invalid`, `resource_shortfall`, `exception`, `traceback` (last lines), `raised_after`, `members` (of a group of
exceptions), `job_id`, `run_id`, `node`, `element`.

`retriable` is the word of the tool, as with the ancestor: all but `fatal` unless it says otherwise. Whether the same call may
succeed later is in `category`: of a `transient` failure it may, of `resource` once something is free, of `user_input` it fails
again.

This index is made from the source by a test, which fails when it is stale; `CJM_REWRITE_ERRORS=1 cargo test -p cjm-tests
--test tidy error_index` writes it anew. `{…}` stands for what the error names; \"or\" parts what depends on the case.

| code | what it means | exit code | next step |
|---|---|---|---|
";

/// Its checks have names of the same form.
const CONFORMANCE: &str = "worker-shim/conformance";
/// Texts of the same form that are keys of a manifest.
const KEYS: [&str; 3] = ["install.python_path", "install.env_vars", "manifest.install.package_source"];
/// How such texts end that are files.
const FILES: [&str; 5] = [".json", ".lock", ".db", ".yaml", ".reserve"];

/// Errors of another kind that only ever end the start of a tool (`StartError::Adapter`).
const FOUND_AT_START: [&str; 3] = ["adapter.unknown", "adapter.incompatible", "adapter.not_loaded"];

/// What is known of one code.
#[derive(Debug, Default)]
struct Row {
    meanings: BTreeSet<String>,
    exits: BTreeSet<u8>,
    /// The source names them; what it does not name is a guess.
    exits_named: bool,
    next_steps: Vec<String>,
}

/// Type and variant; the variant of a struct is empty, of `_` it is `_`.
type Variant = (String, String);

/// What one crate says of its errors.
#[derive(Default)]
struct Room {
    meanings: BTreeMap<Variant, String>,
    codes: Vec<(Variant, String)>,
    next_steps: Vec<(Variant, String)>,
    exits: Vec<(Variant, u8)>,
    /// Made in place: code, meaning, next step, exit code.
    in_place: Vec<(String, String, String, u8)>,
    /// Exit code that the call around an error gives it.
    exit_around: Option<u8>,
    /// The type whose `impl` is being read.
    subject: String,
    /// Texts given to local names, newest last: a message is often made before the error.
    locals: BTreeMap<String, String>,
    /// Every text that reads like a code.
    mentioned: BTreeSet<String>,
}

fn is_code(text: &str) -> bool {
    text.split('.').count() >= 2
        && !text.ends_with('.')
        && text.split('.').all(|part| {
            part.starts_with(|c: char| c.is_ascii_lowercase())
                && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        })
}

fn family(code: &str) -> &str {
    code.split('.').next().unwrap_or_default()
}

fn is_file(text: &str) -> bool {
    FILES.iter().any(|ending| text.ends_with(ending))
}

fn exit_named(name: &str) -> Option<u8> {
    Some(match name {
        "OK" => exit::OK,
        "DOMAIN" => exit::DOMAIN,
        "USAGE" => exit::USAGE,
        "WORKER_START" => exit::WORKER_START,
        "WORKER_DIED" => exit::WORKER_DIED,
        "TOOL_FAILED" => exit::TOOL_FAILED,
        "TIMED_OUT" => exit::TIMED_OUT,
        "CANCELLED" => exit::CANCELLED,
        "DIRECTORY_IN_USE" => exit::DIRECTORY_IN_USE,
        "COMPOSITION_FAILED" => exit::COMPOSITION_FAILED,
        "STORE" => exit::STORE,
        _ => return None,
    })
}

/// Texts and exit codes in an expression, macros included.
#[derive(Default)]
struct Literals {
    texts: Vec<String>,
    exits: Vec<u8>,
}

impl Literals {
    fn of(expression: &syn::Expr) -> Self {
        let mut literals = Self::default();
        literals.visit_expr(expression);
        literals
    }
}

impl<'ast> Visit<'ast> for Literals {
    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.texts.push(text.value());
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // The first text of `format!` and its like is the message; what follows are its values.
        if let Ok(text) = call.parse_body_with(|input: syn::parse::ParseStream<'_>| {
            let text: syn::LitStr = input.parse()?;
            input.step(|cursor| {
                let mut rest = *cursor;
                while let Some((_, next)) = rest.token_tree() {
                    rest = next;
                }
                Ok(((), rest))
            })?;
            Ok(text)
        }) {
            self.texts.push(text.value());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if let Some(code) = path.segments.last().and_then(|last| exit_named(&last.ident.to_string())) {
            self.exits.push(code);
        }
        visit::visit_path(self, path);
    }
}

/// The variants that a pattern names.
fn variants(pattern: &syn::Pat, subject: &str) -> Vec<Variant> {
    struct Paths(Vec<syn::Path>, bool);
    impl<'ast> Visit<'ast> for Paths {
        fn visit_path(&mut self, path: &'ast syn::Path) {
            self.0.push(path.clone());
        }
        fn visit_pat_wild(&mut self, _: &'ast syn::PatWild) {
            self.1 = true;
        }
    }
    let mut paths = Paths(Vec::new(), matches!(pattern, syn::Pat::Wild(_)));
    if paths.1 {
        return vec![(subject.to_owned(), "_".to_owned())];
    }
    paths.visit_pat(pattern);
    let named = paths.0.iter().filter(|path| path.segments.len() >= 2).map(|path| {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        let owner = match names[names.len() - 2].as_str() {
            "Self" => subject,
            owner => owner,
        };
        (owner.to_owned(), names[names.len() - 1].clone())
    });
    named.collect()
}

fn doc_of(attributes: &[syn::Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("doc")) {
        if let syn::Meta::NameValue(pair) = &attribute.meta {
            lines.extend(Literals::of(&pair.value).texts);
        }
    }
    let text = lines.join(" ");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.split_inclusive(". ").next().unwrap_or_default().trim().trim_end_matches('.').to_owned()
}

/// The message of `#[error("…")]`, unless it only passes on another's.
fn message_of(attributes: &[syn::Attribute]) -> Option<String> {
    let attribute = attributes.iter().find(|attribute| attribute.path().is_ident("error"))?;
    let syn::Meta::List(list) = &attribute.meta else { return None };
    let message: syn::LitStr = list
        .parse_args_with(|input: syn::parse::ParseStream<'_>| {
            let message = input.parse()?;
            while !input.is_empty() {
                input.parse::<syn::parse::Nothing>().ok();
                input.step(|cursor| {
                    cursor.token_tree().map_or(Err(cursor.error("end")), |(_, rest)| Ok(((), rest)))
                })?;
            }
            Ok(message)
        })
        .ok()?;
    let message = message.value();
    (message.chars().filter(|c| c.is_alphabetic()).count() > 12).then_some(message)
}

impl Room {
    fn meaning(attributes: &[syn::Attribute]) -> String {
        message_of(attributes).unwrap_or_else(|| doc_of(attributes))
    }

    /// The text of an expression, or of the local name that it is.
    fn text_of(&self, expression: &syn::Expr) -> String {
        let named = match expression {
            syn::Expr::Path(path) => {
                path.path.get_ident().and_then(|name| self.locals.get(&name.to_string()))
            }
            syn::Expr::MethodCall(call) => return self.text_of(&call.receiver),
            _ => None,
        };
        named.cloned().or_else(|| Literals::of(expression).texts.first().cloned()).unwrap_or_default()
    }

    /// Gives `into` what each variant's arm holds. An expression that is no match holds for the whole type.
    fn arms(&self, body: &syn::Block, into: &mut dyn FnMut(Variant, Literals)) {
        struct Matches<'a>(Vec<&'a syn::ExprMatch>);
        impl<'ast> Visit<'ast> for Matches<'ast> {
            fn visit_expr_match(&mut self, found: &'ast syn::ExprMatch) {
                // Inner ones belong to the arm of the outer.
                self.0.push(found);
            }
        }
        let mut matches = Matches(Vec::new());
        matches.visit_block(body);
        if matches.0.is_empty() {
            let mut literals = Literals::default();
            literals.visit_block(body);
            into((self.subject.clone(), String::new()), literals);
        }
        for arm in matches.0.iter().flat_map(|found| &found.arms) {
            for variant in variants(&arm.pat, &self.subject) {
                into(variant, Literals::of(&arm.body));
            }
        }
    }
}

impl<'ast> Visit<'ast> for Room {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = module.attrs.iter().any(|attribute| {
            matches!(&attribute.meta, syn::Meta::List(list) if list.path.is_ident("cfg") && list.tokens.to_string() == "test")
        });
        if !is_test {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_enum(&mut self, item: &'ast syn::ItemEnum) {
        for variant in &item.variants {
            let meaning = Self::meaning(&variant.attrs);
            self.meanings.insert((item.ident.to_string(), variant.ident.to_string()), meaning);
        }
        visit::visit_item_enum(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        self.meanings.insert((item.ident.to_string(), String::new()), Self::meaning(&item.attrs));
    }

    fn visit_item_impl(&mut self, block: &'ast syn::ItemImpl) {
        let syn::Type::Path(path) = &*block.self_ty else { return };
        self.subject = path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default();
        for item in &block.items {
            let syn::ImplItem::Fn(function) = item else { continue };
            let (mut codes, mut steps, mut exits) = (Vec::new(), Vec::new(), Vec::new());
            match function.sig.ident.to_string().as_str() {
                "code" => self.arms(&function.block, &mut |variant, found| {
                    codes.extend(
                        found
                            .texts
                            .into_iter()
                            .filter(|text| is_code(text))
                            .map(|code| (variant.clone(), code)),
                    );
                }),
                "next_step" => self.arms(&function.block, &mut |variant, found| {
                    steps.extend(found.texts.into_iter().map(|step| (variant.clone(), step)));
                }),
                // All three at once: the code, then the next step.
                "facts" => self.arms(&function.block, &mut |variant, found| {
                    let mut texts = found.texts.into_iter();
                    if let Some(code) = texts.next().filter(|text| is_code(text)) {
                        codes.push((variant.clone(), code));
                        steps.extend(texts.map(|step| (variant.clone(), step)));
                        exits.extend(found.exits.into_iter().map(|code| (variant.clone(), code)));
                    }
                }),
                "exit_code" => self.arms(&function.block, &mut |variant, found| {
                    exits.extend(found.exits.into_iter().map(|code| (variant.clone(), code)));
                }),
                _ => {}
            }
            self.codes.extend(codes);
            self.next_steps.extend(steps);
            self.exits.extend(exits);
        }
        visit::visit_item_impl(self, block);
    }

    fn visit_item_const(&mut self, constant: &'ast syn::ItemConst) {
        if let Some(text) = Literals::of(&constant.expr).texts.first() {
            self.locals.insert(constant.ident.to_string(), text.clone());
            if is_code(text) {
                self.meanings.insert((text.clone(), String::new()), doc_of(&constant.attrs));
            }
        }
        visit::visit_item_const(self, constant);
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.mentioned.extend(Some(text.value()).filter(|text| is_code(text)));
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if let (syn::Pat::Ident(name), Some(init)) = (&local.pat, &local.init)
            && let Some(text) = Literals::of(&init.expr).texts.first()
        {
            self.locals.insert(name.ident.to_string(), text.clone());
        }
        visit::visit_local(self, local);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let outer = self.exit_around;
        if call.method == "with_exit" {
            self.exit_around = call.args.first().and_then(|code| Literals::of(code).exits.first().copied());
        }
        self.visit_expr(&call.receiver);
        self.exit_around = outer;
        call.args.iter().for_each(|argument| self.visit_expr(argument));
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        let path = match &*call.func {
            syn::Expr::Path(path) => path.path.segments.iter().map(|s| s.ident.to_string()).collect(),
            _ => Vec::new(),
        };
        if path == ["Fault", "new"] && call.args.len() == 3 {
            let text = |at: usize| self.text_of(&call.args[at]);
            if is_code(&text(0)) {
                let exit = self.exit_around.unwrap_or(exit::DOMAIN);
                self.in_place.push((text(0), text(1), text(2), exit));
            }
        }
        // Outside of a method: the code is a constant, whose words are its meaning.
        if path == ["Facts", "new"] && call.args.len() == 3 {
            let code = self.text_of(&call.args[0]);
            if let Some(meaning) = self.meanings.get(&(code.clone(), String::new())).cloned() {
                let exit = Literals::of(&call.args[1]).exits.first().copied().unwrap_or(exit::DOMAIN);
                self.in_place.push((code, meaning, self.text_of(&call.args[2]), exit));
            }
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_expr_struct(&mut self, made: &'ast syn::ExprStruct) {
        if made.path.segments.last().is_some_and(|last| last.ident == "ErrorReport") {
            let field = |name: &str| {
                let named =
                    |member: &syn::Member| matches!(member, syn::Member::Named(member) if member == name);
                made.fields.iter().find(|field| named(&field.member)).map(|field| &field.expr)
            };
            let first = |name: &str| field(name).map(|text| self.text_of(text)).unwrap_or_default();
            if is_code(&first("code")) {
                let exit = field("exit_code")
                    .and_then(|code| Literals::of(code).exits.first().copied())
                    .unwrap_or(exit::DOMAIN);
                self.in_place.push((first("code"), first("message"), first("next_step"), exit));
            }
        }
        visit::visit_expr_struct(self, made);
    }
}

/// The source, room by room.
fn rooms() -> BTreeMap<String, Room> {
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    for file in all_files().iter().filter(|file| file.extension() == "rs" && file.path.contains("/src/")) {
        let room = file.path.split("/src/").next().unwrap_or_default().to_owned();
        let parsed = syn::parse_file(&file.text).unwrap_or_else(|error| panic!("{}: {error}", file.path));
        rooms.entry(room).or_default().visit_file(&parsed);
    }
    if let Some(room) = rooms.get_mut(CONFORMANCE) {
        room.mentioned.clear();
    }
    rooms
}

/// Every code and what is known of it.
fn rows(rooms: &BTreeMap<String, Room>) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for room in rooms.values() {
        for (variant, code) in &room.codes {
            let row = rows.entry(code.clone()).or_default();
            row.meanings.extend(room.meanings.get(variant).filter(|text| !text.is_empty()).cloned());
            let of_type =
                |name: &str| [(variant.0.clone(), "_".to_owned()), (name.to_owned(), String::new())];
            let of = |key: &Variant| {
                room.next_steps
                    .iter()
                    .filter(|(of, _)| of == key)
                    .map(|(_, step)| step.clone())
                    .collect::<Vec<_>>()
            };
            let mut steps = of(variant);
            for key in of_type(&variant.0) {
                steps = if steps.is_empty() { of(&key) } else { steps };
            }
            row.next_steps.extend(steps);
            let exits = |key: &Variant| {
                room.exits.iter().filter(|(of, _)| of == key).map(|(_, code)| *code).collect::<BTreeSet<u8>>()
            };
            let mut found = exits(variant);
            for key in of_type(&variant.0) {
                found = if found.is_empty() { exits(&key) } else { found };
            }
            row.exits_named |= !found.is_empty();
            row.exits.extend(if found.is_empty() { BTreeSet::from([exit::DOMAIN]) } else { found });
        }
        for (code, meaning, next_step, exit) in &room.in_place {
            let row = rows.entry(code.clone()).or_default();
            row.meanings.extend((!meaning.is_empty()).then(|| meaning.clone()));
            row.next_steps.extend((!next_step.is_empty()).then(|| next_step.clone()));
            row.exits.insert(*exit);
        }
    }
    // What is a constant only, such as what the findings of `validate` say.
    let families: BTreeSet<String> = rows.keys().map(|code| family(code).to_owned()).collect();
    for ((code, variant), meaning) in rooms.values().flat_map(|room| &room.meanings) {
        if variant.is_empty() && is_code(code) && !is_file(code) && families.contains(family(code)) {
            let row = rows.entry(code.clone()).or_default();
            if row.meanings.is_empty() {
                row.meanings.insert(meaning.clone());
            }
        }
    }
    for row in rows.values_mut().filter(|row| row.exits.is_empty()) {
        row.exits.insert(exit::DOMAIN);
    }
    if let Some(row) = rows.get_mut("ctl.usage") {
        row.exits = BTreeSet::from([exit::USAGE]);
    }
    // 128 and the number of the signal.
    if let Some(row) = rows.get_mut("ctl.interrupted") {
        row.exits = BTreeSet::from([129, 130, 143]);
    }
    // A verdict's exit code depends on when the worker died, not on the cause.
    for row in rows.iter_mut().filter(|(code, _)| code.starts_with("worker.")).map(|(_, row)| row) {
        if !row.exits_named && row.exits == BTreeSet::from([exit::DOMAIN]) {
            row.exits = BTreeSet::from([exit::WORKER_START, exit::WORKER_DIED]);
        }
    }
    // Found out when a tool is started, which gives them the exit code of that.
    for code in FOUND_AT_START {
        rows.entry(code.to_owned()).or_default().exits = BTreeSet::from([exit::WORKER_START]);
    }
    rows
}

fn page(rows: &BTreeMap<String, Row>) -> String {
    let cell = |texts: &[String]| {
        let mut distinct: Vec<String> = Vec::new();
        for text in texts {
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
            if !text.is_empty() && !distinct.contains(&text) {
                distinct.push(text);
            }
        }
        distinct.join("; or: ")
    };
    let mut page = HEAD.to_owned();
    for (code, row) in rows {
        let meanings: Vec<String> = row.meanings.iter().cloned().collect();
        let exits: Vec<String> = row.exits.iter().map(u8::to_string).collect();
        let next = cell(&row.next_steps);
        let next = if next.is_empty() { "as the error says" } else { &next };
        page.push_str(&format!("| `{code}` | {} | {} | {next} |\n", cell(&meanings), exits.join(", ")));
    }
    page
}

#[test]
fn the_index_of_error_codes_is_what_the_source_says() {
    let rooms = rooms();
    let rows = rows(&rooms);
    let families: BTreeSet<&str> = rows.keys().map(|code| family(code)).collect();
    let mentioned = rooms.values().flat_map(|room| &room.mentioned);
    let missing: BTreeSet<&String> = mentioned
        .filter(|text| families.contains(family(text)))
        .filter(|text| !rows.contains_key(*text) && !KEYS.contains(&text.as_str()))
        .filter(|text| !is_file(text))
        .collect();
    assert!(missing.is_empty(), "the source speaks of these, and the index does not: {missing:?}");
    assert!(rows.len() >= 120, "only {} codes found", rows.len());
    let without: Vec<&String> =
        rows.iter().filter(|(_, row)| row.meanings.is_empty()).map(|(code, _)| code).collect();
    assert!(without.is_empty(), "no meaning found for {without:?}");
    let path = repo::root().join(PAGE);
    let wanted = page(&rows);
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(&path, &wanted).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == wanted, "{PAGE} is stale: write it anew with {REWRITE}=1 (see its head)");
}
