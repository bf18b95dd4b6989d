#!/bin/sh
# Fails if the modules of a package depend on each other in a circle. Module FROM depends on module TO if its
# code names TO or an item of TO. `mod` declarations and `pub use` count for nothing: a path through a `pub use`
# leads to the module that has the item. Unit tests are not read. tests/lint-modules.list has the edges that
# close the circles which are left, lines of "PACKAGE: FROM TO # REASON". Usage: tests/lint-modules.sh
set -eu
cd "$(dirname "$0")/.."

list=tests/lint-modules.list
edges=$(mktemp)
listed=$(mktemp)
trap 'rm -f "$edges" "$listed"' EXIT

# The edges of a package, "FROM TO" on a line. The root of the package is "crate".
edges_of() {
	# shellcheck disable=SC2046 # names without white space
	awk -v top="$1/src" '
		# The module of a file. The root is "crate".
		function module_of(file) {
			file = substr(file, length(top) + 2)
			sub(/\.rs$/, "", file)
			sub(/(^|\/)(mod|lib)$/, "", file)
			gsub(/\//, "::", file)
			return file == "" ? "crate" : "crate::" file
		}

		FNR == 1 { skip = 0; current = module_of(FILENAME); modules[current] = 1 }
		/^ *#\[cfg\(test\)\]/ { is_test = 1; next }
		is_test && /^ *(pub +)?mod [a-z_]+ *\{/ { skip = 1 }
		!/^ *#\[/ { is_test = 0 }
		skip { next }
		{ sub(/(^|[^:"])\/\/.*/, ""); text[current] = text[current] " " $0 }

		function word(    found) {
			sub(/^ +/, "", rest)
			if (!match(rest, /^[A-Za-z0-9_]+/)) return ""
			found = substr(rest, 1, RLENGTH)
			rest = substr(rest, RLENGTH + 1)
			return found
		}

		# Reads a path or a tree of paths at the start of `rest`, and calls `add` for each.
		function paths(module, prefix, is_alias,    name, as) {
			sub(/^ +/, "", rest)
			if (rest ~ /^\{/) {
				rest = substr(rest, 2)
				while (rest != "" && rest !~ /^ *\}/) {
					paths(module, prefix, is_alias)
					if (!sub(/^ *,/, "", rest)) break
				}
				sub(/^ *\}/, "", rest)
				return
			}
			if (sub(/^\*/, "", rest)) {
				if (is_alias) globs[module] = prefix
				add(module, prefix, is_alias, "")
				return
			}
			name = word()
			if (name == "") return
			if (name == "super") {
				# `prefix` is a module: `super` is its parent.
				sub(/(^|::)[A-Za-z0-9_]+$/, "", prefix)
			} else if (name == "crate") prefix = "crate"
			else if (name != "self") prefix = prefix "::" name
			if (sub(/^::/, "", rest)) { paths(module, prefix, is_alias); return }
			as = ""
			if (sub(/^ +as +/, "", rest)) as = word()
			add(module, prefix, is_alias, as)
		}

		function add(module, path, is_alias, as,    name) {
			if (is_alias) {
				name = path
				sub(/.*::/, "", name)
				alias[module "::" (as == "" ? name : as)] = path
			} else used[++uses] = module " " path
		}

		# The module that has the item of a path.
		function resolve(path, depth,    at, parent, name) {
			if (path in modules) return path
			if (path in alias && depth < 9) return resolve(alias[path], depth + 1)
			if (!match(path, /::[A-Za-z0-9_]+$/)) return ""
			parent = substr(path, 1, RSTART - 1)
			name = substr(path, RSTART)
			if (parent in alias && depth < 9) return resolve(alias[parent] name, depth + 1)
			if (parent in globs && depth < 9) return resolve(globs[parent], depth + 1)
			return resolve(parent, depth)
		}

		END {
			for (module in modules) {
				rest = text[module]
				# The first path or `pub use`, whichever comes first.
				while (match(rest, /(^|[^A-Za-z0-9_:$])(pub(\([a-z]+\))? +use +|(crate|super|self)::)/)) {
					start = substr(rest, RSTART, RLENGTH)
					is_alias = start ~ /pub/ && start ~ /use/
					rest = substr(rest, RSTART + RLENGTH)
					if (!is_alias && match(start, /(crate|super|self)::$/)) rest = substr(start, RSTART) rest
					paths(module, module, is_alias)
				}
				# Names of own child modules need no `self`.
				for (child in modules) {
					name = child
					if (index(child, module "::") != 1) continue
					name = substr(child, length(module) + 3)
					if (name ~ /::/) continue
					rest = text[module]
					gsub(/pub(\([a-z]+\))? +use +[^;]*;/, "", rest)
					while (match(rest, "(^|[^A-Za-z0-9_:])" name "::")) {
						rest = substr(rest, RSTART + RLENGTH)
						paths(module, child, 0)
					}
					# A group: `use {a, b::c}` or `use name;` of a child is not in use.
				}
			}
			for (i = 1; i <= uses; i++) {
				split(used[i], part, " ")
				to = resolve(part[2], 0)
				if (to != "" && to != part[1]) edge[part[1] " " to] = 1
			}
			for (e in edge) print e
		}
	' $(git ls-files "$1/src/*.rs" ":!:$1/src/main.rs") | sed 's/crate:://g' | sort
}

status=0
if grep -n '^[^#]' "$list" | grep -v ' # ' >&2; then
	echo "$list: a line without a reason" >&2
	status=1
fi
for package in $(git ls-files '*/Cargo.toml' | cut -d/ -f1 | sort -u); do
	edges_of "$package" >"$edges"
	sed -n "s/^$package: \(.*\) # .*/\1/p" "$list" | sort >"$listed"
	if comm -13 "$edges" "$listed" | grep . >&2; then
		echo "$list: lists edges that $package does not have" >&2
		status=1
	fi
	# Modules that depend on none, or on which none depends, are in no circle.
	if comm -23 "$edges" "$listed" | awk '
		{ edge[$0] = 1 }
		END {
			do {
				split("", has_to); split("", has_from); removed = 0
				for (e in edge) { split(e, part, " "); has_to[part[1]] = 1; has_from[part[2]] = 1 }
				for (e in edge) {
					split(e, part, " ")
					if (!(part[1] in has_from) || !(part[2] in has_to)) { delete edge[e]; removed = 1 }
				}
			} while (removed)
			for (e in edge) print e
		}' | sort | grep . >&2; then
		echo "$package: these edges are in a circle of modules or between two" >&2
		status=1
	fi
done
exit $status
