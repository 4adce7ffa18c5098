//! Whole imports: archives made here, images built by the real `mkfs.erofs`, results read back.

mod archives;
mod catalogue;
pub mod fixture;
mod hostile;
mod layers;
mod store;
