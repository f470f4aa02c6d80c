//! What is asked: requests at a worker's own surface, then calls through its host. The same for every pair.

use serde_json::{Value, json};

/// A request at the surface.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Its name in reports.
    pub(crate) id: String,
    /// `GET` or `POST`.
    pub(crate) method: &'static str,
    /// The path.
    pub(crate) path: &'static str,
    /// The body, as it goes out.
    pub(crate) body: Option<String>,
    /// Everything is cancelled once the tool has said this.
    pub(crate) cancel_at: Option<&'static str>,
}

/// A question.
pub(crate) fn get(path: &'static str) -> Request {
    Request { id: format!("GET {path}"), method: "GET", path, body: None, cancel_at: None }
}

/// A request with a body.
pub(crate) fn post(name: &str, path: &'static str, body: &Value) -> Request {
    let body = (!body.is_null()).then(|| body.to_string());
    Request {
        id: format!("POST {path} {name}").trim_end().to_owned(),
        method: "POST",
        path,
        body,
        cancel_at: None,
    }
}

/// One call of an action at the surface.
fn execute(action: &str, kwargs: &Value) -> Request {
    let mut kwargs = kwargs.clone();
    kwargs["action"] = action.into();
    let name = kwargs["kind"].as_str().map_or_else(|| action.to_owned(), |kind| format!("{action} {kind}"));
    let envelope =
        json!({"job_id": "J", "run_id": "R", "actor": "A", "control": {"force": true}, "later": 1});
    post(&name, "/execute", &json!({"kwargs": kwargs, "envelope": envelope}))
}

/// Errors of the taxonomy, by the laboratory's names.
pub(crate) const KINDS: [&str; 14] = [
    "input",
    "input-bare",
    "transient",
    "transient-bare",
    "resource",
    "resource-bare",
    "fatal",
    "config",
    "disabled",
    "not-loaded",
    "timeout",
    "cancelled",
    "oom",
    "own",
];
/// Python's own. Not `StopIteration`: the ancestor's worker never answers a call that raises it.
pub(crate) const BARE: [&str; 23] = [
    "FileNotFoundError",
    "NotADirectoryError",
    "IsADirectoryError",
    "PermissionError",
    "KeyError",
    "ValueError",
    "TypeError",
    "TimeoutError",
    "ConnectionError",
    "ConnectionResetError",
    "InterruptedError",
    "BlockingIOError",
    "OSError",
    "MemoryError",
    "RuntimeError",
    "AssertionError",
    "AttributeError",
    "IndexError",
    "LookupError",
    "ImportError",
    "NotImplementedError",
    "ZeroDivisionError",
    "UnicodeError",
];

/// Requests at the surface, in order: later ones see what earlier ones did.
pub(crate) fn requests() -> Vec<Request> {
    let none = json!({});
    let mut all = vec![
        get("/health"),
        get("/progress"),
        get("/stats"),
        get("/config_schema"),
        get("/config"),
        get("/config_options"),
        get("/structural_surface"),
        post("with a heartbeat", "/prefetch", &Value::Null),
        Request { id: "GET /progress after a heartbeat".to_owned(), ..get("/progress") },
        get("/nowhere"),
        get("/execute"),
        post("", "/health", &Value::Null),
    ];
    all.extend(
        [
            "positional",
            "typed",
            "list-of-typed",
            "plain",
            "keys",
            "numbers",
            "nothing",
            "nan",
            "unserialisable",
            "caused",
            "usage",
            "account",
            "identity",
            "log",
            "environment",
            "progress",
            "missing",
        ]
        .map(|action| execute(action, &none)),
    );
    all.push(get("/stats"));
    all.push(get("/progress"));
    all.push(execute("account", &json!({"fail": true})));
    all.push(execute("echo", &json!({"x": [1, 2.5, null, true, "☃"], "empty": {}, "big": 1e300})));
    all.extend(KINDS.iter().chain(&BARE).map(|kind| execute("fail", &json!({"kind": kind}))));
    all.extend([
        post("positional", "/execute", &json!({"args": ["echo"]})),
        post("nothing", "/execute", &none),
        post("null", "/execute", &json!({"kwargs": {}, "envelope": null})),
        Request { body: Some("not json".into()), ..post("malformed", "/execute", &none) },
        Request { body: Some("[1]".into()), ..post("a list", "/execute", &none) },
    ]);
    all.extend(tasks());
    all.extend(streams());
    all.extend(cancelled());
    all.extend(life());
    all
}

fn cancelled() -> Vec<Request> {
    let wait = |message: &str| json!({"message": message});
    let kwargs = json!({"kwargs": {"n": 4, "wait_at": 2}});
    let task = json!({"task": "lab-task", "method": "wait", "kwargs": wait("in the task")});
    vec![
        Request { cancel_at: Some("in a call"), ..execute("wait", &wait("in a call")) },
        Request { cancel_at: Some("in another"), ..execute("wait-and-return", &wait("in another")) },
        Request { cancel_at: Some("in the task"), ..post("cancelled midway", "/task", &task) },
        Request { cancel_at: Some("in the stream"), ..post("cancelled midway", "/execute_stream", &kwargs) },
    ]
}

