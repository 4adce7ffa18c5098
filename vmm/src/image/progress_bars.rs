//! Progress of an import as bars on a terminal; notices are printed either way.
//!
//! Standard output is the workload's, so everything goes to standard error, and no bar is drawn unless that is a
//! terminal.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::progress::{Event, Progress, Stage};

/// How often the bar moves when nothing is reported.
const TICK: Duration = Duration::from_millis(120);

/// Draws one bar at a time.
#[derive(Debug)]
pub struct ProgressBars {
    bar: RefCell<Option<ProgressBar>>,
    terminal: bool,
}

impl ProgressBars {
    /// Draws on standard error, if that is a terminal.
    pub fn on_stderr() -> Self {
        Self { bar: RefCell::new(None), terminal: std::io::stderr().is_terminal() }
    }
}

fn title(stage: &Stage) -> String {
    match stage {
        Stage::Spool => "Reading input".to_owned(),
        Stage::Unpack { layers: 1, .. } => "Unpacking".to_owned(),
        Stage::Unpack { layer, layers } => format!("Unpacking layer {layer} of {layers}"),
        Stage::Scan => "Scanning".to_owned(),
        Stage::Build => "Building image".to_owned(),
    }
}

const BAR: &str = "{msg:26} [{bar:30}] {bytes:>10}/{total_bytes} {eta:>4}";
const SPINNER: &str = "{msg:26} {spinner} {bytes:>10}";

fn style(known: bool) -> ProgressStyle {
    let template = if known { BAR } else { SPINNER };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

impl Progress for ProgressBars {
    fn report(&self, event: Event) {
        let mut bar = self.bar.borrow_mut();
        match event {
            Event::Begin { stage, total_bytes } => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
                if self.terminal {
                    let new = ProgressBar::with_draw_target(total_bytes, ProgressDrawTarget::stderr());
                    new.set_style(style(total_bytes.is_some()));
                    new.set_message(title(&stage));
                    new.enable_steady_tick(TICK);
                    *bar = Some(new);
                }
            }
            Event::Advance { bytes } => {
                if let Some(bar) = &*bar {
                    bar.inc(bytes);
                }
            }
            Event::End => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            Event::Notice { text } => {
                let line = format!("ballast: {text}");
                match &*bar {
                    Some(bar) => bar.println(line),
                    // A closed standard error is no reason to fail an import.
                    None => drop(writeln!(std::io::stderr(), "{line}")),
                }
            }
        }
    }
}

impl Drop for ProgressBars {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.borrow_mut().take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        // An invalid one would fall back silently.
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn without_a_terminal_events_change_nothing() {
        let bars = ProgressBars { bar: RefCell::new(None), terminal: false };
        bars.report(Event::Begin { stage: Stage::Build, total_bytes: Some(10) });
        bars.report(Event::Advance { bytes: 5 });
        assert!(bars.bar.borrow().is_none());
        bars.report(Event::End);
    }
}
