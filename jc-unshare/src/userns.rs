//! The user namespace of this process (user_namespaces(7)).

pub use crate::platform::is_initial_user_namespace as is_initial;
