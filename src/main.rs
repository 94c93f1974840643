//! The `postrider` program: see `postrider --help`.
fn main() {}
