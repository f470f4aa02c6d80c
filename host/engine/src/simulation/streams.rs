//! Streams in a scenario: read to their end, or dropped before it. Whatever the reader does, the call ends.

use super::scenario::{Stage, abandon, arguments};
use super::seed::Seed;
use cjm_wire::envelope::ExecuteRequest;
use futures_util::StreamExt;
use std::sync::Arc;

impl Stage {
    pub(super) async fn stream(self: Arc<Self>, mut seed: Seed) {
        tokio::time::sleep(seed.millis(900)).await;
        let act = *seed.pick(&["ok", "ok", "fail", "die", "hang", "deaf", "stubborn"]);
        let chunks = seed.below(6);
        let mut kwargs = arguments(act, seed.below(60), false);
        kwargs.insert("chunks".to_owned(), chunks.into());
        let request = ExecuteRequest { kwargs, ..ExecuteRequest::default() };
        let id = seed.pick(&self.instances).clone();
        if seed.percent(20) {
            return abandon(self.host.call_stream(&id, request), &mut seed).await;
        }
        let endless = matches!(act, "hang" | "deaf" | "stubborn");
        let reads = if !endless && seed.percent(60) { u64::MAX } else { seed.below(chunks + 1) };
        let caller = seed.next();
        self.waits(caller, format!("for a stream of {id} to {act}"));
        if let Ok(mut stream) = self.host.call_stream(&id, request).await {
            let mut read = 0;
            while read < reads {
                match stream.next().await {
                    Some(Ok(_)) => read += 1,
                    Some(Err(_)) => break,
                    None => {
                        // A tool that died or failed has no end.
                        if act != "ok" || read != chunks {
                            self.complain(format!("a stream to {act} ends well after {read} of {chunks}"));
                        }
                        break;
                    }
                }
            }
        }
        self.waits_no_more(caller);
    }
}
