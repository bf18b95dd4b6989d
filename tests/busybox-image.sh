# shellcheck shell=bash
# A script sources this file: make_image makes an OCI image layout with one layer, `busybox`, in the working
# directory.

digest() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }

# blob FILE: moves a file into the layout under its own digest, and prints its descriptor's fields.
blob() {
	local digest size
	digest=$(digest "$1")
	size=$(size "$1")
	mv "$1" "busybox/blobs/sha256/$digest"
	printf '"digest":"sha256:%s","size":%s' "$digest" "$size"
}

# An OCI image layout (image-spec image-layout.md) with one layer.
make_image() {
	local applet arch layer config manifest diff_id media=application/vnd.oci.image
	mkdir -p root/{bin,etc,tmp,work} busybox/blobs/sha256
	cp "$(command -v busybox)" root/bin/busybox
	for applet in $(busybox --list); do
		[ "$applet" = busybox ] || ln -s busybox "root/bin/$applet"
	done
	printf '#!/bin/sh\nexec "$@"\n' >root/bin/entrypoint
	printf 'root:x:0:0:root:/:/bin/sh\n' >root/etc/passwd
	echo 'NAME="a busybox image, made a moment ago"' >root/etc/os-release
	chmod 755 root/bin/entrypoint
	chmod 1777 root/tmp

	tar --numeric-owner --owner=0 --group=0 --sort=name -C root -cf layer.tar .
	rm -r root
	diff_id=$(digest layer.tar)
	gzip -n layer.tar
	layer=$(blob layer.tar.gz)

	case $(uname -m) in
	x86_64) arch=amd64 ;;
	aarch64) arch=arm64 ;;
	*) arch=$(uname -m) ;;
	esac
	cat >config.json <<-END
		{"architecture":"$arch","os":"linux",
		 "config":{"Entrypoint":["/bin/entrypoint"],
		           "Cmd":["sh","-c","echo \$GREETING from \$(hostname), in \$PWD"],
		           "Env":["PATH=/bin","GREETING=hello"],
		           "WorkingDir":"/work"},
		 "rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
	END
	config=$(blob config.json)
	cat >manifest.json <<-END
		{"schemaVersion":2,"mediaType":"$media.manifest.v1+json",
		 "config":{"mediaType":"$media.config.v1+json",$config},
		 "layers":[{"mediaType":"$media.layer.v1.tar+gzip",$layer}]}
	END
	manifest=$(blob manifest.json)
	cat >busybox/index.json <<-END
		{"schemaVersion":2,"manifests":[
		 {"mediaType":"$media.manifest.v1+json",$manifest,
		  "annotations":{"org.opencontainers.image.ref.name":"latest"}}]}
	END
	echo '{"imageLayoutVersion":"1.0.0"}' >busybox/oci-layout
}
