"""A client of the Container Runtime Interface: `cri.py SOCKET CALL` sends the JSON of standard input as the request of
the call of runtime.v1.RuntimeService, and prints the response as JSON. The numbers are those of the interface's api.proto."""

import json
import sys

import grpc

KEY_VALUE = {"key": (1, str), "value": (2, str)}
ID = {"container_id": (1, str)}
POD_ID = {"pod_sandbox_id": (1, str)}
NAMESPACES = {"network": (1, int), "pid": (2, int), "ipc": (3, int)}
NUMBER = {"value": (1, int)}
PROFILE = {"profile_type": (1, int), "localhost_ref": (2, str)}
RESOURCES = {
    "cpu_period": (1, int), "cpu_quota": (2, int), "cpu_shares": (3, int), "memory_limit_in_bytes": (4, int),
    "oom_score_adj": (5, int), "cpuset_cpus": (6, str),
}
POD = {
    "metadata": (1, {"name": (1, str), "uid": (2, str), "namespace": (3, str)}),
    "hostname": (2, str),
    "log_directory": (3, str),
    "linux": (8, {
        "cgroup_parent": (1, str),
        "security_context": (2, {"namespace_options": (1, NAMESPACES), "privileged": (6, bool)}),
        "sysctls": (3, KEY_VALUE),
    }),
}
CONTAINER = {
    "metadata": (1, {"name": (1, str)}),
    "image": (2, {"image": (1, str)}),
    "command": (3, str),
    "working_dir": (5, str),
    "envs": (6, KEY_VALUE),
    "mounts": (7, {"container_path": (1, str), "host_path": (2, str), "readonly": (3, bool), "propagation": (5, int)}),
    "devices": (8, {"container_path": (1, str), "host_path": (2, str), "permissions": (3, str)}),
    "log_path": (11, str),
    "tty": (14, bool),
    "linux": (15, {
        "resources": (1, RESOURCES),
        "security_context": (2, {
            "capabilities": (1, {"add_capabilities": (1, str), "drop_capabilities": (2, str)}),
            "privileged": (2, bool),
            "namespace_options": (3, NAMESPACES),
            "run_as_user": (5, NUMBER),
            "run_as_username": (6, str),
            "readonly_rootfs": (7, bool),
            "supplemental_groups": (8, int),
            "no_new_privs": (11, bool),
            "run_as_group": (12, NUMBER),
            "masked_paths": (13, str),
            "readonly_paths": (14, str),
            "seccomp": (15, PROFILE),
        }),
    }),
}
# The request and the response of each call.
CALLS = {
    "Version": ({}, {"runtime_name": (2, str)}),
    "RunPodSandbox": ({"config": (1, POD), "runtime_handler": (2, str)}, POD_ID),
    "StopPodSandbox": (POD_ID, {}),
    "RemovePodSandbox": (POD_ID, {}),
    "PodSandboxStatus": (POD_ID, {"status": (1, {"state": (3, int)})}),
    "CreateContainer": ({"pod_sandbox_id": (1, str), "config": (2, CONTAINER), "sandbox_config": (3, POD)}, ID),
    "StartContainer": (ID, {}),
    "StopContainer": ({**ID, "timeout": (2, int)}, {}),
    "RemoveContainer": (ID, {}),
    "ContainerStatus": (ID, {"status": (1, {"state": (3, int), "exit_code": (7, int), "reason": (10, str)})}),
    "ExecSync": ({**ID, "cmd": (2, str), "timeout": (3, int)}, {"stdout": (1, str), "stderr": (2, str), "exit_code": (3, int)}),
    "UpdateContainerResources": ({**ID, "linux": (2, RESOURCES)}, {}),
}


def varint(number):
    number &= 2**64 - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def encode(message, schema):
    """Protocol buffers' encoding: a list has one field for each element."""
    out = b""
    for name, content in message.items():
        number, kind = schema[name]
        for value in content if isinstance(content, list) else [content]:
            if kind in (int, bool):
                out += varint(number << 3) + varint(int(value))
            else:
                data = value.encode() if kind is str else encode(value, kind)
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(data, schema):
    message, names, at = {}, {number: (name, kind) for name, (number, kind) in schema.items()}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        key = number()
        value = number()
        if key & 7 == 2:
            value, at = data[at:at + value], at + value
        name, kind = names.get(key >> 3, (None, None))
        if name:
            message[name] = value.decode() if kind is str else value if kind is int else decode(value, kind)
    return message


def main():
    socket, call = sys.argv[1:]
    request, response = CALLS[call]
    method = grpc.insecure_channel("unix:" + socket).unary_unary(
        "/runtime.v1.RuntimeService/" + call,
        request_serializer=lambda message: encode(message, request),
        response_deserializer=lambda data: decode(data, response),
    )
    try:
        print(json.dumps(method(json.load(sys.stdin), timeout=20)))
    except grpc.RpcError as error:
        sys.exit("%s: %s" % (call, error.details()))


main()
