//! Records on standard input (jc-record(5)).

use std::io::{BufRead, Read};

use jc_unshare::record::{MAX_LINE, Record};
use jc_unshare::{Context, Error, Result};

/// The most records of one push.
const MAX_RECORDS: usize = 1024;

/// Reads one record, and no byte behind its line.
pub fn read_record(input: &mut impl BufRead) -> Result<Record> {
    next(input)?.ok_or_else(absent)
}

/// Reads all records, at least one.
pub fn read_records(input: &mut impl BufRead) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    while let Some(record) = next(input)? {
        if records.len() == MAX_RECORDS {
            return Err(Error::new(format_args!("more than {MAX_RECORDS} records on stdin")));
        }
        records.push(record);
    }
    if records.is_empty() { Err(absent()) } else { Ok(records) }
}

fn absent() -> Error {
    Error::new("no record on stdin")
        .hint("jc-pull and jc-commit print records: jc-pull IMAGE | ...")
}

fn next(input: &mut impl BufRead) -> Result<Option<Record>> {
    let mut line = Vec::new();
    input.take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line).op("read stdin")?;
    if line.len() > MAX_LINE {
        return Err(Error::new("record: longer than 1 MiB"));
    }
    if line.is_empty() { Ok(None) } else { Record::parse(&line).map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_ends_with_its_line() {
        let mut input = b"{\"jc\":1,\"rootfs\":\"/x\"}\nrest".as_slice();
        assert_eq!(read_record(&mut input).unwrap().rootfs.unwrap(), std::path::Path::new("/x"));
        assert_eq!(input, b"rest");
        assert!(read_records(&mut b"".as_slice()).is_err());
        let long = vec![b' '; MAX_LINE + 1];
        assert!(read_records(&mut long.as_slice()).is_err());
    }
}
