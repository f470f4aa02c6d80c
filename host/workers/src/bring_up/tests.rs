//! A start whose first word, socket, keeper and death are this test's to play.

use super::*;
use crate::binding::BoundAdapter;
use crate::death::Death;
use crate::keeper_client::tests::Mute;
use crate::sinks::nowhere::nowhere;
use crate::worker::tests::{common_of, is_kill_of};
use cjm_catalog::installation::{Installation, former_of};
use cjm_decide::death::{Evidence, SincePhaseBegan, verdict};
use cjm_wire::channel::LoadFailure;
use cjm_wire::describe::Described as _;
use cjm_wire::link::{ExitStatus, Launch, WorkerReady};
use cjm_wire::manifest::DriftTracking;
use cjm_wire::{InstanceId, http};
use serde_json::{Map, json};
use std::collections::BTreeSet;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

/// How long the starts here may take, and more than any of them does.
const TIMEOUT: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(60);

struct Stage {
    starting: Box<Spawned>,
    first_word: Option<oneshot::Sender<FirstWord>>,
    own_kill: Arc<Mutex<Option<OwnKill>>>,
    phases: Phases,
    dying: watch::Sender<Option<Arc<Death>>>,
    listener: UnixListener,
    mute: Mute,
    _dir: tempfile::TempDir,
}

fn plan() -> WorkerPlan {
    WorkerPlan {
        capability: "t".to_owned(),
        version: "1".to_owned(),
        instance: InstanceId::from_text("t"),
        program: "/bin/true".into(),
        argv: Vec::new(),
        env: [("A".to_owned(), "b".to_owned())].into(),
        overlay_keys: Vec::new(),
        own_variables: BTreeSet::new(),
        not_passed: Vec::new(),
        unset: Vec::new(),
        place_to_correct: None,
        list: None,
        launch: Launch::Native {},
        genuine: false,
        drift: DriftTracking::default(),
        adapters: Vec::new(),
        installation: None,
        adapters_named: false,
        data_dir: "/nowhere".into(),
        config: Map::new(),
        has_config_schema: false,
        keys_missing: Box::default(),
        config_hash: String::new(),
        secrets: Map::new(),
        cancel_grace: Duration::from_secs(3),
    }
}

fn stage(plan: WorkerPlan) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let mute = Mute::new();
    let (common, dying) = common_of(&mute, &socket, false);
    let (first_sender, first_word) = oneshot::channel();
    let proxy = Proxy::new("t", &socket, Arc::new(Redaction::default())).unwrap();
    let (sinks, _) = nowhere();
    let (own_kill, phases) = (Arc::clone(&common.own_kill), common.phases.clone());
    let (plan, started) = (Arc::new(plan), Instant::now());
    let starting = Box::new(Spawned { common, plan, pid: 7, link: None, first_word, sinks, started, proxy });
    Stage { starting, first_word: Some(first_sender), own_kill, phases, dying, listener, mute, _dir: dir }
}

fn is_ready(supports: &[&str]) -> FirstWord {
    FirstWord::Ready(WorkerReady {
        tool_pid: None,
        name: "t".to_owned(),
        version: "1".to_owned(),
        supports: supports.iter().map(|one| (*one).to_owned()).collect(),
        concurrency_max: 0,
    })
}

fn a_death(evidence: impl FnOnce(&mut Evidence)) -> Option<Arc<Death>> {
    let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
    let mut known = Evidence::new(LifePhase::Starting, since);
    evidence(&mut known);
    Some(Arc::new(Death::told(verdict(&known), vec!["VARIABLE is missing".to_owned()])))
}

impl Stage {
    fn says(&mut self, word: FirstWord) {
        assert!(self.first_word.take().expect("once").send(word).is_ok());
    }

    async fn start(self) -> (Result<Arc<dyn Worker>, StartError>, Self) {
        let Self { starting, first_word, own_kill, phases, dying, listener, mute, _dir } = self;
        let started = tokio::time::timeout(LONG, starting.ready(TIMEOUT)).await.expect("it gives up");
        let spent = stage(plan()).starting;
        (
            started.map_err(|(error, _)| error),
            Self { starting: spent, first_word, own_kill, phases, dying, listener, mute, _dir },
        )
    }

