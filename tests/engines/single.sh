# Checks of single containers, which podman and Docker share: `run` starts a container that is removed at its end, and $box
# is the image.
is 'a container prints' "$(run $box echo hello)" hello
run $box sh -c 'exit 7'; is 'the exit status is that of the payload' $? 7
is 'standard input reaches the payload' "$(echo words | run -i $box cat)" words
is 'standard error is apart' "$(run $box sh -c 'echo words >&2' 2>&1 >/dev/null)" words
is 'the payload is process 1' "$(run $box sh -c 'echo $$')" 1
is 'variables are set' "$(run -e A=1 -e 'B=two words' $box sh -c 'echo $A $B')" '1 two words'
is 'a user and groups of the image' "$(run -u web $box id)" 'uid=33(web) gid=34(web) groups=4(log),34(web)'
is 'a user and a group by number' "$(run -u 5:6 --group-add 7 $box sh -c 'id -u; id -g; id -G' | tr '\n' ,)" '5,6,6 7,'
is 'the default capabilities' "$(run $box grep CapEff /proc/self/status | cut -f 2)" 00000000a80425fb
is 'one capability' "$(run --cap-drop all --cap-add net_raw $box grep CapPrm /proc/self/status | cut -f 2)" 0000000000002000
is 'an unprivileged user has no capability' "$(run -u 33 $box grep CapEff /proc/self/status | cut -f 2)" 0000000000000000
is 'no new privileges' "$(run --security-opt no-new-privileges $box grep NoNewPrivs /proc/self/status | cut -f 2)" 1
is 'a filter of system calls' "$(run $box grep '^Seccomp:' /proc/self/status | cut -f 2)" 2
is 'no filter' "$(run --security-opt seccomp=unconfined $box grep '^Seccomp:' /proc/self/status | cut -f 2)" 0
is 'a score for the OOM killer' "$(run --oom-score-adj 100 $box cat /proc/self/oom_score_adj)" 100
is 'files of the kernel are masked' "$(run $box sh -c 'cat /proc/keys /proc/timer_list; ls /sys/firmware')" ''
like 'sysctls are read-only' "$(run $box sh -c 'echo x >/proc/sys/kernel/domainname' 2>&1)" '*Read-only file system'
is 'a volume of the engine' "$(run -v named:/mnt $box sh -c 'echo kept >/mnt/file' && run -v named:/mnt $box cat /mnt/file)" kept
like 'a read-only root' "$(run --read-only $box touch /new 2>&1)" '*Read-only file system'
is 'shared memory of a size' "$(run --shm-size 128k $box df -k /dev/shm | tail -1 | tr -s ' ' | cut -d ' ' -f 2)" 128
like 'no other device' "$(run --cap-add mknod $box sh -c 'mknod /dev/disk b 7 200 && cat /dev/disk' 2>&1)" '*Operation not permitted'
is 'no network' "$(run $box ls /sys/class/net)" lo
is 'too many processes' "$(run --pids-limit 3 $box sh -c 'sleep 1 & sleep 1 & sleep 1 &' 2>&1)" "sh: can't fork: Resource temporarily unavailable"
