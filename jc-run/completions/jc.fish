# Completion for the tools of jc, for fish. Options are those of --help; containers and images are
# completed where they belong.

function __jc_options
    set -l tool (commandline -opc)[1]
    $tool --help 2>/dev/null | grep -oE '^ +--?[A-Za-z0-9-]+(, --[a-z0-9-]+)?' | tr -s ', ' '\n'
end

function __jc_containers
    jc-list -a --json 2>/dev/null | grep -oE '"(id|jc\.name)":"[^"]*"' | cut -d'"' -f4
end

function __jc_images
    jc-images --json 2>/dev/null | sed -n 's/.*"ref":"\([^"]*\)".*/\1/p' | sed -n 'p; s,^docker\.io/library/,,p; t; s,^docker\.io/,,p'
end

for tool in cgroup changes commit egress exec images landlock list logs net oci pull push rm rmi rootfs run stop trace unshare
    complete -c jc-$tool -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__jc_options)'
end
for tool in exec logs rm stop
    complete -c jc-$tool -n 'not string match -q -- "-*" (commandline -ct)' -f -a '(__jc_containers)'
end
complete -c jc-changes -n 'not string match -q -- "-*" (commandline -ct)' -a '(__jc_containers)'
for tool in pull rmi
    complete -c jc-$tool -n 'not string match -q -- "-*" (commandline -ct)' -a '(__jc_images)'
end
function __jc_shared
    string join \n private host (jc-list -q 2>/dev/null | sed s/^/container:/)
end

# --OPTION VALUE and --OPTION=VALUE.
complete -c jc-run -l image -x -a '(__jc_images)'
complete -c jc-run -l network -x -a 'bridge pasta none host (jc-list -q 2>/dev/null | sed s/^/container:/)'
complete -c jc-run -l pid -x -a '(__jc_shared)'
complete -c jc-run -l ipc -x -a '(__jc_shared)'
complete -c jc-run -l uts -x -a '(__jc_shared)'
complete -c jc-run -l userns -x -a 'auto keep-id map-root host'
complete -c jc-run -l security-opt -x -a 'seccomp=unconfined no-new-privileges=false systempaths=unconfined net-admin=host'
complete -c jc-push -l compression -x -a 'gzip zstd none'
complete -c jc-oci -n 'test (count (commandline -opc)) = 1' -f -a "(jc-oci --help | string match -rg '^  ([a-z]+)  ')"
complete -c jc-oci -n 'test (count (commandline -opc)) -gt 1' -f -a '(jc-oci list -q 2>/dev/null)'
