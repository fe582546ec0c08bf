"""Give the gated delta rule and its message-level variant."""

from backbone.ops.delta_rule.api import delta_rule, fused_step, has_triton, scan
from backbone.ops.delta_rule.common import Coefficients, DeltaRuleOutput, Form, Problem, UpdateMode, coefficients
from backbone.ops.delta_rule.segments import SegmentLayout, layout_of, segment_scan

__all__ = [
    "Coefficients",
    "DeltaRuleOutput",
    "Form",
    "Problem",
    "SegmentLayout",
    "UpdateMode",
    "coefficients",
    "delta_rule",
    "fused_step",
    "has_triton",
    "layout_of",
    "scan",
    "segment_scan",
]
