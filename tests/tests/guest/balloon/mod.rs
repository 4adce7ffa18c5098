//! Memory moves between guest and host, and every page is accounted for.

mod ceiling;
