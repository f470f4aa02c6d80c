//! From a request to a worker that is ready, for each kind of tool; eight at once; nine ended at once.

use crate::measure::{Pair, millis, percentile, timed};
use crate::row::{Goal, Row, Unit};
use crate::world::{self, EXECUTABLE, IMPORTS, PYTHON, PYTHON_IMPORTS, RUST, World};
use anyhow::{Context as _, Result};
use cjm_host::Host;
use futures_util::future::try_join_all;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// What a start may take beyond its floor, in milliseconds.
const ABOVE_FLOOR_MS: f64 = 10.0;
/// How many start at once.
const AT_ONCE: usize = 8;

/// A floor: something that runs, and how long it took in milliseconds.
type Floor = fn(usize) -> Result<f64>;

/// Rows of starts and ends.
#[tokio::main]
pub(crate) async fn rows(rounds: usize) -> Result<Vec<Row>> {
    let world = World::new()?;
    let host = world.host().await?;
    let spawned = "posix_spawn of true";
    let kinds: [(&str, &str, &str, Floor); 4] = [
        ("Rust tool", RUST, spawned, spawn_true),
        ("executable", EXECUTABLE, spawned, spawn_true),
        ("Python tool without imports", PYTHON, "the interpreter, to its first line", |times| {
            import(times, "pass")
        }),
        ("Python tool with imports", PYTHON_IMPORTS, "the interpreter importing the same", |times| {
            import(times, IMPORTS)
        }),
    ];
    let mut rows = Vec::new();
    let mut eight = Vec::new();
    for (name, capability, floor_name, floor) in kinds {
        let (mut one, mut at_once) = (Vec::new(), Vec::new());
        // The first round fills the page cache and the SDK's.
        for round in 0..=rounds {
            let pair = (start(&host, capability, 1).await?, blocking(floor, 1).await?);
            let all = (start(&host, capability, AT_ONCE).await?, blocking(floor, AT_ONCE).await?);
            if round > 0 {
                one.push(pair);
                at_once.push(all);
            }
        }
        let goal = Goal::MillisAboveFloor(ABOVE_FLOOR_MS);
        let what = format!("spawn to ready, {name}");
        rows.push(Row::against(what, Unit::Millis, &Pair::of(&one), floor_name, goal));
        // A shim is more than `true`: eight of them are held to the floor of a tool that does something.
        let goal = if capability == PYTHON_IMPORTS { Goal::RatioMax(1.5) } else { Goal::Shown };
        let what = format!("eight at once, {name}");
        eight.push(Row::against(
            what,
            Unit::Millis,
            &Pair::of(&at_once),
            &format!("eight × {floor_name}"),
            goal,
        ));
    }
    rows.extend(eight);
    rows.push(unload_nine(&host, rounds).await?);
    host.shutdown().await;
    Ok(rows)
}

/// Milliseconds until `count` instances are ready; they are unloaded again, which is not counted.
async fn start(host: &Host, capability: &str, count: usize) -> Result<f64> {
    let names: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
    let begun = Instant::now();
    let ids = try_join_all(names.iter().map(|name| world::load(host, capability, name))).await?;
    let taken = millis(begun.elapsed());
    try_join_all(ids.iter().map(|id| host.unload(id))).await?;
    Ok(taken)
}

async fn unload_nine(host: &Host, rounds: usize) -> Result<Row> {
    let mut taken = Vec::new();
    for round in 0..=rounds {
        let nine = [RUST, PYTHON_IMPORTS, EXECUTABLE].into_iter().cycle().take(9).enumerate();
        let names: Vec<(String, &str)> = nine.map(|(n, capability)| (format!("u{n}"), capability)).collect();
        let ids = try_join_all(names.iter().map(|(name, c)| world::load(host, c, name))).await?;
        let begun = Instant::now();
        try_join_all(ids.iter().map(|id| host.unload(id))).await?;
        if round > 0 {
            taken.push(millis(begun.elapsed()));
        }
    }
    let worst = percentile(taken.iter().copied(), 100);
    let what = "unload of nine, three of each kind";
    let row = Row::alone(what, percentile(taken, 50), Unit::Millis, Goal::LatencyMax(100.0));
    Ok(row.note(format!("worst {worst:.0} ms")))
}

async fn blocking(floor: Floor, count: usize) -> Result<f64> {
    tokio::task::spawn_blocking(move || floor(count)).await.context("a floor panicked")?
}

/// `count` times `true`, to the ends of all of them.
fn spawn_true(count: usize) -> Result<f64> {
    timed(|| {
        let mut children = Vec::with_capacity(count);
        for _ in 0..count {
            // The standard library uses posix_spawn where nothing has to happen in the child.
            let mut command = Command::new("/bin/true");
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            children.push(command.spawn().context("spawn true")?);
        }
        for mut child in children {
            child.wait()?;
        }
        Ok(())
    })
}

/// `count` interpreters, until each has run `imports` and said so. Their ends are not counted.
fn import(count: usize, imports: &str) -> Result<f64> {
    let script = format!("{imports}\nimport os\nos.write(1, b'.')");
    let mut children: Vec<Child> = Vec::with_capacity(count);
    let taken = timed(|| {
        for _ in 0..count {
            let mut command = Command::new(world::interpreter());
            command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::piped());
            children.push(command.spawn().context("start an interpreter")?);
        }
        for child in &mut children {
            let out = child.stdout.as_mut().context("its output")?;
            out.read_exact(&mut [0]).context("an interpreter said nothing")?;
        }
        Ok(())
    });
    for mut child in children {
        child.wait()?;
    }
    taken
}
