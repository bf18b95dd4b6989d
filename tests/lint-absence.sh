#!/bin/sh
# Finds code that may take the error of a system call for absence, and compares it with the list of the
# places that have been looked at: tests/lint-absence.list, lines of "FILE: CODE # REASON". Fails on a place
# that the list lacks, and on a line of the list that no place needs. Usage: tests/lint-absence.sh
set -eu
cd "$(dirname "$0")/.."

list=tests/lint-absence.list
found=$(mktemp)
listed=$(mktemp)
trap 'rm -f "$found" "$listed"' EXIT

# Code before the unit tests of a file, without comments and indentation.
for file in $(git ls-files 'jc-*/src/*.rs' ':!:*/fuzz.rs'); do
	awk -v file="$file" '
		/^#\[cfg\(test\)\]/ { exit }
		/^ *\/\// { next }
		{
			sub(/^ */, ""); line = $0
			# Results of conversions and parsers, options, and what stat(2) has answered.
			gsub(/parse(::<[^>]*>)?\([^()]*\)(\.|\)?\.)(ok|is_ok|is_err)\(\)/, "")
			gsub(/(try_into|to_str)\(\)\.ok\(\)|(try_from|from_str_radix|from_utf8|::new)\(.*\)\.ok\(\)/, "")
			gsub(/\?\.unwrap_or_default\(\)|meta\.is_(dir|file)\(\)|\.exists\(\)\?|transpose\(\)\?\.flatten\(\)/, "")
			if (!/fs::|read|open|stat\(/) gsub(/iter\(\)\.flatten\(\)|unwrap_or_default\(\)/, "")
		}
		/let Ok\(|\.ok\(\)|unwrap_or_default\(\)|is_ok\(\)|is_err\(\)|is_ok_and\(|is_err_and\(|\.exists\(\)|\.is_dir\(\)|\.is_file\(\)|Err\(_\)|map_or\(true|unwrap_or\((true|false)\)|\.flatten\(\)/ {
			print file ": " line
		}' "$file"
done | sort >"$found"

if grep -n '^[^#]' "$list" | grep -v ' # ' >&2; then
	echo "$list: a line without a reason" >&2
	exit 1
fi
sed -n '/^[^#]/ s/ # [^#]*$//p' "$list" | sort >"$listed"
if ! diff -u --label "$list" --label sources "$listed" "$found" >&2; then
	echo "An error is not absence: use Absent::absent, or list the line in $list with a reason." >&2
	exit 1
fi
