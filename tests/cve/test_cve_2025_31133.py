"""CVE-2025-31133: the image's /dev/null, which is a symlink, is what masked paths are covered with."""

from __future__ import annotations

import pytest
from conftest import Either
from lab.attack import ROUNDS, Canary, exchange, harmless, racing, without_mount


def test_masked_paths_are_masked_by_the_true_null_whatever_the_image_has(either: Either) -> None:
    rt, bundle = either
    made = bundle("cat /secret /proc/keys; ls /secrets; echo changed >>/secret; echo ran")
    (made.rootfs / "secret").write_text("secret\n")
    (made.rootfs / "secrets").mkdir()
    (made.rootfs / "secrets/one").touch()
    (made.rootfs / "tmp/fake").write_text("fake\n")
    (made.rootfs / "dev/null").symlink_to("/tmp/fake")
    made.config["linux"]["maskedPaths"] = ["/secret", "/secrets", "/proc/keys"]
    done = rt("run", "--bundle", str(without_mount(made, "/dev").path), "c")
    # Root makes the device, and will not in place of a link.
    refused = "/dev/null" in done.stderr and done.returncode == 1
    assert done.stdout == "ran\n" or (rt.user.uid == 0 and refused), done
    assert (made.rootfs / "tmp/fake").read_text() == "fake\n"
    assert (made.rootfs / "secret").read_text() == "secret\n"


@pytest.mark.parametrize("what", ["null", "mask"])
def test_nor_when_a_link_is_exchanged_with_it_during_the_run(
    either: Either, canary: Canary, what: str
) -> None:
    rt, bundle = either
    made = without_mount(bundle("cat /secret; exit 0"), "/dev")
    (made.rootfs / "dev/null").write_text("")
    secret = made.rootfs / "secret"
    secret.write_text("secret\n")
    fake = made.rootfs / "fake"
    fake.symlink_to(canary.file)
    rt.user.owns(made.rootfs)
    made.config["linux"]["maskedPaths"] = ["/secret"]
    made.write()
    with racing(lambda: exchange(made.rootfs / "dev/null" if what == "null" else secret, fake)):
        for number in range(ROUNDS):
            harmless(rt, made, canary, f"c{number}")