fn tasks() -> Vec<Request> {
    let task = |name: &str, task: Value, method: Value, kwargs: Value| {
        post(name, "/task", &json!({"task": task, "method": method, "kwargs": kwargs}))
    };
    vec![
        task("run", json!("lab-task"), json!("run"), json!({"text": "ab"})),
        task("fails", json!("lab-task"), json!("run"), json!({"fail": "resource"})),
        task("fails bare", json!("lab-task"), json!("run"), json!({"fail": "KeyError"})),
        task("cancelled", json!("lab-task"), json!("run"), json!({"fail": "cancelled"})),
        task("wrong argument", json!("lab-task"), json!("run"), json!({"zz": 1})),
        task("unknown task", json!("nope"), json!("run"), json!({})),
        task("unknown method", json!("lab-task"), json!("nope"), json!({})),
        task("hidden method", json!("lab-task"), json!("_hidden"), json!({})),
        task("no method", json!("lab-task"), json!(""), json!({})),
        task("an attribute", json!("lab-task"), json!("task_name"), json!({})),
        task("greedy", json!("greedy-task"), json!("run"), json!({})),
        post("nothing", "/task", &json!({})),
        Request { body: Some("{".into()), ..post("malformed", "/task", &json!({})) },
    ]
}

fn streams() -> Vec<Request> {
    let stream = |name: &str, kwargs: Value| post(name, "/execute_stream", &json!({"kwargs": kwargs}));
    vec![
        stream("three", json!({"n": 3})),
        stream("none", json!({"n": 0})),
        stream("fails in the middle", json!({"n": 5, "fail_at": 2})),
        stream("fails at once", json!({"n": 5, "fail_at": 0})),
        stream("wrong argument", json!({"zz": 1})),
        Request { body: Some("{".into()), ..stream("malformed", json!({})) },
    ]
}

fn life() -> Vec<Request> {
    let old = json!({"model": "base", "beam": 5});
    let mut all = vec![
        post("unknown key", "/initialize", &json!({"zz": 1})),
        Request { body: Some("{".into()), ..post("malformed", "/initialize", &json!({})) },
        post("good", "/initialize", &json!({"model": "base", "beam": 6})),
        get("/config"),
        post(
            "reloads",
            "/reconfigure",
            &json!({"old_config": old, "new_config": {"model": "large", "beam": 7}}),
        ),
        post("fails", "/reconfigure", &json!({"old_config": old, "new_config": {"zz": 1}})),
        post("nothing", "/reconfigure", &json!({})),
        get("/config"),
        post("", "/prefetch", &Value::Null),
        post("", "/on_disable", &Value::Null),
        post("fails", "/on_enable", &Value::Null),
        post("idle", "/cancel", &Value::Null),
        execute("history", &json!({})),
        post("no monitor", "/get_system_status", &Value::Null),
        post("no monitor", "/list_processes", &Value::Null),
        post("defaults", "/initialize", &json!({})),
    ];
    for (index, request) in all.iter_mut().enumerate() {
        request.id = format!("{} ({})", request.id, index + 1);
    }
    all
}

/// Calls through the host, as both drivers read them.
pub(crate) fn calls() -> Value {
    let job = |id: &str, kwargs: Value| json!({"id": id, "how": "job", "kwargs": kwargs});
    let mut all = vec![
        job("echo", json!({"x": [1, 2.5, null], "text": "☃"})),
        json!({"id": "positional", "how": "job", "args": ["nothing"]}),
        job("typed", json!({"action": "typed"})),
        job("nothing", json!({"action": "nothing"})),
        job("identity", json!({"action": "identity"})),
        json!({"id": "control", "how": "job", "kwargs": {"action": "identity"}, "control": {"force": true}}),
        job("environment", json!({"action": "environment"})),
        job("account", json!({"action": "account"})),
        job("account fails", json!({"action": "account", "fail": true})),
        job("log", json!({"action": "log"})),
        job("nan", json!({"action": "nan"})),
        job("caused", json!({"action": "caused"})),
        json!({"id": "task", "how": "task", "task": "lab-task", "method": "run", "kwargs": {"text": "ab"}}),
        json!({"id": "task fails", "how": "task", "task": "lab-task", "method": "run", "kwargs": {"fail": "input"}}),
    ];
    // Reactive retries of resource errors evict and reload; that is another comparison.
    let kinds = KINDS
        .iter()
        .chain(&BARE)
        .filter(|kind| !["resource", "resource-bare", "oom", "MemoryError"].contains(kind));
    all.extend(kinds.map(|kind| job(&format!("fail {kind}"), json!({"action": "fail", "kind": kind}))));
    all.extend([
        json!({"id": "stream", "how": "stream", "kwargs": {"n": 4}}),
        json!({"id": "stream of none", "how": "stream", "kwargs": {"n": 0}}),
        json!({"id": "stream fails", "how": "stream", "kwargs": {"n": 5, "fail_at": 2}}),
        json!({
            "id": "cancel", "how": "cancel", "message": "first",
            "kwargs": {"action": "wait", "message": "first"},
        }),
        json!({
            "id": "cancel returns", "how": "cancel", "message": "second",
            "kwargs": {"action": "wait-and-return", "message": "second"},
        }),
        json!({
            "id": "cancel task", "how": "cancel", "message": "third",
            "task": "lab-task", "method": "wait", "kwargs": {"message": "third"},
        }),
        job("after", json!({"action": "typed"})),
    ]);
    Value::from(all)
}
