//! Keeps a task running: what ends or panics before its time is started again, with growing pauses.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A run that lasted this long counts as healthy: the next pause is the first again.
const HEALTHY: Duration = Duration::from_secs(60);

/// Runs `start`'s future until `shutdown`, again and again. The token given to it is a child of `shutdown`, cancelled
/// when the run is over, so that nothing of one run lives on in the next.
pub async fn supervise<F, Fut>(name: &str, shutdown: &CancellationToken, mut start: F)
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let mut pause = FIRST_PAUSE;
    while !shutdown.is_cancelled() {
        let token = shutdown.child_token();
        let begun = tokio::time::Instant::now();
        let result = tokio::spawn(start(token.clone())).await;
        token.cancel();
        if shutdown.is_cancelled() {
            return;
        }
        if begun.elapsed() >= HEALTHY {
            pause = FIRST_PAUSE;
        }
        match result {
            Ok(()) => tracing::warn!(name, pause = ?pause, "ended before its time, starting again"),
            Err(error) => tracing::error!(name, pause = ?pause, error = %error, "crashed, starting again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    #[tokio::test(start_paused = true)]
    async fn restarts_what_ends_and_what_panics() {
        let runs = Arc::new(AtomicU32::new(0));
        let shutdown = CancellationToken::new();
        let (count, stop) = (runs.clone(), shutdown.clone());
        supervise("test", &shutdown, move |token| {
            let (run, stop) = (count.fetch_add(1, Ordering::Relaxed), stop.clone());
            async move {
                match run {
                    0 => {}
                    1 => panic!("as planned"),
                    _ => {
                        stop.cancel();
                        token.cancelled().await;
                    }
                }
            }
        })
        .await;
        assert_eq!(runs.load(Ordering::Relaxed), 3);
    }
}
