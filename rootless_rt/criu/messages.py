"""The messages of CRIU's protocol (criu.org, "RPC"; images/rpc.proto of its sources), as far as rt sends and
reads them.

The classes are made by protobuf from the table below when they are asked for, so any version of the library
will do, where generated code goes with a few. What the table leaves out is skipped in what CRIU sends.
"""

from __future__ import annotations

from rootless_rt.errors import RtError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The kinds of request, and what a response says that it answers.
DUMP, RESTORE, CHECK, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 3, 4, 6, 9, 10
KINDS = {1: "dump", 2: "restore", 3: "check", 4: "pre-dump", 6: "notify", 9: "feature check", 10: "version"}

CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
"""Values of `manage_cgroups_mode`; "" is CRIU's own choice."""

# name of a message -> its fields: (name, number, type); a type with [] comes any number of times, and one
# that is no word of protobuf is another message. Enumerations travel as int32.
_TABLE: dict[str, tuple[tuple[str, int, str], ...]] = {
    "criu_page_server_info": (("address", 1, "string"), ("port", 2, "int32")),
    "ext_mount_map": (("key", 1, "string"), ("val", 2, "string")),
    "join_namespace": (("ns", 1, "string"), ("ns_file", 2, "string")),
    "inherit_fd": (("key", 1, "string"), ("fd", 2, "int32")),
    "cgroup_root": (("ctrl", 1, "string"), ("path", 2, "string")),
    "criu_opts": (
        ("images_dir_fd", 1, "int32"),
        ("pid", 2, "int32"),
        ("leave_running", 3, "bool"),
        ("ext_unix_sk", 4, "bool"),
        ("tcp_established", 5, "bool"),
        ("evasive_devices", 6, "bool"),
        ("shell_job", 7, "bool"),
        ("file_locks", 8, "bool"),
        ("log_level", 9, "int32"),
        ("log_file", 10, "string"),
        ("ps", 11, "criu_page_server_info"),
        ("notify_scripts", 12, "bool"),
        ("root", 13, "string"),
        ("parent_img", 14, "string"),
        ("track_mem", 15, "bool"),
        ("auto_dedup", 16, "bool"),
        ("work_dir_fd", 17, "int32"),
        ("link_remap", 18, "bool"),
        ("ext_mnt", 23, "ext_mount_map[]"),
        ("manage_cgroups", 24, "bool"),
        ("cg_root", 25, "cgroup_root[]"),
        ("rst_sibling", 26, "bool"),
        ("inherit_fd", 27, "inherit_fd[]"),
        ("manage_cgroups_mode", 34, "int32"),
        ("external", 37, "string[]"),
        ("empty_ns", 38, "uint32"),
        ("join_ns", 39, "join_namespace[]"),
        ("freeze_cgroup", 44, "string"),
        ("tcp_skip_in_flight", 46, "bool"),
        ("lazy_pages", 48, "bool"),
        ("status_fd", 49, "int32"),
        ("orphan_pts_master", 50, "bool"),
        ("config_file", 51, "string"),
        ("lsm_profile", 53, "string"),
        ("lsm_mount_context", 63, "string"),
        ("unprivileged", 67, "bool"),
    ),
    "criu_features": (("mem_track", 1, "bool"), ("lazy_pages", 2, "bool")),
    "criu_req": (
        ("type", 1, "int32"),
        ("opts", 2, "criu_opts"),
        ("notify_success", 3, "bool"),
        ("features", 5, "criu_features"),
    ),
    "criu_restore_resp": (("pid", 1, "int32"),),
    "criu_notify": (("script", 1, "string"), ("pid", 2, "int32")),
    "criu_version": (
        ("major_number", 1, "int32"),
        ("minor_number", 2, "int32"),
        ("sublevel", 4, "int32"),
    ),
    "criu_resp": (
        ("type", 1, "int32"),
        ("success", 2, "bool"),
        ("restore", 4, "criu_restore_resp"),
        ("notify", 5, "criu_notify"),
        ("cr_errno", 7, "int32"),
        ("features", 8, "criu_features"),
        ("cr_errmsg", 9, "string"),
        ("version", 10, "criu_version"),
    ),
}


class Messages:
    """The classes of the messages that are made and read by name: `request`, `options`, `response`, ..."""

    __slots__ = ("features", "options", "request", "response")

    def __init__(self, classes: dict[str, Any]) -> None:
        self.request = classes["criu_req"]
        self.options = classes["criu_opts"]
        self.features = classes["criu_features"]
        self.response = classes["criu_resp"]


def load() -> Messages:
    """Make the classes. Raises RtError without protobuf."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError:
        raise RtError(
            "checkpoints need the Python package protobuf, which is not installed",
            hint="pip install 'rootless-rt[criu]', or: apt install python3-protobuf",
        ) from None
    file = descriptor_pb2.FileDescriptorProto(name="rt-criu.proto", syntax="proto2")
    for name, fields in _TABLE.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            added = message.field.add(name=field, number=number)
            many = kind.endswith("[]")
            kind = kind.removesuffix("[]")
            added.label = added.LABEL_REPEATED if many else added.LABEL_OPTIONAL
            if kind in _TABLE:
                added.type, added.type_name = added.TYPE_MESSAGE, f".{kind}"
            else:
                added.type = getattr(added, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()  # our own: other programs of this process may know CRIU too
    pool.AddSerializedFile(file.SerializeToString())
    if hasattr(message_factory, "GetMessageClass"):
        make = message_factory.GetMessageClass
    else:  # protobuf before 4.22
        make = message_factory.MessageFactory(pool).GetPrototype
    return Messages({name: make(pool.FindMessageTypeByName(name)) for name in _TABLE})
