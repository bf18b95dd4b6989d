//! The answers of a registry to the requests of an upload (distribution-spec, "Pushing a blob in chunks").

use reqwest::Url;

use crate::http::same_origin;

/// The number of bytes that a registry has, by the range in its answer. `None`: the range is malformed.
pub fn received(range: &str) -> Option<u64> {
    let (_, last) = range.trim_start_matches("bytes=").split_once('-')?;
    match last.parse::<u64>().ok()? {
        // A registry without bytes has no other form of the range.
        0 => Some(0),
        last => Some(last.saturating_add(1)),
    }
}

/// The URL for the next request of an upload, by the location in the answer from a URL. Another host than that of the
/// answer is an error: the login is not for it.
pub fn next_url(from: &Url, location: &str) -> Result<Url, String> {
    let next = from.join(location).map_err(|_| "a location that is no URL".to_owned())?;
    if !same_origin(from, &next) {
        let origin = next.origin().ascii_serialization();
        return Err(format!("names {origin} for the upload, and the login is not for it"));
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_says_how_many_bytes_a_registry_has() {
        for (range, bytes) in [
            ("0-0", Some(0)),
            ("0-8388607", Some(8_388_608)),
            ("bytes=0-99", Some(100)),
            ("0-18446744073709551615", Some(u64::MAX)),
            ("0-18446744073709551616", None),
            ("5", None),
            ("0--1", None),
            ("", None),
        ] {
            assert_eq!(received(range), bytes, "{range}");
        }
    }

    #[test]
    fn an_upload_stays_at_its_host() {
        let from = Url::parse("https://r.x/v2/a/blobs/uploads/").unwrap();
        for (location, next) in [
            ("/v2/a/u?s=1", Ok("https://r.x/v2/a/u?s=1")),
            ("https://r.x:443/u", Ok("https://r.x/u")),
            ("https://r.x:444/u", Err("names https://r.x:444 for")),
            ("http://r.x/u", Err("names http://r.x for")),
            ("//other/u", Err("names https://other for")),
            ("https://", Err("a location that is no URL")),
        ] {
            match (next_url(&from, location), next) {
                (Ok(found), Ok(next)) => assert_eq!(found.as_str(), next),
                (Err(found), Err(next)) => assert!(found.starts_with(next), "{found}"),
                (found, _) => panic!("{location}: {found:?}"),
            }
        }
    }
}
