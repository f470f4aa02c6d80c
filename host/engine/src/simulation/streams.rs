//! Streams in a scenario: read to their end, or dropped before it. Whatever the reader does, the call ends.

use super::scenario::{Stage, abandon, arguments};
use super::seed::Seed;
use cjm_wire::envelope::ExecuteRequest;
use futures_util::StreamExt;
use std::sync::Arc;
use tokio::time::Instant;

impl Stage {
    pub(super) async fn stream(self: Arc<Self>, mut seed: Seed) {
        tokio::time::sleep(seed.millis(900)).await;
        let act = *seed.pick(&["ok", "ok", "fail", "die", "hang", "deaf", "stubborn", "claims"]);
        let is_cut = act == "deaf" && seed.percent(50);
        let chunks = seed.below(6);
        let mut kwargs = arguments(act, seed.below(60), false);
        kwargs.insert("chunks".to_owned(), chunks.into());
        if is_cut {
            kwargs.insert("cut".to_owned(), true.into());
        }
        if matches!(act, "hang" | "deaf" | "stubborn") && !is_cut && seed.percent(20) {
            kwargs.insert("unopened".to_owned(), true.into());
        }
        let is_unopened = kwargs.contains_key("unopened");
        let request = ExecuteRequest { kwargs, ..ExecuteRequest::default() };
        let id = seed.pick(&self.instances).clone();
        if seed.percent(20) {
            return abandon(self.host.call_stream(&id, request), &mut seed).await;
        }
        let endless = matches!(act, "hang" | "deaf" | "stubborn");
        let timeout = (seed.percent(25) || is_unopened).then(|| seed.millis(300));
        let reads_all = is_cut || timeout.is_some() || (!endless && seed.percent(60));
        let reads = if reads_all { u64::MAX } else { seed.below(chunks + 1) };
        let caller = seed.next();
        self.waits(caller, format!("for a stream of {id} to {act}"));
        let begun = Instant::now();
        let stream = match timeout {
            Some(timeout) => self.host.call_stream_within(&id, request, timeout.into()).await,
            None => self.host.call_stream(&id, request).await,
        };
        if let Ok(mut stream) = stream {
            let mut read = 0;
            while read < reads {
                match stream.next().await {
                    Some(Ok(_)) => read += 1,
                    Some(Err(error)) => {
                        self.check_direct(begun, timeout, Some(&error));
                        break;
                    }
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
