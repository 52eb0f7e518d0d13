"""The catalogue: every id of `rt doctor` and `rt explain`, in the order in which they are shown."""

from __future__ import annotations

from rootless_rt.host.doctor.reasons_bundle import BUNDLE
from rootless_rt.host.doctor.reasons_errors import ERRORS
from rootless_rt.host.doctor.reasons_host import HOST
from rootless_rt.host.doctor.reasons_user import USER

REASONS = (*HOST, *USER, *BUNDLE, *ERRORS)
BY_ID = {reason.id: reason for reason in REASONS}
