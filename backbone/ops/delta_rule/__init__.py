"""Give the gated delta rule and its message-level variant."""

from backbone.ops.delta_rule.api import delta_rule
from backbone.ops.delta_rule.common import DeltaRuleOutput, Form, UpdateMode
from backbone.ops.delta_rule.segments import segment_delta_rule

__all__ = ["DeltaRuleOutput", "Form", "UpdateMode", "delta_rule", "segment_delta_rule"]
