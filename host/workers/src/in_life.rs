//! What a worker says counts while it lives, and for a moment after: a connection that somebody else holds open must keep
//! nobody of a dead worker waiting.

use crate::death::{Watched, dead};
use crate::proxy::Failed;
use futures_util::{Stream, StreamExt as _, stream};
use std::time::Duration;

/// How long an answer that was sent before its worker died may take to be read.
const LAST_ANSWER_MAX: Duration = Duration::from_millis(200);

/// What is waited for, unless it takes longer than a moment after the worker's death. Pinned by the caller, who would have
/// room for it twice else.
pub(crate) async fn said_in_life<T>(death: &Watched, mut said: impl Future<Output = T> + Unpin) -> Option<T> {
    let mut death = death.clone();
    tokio::select! {
        biased;
        said = &mut said => Some(said),
        () = dead(&mut death) => tokio::time::timeout(LAST_ANSWER_MAX, said).await.ok(),
    }
}

/// [`said_in_life`] for each item of a stream; the moment is that of whoever waits for it, who may be slow to ask.
pub(crate) fn in_life<T: Send + Sync + 'static>(
    death: Watched,
    items: impl Stream<Item = Result<T, Failed>> + Send + 'static,
) -> impl Stream<Item = Result<T, Failed>> + Send {
    stream::unfold(Some((death, Box::pin(items))), async |state| {
        let (death, mut items) = state?;
        match said_in_life(&death, items.next()).await {
            Some(item) => item.map(|item| (item, Some((death, items)))),
            None => Some((Err(its_worker_is_dead()), None)),
        }
    })
}

pub(crate) fn its_worker_is_dead() -> Failed {
    Failed::Connection("its worker is dead".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::Death;
    use cjm_decide::death::{Evidence, LifePhase, SincePhaseBegan, verdict};
    use std::sync::Arc;
    use tokio::sync::{mpsc, watch};

    fn a_death() -> Option<Arc<Death>> {
        let since = SincePhaseBegan { output: Vec::new(), elapsed_ms: 0 };
        Some(Arc::new(Death::told(verdict(&Evidence::new(LifePhase::Idle, since)), Vec::new())))
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_stays_open_holds_nobody_of_a_dead_worker() {
        let (dying, death) = watch::channel(None);
        let (say, said) = mpsc::channel(8);
        let said = stream::unfold(said, async |mut said| said.recv().await.map(|item| (item, said)));
        let mut items = Box::pin(in_life(death.clone(), said));
        say.send(Ok(1)).await.expect("it listens");
        assert!(matches!(items.next().await, Some(Ok(1))));
        say.send(Ok(2)).await.expect("it listens");
        say.send(Ok(3)).await.expect("it listens");
        dying.send_replace(a_death());
        // Whoever asks late gets what was said in time.
        tokio::time::sleep(10 * LAST_ANSWER_MAX).await;
        assert!(matches!(items.next().await, Some(Ok(2))));
        assert!(matches!(items.next().await, Some(Ok(3))));
        let end = tokio::time::timeout(2 * LAST_ANSWER_MAX, items.next()).await;
        assert!(matches!(end, Ok(Some(Err(Failed::Connection(_))))), "the sender is still there");
        assert!(items.next().await.is_none());
        assert_eq!(said_in_life(&death, std::future::pending::<()>()).await, None);
        assert_eq!(said_in_life(&death, std::future::ready(4)).await, Some(4));
        // What was sent before the death may still be on its way.
        let on_its_way = std::pin::pin!(tokio::time::sleep(LAST_ANSWER_MAX / 2));
        assert_eq!(said_in_life(&death, on_its_way).await, Some(()));
        drop(say);
    }
}
