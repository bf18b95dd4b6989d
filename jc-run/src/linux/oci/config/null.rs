//! Lists and objects that are null.

use std::result::Result;

use serde::{Deserialize, Deserializer};

/// Go writes an empty list as null.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}
