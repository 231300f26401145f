//! The `dis` command.
fn main() {}