    /// The worker was killed, for this reason.
    fn was_killed(&self, why: &str) {
        assert!(is_kill_of(&self.mute.hears(), "w"));
        let noted = format!("{:?}", self.own_kill.lock().unwrap());
        assert!(noted.contains(why), "{noted}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_without_a_first_word_is_killed_when_its_time_is_over() {
    let stage = stage(plan());
    let (started, stage) = stage.start().await;
    let error = started.err().expect("it was never ready");
    assert!(matches!(error, StartError::NeverReady { seconds, .. } if seconds == 5.0), "{error}");
    assert_eq!(error.stderr_tail(), ["its last line"]);
    stage.was_killed("StartTimeout { limit_ms: 5000 }");
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_loaded_is_killed_and_says_why_before_its_death_does() {
    let mut stage = stage(WorkerPlan { not_passed: vec!["OTHER".to_owned(), "MY_VAR".to_owned()], ..plan() });
    stage.says(FirstWord::LoadFailed(LoadFailure {
        message: "KeyError: 'MY_VAR'".to_owned(),
        signal: None,
        traceback: None,
    }));
    stage.dying.send_replace(a_death(|_| {}));
    let (started, stage) = stage.start().await;
    let error = started.err().expect("it was not loaded");
    assert!(
        matches!(&error, StartError::LoadFailed { hints, .. } if hints.not_passed == ["MY_VAR"]),
        "{error}"
    );
    stage.was_killed("StartFailed { why: \"KeyError: 'MY_VAR'\" }");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_was_asked_for_and_is_not_there_ends_the_start_and_one_that_was_found_does_not() {
    let adapters = vec![BoundAdapter { spec: "m:A".to_owned(), task: "sum".to_owned() }];
    for (adapters_named, supports, starts) in
        [(true, &[][..], false), (true, &["task/sum"], true), (false, &[], true)]
    {
        let mut stage = stage(WorkerPlan { adapters: adapters.clone(), adapters_named, ..plan() });
        stage.says(is_ready(supports));
        let (started, stage) = stage.start().await;
        assert_eq!(started.is_ok(), starts);
        if let Err(error) = started {
            assert_eq!(error.code(), "adapter.not_loaded");
            stage.was_killed("StartFailed");
        } else {
            assert_eq!(stage.phases.at_death().0, LifePhase::Idle);
            assert_eq!(*stage.own_kill.lock().unwrap(), None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_during_a_start_is_told_with_what_to_do_about_it() {
    // Of what somebody did from outside, the tool's words and variables say nothing.
    for (evidence, not_passed, next) in [
        ((|known| known.worker = Some(ExitStatus::Code(3))) as fn(&mut Evidence), 1, "VARIABLE"),
        (|known| known.keeper_lost = true, 0, ""),
        (|known| known.own_kill = Some(OwnKill::HostShutdown), 0, ""),
    ] {
        let stage = stage(WorkerPlan { not_passed: vec!["VARIABLE".to_owned()], ..plan() });
        stage.dying.send_replace(a_death(evidence));
        let (started, _stage) = stage.start().await;
        let error = started.err().expect("it is dead");
        let StartError::Died { hints, next_step, .. } = &error else { panic!("{error}") };
        assert_eq!((hints.not_passed.len(), next_step.is_some()), (not_passed, not_passed == 0), "{error}");
        assert!(error.next_step().contains(next), "{}", error.next_step());
        assert_eq!(error.stderr_tail(), ["VARIABLE is missing"]);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_kills_a_start_says_why_first() {
    let stage = stage(plan());
    let kill = stage.starting.killer();
    kill(OwnKill::Evicted);
    stage.was_killed("Evicted");
    kill(OwnKill::Unload);
    stage.was_killed("Evicted");
}

#[tokio::test]
async fn a_configuration_is_taken_or_ends_the_start() {
    const REFUSAL: &str = "{\"detail\": \"a is too small\"}";
    // One that lacks what is required is told, too.
    for (config, missing, status, body) in
        [("{\"a\":1}", None, 200, "{}"), ("{\"a\":1}", None, 422, REFUSAL), ("{}", Some("a"), 422, REFUSAL)]
    {
        let keys_missing = missing.map(str::to_owned).into_iter().collect();
        let map = serde_json::from_str(config).unwrap();
        let mut stage = stage(WorkerPlan { config: map, keys_missing, has_config_schema: true, ..plan() });
        stage.says(is_ready(&[]));
        stage.dying.send_replace(None);
        let answer = async |listener: &UnixListener| {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let count = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            let length = body.len();
            let head =
                format!("HTTP/1.1 {status} It\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            request
        };
        let Stage { starting, listener, mute, dying, own_kill, .. } = stage;
        let ends = async {
            let request = answer(&listener).await;
            assert!(request.starts_with(&format!("POST {} ", http::INITIALIZE)), "{request}");
            assert!(request.ends_with(&format!("\r\n\r\n{config}")), "{request}");
            if status != 200 {
                // It is killed, and waited for.
                let heard = tokio::task::spawn_blocking(move || (mute.hears(), mute)).await.unwrap();
                dying.send_replace(a_death(|_| {}));
                assert!(is_kill_of(&heard.0, "w"));
            }
        };
        let ended = tokio::time::timeout(LONG, async { tokio::join!(starting.ready(LONG), ends) }).await;
        let (started, ()) = ended.expect("it is told of its configuration");
        let noted = format!("{:?}", own_kill.lock().unwrap());
        match started {
            Ok(_) => assert_eq!((status, noted.as_str()), (200, "None")),
            Err((error, _)) => {
                assert!(
                    matches!(&error, StartError::BadConfiguration { message, .. } if message == "a is too small"),
                    "{error}"
                );
                assert!(noted.contains("it refused its configuration: a is too small"), "{noted}");
                assert_eq!(error.next_step().contains("give `a` in it"), missing.is_some(), "{error:?}");
            }
        }
    }
}

/// A start whose `initialize` is answered with this, and which is killed for it.
async fn refused_in_initialize(status: u16, answer: &serde_json::Value) -> StartError {
    let config = json!({"a": 1}).as_object().cloned().unwrap();
    let mut stage = stage(WorkerPlan { config, ..plan() });
    stage.says(is_ready(&[]));
    stage.dying.send_replace(None);
    let Stage { starting, listener, mute, dying, .. } = stage;
    let answers = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await.unwrap();
        let body = answer.to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 {status} It\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        // It is killed, and waited for.
        let heard = tokio::task::spawn_blocking(move || (mute.hears(), mute)).await.unwrap();
        dying.send_replace(a_death(|_| {}));
        assert!(is_kill_of(&heard.0, "w"));
        (heard.1, dying)
    };
    let (started, _kept) = tokio::join!(starting.ready(LONG), answers);
    started.err().expect("it failed").0
}

#[tokio::test]
async fn what_fails_in_initialize_is_a_refused_configuration_only_where_it_is_about_one() {
    const TRACEBACK: &str =
        "Traceback (most recent call last):\n  File \"/t/tool.py\", line 3, in initialize\n";
    let said = |category: &str, repr: &str, message: &str| {
        let error = json!({"category": category, "message": message, "retriable": false,
            "original_exc_repr": repr, "traceback": TRACEBACK});
        json!({"detail": message, "_job_error": error})
    };
    let plain = |words: &str| json!({"detail": words});
    let mut named = said("user_input", "WrongConfiguration('a')", "a");
    named["_job_error"]["fields_invalid"] = json!(["level"]);
    let refused = refused_in_initialize(400, &named).await;
    assert_eq!(
        refused.details().fields_invalid.as_deref(),
        Some(&["level".to_owned()][..]),
        "the keys that it says are wrong"
    );
    for (status, answer, is_refusal, words) in [
        (400, said("user_input", "ValueError('a')", "a"), true, "configuration: ValueError: a"),
        (400, said("user_input", "UserInputError('a')", "a"), true, "configuration: a"),
        (400, plain("a"), true, "configuration: a"),
        (400, said("fatal", "RuntimeError('b')", "b"), false, "initialize: RuntimeError: b"),
        (400, said("fatal", "SystemExit(3)", "3"), false, "initialize: SystemExit: 3"),
        (400, said("user_input", "KeyError('k')", "'k'"), false, "initialize: KeyError: 'k'"),
        (500, plain("c"), false, "initialize: c"),
    ] {
        let error = refused_in_initialize(status, &answer).await;
        let expected =
            if is_refusal { ("worker.bad_configuration", 1) } else { ("worker.initialize_failed", 12) };
        assert_eq!((error.code(), error.exit_code()), expected, "{error}");
        assert!(error.to_string().ends_with(words), "{error}");
        let step = error.next_step();
        assert_eq!(step.contains("correct the configuration"), is_refusal, "{step}");
        let is_told = !error.details().traceback.is_empty();
        assert_eq!(is_told, !is_refusal && status == 400, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_is_not_answered_has_what_is_left_of_the_time() {
    let config = json!({"a": 1}).as_object().cloned().unwrap();
    let mut silent = stage(WorkerPlan { config: config.clone(), ..plan() });
    silent.starting.started = Instant::now().checked_sub(Duration::from_secs(3)).unwrap();
    silent.says(is_ready(&[]));
    let (started, silent) = silent.start().await;
    let error = started.err().expect("it did not answer");
    assert!(matches!(error, StartError::NeverReady { seconds, .. } if seconds < 2.1), "{error:?}");
    silent.was_killed("StartTimeout");
    let mut dead = stage(WorkerPlan { config, ..plan() });
    dead.says(is_ready(&[]));
    dead.dying.send_replace(a_death(|_| {}));
    let (started, _dead) = dead.start().await;
    assert!(matches!(started.err(), Some(StartError::Died { .. })));
}

#[tokio::test(start_paused = true)]
async fn code_that_is_not_what_its_manifest_says_is_told_and_one_that_does_not_answer_is_not_waited_for() {
    let surface = |answer: &'static str| async move {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let proxy = Proxy::new("t", &socket, Arc::new(Redaction::default())).unwrap();
        let serve = async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                if answer.is_empty() {
                    std::future::pending::<()>().await;
                }
                let head = format!(
                    "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    answer.len()
                );
                stream.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
            }
        };
        let hash = cjm_wire::canonical::canonical_hash("{\"a\": 1}").unwrap();
        let tracking = DriftTracking {
            config_schema_hash: Some(hash),
            structural_surface_hash: Some("sha256:other".to_owned()),
            ..DriftTracking::default()
        };
        let asked = tokio::time::timeout(LONG, drift(&proxy, "t", &tracking));
        tokio::select! {
            drifted = asked => drifted.expect("it gives up"),
            () = serve => Vec::new(),
        }
    };
    assert_eq!(surface("{\"a\":1}").await, ["structural_surface"]);
    assert_eq!(surface("{\"a\":2}").await, ["config_schema", "structural_surface"]);
    assert!(surface("no JSON").await.is_empty());
    assert!(surface("").await.is_empty());
}

#[test]
fn the_ancestors_worker_is_told_its_parent_and_dies_with_it_and_has_no_link() {
    let mute = Mute::new();
    let request = |genuine| {
        let not_started = NotStarted {
            plan: Arc::new(WorkerPlan {
                genuine,
                secrets: json!({"A_KEY": "v"}).as_object().cloned().unwrap(),
                ..plan()
            }),
            session: WorkerSessionId::from_text("w"),
            keeper: Arc::clone(&mute.keeper),
            sinks: nowhere().0,
            runtime_dir: "/nowhere".into(),
            log_level: "INFO".to_owned(),
            host_dir: "/data".into(),
        };
        not_started.request(&WorkerSessionId::from_text("w"))
    };
    let (ours, theirs) = (request(false), request(true));
    assert!(ours.argv.is_empty() && !ours.dies_with_keeper);
    assert!(
        ours.fd_targets.contains(&worker_fd::HOST_LINK) && !theirs.fd_targets.contains(&worker_fd::HOST_LINK)
    );
    assert!(!ours.env.iter().any(|(name, _)| name == "A_KEY"), "secrets travel over the link");
    assert_eq!(theirs.argv, ["--ppid".to_owned(), mute.keeper.pid().to_string()]);
    assert!(theirs.dies_with_keeper && theirs.env.contains(&("A_KEY".to_owned(), "v".to_owned())));
}

/// An update that began after the start was asked for has taken files from under it, whatever the tool says of that.
#[tokio::test(start_paused = true)]
async fn a_worker_whose_environment_began_to_change_while_it_started_is_not_used() {
    let load_failed =
        LoadFailure { message: "No module named 't'".to_owned(), signal: None, traceback: None };
    for word in [Some(is_ready(&[])), Some(FirstWord::LoadFailed(load_failed)), None] {
        let data_dir = tempfile::tempdir().unwrap();
        let installation = Installation::named(data_dir.path(), "t");
        let mut stage = stage(WorkerPlan { installation, ..plan() });
        std::fs::create_dir_all(former_of(&data_dir.path().join("envs/t"))).unwrap();
        let is_dead = word.is_none();
        match word {
            Some(word) => stage.says(word),
            None => drop(stage.dying.send_replace(a_death(|_| {}))),
        }
        let (started, stage) = stage.start().await;
        let error = started.err().expect("its environment is another one");
        assert!(matches!(error, StartError::Unfinished(_)), "{error}");
        if !is_dead {
            stage.was_killed("StartFailed");
        }
    }
}
