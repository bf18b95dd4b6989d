# Completion for the tools of jc, for bash. Options are those of --help; containers, images and links
# of the chain are completed where they belong.

_jc_containers() { jc-list -a --json 2>/dev/null | grep -oE '"(id|jc\.name)":"[^"]*"' | cut -d'"' -f4; }
_jc_images() { jc-images --json 2>/dev/null | sed -n 's/.*"ref":"\([^"]*\)".*/\1/p'; }
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
	local tool=$1 word=$2 before=$3
	COMPREPLY=()
	_jc_rest && return
	case $before in
	--image) mapfile -t COMPREPLY < <(compgen -W "$(_jc_images)" -- "$word"); return ;;
	--network) mapfile -t COMPREPLY < <(compgen -W 'bridge pasta none host' -- "$word"); return ;;
	--pull | --policy) mapfile -t COMPREPLY < <(compgen -W 'always missing never' -- "$word"); return ;;
	esac
	case $tool,$word in
	*,-*) mapfile -t COMPREPLY < <(compgen -W "$(_jc_options "$tool")" -- "$word") ;;
	jc-stop,* | jc-logs,* | jc-rm,* | jc-exec,*)
		mapfile -t COMPREPLY < <(compgen -W "$(_jc_containers)" -- "$word") ;;
	jc-oci,*)
		mapfile -t COMPREPLY < <(compgen -W "$(_jc_oci "$COMP_CWORD")" -- "$word") ;;
	jc-pull,* | jc-rmi,*) mapfile -t COMPREPLY < <(compgen -W "$(_jc_images)" -- "$word") ;;
	esac
}

complete -o default -F _jc jc-cgroup jc-egress jc-exec jc-images jc-list jc-logs jc-net jc-oci jc-pull \
	jc-rm jc-rmi jc-rootfs jc-run jc-stop jc-unshare
