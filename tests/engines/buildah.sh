# buildah with the runtime.
cat >storage.conf <<END
[storage]
driver = "overlay"
runroot = "$work/run"
graphroot = "$work/storage"
END
export CONTAINERS_STORAGE_CONF="$work/storage.conf" BUILDAH_ISOLATION=oci
options="--runtime $runtime --network none"
run() { command buildah run $options "$@"; }
buildah pull -q docker-archive:box.tar >/dev/null; is 'an image is loaded' $? 0
box=$(buildah from localhost/box); is 'a container is made' $? 0

is 'a program prints' "$(run "$box" echo hello)" hello
run "$box" sh -c 'exit 7' 2>/dev/null; is 'the exit status is that of the program' $? 7
is 'standard input reaches the program' "$(echo words | run "$box" cat)" words
is 'standard error is apart' "$(run "$box" sh -c 'echo words >&2' 2>&1 >/dev/null)" words
is 'the program is process 1' "$(run "$box" sh -c 'echo $$')" 1
run "$box" nonesuch 2>err; is 'a program that is missing' $? 1
like 'a program that is missing is named' "$(cat err)" '*nonesuch*not found*'
run "$box" /etc/text 2>err; is 'a file that is not executable' $? 1
like 'the reason is permission denied' "$(cat err)" '*ermission denied*'
is 'the program has a terminal' "$(terminal "buildah run -t $options $box tty")" /dev/pts/0
is 'changes stay' "$(run "$box" sh -c 'echo words >/srv/file'; run "$box" cat /srv/file)" words
is 'a user' "$(run --user web "$box" id -u)" 33
is 'a user and a group by number' "$(run --user 5:6 "$box" sh -c 'id -u; id -g' | tr '\n' ,)" 5,6,
is 'a variable' "$(run --env A=1 "$box" sh -c 'echo $A')" 1
is 'a working directory' "$(run --workingdir /etc "$box" pwd)" /etc
is 'a host name' "$(run --hostname inside "$box" hostname)" inside
is 'the default capabilities' "$(run "$box" grep CapEff /proc/self/status | cut -f 2)" 00000000800405fb
is 'fewer capabilities' "$(run --cap-drop CAP_CHOWN "$box" grep CapEff /proc/self/status | cut -f 2)" 00000000800405fa
is 'an unprivileged user has no capability' "$(run --user 33 "$box" grep CapEff /proc/self/status | cut -f 2)" 0000000000000000
is 'a filter of system calls' "$(run "$box" grep '^Seccomp:' /proc/self/status | cut -f 2)" 2
mkdir volume && echo words >volume/file
is 'a volume' "$(run -v "$work/volume:/mnt" "$box" cat /mnt/file)" words
like 'a read-only volume' "$(run -v "$work/volume:/mnt:ro" "$box" touch /mnt/file 2>&1)" '*Read-only file system*'
is 'a tmpfs' "$(run --mount type=tmpfs,destination=/srv "$box" grep -c ' /srv tmpfs' /proc/mounts)" 1
is 'no network' "$(run "$box" ls /sys/class/net)" lo
is 'namespaces are private' "$(run "$box" readlink /proc/self/ns/pid | grep -c "$(readlink /proc/self/ns/pid)")" 0
is 'namespaces of the host' "$(run --ipc host --uts host "$box" sh -c 'readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts')" \
	"$(readlink /proc/self/ns/ipc /proc/self/ns/uts)"
buildah rm "$box" >/dev/null

# Images are built.
mkdir context && echo context >context/file && cat >context/Containerfile <<END
FROM localhost/box
ARG WORD=none
COPY file /srv/
RUN echo \$WORD >/etc/built && cat /srv/file >>/etc/built
RUN --mount=type=tmpfs,target=/mnt grep -c ' /mnt tmpfs' /proc/mounts >>/etc/built
RUN --mount=type=cache,target=/cache echo kept >/cache/file
RUN --mount=type=cache,target=/cache cat /cache/file >>/etc/built
WORKDIR /tmp
USER web
RUN id -u >user; pwd >>user
END
build() { buildah bud -q --runtime "$runtime" --isolation oci --network none "$@"; }
build --build-arg WORD=words -t localhost/built context >/dev/null; is 'an image is built' $? 0
built=$(buildah from localhost/built)
is 'the image has the changes' "$(run "$built" cat /etc/built /tmp/user | tr '\n' ,)" words,context,1,kept,33,/tmp,
printf 'FROM localhost/box\nRUN exit 3\n' >context/failing
build -f context/failing context >/dev/null 2>err; is 'a step that fails ends the build' $? 3
is 'limits hold in a build' "$(printf 'FROM localhost/box\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes; ulimit -n\n' |
	buildah bud --runtime "$runtime" --isolation oci --network none --memory 64m --ulimit nofile=77 --cgroup-parent /buildah -f - context 2>/dev/null |
	grep -xE '[0-9]+' | tr '\n' ,)" 67108864,77,
buildah rm -a >/dev/null
