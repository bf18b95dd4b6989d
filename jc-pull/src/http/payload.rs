//! The bodies of requests.

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Payload<'a> {
    /// A form with a secret, which follows no redirect.
    Form(String),
    /// A document, or a piece of a blob.
    Content(Content<'a>),
}

/// A document, or a piece of a blob.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    pub bytes: &'a [u8],
    pub media_type: &'a str,
    /// The number of the first byte in the blob, if the bytes are a piece of one.
    pub start: Option<u64>,
}

impl Content<'_> {
    /// The body of a request that sends no bytes.
    pub const EMPTY: Self =
        Self { bytes: &[], media_type: "application/octet-stream", start: None };
}

impl Payload<'_> {
    pub const fn media_type(&self) -> &str {
        match self {
            Self::Form(_) => "application/x-www-form-urlencoded",
            Self::Content(content) => content.media_type,
        }
    }

    /// The `Content-Range` of a piece, as the distribution-spec has it: without a unit.
    pub fn range(&self) -> Option<String> {
        let Self::Content(content) = self else { return None };
        let start = content.start?;
        let last = (start + content.bytes.len() as u64).checked_sub(1)?;
        Some(format!("{start}-{last}"))
    }
}
