//! The rows of jc-pull, jc-images and jc-rmi.

use super::row::Answer::{Instead, Nothing, Same, Words};
use super::row::{Habit, OPERAND, row};

/// `--arch ARCH`: a platform of Linux.
fn architecture(value: &str) -> Result<Vec<String>, String> {
    Ok(vec!["--platform".to_owned(), format!("linux/{value}")])
}

#[rustfmt::skip]
pub const ROWS: &[Habit] = &[
    row("jc-images", "-a --all", 0, Nothing),
    row("jc-images", "-q --quiet", 0, Instead("jc-images --json | jq -r .ref")),
    row("jc-images", "--digests --no-trunc", 0, Instead("jc-images --json | jq -r '[.ref, .target] | @tsv'")),
    row("jc-images", "-f --filter", 1, Instead("jc-images --json | jq 'select(.ref | contains(\"NAME\"))'")),
    row("jc-images", "--format=json", 1, Instead("jc-images --json, one object on a line")),
    row("jc-images", "--format", 1, Instead("jc-images --json | jq -r '[.ref, .size] | @tsv'")),
    row("jc-images", "--tree --sort --history", 0, Instead("jc-images --json | jq -r '[.ref, .layers[]] | @tsv'")),
    row("jc-images", OPERAND, 0, Instead("jc-images | grep {1}")),
    row("jc-rmi", "-f --force", 0, Instead("jc-rmi REF; jc-rm -f ID ends a container that uses the image")),
    row("jc-rmi", "-a --all", 0, Instead("jc-images --json | jq -r .ref | xargs -r jc-rmi")),
    row("jc-rmi", "-i --ignore", 0, Instead("jc-rmi REF || :")),
    row("jc-rmi", "--no-prune", 0, Nothing),
    row("jc-commit", OPERAND, 0, Instead("jc-run --keep --name NAME --record BASE ...; jc-commit --changes NAME < BASE, where jc-pull IMAGE > BASE")),
    row("jc-commit", "-a", 1, Same("--author")),
    row("jc-commit", "-c --change", 1, Instead("--cmd, --entrypoint, --env, --workdir, --user, --label and --volume, as jc-commit --help lists them")),
    row("jc-commit", "-m --message", 1, Instead("--label org.opencontainers.image.description={1}")),
    row("jc-commit", "-p --pause", 0, Nothing),
    row("jc-commit", "--squash", 0, Instead("jc-pull --tar - IMAGE | jc-commit --scratch --layer -")),
    row("jc-commit", "-q --quiet", 0, Nothing),
    row("jc-commit", "--format=oci -f=oci", 1, Nothing),
    row("jc-commit jc-push", "-f --format", 1, Instead("skopeo copy --format {1} oci:DIR docker://IMAGE, behind jc-push oci:DIR; jc-commit makes OCI manifests, jc-push keeps a manifest")),
    row("jc-changes", "--format=json", 1, Words(|_| Ok(vec!["--json".to_owned()]))),
    row("jc-changes", "--format", 1, Instead("jc-changes --json ID | jq -r '[.kind, .path] | @tsv'")),
    row("jc-push", "--tls-verify=false --dest-tls-verify=false --src-tls-verify=false", 0, Same("--insecure")),
    row("jc-push", "--tls-verify --dest-tls-verify --src-tls-verify --disable-content-trust", 0, Nothing),
    row("jc-push", "--creds --dest-creds", 1, Instead("jc-push --username USER --password-stdin DEST, with a line for the password in front of the records")),
    row("jc-push", "--no-creds --dest-no-creds", 0, Instead("--authfile FILE, with {} in FILE")),
    row("jc-push", "--retry-times", 1, Same("--retry")),
    row("jc-push", "--compression-format --dest-compress-format", 1, Same("--compression")),
    row("jc-push", "--compression-level --dest-compress-level", 1, Instead("--compression gzip:{1}")),
    row("jc-push", "--digestfile", 1, Instead("jc-push --print digest DEST > {1}")),
    row("jc-push", "-a --all --all-tags", 0, Instead("jc-pull --no-layers IMAGE... | jc-push DEST...; --index writes one of several platforms")),
    row("jc-push", "--remove-signatures --preserve-digests", 0, Nothing),
    row("jc-push", "--cert-dir --dest-cert-dir", 1, Instead("--ca {1}/ca.crt")),
    row("jc-push", "--sign-by --sign-passphrase-file", 1, Instead("cosign sign IMAGE@$(jc-push --print digest IMAGE)")),
    row("jc-pull", "--tls-verify=false --src-tls-verify=false", 0, Same("--insecure")),
    row("jc-pull", "--tls-verify --src-tls-verify --disable-content-trust", 0, Nothing),
    row("jc-pull", "--pull", 1, Same("--policy")),
    row("jc-pull", "--arch --override-arch", 1, Words(architecture)),
    row("jc-pull", "--os --variant --override-os --override-variant", 1, Instead("--platform OS/ARCH/VARIANT")),
    row("jc-pull", "-a --all-tags", 0, Instead("jc-pull IMAGE:TAG for each tag, as skopeo list-tags prints them")),
    row("jc-pull", "--creds --src-creds", 1, Instead("jc-pull --username USER --password-stdin IMAGE < FILE")),
    row("jc-pull", "--retry-times", 1, Same("--retry")),
    row("jc-pull", "--dest-tls-verify=false", 0, Same("--insecure")),
    row("jc-pull", "--src-no-creds --no-creds", 0, Instead("--authfile FILE, with {} in FILE")),
    row("jc-pull", "--all-platforms --all", 0, Instead("jc-pull --platform OS/ARCH IMAGE for each platform")),
    row("jc-pull", "--remove-signatures --preserve-digests", 0, Nothing),
    row("jc-pull", "--cert-dir --src-cert-dir", 1, Instead("--ca {1}/ca.crt")),
];
