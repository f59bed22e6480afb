//! The store as a whole, on tars made here. Needs root: layers hold devices and other users' files.

mod hostile;
mod kit;
mod lifecycle;
mod load;
mod rootfs;
mod save;
