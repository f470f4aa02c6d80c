//! The README's program: two capabilities, jobs, events, a clean end. A test holds the README to it and runs it.

use cjm_host::{PipelineError, PipelineEvent, create_pipeline};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), PipelineError> {
    let pipeline = create_pipeline(["ffmpeg-convert", "speech-detector"]).start().await?;
    let mut events = pipeline.events();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let PipelineEvent::Row { seq, row } = event {
                eprintln!("{seq:>5} {} {}", row.event_type, row.job_id.as_deref().unwrap_or("-"));
            }
        }
    });
    let input = std::env::args().nth(1).unwrap_or("/usr/share/sounds/alsa/Front_Left.wav".into());
    let convert = pipeline.binding("ffmpeg-convert")?.submit("to_wav", json!({ "input": input })).await?;
    let converted: Value = convert.result().await?;
    let detect = pipeline.binding("speech-detector")?;
    let speech: Value = detect.call("detect", json!({ "audio": converted["audio"]["path"] })).await?;
    print(&speech);
    pipeline.shutdown().await;
    Ok(())
}
#[expect(clippy::print_stdout, reason = "what a program is for")]
fn print(value: &Value) {
    println!("{value}");
}
