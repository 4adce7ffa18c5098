//! What an import tells while it runs. The drawing is the caller's; [`super::progress_bars`] has one.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A stage starts; the one before has ended.
    Begin {
        /// What is done, and to what.
        stage: Stage,
        /// Bytes that the stage will handle, if known. An estimate: a stage may end early or late.
        total_bytes: Option<u64>,
    },
    /// So many more bytes are done.
    Advance {
        /// Since the last event.
        bytes: u64,
    },
    /// The stage is over.
    End,
    /// A sentence for the user; the import goes on.
    Notice {
        /// Without a full stop at the end.
        text: String,
    },
}

/// The kinds of work that take time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Copying a stream to a file, to be read twice.
    Spool,
    /// Unpacking layer `layer` of `layers`, counted from 1.
    Unpack {
        /// From 1.
        layer: usize,
        /// How many the image has.
        layers: usize,
    },
    /// Reading the metadata of a directory.
    Scan,
    /// Writing a file system image.
    Build,
}

/// Whoever wants to know how an import goes.
pub trait Progress {
    /// Takes one event. It must not block for long: the import waits.
    fn report(&self, event: Event);

    /// [`Event::Notice`].
    fn notice(&self, text: String) {
        self.report(Event::Notice { text });
    }
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&self, _: Event) {}
}
