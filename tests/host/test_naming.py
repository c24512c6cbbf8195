"""What a process belongs to, by its words and its cgroup path."""

import pytest

from secondsight.host.naming import Container, container_of, vm_of

ID = "3f" * 32
POD = "9b1c2d3e-0011-2233-4455-66778899aabb"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"/docker/{ID}", Container(ID)),
        (f"/system.slice/docker-{ID}.scope", Container(ID)),
        (f"/machine.slice/libpod-{ID}.scope/container", Container(ID)),
        (f"/kubepods/burstable/pod{POD}/{ID}", Container(ID, POD)),
        (
            f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/cri-containerd-{ID}.scope",
            Container(ID, POD),
        ),
        (f"/kubepods.slice/kubepods-pod{POD.replace('-', '_')}.slice/crio-{ID}.scope", Container(ID, POD)),
        ("/lxc.payload.web/init.scope", Container("web")),
        ("/lxc/web", Container("web")),
        ("/machine.slice/machine-deb\\x2d12.scope", Container("deb-12")),
        ("/machine.slice/machine-qemu\\x2d3\\x2dweb.scope/libvirt/emulator", None),
        ("/user.slice/user-1000.slice", None),
        ("/", None),
        ("", None),
    ],
)
def test_containers(path, expected):
    assert container_of(path) == expected


def test_a_container_is_labelled_as_runtimes_print_it():
    assert Container(ID, POD).label == f"3f3f3f3f3f3f pod {POD}"
    assert Container("web").label == "web"


@pytest.mark.parametrize(
    ("command", "path", "expected"),
    [
        (("/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-m", "1G"), "", "web"),
        (("/usr/bin/qemu-system-x86_64", "-name", "db", "-m", "1G"), "", "db"),
        (("qemu-kvm", "-name", "a,,b,process=x"), "", "a,b"),
        (("qemu-kvm", "-m", "1G"), "/machine.slice/machine-qemu\\x2d3\\x2dweb\\x2d2.scope", "web-2"),
        (("qemu-kvm", "-m", "1G"), "", "qemu-kvm"),
        (("/usr/bin/firecracker", "--id", "551e7604", "--api-sock", "/x"), "", "551e7604"),
        (("firecracker", "--id=551e7604"), "", "551e7604"),
        (("cloud-hypervisor", "--api-socket", "/run/ch/db.sock"), "", "db"),
        (("cloud-hypervisor", "--api-socket=path=/run/ch/db.sock"), "", "db"),
        (("bash", "-name", "x"), "", None),
        ((), "", None),
    ],
)
def test_vms(command, path, expected):
    assert vm_of(command, path) == expected


def test_two_vms_without_a_name_are_two():
    unnamed = ("/usr/bin/qemu-system-x86_64", "-m", "1G")
    assert [vm_of(unnamed, "", pid) for pid in (7, 8)] == ["qemu-system-x86_64[7]", "qemu-system-x86_64[8]"]
    assert vm_of((*unnamed, "-name", "db"), "", 7) == "db"
    assert vm_of(("firecracker",), "", 7) == "firecracker[7]"
    assert vm_of(("sh",), "", 7) is None
