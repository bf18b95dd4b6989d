//! Lists of numbers, as cpuset(7) writes them.

/// The largest number of a list, which bounds its memory.
const LARGEST: u32 = 1 << 16;

/// Parses a list like `0-2,5` (cpuset(7), "List format") into sorted numbers.
pub fn numbers(list: &str) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        if last < first || last > LARGEST {
            return None;
        }
        numbers.extend(first..=last);
    }
    numbers.sort_unstable();
    numbers.dedup();
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_set_of_numbers() {
        assert_eq!(numbers("0-2,5"), Some(vec![0, 1, 2, 5]));
        assert_eq!(numbers("1,0,1\n"), Some(vec![0, 1]));
        assert_eq!(numbers(""), Some(vec![]));
        for list in ["x", "2-1", "1-", "-1", "0-99999999"] {
            assert_eq!(numbers(list), None, "{list}");
        }
    }
}
