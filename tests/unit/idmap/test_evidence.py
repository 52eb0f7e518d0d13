"""Evidence is read from a given root directory."""

from __future__ import annotations

import os
from pathlib import Path

from idmap.diagnose import causes
from idmap.evidence import ALL_CAPS, CAP_SETGID, CAP_SETUID, exposed, file_caps, gather, os_release

ASKED = [(0, 1000, 1), (1, 100000, 65536)]


def tree(root: Path, **files: str) -> str:
    """A root directory with alice and no grants; `files` replace what is there, `__` standing for `/`."""
    default = {
        "etc__passwd": "alice:x:1000:1000::/home/alice:/bin/sh\n",
        "etc__group": "big:x:120000:\n",
        "etc__subuid": "bob:165536:65536\n",
        "etc__subgid": "",
        "etc__os-release": 'NAME="Thing"\nID=thing\nID_LIKE="ubuntu debian"\n',
        "proc__self__status": "CapEff:\t0000000000000000\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\n",
        "proc__77__uid_map": "",
        "proc__77__gid_map": "         0       1000          1\n",
        "usr__bin__newuidmap": "",
    }
    for name, text in {**default, **files}.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


def test_the_facts_are_read_below_the_root(tmp_path: Path) -> None:
    root = tree(tmp_path)
    (tmp_path / "usr/bin/newuidmap").chmod(0o4755)
    found = gather("uid", 77, ASKED, 1000, uid=1000, helper="/usr/bin/newuidmap", said=b"a\nb\n", root=root)
    assert (found.name, found.name_is_local, found.said) == ("alice", True, "b")
    assert (found.no_new_privs, found.bounding, found.effective) == (False, 0x1FFFFFFFFFF, 0)
    assert (found.granted, found.mapped, found.target_exists) == ([], False, True)
    assert found.helper_mode == 0o4755
    assert found.os_release == "thing ubuntu debian"
    assert not found.apparmor_restricts


def test_the_proposal_avoids_other_users_and_accounts(tmp_path: Path) -> None:
    # From 100000 up there is group 120000, then bob's range from 165536 to 231071.
    found = gather("uid", 77, ASKED, 1000, uid=1000, root=tree(tmp_path))
    assert found.proposed == (231072, 65536)


def test_no_new_privs_and_capabilities_come_from_the_own_status(tmp_path: Path) -> None:
    root = tree(tmp_path, proc__self__status="CapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\n")
    found = gather("uid", 77, ASKED, 1000, uid=1000, root=root)
    assert found.no_new_privs
    assert found.bounding >> CAP_SETUID & 1


def test_a_status_without_the_fields_counts_as_healthy(tmp_path: Path) -> None:
    found = gather("uid", 77, ASKED, 1000, uid=1000, root=tree(tmp_path, proc__self__status="garbage\n"))
    assert (found.no_new_privs, found.bounding) == (False, ALL_CAPS)


def test_a_map_that_is_there_and_a_process_that_is_gone_are_seen(tmp_path: Path) -> None:
    root = tree(tmp_path)
    assert gather("gid", 77, ASKED, 1000, uid=1000, root=root).mapped
    assert not gather("uid", 78, ASKED, 1000, uid=1000, root=root).target_exists


def test_malformed_lines_of_the_user_are_numbered(tmp_path: Path) -> None:
    root = tree(tmp_path, etc__subuid="x:1:1\nalice:100000\n")
    found = gather("uid", 77, ASKED, 1000, uid=1000, root=root)
    assert found.malformed == [2]
    assert (
        "line 2 for alice is malformed" in causes(found)[-1].message
        or "no uids" not in causes(found)[0].message
    )


def test_an_empty_root_gives_evidence_without_an_error(tmp_path: Path) -> None:
    found = gather("uid", 77, ASKED, 1000, uid=1000, root=str(tmp_path))
    assert (found.name, found.granted, found.target_exists) == (None, [], False)


def test_ubuntus_restriction_is_read(tmp_path: Path) -> None:
    root = tree(tmp_path, proc__sys__kernel__apparmor_restrict_unprivileged_userns="1\n")
    assert gather("uid", 77, ASKED, 1000, uid=1000, root=root).apparmor_restricts


def test_file_capabilities_count_only_with_the_effective_flag() -> None:
    both = (1 << CAP_SETUID | 1 << CAP_SETGID).to_bytes(4, "little")
    rest = bytes(12)
    assert file_caps(bytes.fromhex("01000002") + both + rest) == 1 << CAP_SETUID | 1 << CAP_SETGID
    assert file_caps(bytes.fromhex("00000002") + both + rest) == 0
    assert file_caps(b"") == 0


def test_what_others_than_root_can_change_on_the_way_to_a_program_is_named(tmp_path: Path) -> None:
    assert exposed("/bin/sh") == ""
    (tmp_path / "tool").touch()
    assert exposed(f"{tmp_path}/tool") != "" or os.getuid() == 0
    if os.getuid() == 0:
        (tmp_path / "open").mkdir()
        (tmp_path / "open").chmod(0o777)
        (tmp_path / "open/tool").symlink_to("/bin/sh")
        assert exposed(f"{tmp_path}/open/tool") == f"{tmp_path}/open"
        (tmp_path / "open").chmod(0o1777)
        assert exposed(f"{tmp_path}/open/tool") == ""
        os.chown(tmp_path / "tool", 12345, 0)
        (tmp_path / "open/link").symlink_to(tmp_path / "tool")
        assert exposed(f"{tmp_path}/open/link") == f"{tmp_path}/tool"


def test_os_release_falls_back_to_usr_lib(tmp_path: Path) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/os-release").write_text("ID=alpine\n")
    assert os_release(str(tmp_path)) == "alpine"
    assert os_release(str(tmp_path / "none")) == ""
