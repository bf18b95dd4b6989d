//! `jc-unshare`: enter new namespaces, then exec.
fn main() {}
