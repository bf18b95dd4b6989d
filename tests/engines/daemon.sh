# daemon PROGRAM...: starts it in the background with its output in PROGRAM.log. Daemons end with the script, the last first: a daemon that
# does not end in time is killed.
daemons=
daemon() {
	timeout -k 5 1000 "$@" >"$1.log" 2>&1 &
	daemons="$! $daemons"
}
end_daemons() {
	for pid in $daemons; do
		kill -TERM "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
}
trap end_daemons EXIT
# answers PROGRAM COMMAND...: waits until the command succeeds, or shows the daemon's output and gives up.
answers() {
	log=$1.log; shift
	until_true "$@" || { tail -n 20 "$log"; not_ok 'the daemon answers' 'no answer'; exit 1; }
	ok 'the daemon answers'
}
