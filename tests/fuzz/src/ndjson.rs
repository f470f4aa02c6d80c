//! Streams of results: any bytes, however they are cut, give the same lines, and each is a chunk as it came, the end
//! of the call, or a fault. The lines are cut by what the host cuts them with.
#![no_main]

use cjm_wire::ndjson::{LINE_BYTES_MAX, Line};
use futures_util::{StreamExt, stream};
use libfuzzer_sys::fuzz_target;
use std::io;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

fuzz_target!(|data: &[u8]| {
    let Some((piece, bytes)) = data.split_first() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let (whole, cut) = runtime.block_on(async {
        (lines(bytes, bytes.len().max(1)).await, lines(bytes, usize::from(*piece) + 1).await)
    });
    assert_eq!(whole, cut, "the cut decides what is read");
    for line in whole.into_iter().flatten() {
        assert!(line.len() <= LINE_BYTES_MAX && !line.contains('\n'));
        read(&line);
    }
});

/// Lines to the first fault; the fault is an Err.
async fn lines(bytes: &[u8], piece: usize) -> Vec<Result<String, String>> {
    let pieces = stream::iter(bytes.chunks(piece).map(io::Result::Ok));
    let codec = LinesCodec::new_with_max_length(LINE_BYTES_MAX);
    let lines = FramedRead::new(StreamReader::new(pieces), codec);
    lines.map(|line| line.map_err(|error| error.to_string())).collect().await
}

fn read(line: &str) {
    let is_json = serde_json::from_str::<&serde_json::value::RawValue>(line).is_ok();
    match Line::read(line.to_owned()) {
        Ok(Line::Chunk(chunk)) => assert_eq!(chunk.get(), line.trim_matches([' ', '\t', '\r', '\n'])),
        Ok(Line::Cancelled) => assert!(is_json),
        Ok(Line::Failed(body)) => {
            let written = serde_json::to_string(&body).expect("writes");
            match Line::read(written.clone()) {
                Ok(Line::Failed(again)) => assert_eq!(again, body),
                other => panic!("{written}: {other:?}"),
            }
        }
        Err(error) => assert!(!is_json, "{error}"),
    }
}
