//! Tells the service manager how the daemon does (sd_notify(3)), where one wants to know: `$NOTIFY_SOCKET`. Wiring.

#![forbid(unsafe_code)]

use sd_notify::NotifyState;

/// It serves.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// It reads its configuration anew, and is [`ready`] again behind it.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("the host does not say what time it is: {error}"),
    }
}

/// It ends.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// It has arbitrated once more, with this result. A manager that expects to hear so (`WatchdogSec=`) and does not starts it
/// anew; of less than two ticks, 4 s, that would be wrong.
pub fn alive(status: &str) {
    tell(&[NotifyState::Status(status), NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("cannot tell the service manager: {error}");
    }
}
