//! State directories of many containers.

use std::fs;

use serde_json::{Value, json};

use crate::Sandbox;
use crate::roots::busybox_root;

/// Records this number of ended containers in addition to the container `one`, which really ran.
pub fn ended_containers(s: &Sandbox, count: u32) {
    busybox_root(s, "root");
    s.sh("jc-run --keep --name one --network none --rootfs root -- true").run().code(0);
    let state = fs::read_to_string("/run/jc/one/state.json").unwrap();
    for number in 0..count {
        let id = format!("{number:012x}");
        let dir = format!("/run/jc/{id}");
        let mut state: Value = serde_json::from_str(&state).unwrap();
        (state["id"], state["bundle"]) = (json!(id), json!(dir));
        fs::create_dir(&dir).unwrap();
        fs::write(format!("{dir}/state.json"), state.to_string()).unwrap();
    }
}
