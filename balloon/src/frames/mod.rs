//! The page books of one VM: which of its pages are in the balloon, which it has reported free, which are its own.
//!
//! [`Layout`] says where the VM's memory lies and finds the region of a page, and so its zone, in one read. [`Books`]
//! keep one bit a page for *ballooned* and one for *reported*. The device enters what the [`backing`](crate::backing)
//! has released, and nothing else can be entered: the books take receipts only.
//!
//! What the states mean, exactly:
//!
//! - **Ballooned**: the driver put the page into the balloon, and its memory went back to the host. It stays so
//!   until the driver deflates it or the device is reset. It may be resident all the same: the guest broke its
//!   promise and touched it, or the host made a huge page of it and its neighbours. [`Books::reconcile`] finds
//!   such pages.
//! - **Reported**: the driver reported the page free, and its memory went back to the host. The guest may take
//!   the page back at any moment by touching it, and nobody tells the host: the bit is what was *last known*.
//!   [`Books::reconcile`] corrects it from residency, which is the truth; between two readings the bit may be
//!   stale in that one direction. [`Totals::reported`] counts every page ever returned so, as often as
//!   it was returned.
//! - **Guest-owned**: neither. The page may be resident or never touched; residency tells.
//!
//! A page has one state: ballooned wins over reported. Entering a reported page into the balloon makes it
//! ballooned; a report of a ballooned page (no correct driver sends one) leaves it ballooned.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![deny(clippy::cast_sign_loss)]

mod bitmap;
mod blocks;
mod books;
mod layout;
#[cfg(test)]
mod model;

pub(crate) use bitmap::Bitmap;
pub use books::{Books, Entry, Imbalance, Marked, Reconciled, Totals};
pub use layout::{Error, Layout, Run};
