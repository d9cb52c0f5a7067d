//! Vocabulary: pure values that every other room speaks. No I/O, no tasks, no clock.
//!
//! In reading order: [`names`], [`object`], [`status`], [`selector`], [`patch`], [`quantity`],
//! [`limits`], [`gaps`].

pub mod gaps;
pub mod limits;
pub mod names;
pub mod object;
pub mod patch;
pub mod quantity;
pub mod selector;
pub mod status;

pub use names::{Gvk, Gvr, Key};
pub use object::{Object, OwnerReference, Stored};
pub use status::{FieldError, Status};
