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
    jc-images --json 2>/dev/null | sed -n 's/.*"ref":"\([^"]*\)".*/\1/p'
end

for tool in cgroup exec images list logs net oci pull rm rmi rootfs run stop unshare
    complete -c jc-$tool -n 'string match -q -- "-*" (commandline -ct)' -f -a '(__jc_options)'
end
for tool in exec logs rm stop
    complete -c jc-$tool -n 'not string match -q -- "-*" (commandline -ct)' -f -a '(__jc_containers)'
end
for tool in pull rmi
    complete -c jc-$tool -n 'not string match -q -- "-*" (commandline -ct)' -a '(__jc_images)'
end
complete -c jc-run -n 'test (commandline -opc)[-1] = --image' -f -a '(__jc_images)'
complete -c jc-run -n 'test (commandline -opc)[-1] = --network' -f -a 'bridge pasta none host'
complete -c jc-oci -n 'test (count (commandline -opc)) = 1' -f -a "(jc-oci --help | string match -rg '^  ([a-z]+)  ')"
complete -c jc-oci -n 'test (count (commandline -opc)) -gt 1' -f -a '(jc-oci list -q 2>/dev/null)'
