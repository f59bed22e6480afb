//! Volumes of the local driver.

mod api;
mod copy_up;
mod held;
mod options;
mod store;

pub(crate) use copy_up::copy_up;
pub(crate) use held::VolumeHold;
pub(crate) use store::{Volume, VolumeStore, directory_size};
