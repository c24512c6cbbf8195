"""What a process belongs to: a VM's name from its command line, a container's and a pod's from its cgroup path.

::

    qemu-system-x86_64 -name guest=web,debug-threads=on …     VM web           libvirt writes guest=DOMAIN
    firecracker --id 551e7604 …                               VM 551e7604
    cloud-hypervisor --api-socket /run/ch/db.sock …           VM db
    …/kubepods.slice/…-pod9b1c….slice/cri-containerd-3f….scope container 3f…, pod 9b1c…
    …/docker/3f…  …/libpod-3f….scope  …/lxc.payload.NAME      containers of Docker, Podman, LXC

The paths are those that the runtimes' cgroup drivers make, ``cgroupfs`` and ``systemd``.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import msgspec

#: the names of VMMs' executables, and the option that names the guest
_QEMU = re.compile(r"^(qemu-system-\w+|qemu-kvm|kvm|qemu)$")
_HEX = r"[0-9a-f]{64}"
_CONTAINER = (
    re.compile(rf"(?:^|[/-])(?:docker|cri-containerd|crio|libpod|containerd)-({_HEX})\.scope(?:/|$)"),
    re.compile(rf"/(?:docker|libpod|containerd|crio|garden|actions_job)/({_HEX})(?:/|$)"),
    re.compile(rf"/kubepods(?:\.slice)?/.*?/({_HEX})(?:/|$)"),
    re.compile(r"/lxc(?:\.payload)?[./]([^/]+)(?:/|$)"),
    re.compile(r"/machine\.slice/machine-([^/]+)\.scope(?:/|$)"),
    re.compile(rf"/({_HEX})(?:/|$)"),
)
_POD = re.compile(
    r"pod([0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}|[0-9a-f]{32})"
)
_LIBVIRT = re.compile(
    r"/machine(?:\.slice)?/(?:machine-)?qemu[-\\x2d]+\d+[-\\x2d]+(.+?)(?:\.scope|\.libvirt-qemu|/|$)"
)


class Container(msgspec.Struct, frozen=True):
    """A container: its runtime's *id* (or name, LXC and nspawn), and the Kubernetes *pod*'s UID, empty without one."""

    id: str
    pod: str = ""

    @property
    def label(self) -> str:
        """The id as runtimes print it, 12 digits, with the pod."""
        short = self.id[:12] if re.fullmatch(_HEX, self.id) else self.id
        return f"{short} pod {self.pod}" if self.pod else short


def container_of(path: str) -> Container | None:
    """The container that the cgroup *path* is of, or is inside; None where it is of none that is known."""
    if "libvirt-qemu" in path or _LIBVIRT.search(path):
        return None
    container_match = next((match for rule in _CONTAINER if (match := rule.search(path))), None)
    if container_match is None:
        return None
    name = container_match[1].replace("\\x2d", "-")
    pod = _POD.search(path)
    return Container(name, pod[1].replace("_", "-") if pod else "")


def vm_of(command: tuple[str, ...], path: str = "", pid: int | None = None) -> str | None:
    """The name of the VM that *command* runs; None where it is no VMM. *path*: its cgroup, where libvirt has named the domain too.

    A VMM that was not told a name is called by its program, and by its *pid*: two such are two VMs.
    """
    program = PurePosixPath(command[0]).name if command else ""
    unnamed = program if pid is None else f"{program}[{pid}]"
    if _QEMU.match(program):
        return _qemu_name(command) or _domain(path) or unnamed
    if program in ("firecracker", "jailer"):
        return _value(command, "--id") or unnamed
    if program in ("cloud-hypervisor", "crosvm"):
        socket = _value(command, "--api-socket") or _value(command, "--socket") or _value(command, "-s") or ""
        socket = socket.removeprefix("path=").split(",")[0]
        return PurePosixPath(socket).stem or _domain(path) or unnamed
    if program == "kvmtool" or (program == "lkvm" and "run" in command):
        return _value(command, "--name") or _value(command, "-n") or unnamed
    return None


def _domain(path: str) -> str | None:
    match = _LIBVIRT.search(path)
    return re.sub(r"\\x([0-9a-f]{2})", lambda code: chr(int(code[1], 16)), match[1]) if match else None


def _qemu_name(command: tuple[str, ...]) -> str | None:
    value = _value(command, "-name") or _value(command, "--name")
    if not value:
        return None
    # A comma inside a value is written twice (QemuOpts); a value without a key is the guest's name.
    parts = [part.replace("\0", ",") for part in value.replace(",,", "\0").split(",")]
    named = next((part.removeprefix("guest=") for part in parts if part.startswith("guest=")), None)
    return named if named is not None else parts[0] if "=" not in parts[0] else None


def _value(command: tuple[str, ...], option: str) -> str | None:
    """The word after *option*, or after its equals sign."""
    for at, word in enumerate(command):
        if word == option and at + 1 < len(command):
            return command[at + 1]
        if word.startswith(f"{option}="):
            return word[len(option) + 1 :]
    return None
