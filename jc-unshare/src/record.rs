//! The record: one line of JSON that says what to run (`jc-record(5)`).

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Context, Error, Result};
use crate::escape::json;

/// The version of the format that this code writes and reads.
pub const VERSION: u64 = 1;

/// The longest record, in bytes.
pub const MAX_LINE: usize = 1 << 20;

/// The record that a source prints and a runner reads. A reader ignores unknown keys.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Record {
    /// The format's version, [`VERSION`].
    pub jc: u64,
    /// The image's full name, as the source resolved it.
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The full name of the image from which the layers came that jc-commit has not made, if it is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The digest of the manifest that the layers come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// `os/arch[/variant]` of the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// Layer directories in overlayfs format, lowest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<Vec<PathBuf>>,
    /// The directory that is the whole root, in place of `layers`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<PathBuf>,
    /// The image configuration's `config` object, as the image has it (OCI image-spec config.md).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
}

/// The root of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Root {
    /// Layers to stack, lowest first.
    Layers(Vec<PathBuf>),
    /// A directory that is the whole root.
    Directory(PathBuf),
}

impl Record {
    /// Reads one line. An unknown version is an error, and so are both of `layers` and `rootfs`, paths that are not
    /// absolute, and neither of the two in a record without `digest`.
    pub fn parse(line: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(line).map_err(|e| {
            if e.is_eof() {
                Error::new("record: the line ends in the middle of the JSON")
                    .hint("a record is one line: jq -c . prints it so")
            } else {
                Error::new("record: the line is not JSON").hint(HINT)
            }
        })?;
        match value.get("jc").map(Value::as_u64) {
            Some(Some(VERSION)) => {}
            Some(Some(n)) => return Err(Error::new(format_args!("record: unknown version {n}"))),
            _ => return Err(Error::new("record: no \"jc\" version").hint(HINT)),
        }
        let record: Self =
            serde_json::from_value(value).map_err(|e| Error::new(format_args!("record: {e}")))?;
        // jc-push needs no root.
        if record.layers.is_some() || record.rootfs.is_some() || record.digest.is_none() {
            record.root()?;
        }
        Ok(record)
    }

    /// Reads the first line of a file.
    pub fn read(path: &Path) -> Result<Self> {
        let mut line = Vec::new();
        let mut file = BufReader::new(File::open(path).on("open", path)?).take(MAX_LINE as u64);
        file.read_until(b'\n', &mut line).on("read", path)?;
        Self::parse(&line).map_err(|e| e.context(path.display()))
    }

    /// The root that the record names.
    pub fn root(&self) -> Result<Root> {
        let root = match (&self.layers, &self.rootfs) {
            (Some(layers), None) if !layers.is_empty() => Root::Layers(layers.clone()),
            (None, Some(rootfs)) => Root::Directory(rootfs.clone()),
            (Some(_), None) => return Err(Error::new("record: \"layers\" is empty")),
            (None, None) if self.digest.is_some() => {
                return Err(Error::new("record: the image has no layers in the store")
                    .hint("jc-pull without --no-layers fetches them"));
            }
            _ => return Err(Error::new("record: needs one of \"layers\" and \"rootfs\"")),
        };
        let paths = match &root {
            Root::Layers(layers) => layers.as_slice(),
            Root::Directory(directory) => std::slice::from_ref(directory),
        };
        match paths.iter().find(|path| !path.is_absolute()) {
            Some(path) => {
                Err(Error::new(format_args!("record: not an absolute path: {}", path.display())))
            }
            None => Ok(root),
        }
    }

    /// The record as its one line, with the newline.
    pub fn to_line(&self) -> Result<String> {
        let line =
            serde_json::to_string(self).map_err(|e| Error::new(format_args!("record: {e}")))?;
        Ok(json(&line) + "\n")
    }
}

const HINT: &str = "a record is the line that jc-pull prints, see jc-record(5)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_page_shows() {
        let line = br#"{"jc":1,"ref":"docker.io/library/alpine:3.20","digest":"sha256:00",
            "platform":"linux/amd64","layers":["/a","/b"],"config":{"Cmd":["sh"]},"later":true}"#;
        let record = Record::parse(line).unwrap();
        assert_eq!(record.root().unwrap(), Root::Layers(vec!["/a".into(), "/b".into()]));
        assert_eq!(record.config["Cmd"][0], "sh");
    }

    #[test]
    fn a_written_archive_is_read_back() {
        let record = Record { jc: VERSION, rootfs: Some("/srv/x".into()), ..Record::default() };
        let line = record.to_line().unwrap();
        assert_eq!(line, "{\"jc\":1,\"rootfs\":\"/srv/x\"}\n");
        assert_eq!(Record::parse(line.as_bytes()).unwrap(), record);
    }

    #[test]
    fn an_image_without_layers_has_no_root() {
        let record = Record::parse(br#"{"jc":1,"ref":"x","digest":"sha256:00"}"#).unwrap();
        let error = record.root().unwrap_err().to_string();
        assert_eq!(error, "record: the image has no layers in the store");
    }

    #[test]
    fn refuses_what_it_cannot_mean() {
        for (line, message) in [
            (r#"{"jc":2,"rootfs":"/x"}"#, "record: unknown version 2"),
            (r#"{"rootfs":"/x"}"#, "record: no \"jc\" version"),
            (r#"{"jc":"1","rootfs":"/x"}"#, "record: no \"jc\" version"),
            (r#"{"jc":1}"#, "record: needs one of \"layers\" and \"rootfs\""),
            (
                r#"{"jc":1,"rootfs":"/x","layers":["/y"]}"#,
                "record: needs one of \"layers\" and \"rootfs\"",
            ),
            (r#"{"jc":1,"layers":[]}"#, "record: \"layers\" is empty"),
            (r#"{"jc":1,"rootfs":"x"}"#, "record: not an absolute path: x"),
        ] {
            assert_eq!(Record::parse(line.as_bytes()).unwrap_err().to_string(), message, "{line}");
        }
    }
}
