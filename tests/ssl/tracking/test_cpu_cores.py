import pytest

from wildfern.ssl.tracking.cpu_cores import cores_of_quota

V2 = "31 23 0:28 {root} {point} rw,relatime shared:9 - cgroup2 cgroup2 rw\n"
V1 = "32 31 0:29 {root} {point} rw,relatime - cgroup cgroup rw,cpu,cpuacct\n"
V1 += "33 31 0:30 / /elsewhere rw - cgroup cgroup rw,memory\n"


@pytest.fixture
def machine(tmp_path):
    """A /proc with these memberships and mounts, and control groups with these files."""

    def make(cgroup, mountinfo, files, root="/"):
        point = tmp_path / "sys" / "fs cgroup"
        for name, text in files.items():
            (point / name).parent.mkdir(parents=True, exist_ok=True)
            (point / name).write_text(text)
        (tmp_path / "self").mkdir()
        (tmp_path / "self/cgroup").write_text(cgroup)
        named = str(point).replace(" ", "\\040")
        (tmp_path / "self/mountinfo").write_text("garbage\n" + mountinfo.format(root=root, point=named))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"a/b/cpu.max": "150000 100000\n"}, 1.5),
        ({"a/b/cpu.max": "max 100000\n", "a/cpu.max": "200000 100000\n"}, 2.0),
        ({"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "50000 100000\n", "cpu.max": "max 100000"}, 0.5),
        ({"a/b/cpu.max": "max 100000\n"}, None),
        ({"a/b/cpu.max": "what\n"}, None),
        ({"a/b/other": ""}, None),
    ],
)
def test_version_2_takes_the_smallest_limit_of_the_groups_around(machine, files, cores):
    assert cores_of_quota(machine("0::/a/b\n", V2, files)) == cores


@pytest.mark.parametrize(("quota", "cores"), [("250000\n", 2.5), ("-1\n", None), ("0\n", None)])
def test_version_1_has_quota_and_period(machine, quota, cores):
    files = {"a/cpu.cfs_quota_us": quota, "a/cpu.cfs_period_us": "100000\n"}
    assert cores_of_quota(machine("5:memory:/x\n4:cpuacct,cpu:/a\n", V1, files)) == cores


@pytest.mark.parametrize("root", ["/docker/1234", "/other"])
def test_the_group_of_a_container_that_is_mounted_as_the_root(machine, root):
    """Of its own path, or of a path that cannot be seen."""
    proc = machine("0::/docker/1234\n", V2, {"cpu.max": "300000 100000"}, root)
    assert cores_of_quota(proc) == 3.0


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cores_of_quota(tmp_path) is None
