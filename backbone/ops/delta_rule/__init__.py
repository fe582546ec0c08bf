"""Give the gated delta rule and its message-level variant."""

from backbone.ops.delta_rule.api import delta_rule, fused_step, has_triton, scan
from backbone.ops.delta_rule.common import Coefficients, DeltaRuleOutput, Form, Problem, UpdateMode, coefficients
from backbone.ops.delta_rule.native import NativeStep, Row, StepShape, has_native, native_step
from backbone.ops.delta_rule.segments import SegmentLayout, layout_of, segment_scan

__all__ = [
    "Coefficients",
    "DeltaRuleOutput",
    "Form",
    "NativeStep",
    "Problem",
    "Row",
    "SegmentLayout",
    "StepShape",
    "UpdateMode",
    "coefficients",
    "delta_rule",
    "fused_step",
    "has_native",
    "has_triton",
    "layout_of",
    "native_step",
    "scan",
    "segment_scan",
]
