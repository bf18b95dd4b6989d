//! Sizes in the form of Docker's options.

/// Parses a size in bytes: a decimal number, with a fraction if the result is a number of whole bytes, and a
/// suffix `b`, `k`, `m`, `g` or `t` (powers of 1024) in either case, which `b` or `ib` may follow.
/// Zero, signs, exponents and numbers above 63 bits are errors.
pub fn parse(word: &str) -> Result<u64, String> {
    exact(word).ok_or_else(|| "not a size like 512M, 1.5G or 4096".to_owned())
}

/// A size in the largest unit of which it is a whole number, as [`parse`] reads it.
pub fn show(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "k")];
    let fits = |(shift, _): &&(u32, &str)| bytes > 0 && bytes.trailing_zeros() >= *shift;
    match units.iter().find(fits) {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes} bytes"),
    }
}

fn exact(word: &str) -> Option<u64> {
    let digits = word.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(word.len());
    let (number, suffix) = word.split_at(digits);
    let unit = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1u128 << 40,
        _ => return None,
    };
    let (whole, fraction) = match number.split_once('.') {
        Some(("", fraction)) => ("0", fraction),
        Some(parts) => parts,
        None => (number, "0"),
    };
    if whole.is_empty() || fraction.is_empty() || fraction.len() > 12 {
        return None;
    }
    let scale = 10u128.pow(fraction.len() as u32);
    let fraction = fraction.parse::<u128>().ok()?.checked_mul(unit)?;
    let whole = u128::from(whole.parse::<u64>().ok()?).checked_mul(unit)?;
    let bytes = whole.checked_add(fraction / scale)?;
    let fits = fraction % scale == 0 && bytes > 0 && bytes <= i64::MAX as u128;
    fits.then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_exact() {
        for (word, bytes) in [
            ("4096", 4096),
            ("1b", 1),
            ("64k", 65536),
            ("512M", 512 << 20),
            ("512mb", 512 << 20),
            ("1.5G", 3 << 29),
            ("1.5GiB", 3 << 29),
            ("0.5k", 512),
            (".5k", 512),
            ("100mb", 100 << 20),
            ("1.5g", 3 << 29),
            ("2T", 2 << 40),
            ("9223372036854775807", i64::MAX as u64),
        ] {
            assert_eq!(parse(word), Ok(bytes), "{word}");
        }
    }

    #[test]
    fn a_size_is_shown_in_its_largest_unit() {
        for (bytes, text) in [
            (64 << 20, "64M"),
            (3 << 29, "1536M"),
            (1 << 40, "1T"),
            (4096, "4k"),
            (1000, "1000 bytes"),
            (0, "0 bytes"),
        ] {
            assert_eq!(show(bytes), text);
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for word in [
            "",
            "0",
            "0M",
            "-1",
            "+1",
            "1e9",
            "M",
            "1.M",
            ".",
            ".5",
            "1.2.3",
            "0.3b",
            "1x",
            "1 M",
            "9223372036854775808",
            "99999999T",
            "18446744073709551616",
            "1.0000000000001G",
            "٣",
        ] {
            assert!(parse(word).is_err(), "{word}");
        }
    }
}
