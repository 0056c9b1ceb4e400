//! Waiting for a condition with a deadline.
//!
//! A failure says what was waited for, how long, and what was there instead: that is what a person
//! needs who reads it in a log an hour later.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
///
/// Short against what a person notices; a look costs a request over a Unix socket, some 200 us.
const POLL: Duration = Duration::from_millis(50);

/// Looks until `look` is `Ok`, and returns what it found; its `Err` says what was seen instead.
///
/// # Errors
///
/// After `deadline`: `what`, the time, and what was seen last.
pub async fn until<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    let mut seen = "nothing yet".to_owned();
    loop {
        // A look that hangs must not outlive the deadline.
        let left = deadline.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, look()).await {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(other)) => seen = other,
            Err(_) => {}
        }
        if started.elapsed() >= deadline {
            bail!("waited {} s for {what}; seen last: {seen}", deadline.as_secs_f32());
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_with_the_first_look_that_succeeds() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            let look = looks;
            async move { if look == 3 { Ok(look) } else { Err(format!("look {look}")) } }
        })
        .await;
        assert_eq!(found.expect("the third look succeeds"), 3);
    }

    #[tokio::test]
    async fn a_failure_says_what_was_waited_for_and_what_was_there() {
        let deadline = Duration::from_millis(120);
        let waited =
            until("rain", deadline, || async { Err::<(), _>("sunshine".to_owned()) }).await;
        let text = waited.expect_err("it never rains").to_string();
        assert_eq!(text, "waited 0.12 s for rain; seen last: sunshine");
    }

    #[tokio::test]
    async fn a_look_that_hangs_does_not_outlive_the_deadline() {
        let deadline = Duration::from_millis(120);
        let hanging = until("an answer", deadline, std::future::pending::<Result<(), String>>);
        let text = hanging.await.expect_err("it hangs").to_string();
        assert_eq!(text, "waited 0.12 s for an answer; seen last: nothing yet");
    }
}
