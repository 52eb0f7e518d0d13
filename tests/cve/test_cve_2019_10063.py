"""CVE-2019-10063: a filter of ioctl(2) is passed by bits above the 32 that the kernel looks at."""

from __future__ import annotations

import termios

from conftest import Either
from lab.attack import compiled

CALL = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void)
{
	unsigned long high[] = {0, 1UL << 32, 1UL << 63, 0xffffffffUL << 32};

	for (int i = 0; i < 4; i++) {
		syscall(SYS_ioctl, -1, TIOCSTI | high[i], "x");
		printf("%d ", errno);
	}
	syscall(SYS_ioctl, -1, TIOCGWINSZ, "x");
	printf("%d\n", errno);
	return 0;
}
"""
DENIED, BAD_FD = "95", "9"


def filtered(either: Either, action: str, default: str, argument: dict[str, object]) -> list[str]:
    """The errno of each call: TIOCSTI with different upper halves, and one of another ioctl."""
    rt, bundle = either
    made = bundle(["/call"])
    compiled(CALL, made.rootfs / "call")
    rule = {"names": ["ioctl"], "action": action, "args": [{"index": 1, **argument}]}
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    if default:
        profile["syscalls"] = [rule, {"names": ["ioctl"], "action": default, "args": [{"index": 1, **NOT}]}]
    for item in profile["syscalls"]:
        if item["action"] == "SCMP_ACT_ERRNO":  # type: ignore[index]
            item["errnoRet"] = int(DENIED)  # type: ignore[index]
    made.change(lambda config: config["linux"].update(seccomp=profile))
    return rt.ok("run", "--bundle", str(made.path), "c").split()


NOT = {"value": termios.TIOCSTI, "op": "SCMP_CMP_NE"}


def test_a_masked_comparison_denies_it_whatever_the_upper_half_says(either: Either) -> None:
    low = {"value": 0xFFFFFFFF, "valueTwo": termios.TIOCSTI, "op": "SCMP_CMP_MASKED_EQ"}
    assert filtered(either, "SCMP_ACT_ERRNO", "", low) == [*[DENIED] * 4, BAD_FD]


def test_what_allows_one_value_does_not_allow_it_with_an_upper_half(either: Either) -> None:
    equal = {"value": termios.TIOCSTI, "op": "SCMP_CMP_EQ"}
    said = filtered(either, "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", equal)
    assert said == [BAD_FD, *[DENIED] * 4]
