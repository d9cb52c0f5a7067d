//! Vocabulary: pure values that every other room speaks. No I/O, no tasks, no clock.
//!
//! In reading order: [`names`], [`object`], [`user`], [`access`], [`status`], [`selector`], [`patch`], [`quantity`],
//! [`value`], [`limits`], [`gaps`].

pub mod access;
pub mod gaps;
pub mod limits;
pub mod names;
pub mod object;
pub mod patch;
pub mod placement;
pub mod quantity;
pub mod selector;
pub mod status;
pub mod user;
pub mod value;

pub use names::{Gvk, Gvr, Key};
pub use object::{Converter, Object, OwnerReference, Stored};
pub use status::{FieldError, Status};
pub use user::User;
