# Completion for the tools of jc, for bash. Options are those of --help; containers, images and links
# of the chain are completed where they belong.

_jc_containers() { jc-list -a --json 2>/dev/null | grep -oE '"(id|jc\.name)":"[^"]*"' | cut -d'"' -f4; }
# Full names, and the short names that mean the same.
_jc_images() {
	jc-images --json 2>/dev/null | sed -n 's/.*"ref":"\([^"]*\)".*/\1/p' |
		sed -n 'p; s,^docker\.io/library/,,p; t; s,^docker\.io/,,p'
}
_jc_running() { jc-list -q 2>/dev/null; }
_jc_oci() { if [ "$1" = 1 ]; then jc-oci --help | sed -n 's/^  \([a-z]*\)  .*/\1/p'; else jc-oci list -q 2>/dev/null; fi; }
_jc_options() { "$1" --help 2>/dev/null | grep -oE '^ +--?[A-Za-z0-9-]+(, --[a-z0-9-]+)?' | tr -s ', ' '\n'; }

# Where the rest of the command line is another command: a link's program.
_jc_rest() {
	local offset
	for ((offset = 1; offset < COMP_CWORD; offset++)); do
		if [ "${COMP_WORDS[offset]}" = -- ]; then
			declare -F _command_offset >/dev/null && _command_offset $((offset + 1))
			return 0
		fi
	done
	return 1
}

_jc() {
	local tool=$1 word=$2 before=$3 colon
	COMPREPLY=()
	_jc_rest && return
	# bash breaks words at colons and equal signs: the word that is typed begins behind the last space.
	word=${COMP_LINE:0:COMP_POINT}
	word=${word##*[[:space:]]}
	case $word in
	--*=*) before=${word%%=*} word=${word#*=} ;;
	*) before=${COMP_LINE:0:COMP_POINT} before=${before%"$word"}
		before=${before%"${before##*[![:space:]]}"} before=${before##*[[:space:]]} ;;
	esac
	_jc_words "$tool" "$word" "$before"
	# Only the part behind the last colon is replaced.
	colon=${word%"${word##*:}"}
	if [[ $word == *:* && $COMP_WORDBREAKS == *:* ]]; then
		COMPREPLY=("${COMPREPLY[@]#"$colon"}")
	fi
}

# The words for an option or operand.
_jc_words() {
	local tool=$1 word=$2 before=$3
	case $before in
	--image) mapfile -t COMPREPLY < <(compgen -W "$(_jc_images)" -- "$word"); return ;;
	--network | --net)
		mapfile -t COMPREPLY < <(compgen -W "bridge pasta none host $(_jc_running | sed s/^/container:/)" -- "$word"); return ;;
	--pid | --ipc | --uts)
		mapfile -t COMPREPLY < <(compgen -W "private host $(_jc_running | sed s/^/container:/)" -- "$word"); return ;;
	--userns) mapfile -t COMPREPLY < <(compgen -W 'auto keep-id map-root host' -- "$word"); return ;;
	--security-opt)
		mapfile -t COMPREPLY < <(compgen -W 'seccomp=unconfined no-new-privileges=false systempaths=unconfined net-admin=host' -- "$word"); return ;;
	--compression) mapfile -t COMPREPLY < <(compgen -W 'gzip zstd none' -- "$word"); return ;;
	--print | --progress | --tar | --authfile | --to | --record | --rootfs | --env-file | --base | --apply) return ;;
	--pull | --policy) mapfile -t COMPREPLY < <(compgen -W 'always missing never' -- "$word"); return ;;
	esac
	case $tool,$word in
	*,-*) mapfile -t COMPREPLY < <(compgen -W "$(_jc_options "$tool")" -- "$word") ;;
	jc-stop,* | jc-logs,* | jc-rm,* | jc-exec,* | jc-changes,*)
		mapfile -t COMPREPLY < <(compgen -W "$(_jc_containers)" -- "$word") ;;
	jc-oci,*)
		mapfile -t COMPREPLY < <(compgen -W "$(_jc_oci "$COMP_CWORD")" -- "$word") ;;
	jc-pull,* | jc-rmi,*) mapfile -t COMPREPLY < <(compgen -W "$(_jc_images)" -- "$word") ;;
	esac
}

complete -o default -F _jc jc-cgroup jc-changes jc-commit jc-egress jc-exec jc-images jc-landlock jc-list jc-logs jc-net \
	jc-oci jc-pull jc-push jc-rm jc-rmi jc-rootfs jc-run jc-stop jc-trace jc-unshare
