#!/bin/sh
# Checks the language of comments, manual pages and README as far as a machine can. A comment is counted if
# its first sentence begins with a word that stands for a noun, if it has at most three words and documents a
# public item, or if it has a word of tests/lint-prose.words. tests/lint-prose.list has the highest count that
# each package may have, and --update lowers it to the present count. Pages and README have none.
# Usage: tests/lint-prose.sh [--update]
set -eu
cd "$(dirname "$0")/.."

list=tests/lint-prose.list
words=$(grep -v '^#' tests/lint-prose.words | paste -sd '|')
found=$(mktemp)
trap 'rm -f "$found"' EXIT

# FILE:LINE: TEXT of each place in the sources of a package.
in_sources() {
	for file in $(git ls-files "$1/*.rs"); do
		awk -v file="$file" -v words="$words" '
			BEGIN {
				pronouns = "What|Who|Whose|Whom|How|Why|That|Those|Of|It|Its|One|None|Which|Nobody|Nothing|So|But|As|Else"
			}
			function report() { printf "%s:%d: %s\n", file, at, text; text = "" }
			# Documentation: its first line, and whether the item behind it is public.
			/^ *\/\/[\/!] / {
				if (!inside) { inside = 1; at = NR; lines = 0; text = $0; sub(/^ *\/\/. /, "", text) }
				lines++
				if (lines == 1 && text ~ "^(" pronouns ")[ ,]") { report(); inside = 2 }
				next
			}
			inside && /^ *#/ { next }
			inside {
				if (inside == 1 && lines == 1 && /^ *pub[ (]/ && split(text, parts, " ") <= 3) report()
				inside = 0
			}
			/^ *\/\/ / {
				at = NR; text = $0; sub(/^ *\/\/ /, "", text)
				if (!comment && text ~ "^(" pronouns ")[ ,]") report()
				comment = 1
				next
			}
			{ comment = 0 }' "$file"
		grep -nE "^ *//.*($words)|\".*($words).*\"" "$file" | sed "s|^|$file:|" || :
	done
}

# The same of a page or README, where no word of the list occurs and no paragraph begins with a pronoun.
in_pages() {
	for file in README.md $(git ls-files 'man/*.[1-9]'); do
		awk -v file="$file" -v words="$words" '
			BEGIN { pronouns = "What|Who|Whose|Whom|How|Why|That|Those|Of|It|One|None|Which|Nobody|Nothing|So|But|Else" }
			tolower($0) ~ tolower("(" words ")") { printf "%s:%d: %s\n", file, NR, $0; next }
			file ~ /^man/ && /^[A-Z]/ && $0 ~ "^(" pronouns ") " { printf "%s:%d: %s\n", file, NR, $0 }
			file ~ /md$/ && blank && $0 ~ "^(" pronouns ") " { printf "%s:%d: %s\n", file, NR, $0 }
			{ blank = /^$/ }' "$file"
	done
}

status=0
in_pages >"$found"
if [ -s "$found" ]; then
	cat "$found" >&2
	echo "A sentence has a noun as its subject, and words of the manual pages." >&2
	status=1
fi

[ "${1-}" != --update ] || : >"$list.new"
for package in $(git ls-files '*/Cargo.toml' | cut -d/ -f1 | sort -u); do
	in_sources "$package" >"$found"
	count=$(wc -l <"$found")
	most=$(sed -n "s/^$package //p" "$list" 2>/dev/null || :)
	if [ "${1-}" = --update ]; then
		[ -z "$most" ] || [ "$count" -le "$most" ] || count=$most
		echo "$package $count" >>"$list.new"
	elif [ "$count" -gt "${most:-0}" ]; then
		cat "$found" >&2
		echo "$package: $count comments against HACKING.md, at most ${most:-0} are allowed" >&2
		status=1
	fi
done
[ "${1-}" != --update ] || mv "$list.new" "$list"
exit $status
