# The image of the checks: busybox in one layer, as the archives that `podman save` writes, in box.tar.
mkdir -p image root/bin root/etc root/tmp root/proc root/sys root/dev root/run root/var/tmp root/root root/srv
cp "$(command -v busybox)" root/bin/busybox
for applet in $(busybox --list); do
	[ "$applet" = busybox ] || ln -s busybox "root/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n' >root/etc/passwd
printf 'root:x:0:\nweb:x:34:\nlog:x:4:web\n' >root/etc/group
echo text >root/etc/text
chmod 1777 root/tmp
tar -C root --sort=name --owner=0 --group=0 --numeric-owner -cf image/layer.tar .
digest=$(sha256sum image/layer.tar | cut -d ' ' -f 1)
arch=$(uname -m | sed 's/x86_64/amd64/; s/aarch64/arm64/')
cat >image/config.json <<END
{"architecture":"$arch","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":["sleep","1000"]},
 "history":[{"created":"2020-01-01T00:00:00Z","created_by":"tar"}],"rootfs":{"type":"layers","diff_ids":["sha256:$digest"]}}
END
cat >image/manifest.json <<END
[{"Config":"config.json","RepoTags":["localhost/box:latest"],"Layers":["layer.tar"]}]
END
tar -C image -cf box.tar manifest.json config.json layer.tar
