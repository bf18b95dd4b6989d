//! The name of the program.

use jc_unshare::Tool;

/// The name of the program and the family of its exit codes.
pub const TOOL: Tool = Tool::link("jc-trace");
